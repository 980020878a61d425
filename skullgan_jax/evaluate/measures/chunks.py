"""What is computed slice by slice over sets of any size: radiology, in batches that fit into a CPU's cache."""

import functools

import jax
import numpy as np

from skullgan_jax.slices import radiology

_BATCH = 64
_measure = functools.partial(jax.jit, static_argnums=1)(radiology.measure)


def in_chunks(function, hu: np.ndarray, size: int):
    """What a jitted function makes of slices, chunk by chunk of one shape, so that it is one program.

    Args:
      function: of (size, 128, 128) float32; gives a pytree of arrays (size, ...).
      hu: (N, 128, 128) of any real dtype.
      size: of a chunk; the last one is filled up with zeros, whose results are dropped.

    Returns:
      The same pytree of numpy arrays (N, ...).
    """
    parts = []
    for start in range(0, len(hu), size):
        chunk = np.asarray(hu[start : start + size], np.float32)
        padded = np.pad(chunk, ((0, size - len(chunk)), (0, 0), (0, 0)))
        parts.append(jax.tree.map(np.asarray, function(padded)))
    return jax.tree.map(lambda *x: np.concatenate(x)[: len(hu)], *parts)


def measure(hu: np.ndarray, pixel_mm: float) -> dict[str, np.ndarray]:
    """The numbers of each slice.

    Args:
      hu: (N, 128, 128) HU, any real dtype.
      pixel_mm: edge of a pixel.

    Returns:
      {name of radiology.NAMES: (N,) float32}, NaN where a slice has no bone to measure.
    """
    found = in_chunks(lambda chunk: _measure(chunk, pixel_mm), hu, _BATCH)
    return {name: found[name] for name in radiology.NAMES}
