"""Intervals of shares: of slices, and of slices that come in subjects."""

import dataclasses
import math

import numpy as np
import scipy.stats

_Z = {level: float(scipy.stats.norm.ppf(0.5 + level / 2)) for level in (0.95, 0.995)}
DECIDES = 0.995  # a share is told from a half where this interval lies above it: one side, 0.25 %


@dataclasses.dataclass(frozen=True)
class Share:
    """A share with its interval; `num` is what it is out of."""

    value: float
    low: float
    high: float
    num: int


def share(hits: np.ndarray, subjects: np.ndarray | None = None, level: float = 0.95) -> Share:
    """Wilson's interval (1927); where subjects are known, of the effective number of slices.

    That number divides by the design effect (Kish 1965): the variance of the share over subjects by that of independent
    slices, and is never more than the slices. Where all or none hit, each subject counts once.

    Args:
      hits: (N,) bool.
      subjects: (N,) or None.
      level: 0.95 or 0.995.
    """
    n, p = len(hits), float(np.mean(hits))
    effective = float(n)
    if subjects is not None:
        _, codes = np.unique(subjects, return_inverse=True)
        groups = codes.max() + 1
        sums, sizes = np.bincount(codes, hits, groups), np.bincount(codes, minlength=groups)
        variance = groups / max(groups - 1, 1) * np.sum((sums - p * sizes) ** 2) / n**2
        effective = (
            min(n, p * (1 - p) / variance) if 0 < p < 1 and variance > 0 else float(groups if p in (0, 1) else n)
        )
    z2 = _Z[level] ** 2
    centre = (p + z2 / (2 * effective)) / (1 + z2 / effective)
    half = math.sqrt(z2 * (p * (1 - p) / effective + z2 / (4 * effective**2))) / (1 + z2 / effective)
    return Share(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), n)  # at 0 and 1 rounding shows


def mean(a: Share, b: Share) -> Share:
    """The mean of two independent shares (balanced accuracy), its interval by MOVER (Newcombe 1998, Zou 2008)."""
    value = (a.value + b.value) / 2
    down = math.hypot(a.value - a.low, b.value - b.low) / 2
    up = math.hypot(a.high - a.value, b.high - b.value) / 2
    return Share(value, value - down, value + up, a.num + b.num)


def difference(a: Share, b: Share) -> Share:
    """Difference a - b of two independent shares, its interval by MOVER."""
    value = a.value - b.value
    down = math.hypot(a.value - a.low, b.high - b.value)
    up = math.hypot(a.high - a.value, b.value - b.low)
    return Share(value, value - down, value + up, a.num + b.num)


def accuracy(real_hits, fake_hits, subjects: np.ndarray | None) -> dict:
    """Balanced accuracy of a classifier of real against fake.

    Args:
      real_hits: (N,) bool, reals called real.
      fake_hits: (M,) bool, fakes called fake.
      subjects: (N,) of the reals, or None.

    Returns:
      {"value", "low", "high" (95 %), "num", "passes": whether the DECIDES interval reaches down to a half,
      "real_called_real", "fake_called_real"}.
    """
    wide = mean(share(real_hits, subjects), share(fake_hits))
    strict = mean(share(real_hits, subjects, DECIDES), share(fake_hits, None, DECIDES))
    return {
        **dataclasses.asdict(wide),
        "passes": strict.low <= 0.5,
        "real_called_real": dataclasses.asdict(share(real_hits, subjects)),
        "fake_called_real": dataclasses.asdict(share(~np.asarray(fake_hits))),
    }
