"""Segments cut from phantom heads whose thickness and SDR are known, in any orientation."""

import nibabel
import numpy as np
import pytest

from skullgan_jax.ct import cut, scans
from tests.ct import heads


def opened(tmp_path, volume):
    np.save(tmp_path / "head.npy", volume)
    return scans.npy(tmp_path / "head.npy", "a", heads.SPACING)


@pytest.mark.parametrize("tilt", [0, 15])
def test_thickness_and_sdr_of_the_phantom_come_back(tmp_path, tilt):
    segments, known, _ = cut.cut(opened(tmp_path, heads.head(tilt=tilt)), cut.Limits())
    accepted = [k for k in known if not k["reason"]]
    assert len(accepted) > 400
    assert np.mean([k["thickness_mm"] for k in accepted]) == pytest.approx(heads.SHELL_MM, abs=0.3)
    assert np.mean([k["sdr"] for k in accepted]) == pytest.approx(heads.DIPLOE_HU / heads.TABLE_HU, abs=0.03)
    assert segments.shape == (len(known), 128, 128)


def test_the_head_holder_is_gone_and_a_hole_is_rejected(tmp_path):
    volume = heads.head(hole=True, holder=True, shape=(8, 400, 400))
    segments, known, _ = cut.cut(opened(tmp_path, volume), cut.Limits())
    ok = np.array([not k["reason"] for k in known])
    rows = np.flatnonzero((segments[ok] != 0).any((0, 2)))
    assert (rows[0], rows[-1] < 45) == (10, True)
    at_hole = [k["reason"] for k in known if k["angle"] in (0, 350, 10)]
    assert set(at_hole) == {"bone missing in a column"}
    assert 0.5 < ok.mean() < 0.9


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR", "ILA"])
def test_any_orientation_of_nifti_gives_the_same_segments(tmp_path, axes):
    volume = heads.head(shape=(4, 400, 400))
    expected, _, _ = cut.cut(opened(tmp_path, volume), cut.Limits())
    spacing = heads.SPACING
    image = nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-spacing[2], -spacing[1], spacing[0], 1]))
    codes = nibabel.orientations
    turn = codes.ornt_transform(codes.axcodes2ornt("LPS"), codes.axcodes2ornt(axes))
    nibabel.save(image.as_reoriented(turn), tmp_path / "head.nii.gz")
    found, _, _ = cut.cut(scans.nifti(tmp_path / "head.nii.gz", "a"), cut.Limits())
    np.testing.assert_array_equal(found, expected)
