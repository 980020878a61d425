"""DICOM as scanners and archives write it: compressed, tilted, uneven."""

import dataclasses
import errno

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom import uid

from skullgan_jax.ct import cut, dicom, find
from skullgan_jax.ct.window import Limits
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
