"""What is computed slice by slice over sets of any size."""

from collections.abc import Iterator

import numpy as np

_CHUNK = 256  # slices read at a time: 16 MiB of float32, whatever the size of the file


def chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    """Slices (N, ...) in order, some at a time, in memory: of a memory map of any size, too."""
    for start in range(0, len(images), _CHUNK):
        yield np.asarray(images[start : start + _CHUNK])


def in_chunks(function, hu: np.ndarray, size: int):
    """What a jitted function makes of slices, chunk by chunk of one shape, so that it is one program.

    Args:
      function: of (size, 128, 128) float32; gives a pytree of arrays (size, ...).
      hu: (N, 128, 128) of any real dtype.
      size: of a chunk; the last one is filled up with zeros, whose results are dropped.

    Returns:
      The same pytree of numpy arrays (N, ...).
    """
    import jax  # who only reads does without

    parts = []
    for start in range(0, len(hu), size):
        chunk = np.asarray(hu[start : start + size], np.float32)
        padded = np.pad(chunk, ((0, size - len(chunk)), (0, 0), (0, 0)))
        parts.append(jax.tree.map(np.asarray, function(padded)))
    return jax.tree.map(lambda *x: np.concatenate(x)[: len(hu)], *parts)
