"""The windows of a slice: where they lie, one resampling of the plane, what is known of them, which are accepted."""

import dataclasses

import numpy as np
from scipy import ndimage

from skullgan_jax.ct.ring import RAYS, Ring
from skullgan_jax.ct.scans import AIR
from skullgan_jax.slices.size import PIXEL_MM, SIZE

APEX_ROW = 10
# What is known of a segment beside what samples have, too (slices/radiology.py).
DEFINITIONS = {
    "thickness_3d_mm": "Thickness along the normal of the outer surface in space: full width at half maximum of each "
    "column, half of its table's peak, x the cosine between the column and the normal, which comes from the contours "
    "of neighbouring slices; mean over columns. Source: skullgan_jax.",
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
    values, mask = _sample(hu, ring.skull, at, pixel_mm, limits)
    windows[fits] = np.where(mask, np.rint(values), 0)
    column_mm, measured = _measure(values, windows[fits], mask, [places[i][1:] for i in fits], normals, limits)
    for k, i in enumerate(fits):
        known[i] |= {name: float(numbers[k]) for name, numbers in measured.items()}
        base = ring.base[places[i][1]].any()
        reason = "skull base or face (bone inside)" if base else _judge(mask[k], column_mm[k], known[i], limits)
        known[i]["reason"] = reason
    return windows, known


def _sample(hu, skull, at, pixel_mm, limits: Limits):
    """HU near the skull (-1024 elsewhere) and the mask of the skull, (windows, 128, 128), at rows and columns `at`."""
    blur = np.sqrt(np.maximum((limits.pixel_mm / pixel_mm) ** 2 - 1, 0)) / 2.355
    if blur.max() > 0.2:  # the source is finer
        hu = ndimage.gaussian_filter(hu, blur)
    touching = ndimage.binary_dilation(skull)
    nearest = np.rint(at).astype(np.intp)
    within = ((nearest >= 0) & (nearest < np.reshape(hu.shape, (2, 1, 1, 1)))).all(0)
    nearest = np.where(within, nearest, 0)
    # Most of a window is far from the skull: nothing is interpolated there.
    near = within & ndimage.binary_dilation(touching, iterations=3)[*nearest]
    values = np.full(near.shape, AIR, np.float32)
    values[near] = ndimage.map_coordinates(hu, at[:, near], order=1, cval=AIR)
    mask = (values > limits.threshold) & within & touching[*nearest]
    mask[near] |= ndimage.map_coordinates(skull.astype(np.float32), at[:, near], order=1) > 0.5
    return values, _largest(mask)


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


def _half_maximum(values, mask) -> tuple[np.ndarray, np.ndarray]:
    """(N, 128) rows where a column reaches half of its table's peak, and where it falls below half of the other's.

    Sub-pixel full width at half maximum: where the true edge is whatever the sharpness of the kernel, as long as a
    table is thicker than the point-spread function. The threshold itself would lie outside the bone.
    """
    edges = []
    for turned, inside in ((values, mask), (values[:, ::-1], mask[:, ::-1])):
        first = np.argmax(inside, 1)[:, None]
        table = np.take_along_axis(turned, np.minimum(first + np.arange(5)[:, None], SIZE - 1), 1)
        half = table.max(1, keepdims=True) / 2
        at = np.maximum(first, np.argmax((turned >= half) & (np.arange(SIZE)[:, None] >= first), 1)[:, None])
        here = np.take_along_axis(turned, at, 1)
        before = np.maximum(np.take_along_axis(turned, np.maximum(at - 1, 0), 1), 0)
        edges.append((at - np.clip((here - half) / np.maximum(here - before, 1), 0, 1))[:, 0])
    return edges[0], SIZE - 1 - edges[1]


def _measure(values, out, mask, arcs, normals, limits: Limits) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Of N windows: thickness along each column, (N, 128) mm, and DEFINITIONS' numbers, (N,) each."""
    top, bottom = _half_maximum(values, mask)
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


def _judge(mask, column_mm, about: dict, limits: Limits) -> str:
    """Why a window is thrown out, or ""."""
    rows = np.flatnonzero(mask.any(1))
    low, high = limits.thickness_mm
    rules = (
        (not mask.any(0).all(), "bone missing in a column"),
        (about["lean_degrees"] > limits.lean_degrees, "surface leans out of the plane"),
        (not low <= column_mm.mean() <= high, "mean thickness outside the limits"),
        (about["thickest_mm"] >= limits.thickest_mm, "too thick somewhere"),
        (len(rows) and rows[-1] >= 70, "reaches too deep"),
        (len(rows) and abs(rows[0] - APEX_ROW) > 1, "apex off its row"),
        (about["max_hu"] >= limits.max_hu, "metal"),
        (about["region"] not in limits.regions, "region not wanted"),
    )
    return next((reason for wrong, reason in rules if wrong), "")
