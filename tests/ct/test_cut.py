"""Segments cut from phantom heads whose thickness and SDR are known, in any orientation."""

import collections
import tracemalloc

import nibabel
import numpy as np
import pytest

from skullgan_jax.ct import cut, scans
from skullgan_jax.ct.window import Limits
from skullgan_jax.errors import InputError
from skullgan_jax.slices import radiology
from tests.ct import heads


def opened(tmp_path, volume):
    np.save(tmp_path / "head.npy", volume)
    return scans.npy(tmp_path / "head.npy", "a", heads.SPACING)


@pytest.mark.parametrize("tilt", [pytest.param(0, marks=pytest.mark.all), 15])
def test_thickness_and_sdr_of_the_phantom_come_back(tmp_path, tilt):
    found = cut.cut(opened(tmp_path, heads.head(tilt=tilt)), Limits())
    accepted = [k for k in found.known if not k["reason"]]
    assert len(accepted) > 400
    assert np.mean([k["thickness_3d_mm"] for k in accepted]) == pytest.approx(heads.SHELL_MM, abs=0.3)
    sdr = radiology.measured(found.windows[[not k["reason"] for k in found.known]], 0.46875)["sdr"]
    assert np.mean(sdr) == pytest.approx(heads.DIPLOE_HU / heads.TABLE_HU, abs=0.03)
    assert found.windows.shape == (len(found.known), 128, 128)


def test_the_head_holder_is_gone_and_a_hole_is_rejected(tmp_path):
    volume = heads.head(hole=True, holder=True, shape=(8, 400, 400))
    found = cut.cut(opened(tmp_path, volume), Limits())
    ok = np.array([not k["reason"] for k in found.known])
    rows = np.flatnonzero((found.windows[ok] != 0).any((0, 2)))
    assert (rows[0], rows[-1] < 45) == (10, True)
    at_hole = [k["reason"] for k in found.known if k["angle"] in (0, 350, 10)]
    assert set(at_hole) == {"bone missing in a column"}
    assert 0.5 < ok.mean() < 0.9


@pytest.fixture(scope="module")
def four_slices(tmp_path_factory):
    """Some planes of a head, and the windows cut from them."""
    volume = heads.head(shape=(4, 400, 400))
    return volume, cut.cut(opened(tmp_path_factory.mktemp("four"), volume), Limits()).windows


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR", "ILA"])
def test_any_orientation_of_nifti_gives_the_same_segments(tmp_path, axes, four_slices):
    volume, expected = four_slices
    spacing = heads.SPACING
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-spacing[2], -spacing[1], spacing[0], 1]))
    codes = nibabel.orientations
    turn = codes.ornt_transform(codes.axcodes2ornt("LPS"), codes.axcodes2ornt(axes))
    nibabel.save(image.as_reoriented(turn), tmp_path / "head.nii.gz")
    found = cut.cut(scans.nifti(tmp_path / "head.nii.gz", "a"), Limits()).windows
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_a_compressed_volume_is_held_once_in_two_bytes(tmp_path, dtype):
    volume = np.random.default_rng(0).integers(-2000, 3000, (96, 96, 200)).astype(dtype)
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.5, -0.5, 1, 1])), tmp_path / "head.nii.gz")
    scan = scans.nifti(tmp_path / "head.nii.gz", "a")
    tracemalloc.start()
    found = [scan.read(i).T for i in (199, 0, 100)]
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    scan.read(50)
    again = tracemalloc.get_traced_memory()[1] - held
    tracemalloc.stop()
    np.testing.assert_array_equal(found, volume[..., [199, 0, 100]].transpose(2, 0, 1))
    assert held < 1.2 * volume.size * 2
    assert peak < 2.5 * volume.size * 2
    assert again < 10 * volume[..., 0].size * 4


