"""What values a scan may have."""

import nibabel
import numpy as np
import pytest

from skullgan_jax.ct import scans
from skullgan_jax.errors import InputError
from tests.ct import heads

HEAD = heads.head(shape=(3, 400, 400))


def opened(tmp_path, volume):
    np.save(tmp_path / "head.npy", volume)
    return scans.npy(tmp_path / "head.npy", (), heads.SPACING)


def test_padding_is_no_air(tmp_path):
    """Raw values keep their reason when something far below pads them; a head in nothing but padding is one."""
    raw = np.where(HEAD == -1000, -2000, HEAD + 1024)
    with pytest.raises(InputError, match="values 284 to 2524 hold no air near -1000, so they are not HU"):
        scans.check_hu(opened(tmp_path, raw))
    scans.check_hu(opened(tmp_path, np.where(HEAD < -100, -2000, HEAD)))
    scans.check_hu(opened(tmp_path, np.where(np.hypot(*np.mgrid[-200:200, -200:200]) > 199, -2000, HEAD)))


def test_a_head_in_too_few_millimetres(tmp_path):
    np.save(tmp_path / "head.npy", HEAD)
    with pytest.raises(InputError, match=r"400 x 400 pixels that show 4 x 4 mm; give a head"):
        scans.npy(tmp_path / "head.npy", (), (3, 0.01, 0.01))


@pytest.mark.parametrize(("code", "mm"), [(2, 1), (10, 1), (0, 1), (224, 1), (7, 1), (249, 1000), (11, 0.001)])
def test_units_of_nifti(tmp_path, code, mm):
    """Those of space are the lowest three bits; what no standard knows is mm."""
    path = tmp_path / "head.nii"
    affine = np.diag([-0.5 / mm, -0.5 / mm, 3 / mm, 1])
    nibabel.save(nibabel.Nifti1Image(np.zeros((80, 80, 3), np.int16), affine), path)
    raw = bytearray(path.read_bytes())
    raw[123] = code
    path.write_bytes(raw)
    assert scans.nifti(path, ()).pixel_mm == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("affine", [np.diag([-0.5, -0.5, np.inf, 1]), np.full((4, 4), np.nan), np.zeros((4, 4))])
@pytest.mark.parametrize("slices", [0, 3])
@pytest.mark.filterwarnings("error")
def test_geometry_that_is_none(tmp_path, affine, slices):
    image = nibabel.Nifti1Image(np.zeros((80, 80, slices), np.int16), np.diag([-0.5, -0.5, 3, 1]))
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    image.header["qform_code"], image.header["sform_code"] = 0, 1
    nibabel.nifti1.Nifti1Image(image.dataobj, None, image.header).to_filename(tmp_path / "head.nii")
    with pytest.raises(InputError, match="its geometry is not finite; export it again|0 slices"):
        scans.nifti(tmp_path / "head.nii", ())
    with pytest.raises(InputError, match="0 slices, at least 3 are needed"):
        opened(tmp_path, HEAD[:0])
