"""A metric of checkpoints: SWD, computed on the device in a moment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

LEVELS = 4  # 128, 64, 32 and 16 pixels
PATCH = 7
PATCHES = 32  # per image and level
DIRECTIONS = 128


def _halve(x):
    b, h, w = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2).mean((2, 4))


def _pyramid(x):
    """Laplacian pyramid: differences to the half-size image, then what is left."""
    levels = []
    for _ in range(LEVELS - 1):
        half = _halve(x)
        levels.append(x - half.repeat(2, 1).repeat(2, 2))
        x = half
    return [*levels, x]


class Reference(NamedTuple):
    """What a level of fakes is compared with: of the reals and of the key, and so the same for all checkpoints."""

    corner: jax.Array  # (B, PATCHES, 2) int32
    mean: jax.Array
    std: jax.Array
    directions: jax.Array  # (PATCH^2, DIRECTIONS)
    projected: jax.Array  # (B PATCHES, DIRECTIONS), each column sorted


def _patches(x, corner):
    cut = jax.vmap(jax.vmap(jax.lax.dynamic_slice, (None, 0, None)), (0, 0, None))
    return cut(x, corner, (PATCH, PATCH)).reshape(-1, PATCH * PATCH)


def reference(key, reals) -> list[Reference]:
    """The half of `distance` that only the reals have part in. Jittable.

    Args:
      key: chooses patches and directions; the same key compares fairly.
      reals: (B, 128, 128) float32 in [-1, 1].
    """
    levels = []
    for level, real in enumerate(_pyramid(reals)):
        b, size, _ = real.shape
        k1, k2 = jax.random.split(jax.random.fold_in(key, level))
        corner = jax.random.randint(k1, (b, PATCHES, 2), 0, size - PATCH + 1)
        real = _patches(real, corner)
        mean, std = real.mean(), real.std() + 1e-6  # of the reals, so that a shift or a scale of the fakes counts
        directions = jax.random.normal(k2, (PATCH * PATCH, DIRECTIONS))
        directions /= jnp.linalg.norm(directions, axis=0)
        projected = jnp.sort((real - mean) / std @ directions, 0)
        levels.append(Reference(corner, mean, std, directions, projected))
    return levels


def distance(levels: list[Reference], fakes):
    """Sliced Wasserstein distance x 1000 between patches of Laplacian pyramids (Karras et al. 2018, appendix A).

    Differs from the original in a box filter for the pyramid and in fewer patches (32 of 7 x 7 per image and level) and
    directions (128): enough to rank checkpoints of one run, not to compare with published values.

    Args:
      levels: `reference` of as many reals.
      fakes: (B, 128, 128) float32 in [-1, 1].

    Returns:
      A float32 scalar, the mean over levels; 0 for equal sets.
    """
    apart = []
    for of, fake in zip(levels, _pyramid(fakes), strict=True):
        projected = jnp.sort((_patches(fake, of.corner) - of.mean) / of.std @ of.directions, 0)
        apart.append(jnp.abs(of.projected - projected).mean())
    return 1000 * jnp.stack(apart).mean()
