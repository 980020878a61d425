"""skullgan_jax.radiology over sets of any size, in batches that fit into a CPU's cache."""

import functools

import jax
import numpy as np

from skullgan_jax import radiology

_BATCH = 64
_measure = functools.partial(jax.jit, static_argnums=1)(radiology.measure)


def measure(hu: np.ndarray, pixel_mm: float) -> dict[str, np.ndarray]:
    """The numbers of each slice.

    Args:
      hu: (N, 128, 128) HU, any real dtype.
      pixel_mm: edge of a pixel.

    Returns:
      {name of radiology.NAMES: (N,) float32}, NaN where a slice has no bone to measure.
    """
    parts = []
    for start in range(0, len(hu), _BATCH):
        chunk = np.asarray(hu[start : start + _BATCH], np.float32)
        padded = np.pad(chunk, ((0, _BATCH - len(chunk)), (0, 0), (0, 0)))  # one shape, one program
        parts.append({name: np.asarray(x)[: len(chunk)] for name, x in _measure(padded, pixel_mm).items()})
    return {name: np.concatenate([p[name] for p in parts]) for name in radiology.NAMES}
