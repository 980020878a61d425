"""Cut 128 x 128 segments of the skull from a stack of planes.

Per slice: the ring of the vault, its outer contour r(angle) below the pixel, and a mask in which marrow is skull.
Over slices: the normal of the outer surface, from the contours of neighbours. Per window: one resampling of the plane.
"""

import collections
import dataclasses

import numpy as np
from scipy import ndimage

from skullgan_jax.ct.scans import AIR, Scan
from skullgan_jax.slices.size import PIXEL_MM, SIZE

APEX_ROW = 10
RAYS = 720
_CLOSE_MM = 5.0  # thin sites and sutures that are open
_COARSE_MM = 1.0  # the grid on which rings are closed
_NEAR_MM = 4.0  # how far up and down a slice's surface is followed
_DEEP_MM = 22.0, 35.0  # bone this deep is skull base or face; what is deeper may be calcified plexus or pineal gland


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


@dataclasses.dataclass
class Ring:
    """The vault in one slice; lengths in mm from the first pixel along columns (x) and rows (y).

    Attributes:
      centre: (2,) x, y.
      radius: (720,) of the outer surface at evenly spaced angles, from +x towards +y.
      skull: (rows, columns) bool, bone and the marrow in it, nothing else of the slice.
      base: (720,) bool, where a ray meets bone of the skull base or the face.
      problem: why nothing is cut here, or "".
    """

    centre: np.ndarray
    radius: np.ndarray
    skull: np.ndarray
    base: np.ndarray
    problem: str

    def points(self) -> np.ndarray:
        """(720, 2) x, y of the outer surface."""
        angle = np.arange(RAYS) * (2 * np.pi / RAYS)
        return self.centre + self.radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _fill(mask: np.ndarray) -> np.ndarray:
    """What cannot be reached from the border. Labels are far quicker than scipy's binary_fill_holes."""
    labels, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return (labels != labels[0, 0])[1:-1, 1:-1]


def _close(mask: np.ndarray, pixel_mm: float) -> np.ndarray:
    """Dilate, fill, erode: closes an open ring, which a plain closing does not."""
    pad = int(np.ceil(_CLOSE_MM / pixel_mm)) + 2
    grown = ndimage.distance_transform_edt(~np.pad(mask, pad)) * pixel_mm <= _CLOSE_MM
    return (ndimage.distance_transform_edt(_fill(grown)) * pixel_mm > _CLOSE_MM)[pad:-pad, pad:-pad] | mask


