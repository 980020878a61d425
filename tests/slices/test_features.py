"""Features of slices: their scale, and the waves that their filters answer."""

import numpy as np
import pytest
from scipy import ndimage

from skullgan_jax.data import phantom
from skullgan_jax.slices import features


def test_features_are_scaled_by_the_reals():
    a, b = phantom.segments(120, 1), phantom.segments(60, 2)
    real, other = features.scaled(features.describe(a), [features.describe(b)])
    assert real.shape == (120, 448)
    np.testing.assert_allclose(real.mean(0), 0, atol=0.02)  # 0 but for what is clipped
    shape, texture = (x.var(0).sum() for x in np.split(real, [256], 1))
    assert (shape, texture) == pytest.approx((0.5, 0.5), rel=1e-4)
    assert np.square(other.mean(0)).sum() < 0.1  # the same source


def test_gabor_filters_find_their_wave():
    """A wave of 4 pixels along x has the energy of the filters across it alone, and none a constant."""
    x = np.arange(128)
    hu = np.stack([np.full((128, 128), 1500.0), np.broadcast_to(1000 * np.cos(np.pi / 2 * x), (128, 128))])
    _, texture = features.describe(hu.astype(np.float32))
    cells = texture[:, :64].reshape(2, 4, 4, 4)[:, 1:3, 1:3]  # the finest level, away from the sides
    assert np.abs(cells[0]).max() < 1e-3
    energies = np.expm1(cells[1].mean((0, 1))) * 100
    assert energies[0] > 3 * max(energies[1:])


@pytest.mark.parametrize("pixels", [4, 8, 16])
@pytest.mark.parametrize(
    ("orientation", "along", "down"), [(0, 1, 0), (1, 0.707, 0.707), (2, 0, 1), (3, -0.707, 0.707)]
)
def test_where_each_texture_is(pixels, orientation, along, down):
    """Waves along rows, down to the right, down, down to the left, of 4, 8 and 16 pixels."""
    y, x = np.mgrid[:128, :128]
    wave = 1000 * np.cos(2 * np.pi / pixels * (along * x + down * y)).astype(np.float32)
    shape, texture = features.columns()
    found = np.concatenate(features.describe(wave[None]), 1)[0]
    np.testing.assert_allclose(found[shape].reshape(16, 16)[1, 0], wave[8:16, :8].mean(), rtol=1e-4, atol=1e-3)
    level, at = np.unravel_index(np.argmax(found[texture].mean(1)), (3, 4))
    assert (4 << level, at) == (pixels, orientation)


def test_texture_is_the_energy_of_the_filters():
    """Filtered along one axis and then the other gives what each filter of 9 x 9 does."""
    hu = phantom.segments(2).astype(np.float64)
    bank = features._gabor()
    even, odd = (np.stack([ndimage.correlate(hu, bank[None, ..., i], mode="constant") for i in range(k, 8, 2)], -1)
                 for k in (0, 1))  # fmt: skip
    energy = np.log1p(np.hypot(even, odd) / 100)
    expected = energy.reshape(2, 4, 32, 4, 32, 4).mean((2, 4)).reshape(2, 64)
    np.testing.assert_allclose(features.describe(hu)[1][:, :64], expected, atol=1e-5)
