"""Idealised skulls that fool the simple metrics: three smooth layers on a circle, without any texture.

Each is drawn for one real slice, so that SDR (central), thickness and mean intensity are distributed as in the reals.
The SkullGAN paper warns that these three "can be easily fooled"; whatever else is measured has to tell these from
skulls.
"""

import numpy as np
import scipy.special

from skullgan_jax.slices.radiology import measured
from skullgan_jax.slices.size import SIZE

_RADIUS_MM = 85.0  # of the outer surface, about that of an adult's vault
_APEX_ROW = 10.0
_EDGE_PIXELS = 0.6  # standard deviation of the blur of both surfaces
_FITS = 5
NAMES = ("sdr", "thickness_mm", "mean_hu")


def _draw(sdr, thickness_mm, table_hu, pixel_mm: float) -> np.ndarray:
    """(N, 128, 128) float32 HU of shells with tables of table_hu and a diploe of sdr * table_hu in the middle."""
    radius = _RADIUS_MM / pixel_mm
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    depth = radius - np.hypot(x - (SIZE - 1) / 2, y - (_APEX_ROW - 0.5 + radius))  # under the outer surface, in pixels
    thickness = (thickness_mm / pixel_mm)[:, None, None]
    u = np.abs(2 * depth / thickness - 1)  # 0 in the middle, 1 at both surfaces
    ramp = np.clip((u - 0.25) / 0.45, 0, 1)
    profile = sdr[:, None, None] + (1 - sdr[:, None, None]) * ramp * ramp * (3 - 2 * ramp)
    outer, inner = (scipy.special.ndtr(d / _EDGE_PIXELS) for d in (depth, thickness - depth))
    hu = table_hu[:, None, None] * profile * outer * inner
    return np.where(hu < 10, 0, hu).astype(np.float32)


def idealised(targets: dict[str, np.ndarray], pixel_mm: float) -> np.ndarray:
    """Idealised skulls with the given numbers.

    Each of the three is adjusted to what is measured, a few times.

    Args:
      targets: sdr, thickness_mm and mean_hu, each (N,) finite, e.g. as measured on N reals.
      pixel_mm: edge of a pixel.

    Returns:
      (N, 128, 128) int16 HU.
    """
    want = {name: np.asarray(targets[name], np.float32) for name in NAMES}
    sdr, thickness, table = want["sdr"].copy(), want["thickness_mm"].copy(), 1.3 * want["mean_hu"]
    for _ in range(_FITS):
        found = measured(_draw(sdr, thickness, table, pixel_mm), pixel_mm)
        sdr = np.clip(sdr + np.nan_to_num(want["sdr"] - found["sdr"]), 0.02, 1)
        thickness = np.clip(thickness + np.nan_to_num(want["thickness_mm"] - found["thickness_mm"]), 1, 30)
        table = table * np.clip(np.nan_to_num(want["mean_hu"] / found["mean_hu"], nan=1), 0.5, 2)
    return np.rint(_draw(sdr, thickness, np.minimum(table, 3500), pixel_mm)).astype(np.int16)