def find_ring(hu: np.ndarray, pixel_mm: np.ndarray, threshold: float) -> Ring | None:
    """The vault's ring in a slice, or None where no bone encloses anything.

    Args:
      hu: (rows, columns) float32.
      pixel_mm: (2,) height and width of a pixel.
      threshold: HU.
    """
    bone = hu > threshold
    labels, count = ndimage.label(bone, np.ones((3, 3)))
    if not count:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    k = max(1, round(_COARSE_MM / pixel_mm.min()))
    coarse_mm = float(np.sqrt(pixel_mm.prod()) * k)
    # The ring encloses more than a head holder does; a ring in pieces does so only as a whole.
    largest = [int(i) for i in np.argsort(sizes)[::-1][:3] if sizes[i] * pixel_mm.prod() > 50]
    best, best_area, chosen = None, 0.0, []
    for candidates in [[i] for i in largest] + ([largest] if len(largest) > 1 else []):
        if len(candidates) > 1 and best_area > 5000:
            break
        mask = np.isin(labels, candidates)
        rows, columns = (-(-n // k) * k for n in mask.shape)
        padded = np.pad(mask, [(0, rows - mask.shape[0]), (0, columns - mask.shape[1])])
        filled = _close(padded.reshape(rows // k, k, columns // k, k).any((1, 3)), coarse_mm)
        if filled.sum() * coarse_mm**2 > best_area:
            best, best_area, chosen = filled, float(filled.sum() * coarse_mm**2), candidates
    if best is None or best_area < 1000:
        return None
    inside = np.repeat(np.repeat(best, k, 0), k, 1)[: hu.shape[0], : hu.shape[1]]
    ring = np.isin(labels, chosen) | (bone & inside)
    # Marrow: holes in the bone, but not the cavity, which is far larger than any of them.
    holes, number = ndimage.label(_fill(ring) & ~ring)
    areas = np.bincount(holes.ravel(), minlength=number + 1) * pixel_mm.prod()
    areas[0] = np.inf
    skull = ring | (areas < 1000)[holes]
    depth = ndimage.distance_transform_edt(np.pad(best, 1))[1:-1, 1:-1] * coarse_mm
    depth = np.repeat(np.repeat(depth, k, 0), k, 1)[: hu.shape[0], : hu.shape[1]]
    deep = depth > _DEEP_MM[0]
    problem = ""
    if best_area < 5000:
        problem = "enclosed area below 50 cm2"
    elif ring.sum() * pixel_mm.prod() / best_area > 0.45:
        problem = "skull base or vertex (too much bone)"
    elif (ring & deep).sum() > 0.02 * max(deep.sum(), 1):
        problem = "skull base or face (bone inside)"
    y, x = np.nonzero(inside)
    centre = np.array([x.mean(), y.mean()]) * pixel_mm[::-1]
    y, x = np.nonzero(ring & deep & (depth < _DEEP_MM[1]))
    angle = np.arctan2(y * pixel_mm[0] - centre[1], x * pixel_mm[1] - centre[0])
    base = np.bincount(np.rint(angle * RAYS / (2 * np.pi)).astype(int) % RAYS, minlength=RAYS) > 0
    return Ring(centre, _radius(hu, inside, ring, centre, pixel_mm, threshold), skull, base, problem)


def _radius(hu, inside, ring, centre, pixel_mm, threshold) -> np.ndarray:
    """(720,) mm to the outermost crossing of the threshold; over an opening, the radius of the closed ring."""
    angle = np.arange(RAYS) * (2 * np.pi / RAYS)
    way = np.stack([np.sin(angle), np.cos(angle)]) / pixel_mm[:, None]  # (2, 720) pixels per mm
    start = centre[::-1] / pixel_mm

    def along(r):
        return start[:, None, None] + way[:, :, None] * r

    step = float(pixel_mm.min()) / 2
    r = np.arange(0, np.hypot(*(hu.shape * pixel_mm)) / 1.4, 2 * step)
    at = np.rint(along(r)).astype(int)
    within = ((at >= 0) & (at < np.reshape(hu.shape, (2, 1, 1)))).all(0)
    closed = within & inside[*np.where(within, at, 0)]
    rim = r[len(r) - 1 - np.argmax(closed[:, ::-1], 1)]
    # The rest of the ray cannot hold the crossing: the closed ring holds the ring.
    r = rim[:, None] + np.arange(-_CLOSE_MM - 2 * step, 2 * _COARSE_MM + 2 * step, step)
    near = ndimage.binary_dilation(ring, iterations=1)
    values = ndimage.map_coordinates(np.where(near, hu, -1024), along(r), order=1, cval=-1024)
    last = r.shape[1] - 2 - np.argmax((values[:, :-1] > threshold)[:, ::-1], 1)
    rows = np.arange(RAYS)
    a, b = values[rows, last], values[rows, last + 1]
    edge = r[rows, last] + step * (a - threshold) / np.maximum(a - b, 1e-3)
    return np.where((a > threshold) & (edge > rim - _CLOSE_MM), edge, rim)


def _normals(rings, scan: Scan, i: int) -> np.ndarray:
    """(720, 3) unit normals of the outer surface at slice i, outwards, in the axes x, y and up of the planes."""
    rise = scan.heights - scan.heights[i]
    known = [k for k, ring in enumerate(rings) if ring is not None]
    reach = max(_NEAR_MM, 1.01 * min((abs(rise[k]) for k in known if k != i), default=0))
    near = [k for k in known if abs(rise[k]) <= reach]
    x_mm, y_mm = (scan.axes[j] / scan.pixel_mm[j] for j in (1, 0))
    # The slope of the surface with height by least squares, a sheared stack's own shift included.
    shift = np.array([[(scan.positions[k] - scan.positions[i]) @ d for d in (x_mm, y_mm)] for k in near])
    points = np.stack([rings[k].points() for k in near]) + shift[:, None]
    z = rise[near] - rise[near].mean()
    slope = np.tensordot(z, points - points.mean(0), 1) / max(float(z @ z), 1e-9)
    along = ndimage.gaussian_filter1d(rings[i].points(), 4, axis=0, mode="wrap")
    along = np.roll(along, -1, 0) - np.roll(along, 1, 0)
    out = np.stack([along[:, 1], -along[:, 0]], 1)
    lift = -np.sum(out * slope, 1, keepdims=True)  # perpendicular to (slope, 1)
    normal = np.concatenate([out, lift], 1)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


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
    """

    windows: np.ndarray
    known: list[dict]
    fates: collections.Counter
    histogram: np.ndarray
    hu_max: float
    at_max: int


def choose(scan: Scan, limits: Limits) -> list[int]:
    """The slices to look at: from the lowest up, `slice_mm` apart or more."""
    chosen = [0]
    for i, height in enumerate(scan.heights):
        if height - scan.heights[chosen[-1]] >= limits.slice_mm:
            chosen.append(i)
    return chosen


def cut(scan: Scan, limits: Limits, part: int = 0, parts: int = 1) -> Cut:
    """All windows of part `part` of `parts`, consecutive slices, of a scan.

    Raises:
      InputError: a slice cannot be read.
    """
    chosen = choose(scan, limits)
    thin = dataclasses.replace(scan, positions=scan.positions[chosen], read=lambda i: scan.read(chosen[i]))
    own = range(part * len(chosen) // parts, (part + 1) * len(chosen) // parts)
    near = [k for k in range(len(chosen)) if _is_near(thin.heights, k, own)]
    rings, histogram, hu_max, at_max = [None] * len(chosen), np.zeros(257, np.int64), -np.inf, 0
    for k in near:
        hu = thin.slice(k)
        rings[k] = find_ring(hu, thin.pixel_mm, limits.threshold)
        if k in own:
            bins = np.clip((hu.ravel() - AIR) // 16, 0, 256).astype(np.intp)
            histogram += np.bincount(bins, minlength=257)
            if hu.max() > hu_max:
                hu_max, at_max = float(hu.max()), 0
            at_max += int((hu == hu_max).sum())
    windows, known = [np.zeros((0, SIZE, SIZE), np.int16)], []
    for k in own:
        if rings[k] is not None and not rings[k].problem:
            normals = _normals(rings, thin, k)
            images, about = _cut_slice(thin.slice(k), rings[k], normals, thin.pixel_mm, limits)
            windows.append(images)
            known += [{"slice": chosen[k], **a} for a in about]
    fates = collections.Counter((rings[k].problem or "cut") if rings[k] else "no ring of bone" for k in own)
    return Cut(np.concatenate(windows), known, fates, histogram, hu_max, at_max)


def _is_near(heights: np.ndarray, k: int, own: range) -> bool:
    """Whether slice k is one of `own`, beside them, or so near that their surface is followed there."""
    if own[0] - 1 <= k <= own[-1] + 1:
        return True
    return min(abs(heights[k] - heights[own[0]]), abs(heights[k] - heights[own[-1]])) <= _NEAR_MM


def _cut_slice(hu, ring: Ring, normals, pixel_mm, limits: Limits):
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
    measured = _measure(values, windows[fits], mask, [places[i][1:] for i in fits], normals, limits)
    for k, i in enumerate(fits):
        known[i] |= {name: float(numbers[k]) for name, numbers in measured.items()}
        base = ring.base[places[i][1]].any()
        known[i]["reason"] = "skull base or face (bone inside)" if base else _judge(mask[k], known[i], limits)
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


def _measure(values, out, mask, arcs, normals, limits: Limits) -> dict[str, np.ndarray]:
    """Thickness along columns and normals (mm), lean (degrees), SDR, mean and greatest HU of N windows, (N,) each."""
    top, bottom = _half_maximum(values, mask)
    column_mm = np.where(mask.any(1), bottom - top, 0) * limits.pixel_mm
    cosine = np.empty_like(column_mm)
    lean = np.empty(len(out))
    for i, (arc, down) in enumerate(arcs):
        # A column meets the surface at an angle: what it crosses is longer than the bone is thick.
        across = np.abs(normals[arc, :2] @ down)
        cosine[i] = np.interp(np.linspace(0, 1, SIZE), np.linspace(0, 1, len(across)), across)
        lean[i] = np.degrees(np.arcsin(np.clip(np.abs(normals[arc, 2]), 0, 1))).mean()
    count = np.maximum(mask.sum((1, 2)), 1)
    return {
        "column_mm": column_mm.mean(1),
        "thickest_mm": column_mm.max(1),
        "thickness_3d_mm": (column_mm * cosine).mean(1),
        "lean_degrees": lean,
        "sdr": _density_ratio(out, mask, top, bottom, limits.pixel_mm),
        "mean_hu": out.sum((1, 2)) / count,
        "max_hu": out.max((1, 2)),
    }


def _density_ratio(out, mask, top, bottom, pixel_mm: float) -> np.ndarray:
    """(N,) SDR `central`: least of a ray's central half / its greatest, mean over rays 1.8 mm apart.

    The central half is that between the half maxima, as in slices/radiology.py: between the mask's edges blur
    reaches into it.
    """
    rays = slice(None, None, max(1, round(1.8 / pixel_mm)))
    out, mask, top, bottom = out[..., rays], mask[..., rays], top[:, None, rays], bottom[:, None, rays]
    quarter, rows = (bottom - top) / 4, np.arange(SIZE)[:, None]
    central = mask & (rows >= top + quarter) & (rows <= bottom - quarter)
    least = np.where(central, out, np.iinfo(np.int16).max).min(1)
    greatest = np.where(mask, out, 0).max(1)
    ok = (mask.sum(1) >= 3) & central.any(1)
    return np.where(ok, least / np.maximum(greatest, 1), 0).sum(1) / np.maximum(ok.sum(1), 1)


def _judge(mask, about: dict, limits: Limits) -> str:
    """Why a window is thrown out, or ""."""
    rows = np.flatnonzero(mask.any(1))
    low, high = limits.thickness_mm
    rules = (
        (not mask.any(0).all(), "bone missing in a column"),
        (about["lean_degrees"] > limits.lean_degrees, "surface leans out of the plane"),
        (not low <= about["column_mm"] <= high, "mean thickness outside the limits"),
        (about["thickest_mm"] >= limits.thickest_mm, "too thick somewhere"),
        (len(rows) and rows[-1] >= 70, "reaches too deep"),
        (len(rows) and abs(rows[0] - APEX_ROW) > 1, "apex off its row"),
        (about["max_hu"] >= limits.max_hu, "metal"),
        (about["region"] not in limits.regions, "region not wanted"),
    )
    return next((reason for wrong, reason in rules if wrong), "")
