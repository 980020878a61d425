"""The windows of a slice: where they lie, one resampling of the plane, what is known of them, which are accepted."""

import dataclasses

import numpy as np
from scipy import ndimage

from skullgan_jax.ct.ring import RAYS, Ring
from skullgan_jax.ct.scans import AIR
from skullgan_jax.slices.size import PIXEL_MM, SIZE

APEX_ROW = 10
_BESIDE_MM = 2.0  # from the threshold outwards, over which a column has come down to what lies beside the bone
_AIR_HU, _AIR_PIXELS = -200.0, 3  # marrow, noise and all, is above; fewer pixels that touch are noise
_UNDER_HU, _UNDER_MM = -300.0, 2.5  # beside a brain is no air
_SQUARE = np.ones((3, 3))
# What is known of a segment beside what samples have, too (slices/radiology.py).
DEFINITIONS = {
    "thickness_3d_mm": "Thickness along the normal of the outer surface in space: full width at half maximum of each "
    "column, on each side half-way between its table's peak and what lies beside the bone, x the cosine between the "
    "column and the normal, which comes from the contours of neighbouring slices; mean over columns. "
    "Source: skullgan_jax.",
    "thickest_mm": "The greatest full width at half maximum of a column. Source: skullgan_jax.",
    "lean_degrees": "Angle of that normal to the plane of the slice, mean over the window. Source: skullgan_jax.",
    "max_hu": "The greatest HU of the segment.",
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What is cut and what is accepted.

    Attributes:
      pixel_mm: of the segments.
      angles: windows per slice, evenly spaced around it.
      slice_mm: at least this far from one slice that is cut to the next.
      threshold: HU, above which is bone.
      thickness_mm: least and greatest mean thickness along the columns.
      thickest_mm: of any column.
      lean_degrees: greatest angle between the outer surface's normal and the plane, mean over the window.
      max_hu: metal is above.
      regions: frontal, side (parietal and temporal), occipital; which are wanted.
    """

    pixel_mm: float = PIXEL_MM
    angles: int = 36
    slice_mm: float = 1.0
    threshold: float = 300.0
    thickness_mm: tuple[float, float] = (2.0, 15.0)
    thickest_mm: float = 25.0
    lean_degrees: float = 30.0
    max_hu: float = 3000.0
    regions: tuple[str, ...] = ("frontal", "side", "occipital")


def cut_slice(hu, ring: Ring, normals, pixel_mm, limits: Limits):
    """The windows of a slice: (angles, 128, 128) int16, and what is known of each."""
    points = ring.points()
    centres = [round(a * RAYS / limits.angles) for a in range(limits.angles)]
    places = [_place(points, c, limits.pixel_mm) for c in centres]
    known = [{"angle": 360.0 * c / RAYS, "region": _region(2 * np.pi * c / RAYS)} for c in centres]
    windows = np.zeros((len(centres), SIZE, SIZE), np.int16)
    for about in known:
        about["reason"] = "the ring is too small for the window"
    fits = [i for i, (at, _, _) in enumerate(places) if at is not None]
    if not fits:
        return windows, known
    at = np.stack([places[i][0] for i in fits], 1)[::-1] / pixel_mm[:, None, None, None]  # (2, windows, 128, 128)
    values, mask, wrapped = _sample(hu, ring, at, pixel_mm, limits)
    windows[fits] = np.where(mask, np.rint(values), 0)
    flaws = _flaws(values, mask, wrapped, ring.empty, limits)
    column_mm, measured = _measure(values, windows[fits], mask, [places[i][1:] for i in fits], normals, limits)
    for k, i in enumerate(fits):
        known[i] |= {name: float(numbers[k]) for name, numbers in measured.items()}
        arc = places[i][1]
        if ring.base[arc].any():
            known[i]["reason"] = "skull base or face (bone inside)"
        elif ring.cut_off[arc].any():
            known[i]["reason"] = "cut off by the field of view"
        else:
            known[i]["reason"] = _judge(mask[k], column_mm[k], known[i], flaws[k], limits)
    return windows, known


def _sample(hu, ring: Ring, at, pixel_mm, limits: Limits):
    """HU near the skull (0 elsewhere), the mask of the skull and wrapped metal, (windows, 128, 128), at rows and
    columns `at`.
    """
    blur = np.sqrt(np.maximum((limits.pixel_mm / pixel_mm) ** 2 - 1, 0)) / 2.355
    if blur.max() > 0.2:  # the source is finer
        hu = ndimage.gaussian_filter(hu, blur)
    touching = ndimage.binary_dilation(ring.skull)
    nearest = np.rint(at).astype(np.intp)
    within = ((nearest >= 0) & (nearest < np.reshape(hu.shape, (2, 1, 1, 1)))).all(0)
    nearest = np.where(within, nearest, 0)
    # Most of a window is far from the skull: nothing is interpolated there.
    reach = int(np.ceil((_UNDER_MM + limits.pixel_mm) / pixel_mm.min()))
    near = within & (ndimage.maximum_filter(ring.skull.view(np.uint8), 2 * reach + 1) > 0)[*nearest]
    values = np.zeros(near.shape, np.float32)
    values[near] = ndimage.map_coordinates(hu, at[:, near], order=1, cval=AIR)
    mask = (values > limits.threshold) & within & touching[*nearest]
    mask[near] |= ndimage.map_coordinates(ring.skull.astype(np.float32), at[:, near], order=1) > 0.5
    return values, _largest(mask), within & ring.wrapped[*nearest] if ring.wrapped.any() else None


def _flaws(values, mask, wrapped, empty: bool, limits: Limits) -> list[str]:
    """What is in the bone, or under it, of each of N windows that does not belong there, or ""."""
    # From the outermost to the innermost bone of a column, whatever is between.
    span = np.logical_or.accumulate(mask, 1) & np.logical_or.accumulate(mask[:, ::-1], 1)[:, ::-1]
    air, under = span & (values < _AIR_HU), np.zeros(len(mask), bool)
    if not empty:
        steps = round(_UNDER_MM / limits.pixel_mm)
        last = SIZE - 1 - np.argmax(mask[:, ::-1], 1)[:, None]
        below = np.take_along_axis(values, np.minimum(last + 1 + np.arange(steps)[:, None], SIZE - 1), 1)
        under = ((below < _UNDER_HU).any(1) & mask.any(1)).sum(1) >= _AIR_PIXELS
    flaws = []
    for i in range(len(mask)):
        if wrapped is not None and (wrapped[i] & ndimage.binary_dilation(span[i])).any():
            flaws.append("metal (HU wrapped round)")
        elif air[i].any() and _touching(air[i] & ndimage.binary_erosion(span[i], _SQUARE, border_value=1)):
            flaws.append("air in the bone (or wrapped metal)")
        else:
            flaws.append("air under the bone" if under[i] else "")
    return flaws


def _touching(air: np.ndarray) -> bool:
    """Whether there are pixels of air that touch, and enough of them that it is no noise."""
    labels, count = ndimage.label(air, _SQUARE)
    return count > 0 and np.bincount(labels.ravel())[1:].max() >= _AIR_PIXELS


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest component of each mask: not the other side of a small ring, nor calcifications."""
    plane = np.zeros((3, 3, 3))
    plane[1] = 1
    labels, count = ndimage.label(mask, plane)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    window = np.zeros(count + 1, int)
    window[labels[mask]] = np.nonzero(mask)[0]
    best = np.zeros(len(mask), int)
    for label in np.argsort(sizes[1:], kind="stable") + 1:
        best[window[label]] = label
    return mask & (labels == best[:, None, None])


def _place(points, centre: int, pixel_mm: float):
    """The window around a contour point: (2, 128, 128) mm x and y of its pixels, its arc's rays, its way down."""
    width = SIZE * pixel_mm
    half = np.arange(1, RAYS // 4)
    left, right = points[(centre - half) % RAYS], points[(centre + half) % RAYS]
    chord = np.linalg.norm(right - left, axis=1)
    if chord.max() < width:
        return None, None, None
    k = int(np.argmax(chord >= width))
    part = (width - chord[k - 1]) / (chord[k] - chord[k - 1]) if k else 1.0
    first, last = (p[max(k - 1, 0)] * (1 - part) + p[k] * part for p in (left, right))
    across = (last - first) / np.linalg.norm(last - first)
    down = np.array([-across[1], across[0]])  # angles run clockwise on the screen, so this is inwards
    arc = np.arange(centre - half[k], centre + half[k] + 1) % RAYS
    middle = (first + last) / 2
    top = np.min((points[arc] - middle) @ down)
    column = (np.arange(SIZE) - (SIZE - 1) / 2) * pixel_mm
    row = (np.arange(SIZE) - APEX_ROW) * pixel_mm + top
    at = middle[:, None, None] + across[:, None, None] * column + down[:, None, None] * row[:, None]
    return at, arc, down


def _region(angle: float) -> str:
    """Where an angle looks: 0 is the patient's left, 90 degrees the back."""
    back = np.sin(angle)
    return "frontal" if back < -np.sqrt(0.5) else "occipital" if back > np.sqrt(0.5) else "side"


def _half_maximum(values, mask, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    """(N, 128) rows where a column comes half-way from what lies beside the bone to its table's peak; on either side.

    Sub-pixel full width at half maximum: where the true edge is whatever the sharpness of the kernel, as long as a
    table is thicker than the point-spread function. The threshold itself would lie outside of bone in tissue, and
    inside of bone in air.
    """
    edges, reach = [], max(1, round(_BESIDE_MM / limits.pixel_mm))
    around = np.arange(-reach, 5)[:, None]
    for turned, inside in ((values, mask), (values[:, ::-1], mask[:, ::-1])):
        first = np.argmax(inside, 1)[:, None]
        profile = np.take_along_axis(turned, np.clip(first + around, 0, SIZE - 1), 1)
        peak, beside = profile[:, reach:].max(1, keepdims=True), profile[:, : reach + 1].min(1, keepdims=True)
        half = (peak + beside) / 2
        # The first of the bone that is above, and what is last below before it.
        above = (profile >= half) & (around >= 0)
        outer = (profile < half) & (np.arange(len(around))[:, None] < np.argmax(above, 1)[:, None])
        at = len(around) - 1 - np.argmax(outer[:, ::-1], 1)[:, None]
        at = np.where(outer.any(1, keepdims=True), at, 0)
        low, high = (np.take_along_axis(profile, at + k, 1) for k in (0, 1))
        edges.append((first + around[at[:, 0], 0][:, None] + (half - low) / np.maximum(high - low, 1))[:, 0])
    return edges[0], SIZE - 1 - edges[1]


def _measure(values, out, mask, arcs, normals, limits: Limits) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Of N windows: thickness along each column, (N, 128) mm, and DEFINITIONS' numbers, (N,) each."""
    top, bottom = _half_maximum(values, mask, limits)
    column_mm = np.where(mask.any(1), bottom - top, 0) * limits.pixel_mm
    cosine = np.empty_like(column_mm)
    lean = np.empty(len(out))
    for i, (arc, down) in enumerate(arcs):
        # A column meets the surface at an angle: what it crosses is longer than the bone is thick.
        across = np.abs(normals[arc, :2] @ down)
        cosine[i] = np.interp(np.linspace(0, 1, SIZE), np.linspace(0, 1, len(across)), across)
        lean[i] = np.degrees(np.arcsin(np.clip(np.abs(normals[arc, 2]), 0, 1))).mean()
    return column_mm, {
        "thickest_mm": column_mm.max(1),
        "thickness_3d_mm": (column_mm * cosine).mean(1),
        "lean_degrees": lean,
        "max_hu": out.max((1, 2)),
    }


def _judge(mask, column_mm, about: dict, flaw: str, limits: Limits) -> str:
    """Why a window is thrown out, or ""."""
    rows = np.flatnonzero(mask.any(1))
    low, high = limits.thickness_mm
    rules = (
        (about["max_hu"] >= limits.max_hu, "metal"),
        (flaw.startswith("metal"), flaw),
        (not mask.any(0).all(), "bone missing in a column"),
        (flaw, flaw),
        (about["lean_degrees"] > limits.lean_degrees, "surface leans out of the plane"),
        (not low <= column_mm.mean() <= high, "mean thickness outside the limits"),
        (about["thickest_mm"] >= limits.thickest_mm, "too thick somewhere"),
        (len(rows) and rows[-1] >= 70, "reaches too deep"),
        (len(rows) and abs(rows[0] - APEX_ROW) > 1, "apex off its row"),
        (about["region"] not in limits.regions, "region not wanted"),
    )
    return next((reason for wrong, reason in rules if wrong), "")
