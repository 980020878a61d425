"""Precision, recall, density, coverage and KID against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from skullgan_jax.slices import fidelity


def test_precision_and_the_like_against_scikit_learn():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(80, 6)).astype(np.float32), rng.normal(0.5, 1, size=(70, 6)).astype(np.float32)
    found = fidelity.Gram(np.concatenate([real, fake])).compare(np.arange(80, 150), np.arange(80), 5)

    def radius(x):
        return NearestNeighbors(n_neighbors=6).fit(x).kneighbors(x)[0][:, -1]

    apart = np.linalg.norm(real[:, None] - fake[None], axis=-1)
    within = apart < radius(real)[:, None]
    assert found["precision"] == pytest.approx(within.any(0).mean())
    assert found["density"] == pytest.approx(within.sum(0).mean() / 5)
    assert found["recall"] == pytest.approx((apart < radius(fake)).any(1).mean())
    assert found["coverage"] == pytest.approx((apart.min(1) < radius(real)).mean())

    def kernel(a, b):
        return polynomial_kernel(a, b, degree=3, gamma=1, coef0=1)

    rr, ff = kernel(real, real), kernel(fake, fake)
    expected = (rr.sum() - np.trace(rr)) / (80 * 79) + (ff.sum() - np.trace(ff)) / (70 * 69)
    assert found["kid"] == pytest.approx(expected - 2 * kernel(real, fake).mean(), rel=1e-4)


def test_spread_is_how_far_apart_the_nearest_are():
    """Half as far at half the size; nothing where two slices are drawn over and over, which are well apart."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(64, 6)).astype(np.float32)

    def spread(fake):
        return fidelity.Gram(np.concatenate([real, fake])).spread(np.arange(64, 128), np.arange(64))

    assert spread(real[::-1]) == pytest.approx(1, rel=1e-4)
    assert spread(real / 2 + 1) == pytest.approx(0.5, rel=1e-4)
    assert spread(np.tile(real[:2], (32, 1)) + 1e-3 * rng.normal(size=(64, 6)).astype(np.float32)) < 0.01
