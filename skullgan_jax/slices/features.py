"""What slices are compared by beyond the three simple numbers: shape and texture, without a downloaded network.

A slice becomes 448 numbers:

- shape, 256: the slice averaged over cells of 8 x 8 pixels;
- texture, 192: the local energy of Gabor filters, log(1 + energy / 100 HU), averaged over cells of 32 x 32 pixels. Four
  orientations, on the slice and on its halves and quarters of resolution: waves of 1.9, 3.8 and 7.5 mm at 0.46875 mm.

Each is centred by its mean and divided by its standard deviation over the real slices (not below a tenth of its block's
RMS, so that what never varies in reals counts but does not drown the rest) and clipped at four of them, or else one odd
slice would decide KID. Then each block is scaled so that the variance of the reals is 1 in all, half of it shape,
half of it texture. The features depend on the reals alone: fake sets judged by the same reals compare.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from skullgan_jax.slices.chunks import in_chunks
from skullgan_jax.slices.size import SIZE

_BATCH = 64
_SHAPE_CELL, _TEXTURE_CELL = 8, 32
_ORIENTATIONS, _LEVELS, _WAVE, _SIGMA = 4, 3, 4.0, 2.0  # filters of wavelength 4 pixels of each level
_PAIRS = ((0, 0), (1, 0), (2, 0), (0, 1), (0, 2), (3, 3), (4, 4), (3, 4), (4, 3))  # of filters along x and down y
_SOFT_HU = 100.0  # energies below are noise of a scanner, differences among them count less
_LEAST_SD = 0.1
_MOST_SD = 4.0


def _gabor() -> np.ndarray:
    """(9, 9, 2 orientations): an even and an odd filter for each, without response to a constant."""
    y, x = np.mgrid[-4:5, -4:5].astype(np.float64)
    window = np.exp(-(x**2 + y**2) / (2 * _SIGMA**2))
    filters = []
    for i in range(_ORIENTATIONS):
        angle = math.pi * i / _ORIENTATIONS
        phase = 2 * math.pi / _WAVE * (x * math.cos(angle) + y * math.sin(angle))
        for wave in (np.cos(phase), np.sin(phase)):
            filters.append(window * (wave - (window * wave).sum() / window.sum()))
    bank = np.stack(filters, -1)
    return bank / np.sqrt((bank**2).sum((0, 1)))


def _separated() -> tuple[np.ndarray, np.ndarray]:
    """The same filters by ones along an axis: (5, 9) of those, and (9 of _PAIRS, 2 orientations) of their products.

    cos(a + b) = cos a cos b - sin a sin b, sin likewise, so that a filter is of rank 1 or 2, and 3 less its mean.
    """
    at = np.arange(-4, 5, dtype=np.float64)
    waves = [f(2 * math.pi / _WAVE * slope * at) for slope in (1, math.sqrt(0.5)) for f in (np.cos, np.sin)]
    taps = np.exp(-(at**2) / (2 * _SIGMA**2)) * np.stack([np.ones(len(at)), *waves])
    products = np.stack([np.outer(taps[down], taps[along]).ravel() for along, down in _PAIRS], 1)
    shares = np.linalg.lstsq(products, _gabor().reshape(len(products), -1))[0]
    return taps, np.where(abs(shares) > 1e-9, shares, 0)


def _bands(taps, size: int) -> jax.Array:
    """(5, size, size) float32: x @ band filters rows x of that size, beyond which 0 is."""
    apart = np.subtract.outer(np.arange(size), np.arange(size))
    return jnp.asarray(np.where(abs(apart) <= 4, taps[:, np.clip(apart + 4, 0, 8)], 0), jnp.float32)


def _pool(x, size: int):
    """Mean over cells of size x size: B H W ... -> B H/size W/size ..."""
    b, h, w, *rest = x.shape
    return x.reshape(b, h // size, size, w // size, size, *rest).mean((2, 4))


@functools.cache
def _compiled():
    taps, shares = _separated()

    def filtered(x):
        """Slices (B, H, W) by each of the filters."""
        product = functools.partial(jnp.matmul, precision="highest")
        bands = _bands(taps, x.shape[1])
        rows = [product(x, band) for band in bands]
        parts = [product(bands[down].T, rows[along]) for along, down in _PAIRS]
        return [sum(share * part for share, part in zip(of, parts, strict=True) if share) for of in shares.T.tolist()]

    @jax.jit
    def describe(hu):
        x = hu.astype(jnp.float32)
        shape = _pool(x, _SHAPE_CELL).reshape(len(x), -1)
        texture = []
        for level in range(_LEVELS):
            y = filtered(x)
            energies = [jnp.sqrt(even**2 + odd**2) for even, odd in zip(y[::2], y[1::2], strict=True)]
            cells = [_pool(jnp.log1p(energy / _SOFT_HU), _TEXTURE_CELL >> level) for energy in energies]
            texture.append(jnp.stack(cells, -1).reshape(len(x), -1))
            x = _pool(x, 2)
        return shape, jnp.concatenate(texture, 1)

    return describe


def describe(hu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape and texture before they are scaled.

    Args:
      hu: (N, 128, 128) HU, any real dtype.

    Returns:
      (N, 256) mean HU of cells and (N, 192) mean log energies, float32.
    """
    return in_chunks(_compiled(), hu, _BATCH)


def columns() -> tuple[np.ndarray, np.ndarray]:
    """Where the features of `scaled` are: shape, (256,), and texture, (3, 16, 4), by resolution, cell and orientation.

    The finest resolution comes first; waves run along rows, down to the right, down, and down to the left.
    """
    shape, cells = ((SIZE // cell) ** 2 for cell in (_SHAPE_CELL, _TEXTURE_CELL))
    texture = np.arange(_LEVELS * cells * _ORIENTATIONS).reshape(_LEVELS, cells, _ORIENTATIONS)
    return np.arange(shape), shape + texture


def scaled(real, others) -> list[np.ndarray]:
    """Features of each set.

    Args:
      real: what `describe` gave for the reals, whose mean and spread set the scale.
      others: list of what it gave for others.

    Returns:
      (N, 448) float32 of the reals and of each other set.
    """
    out = [[] for _ in range(1 + len(others))]
    for block in range(2):
        mean, sd = real[block].mean(0), real[block].std(0)
        sd = np.maximum(sd, _LEAST_SD * np.sqrt(np.mean(sd**2)) + 1e-6)
        clipped = [np.clip((x[block] - mean) / sd, -_MOST_SD, _MOST_SD) for x in (real, *others)]
        weight = 1 / np.sqrt(2 * clipped[0].var(0).sum() + 1e-6)
        for result, x in zip(out, clipped, strict=True):
            result.append(weight * x)
    return [np.concatenate(x, 1) for x in out]
