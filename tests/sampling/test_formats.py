"""What the command writes, in each format."""

import csv
import json
import os
import shutil
import subprocess
import sys
import warnings

import nibabel
import numpy as np
import pydicom
import pytest
from matplotlib import pyplot as plt

import skullgan_jax
from skullgan_jax.errors import InputError
from skullgan_jax.machine import extras
from skullgan_jax.model import draw
from skullgan_jax.sampling import formats, names
from skullgan_jax.sampling.store import Store
from skullgan_jax.slices import radiology
from tests.sampling.folder import files


def test_npy(command, small_model, hu, measures, tmp_path):
    """With what they are, their measures and a picture beside; nothing else but the draws is left."""
    status, lines = command(num=20, output=tmp_path / "s.npy")
    assert status == 0
    assert lines[0].startswith("sampled 20/20, ")
    assert lines[1] == f"wrote 20 samples to {tmp_path}/s.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy", allow_pickle=False), hu[:20])
    about = json.loads((tmp_path / "s.json").read_text())
    expected = {
        "num": 20,
        "seed": 3,
        "start": 0,
        "batch_norm": "standing",
        "dtype": "float32",
        "pixel_mm": 0.46875,
        "calibration": {"hu_min": 0.0, "hu_max": 2500.0},
        "model": "model",
        "model_sha256": skullgan_jax.load(small_model).sha256,
        "version": skullgan_jax.__version__,
        "measures": radiology.DEFINITIONS,
    }
    assert {name: about[name] for name in expected} == expected
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(20))
    for name in radiology.NAMES:
        np.testing.assert_allclose([float(row[name]) for row in rows], measures[name][:20], rtol=1e-5)
    assert plt.imread(tmp_path / "s.png").shape[1] > 500
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.csv", "s.json", "s.npy", "s.npy.draws", "s.png"]


def test_nifti(command, hu, tmp_path):
    command(num=20, output=tmp_path / "s.nii.gz")
    command(num=20, output=tmp_path / "t.nii", start=1)
    for name, start in (("s.nii.gz", 0), ("t.nii", 1)):
        image = nibabel.load(tmp_path / name)
        assert image.shape == (128, 128, 20)
        assert image.get_data_dtype() == np.int16
        assert (image.header["qform_code"], image.header["sform_code"]) == (2, 2)
        assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.header.get_zooms(), [0.46875, 0.46875, 1])
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), hu[start : start + 20])
        assert b"synthetic, skullgan_jax" in bytes(image.header["descrip"])
        assert json.loads((tmp_path / f"{name[0]}.json").read_text())["num"] == 20
    command(num=1, output=tmp_path / "u.NII.GZ")
    assert (tmp_path / "u.NII.GZ").read_bytes()[:2] == b"\x1f\x8b"
    command(num=1, output=tmp_path / "v.gz.nii")
    assert nibabel.load(tmp_path / "v.gz.nii").shape == (128, 128, 1)


