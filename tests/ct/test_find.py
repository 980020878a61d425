"""What is found in folders as hospitals export them."""

import pydicom
from pydicom import uid

from skullgan_jax.ct import find
from tests.ct import heads

VOLUME = heads.head(shape=(3, 400, 400))[:, 100:164, 20:84]


def found(*inputs, **options):
    """Names of what is found, what is passed over, and the lines on what cannot be used."""
    lines = []
    opened, ignored = find.find(inputs, spacing=None, complain=lines.append, **options)
    names = [make(*arguments).name for make, arguments in opened]
    return names, dict(ignored), lines


def test_links_are_followed_once(tmp_path):
    heads.write_dicom(tmp_path / "in" / "b", VOLUME, patient="B")
    heads.write_dicom(tmp_path / "store", VOLUME, patient="A")
    (tmp_path / "in" / "a").symlink_to("../store")
    (tmp_path / "in" / "again").symlink_to("../store")
    (tmp_path / "in" / "b" / "loop").symlink_to("..")
    (tmp_path / "in" / "b" / "gone").symlink_to("nowhere")
    names, _, lines = found(tmp_path / "in")
    assert names == [f"{tmp_path}/in/{name} (series with 3 files)" for name in "ab"]
    assert lines == [f"{tmp_path}/in/b: 1 file: cannot be read (No such file or directory)"]


def test_what_prepare_wrote_itself_and_hidden_files_are_passed_over(tmp_path):
    heads.write_dicom(tmp_path / "a", VOLUME)
    for name in (
        *("skulls/train.npy", "skulls/report.html", "skulls.pieces/12/0.npz", "skulls.salt"),
        *(
            "other/train.npy",
            "other.pieces/12/0123456789abcdef.01234567.0of1.npz",
            ".git/objects/ct.dcm",
            "a/._001.dcm",
        ),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\1")
    (tmp_path / "other" / "summary.json").write_text('{"made_with": {}}')
    ours = [str(tmp_path / name) for name in ("skulls", "skulls.pieces", "skulls.salt")]
    assert found(tmp_path, ours=ours) == ([f"{tmp_path}/a (series with 3 files)"], {}, [])


def test_junk_is_summarised(tmp_path):
    heads.write_dicom(tmp_path / "a", VOLUME)
    for i in range(300):
        (tmp_path / "a" / f"{i}.bin").write_bytes(b"\0junk")
    for i in range(9):
        (tmp_path / "b" / f"{i}").mkdir(parents=True)
        (tmp_path / "b" / f"{i}" / "1.dcm").write_bytes(b"junk")
    names, _, lines = found(tmp_path)
    assert len(names) == 1
    what = "not DICOM; remove it or export it again"
    assert lines == [
        f"{tmp_path}/a: 300 files: {what}",
        *(f"{tmp_path}/b/{i}/1.dcm: {what}" for i in (0, 1)),
        f"7 files in 7 more folders: {what}",
    ]


def test_pages_and_surveys_of_an_ordinary_export(tmp_path):
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    page = {"ImageType": ["DERIVED", "SECONDARY", "OTHER"], "ImagePositionPatient": None}
    heads.write_dicom(tmp_path / "axial", VOLUME, ImageType=["DERIVED", "SECONDARY", "MPR"])
    heads.write_dicom(tmp_path / "dose", VOLUME[:1], SamplesPerPixel=3, **page)
    heads.write_dicom(tmp_path / "protocol", VOLUME[:1], **page)
    heads.write_dicom(tmp_path / "photo", VOLUME[:1], Modality="OT", ImagePositionPatient=None)
    heads.write_dicom(tmp_path / "captured", VOLUME[:1], SOPClassUID=uid.SecondaryCaptureImageStorage,
                      ImagePositionPatient=None)  # fmt: skip
    heads.write_dicom(tmp_path / "survey", VOLUME[:2], **coronal)
    heads.write_dicom(tmp_path / "topogram", VOLUME[:2], ImageType=["ORIGINAL", "PRIMARY", "TOPOGRAM"])
    heads.write_dicom(tmp_path / "turned", VOLUME, ImageType=["DERIVED", "PRIMARY", "MPR"], **coronal)
    names, ignored, lines = found(tmp_path)
    assert names == [f"{tmp_path}/axial (series with 3 files)"]
    assert ignored == {"derived pages": 4, "localisers": 4, "reformatted in other directions": 3}
    assert lines == []


def test_without_a_preamble(tmp_path):
    """The header of the file follows at once, or is missing as well; implicit and explicit types."""
    heads.write_dicom(tmp_path / "a", VOLUME, patient="A")
    for folder, syntax in (("b", uid.ImplicitVRLittleEndian), ("c", uid.ExplicitVRLittleEndian)):
        heads.write_dicom(tmp_path / folder, VOLUME, patient=folder)
        for path in (tmp_path / folder).iterdir():
            image = pydicom.dcmread(path)
            del image.file_meta
            image.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=False)
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(path.read_bytes()[132:])
    opened, _ = find.find([tmp_path], spacing=None, complain=None)
    assert len(opened) == 3
    for make, arguments in opened:
        scan = make(*arguments)
        assert (scan.slice(1) == VOLUME[1]).all()
