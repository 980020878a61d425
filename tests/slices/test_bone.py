import numpy as np
import pytest

from skullgan_jax.slices import bone, chunks


@pytest.mark.parametrize("chunk", [1, 256])
@pytest.mark.parametrize("mirrored", [False, True])
def test_where_no_slice_has_bone_by_hand(mirrored, chunk, monkeypatch):
    """Two pixels of bone in two slices, each with eight around it; air is -1000 HU."""
    monkeypatch.setattr(chunks, "_CHUNK", chunk)
    images = np.full((2, 128, 128), -1000, np.int16)
    images[0, 30, 20], images[1, 127, 3] = 700, -999
    expected = np.ones((128, 128), bool)
    expected[22:39, 12:29] = expected[119:, :12] = False
    if mirrored:
        expected[22:39, 99:116] = expected[119:, 116:] = False
    np.testing.assert_array_equal(bone.never_bone(images, -1000, mirrored=mirrored), expected)
