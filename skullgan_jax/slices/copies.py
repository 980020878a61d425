"""When two slices are one: exactly, or nearly, by the root mean square of what they differ by over bone.

Near: one head read again with noise or half a pixel aside is 10 to 100 HU from itself; segments of one head from
different places are 107 or more apart, half of them 270. Another kernel moves one by 70 to 180 HU, but turns it little
(docs/prepare.md).
"""

import numpy as np

from skullgan_jax.slices.size import SIZE

NEAR_HU = 100.0
NEAR_COSINE = 0.985
_CELL = 4  # pixels: at a quarter of the resolution noise and half a pixel count for little
_BATCH = 2048


def quarter(hu: np.ndarray) -> np.ndarray:
    """Slices as `squared` takes them: means of 4 x 4 pixels.

    Args:
      hu: (N, 128, 128) HU, any real dtype, a memory map if need be.

    Returns:
      (N, 32, 32) float32.
    """
    side = SIZE // _CELL
    small = np.empty((len(hu), side, side), np.float32)
    for i in range(0, len(hu), _BATCH):
        cells = np.asarray(hu[i : i + _BATCH], np.float32).reshape(-1, side, _CELL, side, _CELL)
        small[i : i + _BATCH] = cells.mean((2, 4))
    return small


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The square of each distance of a to b, which makes them near copies below NEAR_HU.

    The distance is the RMS in HU of the difference, over the pixels of which either slice has more than 0 HU.

    Args:
      a: (N, 32, 32) of `quarter`.
      b: (M, 32, 32).

    Returns:
      (N, M) float32 HU squared.
    """
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    bone_a, bone_b = ((x > 0).astype(np.float32) for x in (a, b))
    apart = (a * a).sum(1)[:, None] + (b * b).sum(1) - 2 * a @ b.T
    either = bone_a.sum(1)[:, None] + bone_b.sum(1) - bone_a @ bone_b.T
    return np.maximum(apart, 0) / np.maximum(either, 1)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of the angle of each a to b, whatever their contrast; near copies are above NEAR_COSINE.

    Args:
      a: (N, 32, 32) of `quarter`.
      b: (M, 32, 32).

    Returns:
      (N, M) float32.
    """
    a, b = (x.reshape(len(x), -1) for x in (a, b))
    a, b = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (a, b))
    return a @ b.T


def exact(hu: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which slices are the same, pixel by pixel and to a whole HU, as some known one or its mirror image.

    Args:
      hu: (N, 128, 128) HU.
      known: (M, 128, 128) HU.

    Returns:
      (N,) bool.
    """

    def keys(hu):
        return [np.rint(x).astype(np.int16).tobytes() for x in hu]

    found = {*keys(known), *keys(known[:, :, ::-1])}
    return np.array([key in found for key in keys(hu)])
