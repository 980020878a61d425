"""SWD against values that follow from its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax.data.phantom import segments
from skullgan_jax.train import swd as metrics

KEY = jax.random.key(0)
NUM = 32  # slices of a set, everywhere the same, so that the metric is compiled once


def swd(key, reals, fakes) -> float:
    levels, projected = metrics.reference(key, reals)
    return metrics.distance(projected, metrics.projected(levels, fakes))


def noise(seed, num=NUM):
    return jax.random.normal(jax.random.key(seed), (num, 128, 128))


def test_equal_sets_in_any_order_of_values_have_distance_zero():
    x = noise(0)
    assert swd(KEY, x, x) == 0
    assert swd(KEY, x, noise(1)) > 0


def test_pyramid_adds_up_to_the_image():
    x = noise(0, 2)
    levels = metrics._pyramid(x)
    assert [level.shape for level in levels] == [(2, 128, 128), (2, 64, 64), (2, 32, 32), (2, 16, 16)]
    total = levels[-1]
    for level in reversed(levels[:-1]):
        total = level + np.kron(total, np.ones((1, 2, 2)))
    np.testing.assert_allclose(total, x, atol=1e-5)
    for level in levels[:-1]:  # each block of two by two of a difference has mean zero
        np.testing.assert_allclose(metrics._halve(level), 0, atol=1e-5)


def test_a_shift_has_the_closed_form():
    """A constant is in the last level alone; there it moves each direction's values by the same distance."""
    x, shift = noise(0), 0.25
    last = np.asarray(metrics._pyramid(x)[-1])
    k1, k2 = jax.random.split(jax.random.fold_in(KEY, 3))
    corner = np.asarray(jax.random.randint(k1, (NUM, 32, 2), 0, 16 - 7 + 1))
    patches = np.stack([last[i, r : r + 7, c : c + 7].ravel() for i in range(NUM) for r, c in corner[i]])
    directions = np.array(jax.random.normal(k2, (49, 128)))
    directions /= np.linalg.norm(directions, axis=0)
    expected = 1000 * np.abs(shift / (patches.std() + 1e-6) * directions.sum(0)).mean() / 4
    assert swd(KEY, x, x + shift) == pytest.approx(expected, rel=1e-3)


def test_a_scale_has_the_closed_form():
    """Twice the reals about their patches' mean: the distance of a level is the mean |projection| of its patches."""
    x = noise(0)
    x -= x.mean()
    # Standardised patches of white noise project to N(0, 1) in each direction: E|N(0, 1)| = sqrt(2 / pi).
    assert swd(KEY, x, 2 * x) == pytest.approx(1000 * np.sqrt(2 / np.pi), rel=0.05)


def test_it_grows_with_a_shift_and_with_blur():
    x = jnp.asarray(segments(NUM, 0), jnp.float32) / 1500 - 1
    shifted = [swd(KEY, x, x + s) for s in (0, 0.01, 0.1, 0.5)]
    assert shifted == sorted(shifted)
    assert shifted[0] == 0
    blurred = [x]
    for _ in range(3):
        blurred.append((blurred[-1] + jnp.roll(blurred[-1], 1, 1) + jnp.roll(blurred[-1], 1, 2)) / 3)
    distances = [swd(KEY, x, b) for b in blurred]
    assert distances == sorted(distances)


def test_another_draw_is_nearer_than_another_distribution():
    x, y = (jnp.asarray(segments(NUM, seed), jnp.float32) / 1500 - 1 for seed in (0, 1))
    assert swd(KEY, x, y) < 0.3 * swd(KEY, x, noise(0))
