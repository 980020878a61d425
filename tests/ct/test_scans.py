"""What values a scan may have."""

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
