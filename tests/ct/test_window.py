"""Windows with air or metal in their bone, and how thick bone is, whatever lies beside it and however sharp it is."""

import collections
import functools

import numpy as np
import pytest
from scipy import ndimage

from skullgan_jax.ct import cut
from skullgan_jax.ct.window import Limits
from tests.ct import heads

X, Y = heads.plane()
FRONT = (abs(X) < 18) & (Y < -60)
ANGLES = 18
more = functools.partial(pytest.param, marks=pytest.mark.all)  # of the same kind


def head():
    return heads.head(shape=(3, 400, 400)).astype(np.float32)


def blurred(volume, sigma=0.9):
    return ndimage.gaussian_filter(volume, (0, sigma, sigma))


def cells(volume, angles, count, mm):
    """Air in small round cells in the marrow, between two angles."""
    rng, volume = np.random.default_rng(0), volume.copy()
    for angle in np.radians(rng.uniform(*angles, count)):
        radius = 1 / np.hypot(np.cos(angle) / 75, np.sin(angle) / 85) - 3.5 + rng.uniform(-1, 1)
        volume[:, np.hypot(X - radius * np.cos(angle), Y - radius * np.sin(angle)) < mm / 2] = -1000
    return volume


def refused(volume):
    """Windows by their reason, and the middles of those with one, degrees."""
    known = cut.cut(heads.scan(volume), Limits(angles=ANGLES)).known
    assert len(known) == 3 * ANGLES
    return collections.Counter(k["reason"] for k in known), {k["angle"] for k in known if k["reason"]}


def sinus(volume):
    volume[(volume == heads.DIPLOE_HU) & FRONT] = -1000
    return volume


def open_sinus(volume):
    volume[:, FRONT & (abs(X) < 14) & (Y > -79.5)] = -1000
    return sinus(volume)


def sinus_with_a_thin_wall(volume):
    volume[(sinus(volume) > 300) & FRONT & (Y > -79.5)] = 150
    return blurred(volume)


@pytest.mark.parametrize(("make", "middle", "most"), [
    (sinus, 270, 40),
    (lambda v: blurred(sinus(v)), 270, 40),
    (open_sinus, 270, 40),
    (sinus_with_a_thin_wall, 270, 40),
    (lambda v: blurred(cells(v, (60, 80), 60, 2)), 70, 40),
    (lambda v: cells(v, (60, 80), 20, 1.5), 70, 40),
])  # fmt: skip
def test_air_in_the_bone(make, middle, most):
    reasons, angles = refused(make(head()))
    assert set(reasons) <= {"", "air in the bone (or wrapped metal)", "air under the bone"}
    assert {middle - 10, middle + 10} & angles or middle in angles
    assert all(abs(a - middle) <= most for a in angles)
    assert len(angles) >= 3


@pytest.mark.parametrize("marrow", [20, more(80), heads.DIPLOE_HU])
def test_noise_below_zero_is_no_air(marrow):
    volume = head()
    volume = blurred(np.where(volume == heads.DIPLOE_HU, marrow, volume), 0.8)
    noise = blurred(np.random.default_rng(0).normal(0, 200, volume.shape), 0.8)  # 70 HU
    volume = np.maximum(volume + noise, -1024)
    assert (volume[:, np.hypot(X / 71.5, Y / 81.5).round(2) == 1] < 0).any() == (marrow < 100)
    assert refused(volume)[0] == {"": 3 * ANGLES}


def test_two_pixels_below_zero_are_no_air():
    volume = head()
    volume[:, 200:202, 343], volume[:, 210, 344] = [-300, -100], -250
    assert refused(volume)[0] == {"": 3 * ANGLES}


def wrapped(volume):
    """As a scanner of 12 bits stores it."""
    return (((volume.astype(int) + 1024) & 0xFFF) - 1024).astype(np.float32)


@pytest.mark.parametrize(("where", "hu", "sigma"), [
    ((abs(Y) < 3) & (X > 70) & (X < 73), 3500, 0),
    ((abs(Y) < 3) & (X > 70.2) & (X < 72), 3200, 0),
    ((abs(Y) < 3) & (X > 70) & (X < 73), 5000, 1),
    ((abs(Y) < 8) & (X > 75) & (X < 77), 6000, 1),
    (np.isin(Y, (-4, -1, 1, 3)) & np.isin(X, (70.5, 72)), 3500, 0),
], ids=["island", "in marrow", "blurred", "plate", "scattered"])  # fmt: skip
def test_metal_that_wrapped_round(where, hu, sigma):
    volume = head()
    volume[:, where] = hu
    reasons, angles = refused(wrapped(blurred(volume, sigma)))
    assert all("metal" in reason for reason in reasons if reason)
    assert angles == {0, 20, 340}


def test_metal_that_fits():
    volume = head()
    volume[:, (abs(Y) < 3) & (X > 70) & (X < 73)] = 3500
    assert refused(volume)[0] == {"": 3 * ANGLES - 9, "metal": 9}


@pytest.mark.parametrize("sigma_mm", [more(0), 0.3, 0.65])
@pytest.mark.parametrize(("outside", "inside"), [(-1000, -1000), (40, 40), (40, -1000), more(-100, 10), more(-1000, 0)])
@pytest.mark.parametrize("shell_mm", [5, more(3)])
def test_thickness_in_air_and_in_tissue(shell_mm, outside, inside, sigma_mm):
    r = np.hypot(*(np.mgrid[:800, :800] * 0.25 - 99.875))
    hu = np.where(r < 86, outside, -1000)
    hu = np.where(r < 80, np.where(r < 80 - shell_mm, inside, 1000), hu).reshape(400, 2, 400, 2).mean((1, 3))
    volume = np.repeat(ndimage.gaussian_filter(hu, sigma_mm * 2)[None], 3, 0).round()
    known = cut.cut(heads.scan(volume), Limits(angles=4)).known
    assert [k["reason"] for k in known] == [""] * 12
    np.testing.assert_allclose([k["thickness_3d_mm"] for k in known], shell_mm, atol=0.2)
