"""Where slices have bone."""

import numpy as np

from skullgan_jax.slices.chunks import chunks

MARGIN = 8  # pixels, 3.75 mm: by so much it may lie elsewhere in a slice that was not seen


def never_bone(images: np.ndarray, hu_min: float, *, mirrored: bool) -> np.ndarray:
    """Where no slice has bone within MARGIN rows and columns: (H, W) bool.

    Args:
      images: (N, H, W) HU; read in chunks, so a memory map of any size will do.
      hu_min: of air.
      mirrored: whether each slice counts as mirrored left to right, too.
    """
    bone = np.zeros(images.shape[1:], bool)
    for chunk in chunks(images):
        bone |= (chunk > hu_min).any(0)
    if mirrored:
        bone |= bone[:, ::-1]
    within = (2 * MARGIN + 1,) * 2
    return ~np.lib.stride_tricks.sliding_window_view(np.pad(bone, MARGIN), within).any((2, 3))
