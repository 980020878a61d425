"""DICOM as scanners and archives write it: compressed, tilted, uneven."""

import dataclasses
import errno
import shutil

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom import uid

from skullgan_jax.ct import cut, dicom, find, scans
from skullgan_jax.ct.window import Limits
from skullgan_jax.errors import InputError
from skullgan_jax.slices import radiology
from tests.ct import heads


def stack(folder):
    headers = {str(p): dicom.header(p) for p in sorted(folder.glob("*.dcm"))}
    (found,) = dicom.group(headers)
    return dicom.stack(found)


def compress(path, syntax):
    """Rewrites a file in another transfer syntax."""
    if syntax == uid.RLELossless:
        found = pydicom.dcmread(path)
        found.compress(uid.RLELossless)
        found.save_as(path)
        return
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        found = pydicom.dcmread(path)
        found.file_meta.TransferSyntaxUID = syntax
        found.save_as(path)
        return
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("syntax", [
    uid.RLELossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.DeflatedExplicitVRLittleEndian,
], ids=lambda s: s.name)  # fmt: skip
def test_compressed(tmp_path, syntax):
    volume = heads.head(shape=(3, 400, 400))
    heads.write_dicom(tmp_path, volume)
    for path in tmp_path.glob("*.dcm"):
        compress(path, syntax)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    scan = stack(tmp_path)
    np.testing.assert_array_equal(np.stack([scan.slice(i) for i in range(3)]), volume)


@pytest.mark.parametrize("tilt", [-20, 20])
def test_thickness_behind_a_tilted_gantry(tmp_path, tilt):
    """The planes lean, the table moves along z: the stack is sheared, and each slice a true plane."""
    heads.write_dicom(tmp_path, heads.head(tilt=tilt, shape=(12, 400, 400)))
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    for path in tmp_path.glob("*.dcm"):
        found = pydicom.dcmread(path)
        z = found.ImagePositionPatient[2]
        found.ImageOrientationPatient = [1, 0, 0, 0, c, s]
        found.ImagePositionPatient = [-100, -100 * c, z - 100 * s]
        found.save_as(path)
    scan = stack(tmp_path)
    assert scan.notes == ("planes tilted by 20.0 degrees",)
    np.testing.assert_allclose(np.diff(scan.heights), heads.SPACING[0] * c)
    found = cut.cut(scan, Limits())
    accepted = [k for k in found.known if not k["reason"]]
    assert len(accepted) > 150
    assert np.mean([k["thickness_3d_mm"] for k in accepted]) == pytest.approx(heads.SHELL_MM, abs=0.3)
    sdr = radiology.measured(found.windows[[not k["reason"] for k in found.known]], 0.46875)["sdr"]
    assert np.mean(sdr) == pytest.approx(heads.DIPLOE_HU / heads.TABLE_HU, abs=0.03)


def test_missing_slices_are_followed_and_noted(tmp_path):
    volume = heads.head(shape=(9, 400, 400))
    heads.write_dicom(tmp_path, volume)
    for k in (3, 4):
        (tmp_path / f"{k:03d}.dcm").unlink()
    scan = stack(tmp_path)
    assert scan.notes == ("2 slices missing",)
    accepted = [k for k in cut.cut(scan, Limits()).known if not k["reason"]]
    assert np.mean([k["thickness_3d_mm"] for k in accepted]) == pytest.approx(heads.SHELL_MM, abs=0.3)


def test_padding_is_air(tmp_path):
    heads.write_dicom(tmp_path, heads.head(shape=(3, 400, 400)))
    for path in tmp_path.glob("*.dcm"):
        found = pydicom.dcmread(path)
        found.add_new("PixelPaddingValue", "US", 4095)  # some scanners pad with their greatest value
        pixels = found.pixel_array.copy()
        pixels[:50] = 4095
        found.PixelData = pixels.astype("<u2").tobytes()
        found.save_as(path)
    assert (stack(tmp_path).slice(1)[:50] == -1024).all()


def test_two_series_and_two_kernels_are_apart(tmp_path):
    for name, kernel in (("a", "H30"), ("b", "H60")):
        heads.write_dicom(tmp_path / name, heads.head(shape=(3, 400, 400)), ConvolutionKernel=kernel)
    headers = {str(p): dicom.header(p) for p in sorted(tmp_path.rglob("*.dcm"))}
    headers = {p: dataclasses.replace(h, series="1.2.3") for p, h in headers.items()}
    assert [len(found) for found in dicom.group(headers)] == [3, 3]


def test_a_slice_twice_at_one_place(tmp_path):
    heads.write_dicom(tmp_path, heads.head(shape=(4, 400, 400)))
    found = pydicom.dcmread(tmp_path / "002.dcm")
    found.ImagePositionPatient = pydicom.dcmread(tmp_path / "003.dcm").ImagePositionPatient
    found.save_as(tmp_path / "002.dcm")
    scan = stack(tmp_path)
    assert len(scan.positions) == 3
    assert scan.notes[0] == "1 slice at repeated positions"


