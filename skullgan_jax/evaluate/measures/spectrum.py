"""The radially averaged power spectrum: how much of a slice is fine detail, and how much is coarse."""

import numpy as np
import scipy.fft

from skullgan_jax.slices.size import SIZE

RINGS = 64  # 1 to 64 cycles per image
_FLOOR_HU2 = 1.0  # power per pixel that rounding to whole HU leaves below anything of interest
_BATCH = 256


def frequencies(pixel_mm: float) -> np.ndarray:
    """(64,) cycles per mm of the rings."""
    return np.arange(1, RINGS + 1) / (SIZE * pixel_mm)


def power_db(hu: np.ndarray) -> np.ndarray:
    """Power at each frequency, averaged over directions, of each slice.

    Columns are weighted by a Hann window, since bone touches both side edges. Power is |DFT|^2 / (128 x 128), its mean
    over the ring of frequencies nearest to k cycles per image, in dB over 1 HU^2.

    Args:
      hu: (N, 128, 128) HU.

    Returns:
      (N, 64) float32 dB, k = 1 to 64.
    """
    size = hu.shape[-1]
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    y, x = np.meshgrid(np.fft.fftfreq(size) * size, np.fft.rfftfreq(size) * size, indexing="ij")
    ring = np.rint(np.hypot(y, x)).astype(int)
    both_sides = np.where((x > 0) & (x < size / 2), 2.0, 1.0)  # rfft leaves the mirror half out
    inside = (ring >= 1) & (ring <= RINGS)
    weights = np.zeros((ring.size, RINGS), np.float32)
    weights[np.flatnonzero(inside.ravel()), ring[inside] - 1] = both_sides[inside]
    weights /= weights.sum(0)
    out = []
    for start in range(0, len(hu), _BATCH):
        chunk = np.asarray(hu[start : start + _BATCH], np.float32) * window
        power = np.abs(scipy.fft.rfft2(chunk, workers=-1)) ** 2 / size**2
        out.append(10 * np.log10(power.reshape(len(chunk), -1) @ weights + _FLOOR_HU2))
    return np.concatenate(out)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square over the rings of the difference of two sets' mean spectra in dB.

    Args:
      a: (N, 64) from `power_db`.
      b: (M, 64).
    """
    return float(np.sqrt(np.mean((a.mean(0) - b.mean(0)) ** 2)))
