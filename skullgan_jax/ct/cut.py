"""Cut 128 x 128 segments of the skull from a stack of planes, or from a part of it."""

import collections
import contextlib
import dataclasses

import numpy as np

from skullgan_jax.ct.ring import BESIDE, NEAR_MM, find_ring, normals
from skullgan_jax.ct.scans import AIR, Scan
from skullgan_jax.ct.window import Limits, cut_slice
from skullgan_jax.errors import InputError
from skullgan_jax.slices.size import SIZE

UNREAD = "cannot be read"


@dataclasses.dataclass
class Cut:
    """What came of a scan, or of a part of it.

    Attributes:
      windows: (N, 128, 128) int16 HU, zero where there is no skull.
      known: of each window what is known of it, with `reason` "" where it is accepted.
      fates: slices by what became of them.
      histogram: (257,) pixels of whole slices per 16 HU from -1024; the last is all from 3072 on.
      hu_max: the greatest HU.
      at_max: how many pixels have it.
      unread: of each slice that cannot be read, why.
    """

    windows: np.ndarray
    known: list[dict]
    fates: collections.Counter
    histogram: np.ndarray
    hu_max: float
    at_max: int
    unread: dict[int, str] = dataclasses.field(default_factory=dict)


def choose(scan: Scan, limits: Limits) -> list[int]:
    """The slices to look at: from the lowest up, `slice_mm` apart or more."""
    chosen = [0]
    for i, height in enumerate(scan.heights):
        if height - scan.heights[chosen[-1]] >= limits.slice_mm:
            chosen.append(i)
    return chosen


def cut(scan: Scan, limits: Limits, part: int = 0, parts: int = 1) -> Cut:
    """All windows of part `part` of `parts`, consecutive slices, of a scan; a slice that cannot be read is a gap."""
    chosen = choose(scan, limits)
    thin = dataclasses.replace(scan, positions=scan.positions[chosen], read=lambda i: scan.read(chosen[i]))
    own = range(part * len(chosen) // parts, (part + 1) * len(chosen) // parts)
    near = [k for k in range(len(chosen)) if _is_near(thin.heights, k, own)]
    rings, histogram, hu_max, at_max = [None] * len(chosen), np.zeros(257, np.int64), -np.inf, 0
    unread = {}
    for k in near:
        try:
            hu = thin.slice(k)
        except InputError as error:
            unread[k] = str(error)
            continue
        rings[k] = find_ring(hu, thin.pixel_mm, limits.threshold)
        if k in own:
            bins = np.clip((hu.ravel() - AIR) // 16, 0, 256).astype(np.intp)
            histogram += np.bincount(bins, minlength=257)
            if hu.max() > hu_max:
                hu_max, at_max = float(hu.max()), 0
            at_max += int((hu == hu_max).sum())
    if not _is_dry(thin, rings, limits):
        for ring in rings:
            if ring is not None and ring.empty:
                ring.problem = ring.problem or "air inside (no head)"
    windows, known, fates = [np.zeros((0, SIZE, SIZE), np.int16)], [], collections.Counter()
    # What cannot be read is a gap, on both sides of which slices are beside each other.
    read = [k for k in range(len(chosen)) if k not in unread]
    without = dataclasses.replace(thin, positions=thin.positions[read], read=lambda i: thin.read(read[i]))
    seen = [rings[k] for k in read]
    for k in own:
        if rings[k] is not None and not rings[k].problem:
            outwards = normals(seen, without, read.index(k))
            if outwards is None:
                fates["no ring in the slices beside it"] += 1
                continue
            images, about = cut_slice(thin.slice(k), rings[k], outwards, thin.pixel_mm, limits)
            windows.append(images)
            known += [{"slice": chosen[k], **a} for a in about]
        fates[UNREAD if k in unread else (rings[k].problem or "cut") if rings[k] else "no ring of bone"] += 1
    unread = {chosen[k]: why for k, why in unread.items() if k in own}
    return Cut(np.concatenate(windows), known, fates, histogram, hu_max, at_max, unread)


def _is_dry(scan: Scan, rings, limits: Limits) -> bool:
    """Whether the skull has no brain in it, by three slices of the whole scan; `rings` are those that are known."""
    n = len(scan.positions)
    for k in (n // 4, n // 2, 3 * n // 4):
        with contextlib.suppress(InputError):  # of a slice that cannot be read
            ring = rings[k] or find_ring(scan.slice(k), scan.pixel_mm, limits.threshold)
            if ring is not None and not ring.empty:
                return False
    return True


def _is_near(heights: np.ndarray, k: int, own: range) -> bool:
    """Whether slice k is one of `own`, beside them, or so near that their surface is followed there."""
    if own[0] - BESIDE <= k <= own[-1] + BESIDE:
        return True
    return min(abs(heights[k] - heights[own[0]]), abs(heights[k] - heights[own[-1]])) <= NEAR_MM