def test_dicom(command, hu, tmp_path):
    """As is asked of synthetic images: nobody's, and said so in every way."""
    command(num=3, output=tmp_path / "s", format="dicom")
    found = [pydicom.dcmread(p) for p in sorted((tmp_path / "s").rglob("*.dcm"))]
    assert len(found) == 3
    for i, ds in enumerate(found):
        np.testing.assert_array_equal(pydicom.pixels.apply_rescale(ds.pixel_array, ds), hu[i])
        assert ds[0x0008, 0x001C].value == "YES"
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert ds.PatientName == f"SYNTHETIC^{i}"
        assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (1, -1024, "HU")
        assert (ds.BurnedInAnnotation, ds.RecognizableVisualFeatures) == ("NO", "NO")
        assert list(ds.PixelSpacing) == [0.46875, 0.46875]
        assert ds.DerivationDescription.startswith("synthetic, skullgan_jax")
        assert ds.DerivationDescription.endswith("-1 to +1 is 0 to 2500 HU")
        assert not ds.KVP
        assert "ConvolutionKernel" not in ds
        assert not ds.StudyDate
    for uid in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({ds[uid].value for ds in found}) == 3
    for name in ("notes.txt", "000000/notes.txt", "000000/others/0.dcm"):  # they stay when samples are added
        (tmp_path / "s" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_text("mine")
    before = files(tmp_path / "s")
    assert command(num=4, output=tmp_path / "s", format="dicom")[0] == 0
    assert files(tmp_path / "s").items() > before.items()
    assert command(num=4, output=f"{tmp_path}/s/", format="dicom")[1] == [f"{tmp_path}/s: has 4 samples already"]


# PS3.3, A.3: what the modules of a CT image require, type 1 with a value, type 2 also without; conditional ones whose
# condition holds here among them.
TYPE_1 = {
    "SOP Common": "SOPClassUID SOPInstanceUID SpecificCharacterSet",
    "Patient": "DeidentificationMethod",
    "General Study": "StudyInstanceUID",
    "General Series": "Modality SeriesInstanceUID",
    "Frame of Reference": "FrameOfReferenceUID",
    "Image Plane": "PixelSpacing ImageOrientationPatient ImagePositionPatient",
    "Image Pixel": "SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit "
    "PixelRepresentation PixelData",
    "CT Image": "ImageType RescaleIntercept RescaleSlope RescaleType",
    "VOI LUT": "WindowCenter WindowWidth",
}
TYPE_2 = {
    "Patient": "PatientName PatientID PatientBirthDate PatientSex",
    "General Study": "StudyDate StudyTime ReferringPhysicianName StudyID AccessionNumber",
    "General Series": "SeriesNumber PatientPosition",
    "Frame of Reference": "PositionReferenceIndicator",
    "General Equipment": "Manufacturer",
    "General Image": "InstanceNumber",
    "Image Plane": "SliceThickness",
    "CT Image": "KVP AcquisitionNumber",
}


def test_dicom_is_as_the_standard_wants_it(command, tmp_path):
    """Every attribute of types 1 and 2, values within their representation; and dciodvfy, where it is installed."""
    command(num=1, output=tmp_path / "s", format="dicom")
    (file,) = (tmp_path / "s").rglob("*.dcm")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom warns of values that their representation does not allow
        ds = pydicom.dcmread(file)
        assert str(ds)
    for module, names_ in TYPE_1.items():
        for name in names_.split():
            assert name in ds, (module, name)
            assert not ds[name].is_empty, (module, name)
    for module, names_ in TYPE_2.items():
        assert not [name for name in names_.split() if name not in ds], module
    assert ds.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID == pydicom.uid.CTImageStorage
    assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    # The side is required of what comes in pairs alone.
    assert (ds.Modality, ds.PatientPosition, ds.BodyPartExamined, "Laterality" in ds) == ("CT", "HFS", "SKULL", False)
    if verify := shutil.which("dciodvfy"):
        said = subprocess.run([verify, "-new", file], capture_output=True, text=True, check=False).stderr.splitlines()
        # Synthetic Data is younger than what Debian 12 has of it.
        assert not [line for line in said if line.startswith("Error") and "(0008,001c)" not in line]


def test_whose_dicom_it_is(command, tmp_path):
    """Another nobody's for each index, seed, mode and model."""
    about = {"batch_norm": "standing", "batch": 16, "dtype": "bfloat16", "seed": 3, "model_sha256": "0123456789abcdef"}
    others = ({}, {"seed": 4}, {"batch_norm": "running"}, {"batch_norm": "batch"}, {"model_sha256": "f" * 64})
    found = {formats._patient(i, about | other) for i in (0, 1) for other in others}
    assert len(found) == 10
    longest = {"seed": 2**32 - 1, "batch_norm": "batch", "batch": 9999}
    assert max(map(len, {*found, formats._patient(2**32 - 1, about | longest)})) <= 64
    command(num=2, output=tmp_path / "s", format="dicom")
    ids = {pydicom.dcmread(file).PatientID for file in (tmp_path / "s").rglob("*.dcm")}
    sha256 = json.loads((tmp_path / "s.json").read_text())["model_sha256"]
    assert ids == {f"SYNTHETIC-{sha256[:12]}-3-standing-float32-{i}" for i in (0, 1)}


def test_one_convention_of_sides(command, hu, tmp_path):
    """The same pixel is at the same place: columns run to the patient's left, RAS -x, rows to the back."""
    command(num=1, output=tmp_path / "s.nii")
    command(num=1, output=tmp_path / "s2", format="dicom")
    image = nibabel.load(tmp_path / "s.nii")
    (ds,) = (pydicom.dcmread(file) for file in (tmp_path / "s2").rglob("*.dcm"))
    across, down = np.reshape(ds.ImageOrientationPatient, (2, 3)).astype(float)
    for row, column in ((0, 0), (0, 127), (127, 0), (30, 60)):
        in_lps = ds.ImagePositionPatient + (across * column + down * row) * 0.46875
        in_ras = (image.affine @ [column, row, 0, 1])[:3]
        np.testing.assert_allclose(in_ras, in_lps * [-1, -1, 1], atol=1e-4)
        assert image.dataobj[column, row, 0] == hu[0, row, column] == ds.pixel_array[row, column] - 1024
    assert (image.affine @ [127, 0, 0, 1])[0] == -127 * 0.46875


def test_a_sheet(command, hu, tmp_path):
    command(num=5, output=tmp_path / "s.png")
    page = plt.imread(tmp_path / "s.png")[..., 0]
    assert page.shape == (2 * 130 - 2, 3 * 130 - 2)
    np.testing.assert_allclose(page[130:, 130:258], np.clip(hu[4] / 2000, 0, 1), atol=2 / 255)
    assert b'"seed": 3' in (tmp_path / "s.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.csv", "s.json", "s.png", "s.png.draws"]


def test_a_store(command, hu, measures, tmp_path):
    """Drawn into in place."""
    command(num=40, output=tmp_path / "s.zarr")
    store = Store(tmp_path / "s.zarr")
    assert (store.about["complete"], store.about["num"], store.about["seed"]) == (True, 40, 3)
    found = store.read(0, 40)
    np.testing.assert_array_equal(found.hu, hu[:40])
    np.testing.assert_array_equal(found.index, range(40))
    np.testing.assert_allclose(found.measures["mean_hu"], measures["mean_hu"][:40], rtol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


def test_one_name_for_two_formats(command, tmp_path):
    """They would share what lies beside."""
    command(num=5, output=tmp_path / "s.npy")
    status, lines = command(num=5, output=tmp_path / "s.nii")
    assert (status, len(lines)) == (2, 1)
    assert "s.json is there, of s.npy; give another name or folder" in lines[0]


@pytest.mark.parametrize("taken", ["s.npy", "s.json", "s.csv", "s.png"])
def test_files_of_others_stay(command, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    status, lines = command(num=5, output=tmp_path / "s.npy")
    assert (status, len(lines)) == (2, 1)
    assert f"{taken} is there, and no s.json says that it belongs to these samples" in lines[0]
    assert files(tmp_path) == {taken: b"mine"}


def test_formats_are_told_by_the_ending():
    assert [names.form(f"x/s{e}", None) for e in (".npy", ".ZARR", ".nii", ".nii.gz", ".png")] == [
        *("npy", "zarr", "nifti", "nifti", "png")
    ]
    assert names.form("x/s", "dicom") == "dicom"
    assert names.form("gs://b/s", "zarr") == "zarr"
    with pytest.raises(InputError, match="ends in none of"):
        names.form("x/s.jpg", None)
    assert draw.INDICES == 2**32


def test_without_matplotlib(command, hu, tmp_path, monkeypatch):
    """A light install: the picture is left out in one line, a sheet needs nothing."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, lines = command(num=5, output=tmp_path / "s.npy")
    assert (status, lines[1]) == (
        0,
        "s.png: left out; matplotlib is needed for this and not installed: pip install skullgan_jax brings it",
    )
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[:5])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.csv", "s.json", "s.npy", "s.npy.draws"]
    assert command(num=5, output=tmp_path / "t.png")[0] == 0


def test_what_sampling_does_not_import(small_model, compiled, tmp_path):
    """From Python and to a store; more is imported only for the formats and pictures that need it."""
    code = (
        "import sys, skullgan_jax\n"
        "from skullgan_jax import sample\n"
        "skullgan_jax.load(sys.argv[1]).sample(1)\n"
        "sample.run([f'--model={sys.argv[1]}', '--num=1', f'--output={sys.argv[2]}'])\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": compiled}
    command = [sys.executable, "-c", code, small_model, tmp_path / "s.zarr"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {*extras.LEFT_OUT, "scipy", "pydicom", "nibabel", "ml_collections"}