def test_no_permission_is_told_and_the_rest_is_found(tmp_path, monkeypatch):
    heads.write_dicom(tmp_path / "a", heads.head(shape=(3, 400, 400)))
    heads.write_dicom(tmp_path / "b", heads.head(shape=(3, 400, 400)))
    read = pydicom.dcmread

    def refuse(path, **options):  # as for anybody but root
        if path.parent.name == "b":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path, **options)

    monkeypatch.setattr(pydicom, "dcmread", refuse)
    lines = []
    found, _ = find.find([tmp_path], spacing=None, complain=lines.append)
    assert len(found) == 1
    assert lines == [f"{tmp_path / 'b'}: 3 files: cannot be read (Permission denied)"]


SMALL = heads.head(shape=(6, 400, 400))[:, 100:164, 20:84]


def changed(folder, change):
    """Rewrites each file, in the order of its slices."""
    for path in sorted(folder.glob("*.dcm"), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2]):
        found = pydicom.dcmread(path)
        change(found)
        found.save_as(path)


def headers(folder):
    return {str(p): dicom.header(p) for p in sorted(folder.rglob("*.dcm"))}


def test_directions_at_the_edge_of_rounding_are_one_stack(tmp_path):
    heads.write_dicom(tmp_path, SMALL)
    angles = iter([0.0315, 0.0317, 0.0316, 0.0314, 0.0318, 0.0316])  # cos 0.999500

    def turn(found):
        angle = next(angles)
        found.ImageOrientationPatient = [1, 0, 0, 0, f"{np.cos(angle):.6f}", f"{np.sin(angle):.6f}"]
        found.PixelSpacing = [f"{0.48825 + angle / 1000:.7f}", "0.48825"]

    changed(tmp_path, turn)
    (found,) = dicom.group(headers(tmp_path))
    assert len(dicom.stack(found).positions) == 6


@pytest.mark.parametrize("tag", ["AcquisitionNumber", "KVP", "InstanceNumber"])
def test_two_passes_at_the_same_places_are_two_scans(tmp_path, tag):
    """Told apart by what tells them apart, at last by number; a single slice is no pass."""
    heads.write_dicom(tmp_path, SMALL)
    numbers = iter(range(6))

    def set_pass(found):
        k = next(numbers)
        found.ImagePositionPatient = [0, 0, 3 * (k % 3)]
        setattr(found, tag, k // 3 + 1 if tag != "InstanceNumber" else 6 - k)

    changed(tmp_path, set_pass)
    found = [dicom.stack(part) for part in dicom.group(headers(tmp_path))]
    found.sort(key=lambda scan: not np.array_equal(scan.slice(0), SMALL[0]))
    for scan, volume in zip(found, (SMALL[:3], SMALL[3:]), strict=True):
        np.testing.assert_array_equal([scan.slice(i) for i in range(3)], volume)
    assert len({scan.series for scan in found}) == 2
    what = {"AcquisitionNumber": "acquisition", "KVP": "voltage", "InstanceNumber": "number"}[tag]
    assert f"one of several stacks at the same places, told apart by {what}" in found[0].notes


def test_a_copy_is_no_second_pass(tmp_path):
    heads.write_dicom(tmp_path / "a", SMALL)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (found,) = dicom.group(headers(tmp_path))
    assert dicom.stack(found).notes == ()


def test_names_of_images_alone_make_no_copy(tmp_path):
    """Of an anonymiser that numbers the images of each patient."""
    for name, volume in (("a", SMALL[:3]), ("b", SMALL[3:])):
        heads.write_dicom(tmp_path / name, volume, SeriesInstanceUID="1.2", PatientID="")
        names = iter(["1.2.1", "1.2.2", "1.2.3"])
        changed(tmp_path / name, lambda found, names=names: setattr(found, "SOPInstanceUID", next(names)))
    found = [dicom.stack(part) for part in dicom.group(headers(tmp_path))]
    assert len({scan.content() for scan in found}) == len({scan.series for scan in found}) == len(found) == 2


def test_loss_is_noted(tmp_path):
    heads.write_dicom(tmp_path, SMALL, LossyImageCompression="01")
    (found,) = dicom.group(headers(tmp_path))
    assert dicom.stack(found).notes == (scans.LOSSY,)


@pytest.mark.parametrize(("name", "value", "said"), [
    ("PixelSpacing", b"0.5\\abc", r"PixelSpacing is '0.5\\\\abc', not 2 numbers; export it again"),
    ("PixelSpacing", b"0.5    ", "PixelSpacing is '0.5', not 2 numbers; export it again"),
    ("RescaleSlope", b"1e9", "RescaleSlope is '1e9', not a number; export it again"),
    ("RescaleSlope", b"0", "64 x 64 pixels, slope 0; export it again"),
])  # fmt: skip
def test_what_is_no_number_is_named(tmp_path, name, value, said):
    heads.write_dicom(tmp_path, SMALL[:1], **{name: ["0.25", "0.25"] if name == "PixelSpacing" else "7.77"})
    path = tmp_path / "001.dcm"
    there = b"0.25\\0.25" if name == "PixelSpacing" else b"7.77"
    path.write_bytes(path.read_bytes().replace(there, value.ljust(len(there))))
    with pytest.raises(InputError, match=said):
        dicom.header(path)