@pytest.mark.parametrize("name", ["head.nii.gz", "head.nii"])
def test_nan_outside_the_head_is_air(tmp_path, name):
    volume = np.zeros((96, 96, 40), np.float32)
    volume[:, :20] = volume[30, :40] = np.nan
    volume[5, 5, 39] = np.nan
    volume[50, 50, 38] = np.nan
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.5, -0.5, 1, 1])), tmp_path / name)
    scan = scans.nifti(tmp_path / name, ())
    for i in (0, 39):
        np.testing.assert_array_equal(scan.slice(i).T, np.where(np.isnan(volume[..., i]), -1024, volume[..., i]))
    with pytest.raises(
        InputError, match=rf"{name}: NaN or infinite values inside the slice at 38\.0 mm; export it again$"
    ):
        scan.slice(38)
    volume[7, 50, 1] = np.inf
    nibabel.save(nibabel.Nifti1Image(volume, np.diag([-0.5, -0.5, 1, 1])), tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: .*infinite values"):
        scans.nifti(tmp_path / name, ()).slice(1)


@pytest.mark.parametrize("padding", [-2000, np.nan])
def test_padding_is_no_air(padding):
    """Values as they are stored, without slope and intercept, and outside the field of view what no tissue has."""
    stored = heads.head(shape=(3, 400, 400)) + np.float32(1024)
    stored[:, np.hypot(*heads.plane()) > 95] = padding
    with pytest.raises(InputError, match="values 24 to 2524 hold no air near -1000, so they are not HU"):
        scans.check_hu(heads.scan(stored))
    with pytest.raises(InputError, match="every value is -1024; export it again"):
        scans.check_hu(heads.scan(np.full((3, 400, 400), padding)))


@pytest.mark.parametrize("name", ["head.nii", "head.npy"])
def test_a_volume_that_may_not_be_opened(tmp_path, name):
    (tmp_path / name).mkdir()  # may not be opened by root either
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)$"):
        scans.nifti(tmp_path / name, "a") if name.endswith("nii") else scans.npy(tmp_path / name, "a", (1, 1, 1))


def test_parts_together_are_the_whole(tmp_path):
    scan = opened(tmp_path, heads.head(tilt=10, shape=(7, 400, 400)))
    whole = cut.cut(scan, Limits())
    parts = [cut.cut(scan, Limits(), k, 3) for k in range(3)]
    np.testing.assert_array_equal(np.concatenate([p.windows for p in parts]), whole.windows)
    assert [k for p in parts for k in p.known] == whole.known
    assert sum((p.fates for p in parts), collections.Counter()) == whole.fates
    np.testing.assert_array_equal(sum(p.histogram for p in parts), whole.histogram)
    assert whole.histogram.sum() == scan.slice(0).size * 7


@pytest.mark.parametrize(("field", "value", "reason"), [
    ("thickness_mm", (8.0, 15.0), "mean thickness outside the limits"),
    ("thickest_mm", 5.0, "too thick somewhere"),
    ("max_hu", 1400.0, "metal"),
    ("lean_degrees", 0.5, "surface leans out of the plane"),
    ("regions", ("frontal",), "region not wanted"),
])  # fmt: skip
def test_what_the_limits_throw_out(tmp_path, field, value, reason):
    scan = opened(tmp_path, heads.head(shape=(4, 400, 400)))
    known = cut.cut(scan, Limits(**{field: value})).known
    assert reason in {k["reason"] for k in known}
    assert not any(k["reason"] for k in known if field == "regions" and k["region"] == "frontal")


def test_coarser_pixels_and_fewer_angles(tmp_path):
    scan = opened(tmp_path, heads.head(shape=(3, 400, 400)))
    found = cut.cut(scan, Limits(pixel_mm=0.6, angles=8, slice_mm=5))
    assert len(found.windows) == 8 * 2  # 3 mm from slice to slice: the first and the third
    accepted = [k for k in found.known if not k["reason"]]
    assert np.mean([k["thickness_3d_mm"] for k in accepted]) == pytest.approx(heads.SHELL_MM, abs=0.3)


def test_slope_and_units_of_nifti(tmp_path):
    volume = heads.head(shape=(3, 400, 400)) // 2 * 2
    expected = cut.cut(opened(tmp_path, volume), Limits()).windows
    slice_, row, column = heads.SPACING
    affine = np.diag([-column / 1000, -row / 1000, slice_ / 1000, 1])
    image = nibabel.Nifti1Image(((volume.transpose(2, 1, 0) + 1024) // 2).astype(np.int16), affine)
    image.header.set_xyzt_units("meter")
    image.header.set_slope_inter(2, -1024)
    nibabel.save(image, tmp_path / "head.nii")
    raw = bytearray((tmp_path / "head.nii").read_bytes())
    raw[112:120] = np.array([2, -1024], "<f4").tobytes()  # nibabel resets them on writing
    (tmp_path / "head.nii").write_bytes(raw)
    found = cut.cut(scans.nifti(tmp_path / "head.nii", "a"), Limits()).windows
    assert (found != expected).mean() < 1e-4  # lengths in float32 metres
