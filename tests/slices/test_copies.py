"""Copies, exact and near."""

import numpy as np
import pytest

from skullgan_jax.data import phantom
from skullgan_jax.slices import copies


@pytest.fixture(scope="module")
def hu():
    return phantom.segments(12, 1)


def test_exact_copies_are_found_flipped_too(hu):
    fake = np.concatenate([hu[:2], hu[2:4, :, ::-1], hu[4:6] + 1])
    assert copies.exact(fake.astype(np.float32), hu).tolist() == [True] * 4 + [False] * 2


def test_the_distance_is_the_rms_over_bone_of_either():
    a, b = np.zeros((2, 2, 128, 128), np.int16)
    a[0, :8, :8] = 1000  # four cells of 4 x 4 pixels
    b[0, 4:8, :8] = 1000  # two of them
    b[1, :8, :8] = 1060
    a, b = copies.quarter(a), copies.quarter(b)
    assert a.shape == (2, 32, 32)
    # Half of the cells differ by 1000 HU; all by 60, a near copy; an empty slice by all that there is; two empty ones.
    expected = [[1000**2 / 2, 60**2], [1000**2, 1060**2]]
    assert copies.squared(a, b) == pytest.approx(np.array(expected))
    assert copies.squared(a[1:], a[1:]) == 0
    assert (copies.squared(a, b) < copies.NEAR_HU**2).tolist() == [[False, True], [False, False]]


def test_a_slice_is_no_distance_from_itself(hu):
    small = copies.quarter(hu)
    apart = copies.squared(small, small)
    assert np.diagonal(apart).max() < 1  # what float32 leaves of sums of squares
    assert (apart[~np.eye(12, dtype=bool)] > copies.NEAR_HU**2).all()
