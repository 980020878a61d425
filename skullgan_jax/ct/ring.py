"""The vault in a slice: its ring, a mask in which marrow is skull, its outer contour below the pixel.

Over slices: the normal of the outer surface, from the contours of neighbours.
"""

import dataclasses

import numpy as np
from scipy import ndimage, spatial

from skullgan_jax.ct.scans import AIR, Scan

RAYS = 720
NEAR_MM = 4.0  # how far up and down a slice's surface is followed,
BESIDE = 2  # or how many slices
_CLOSE_MM = 5.0  # thin sites and sutures that are open
_COARSE_MM = 1.0  # the grid on which rings are closed
_DEEP_MM = 22.0, 35.0  # bone this deep is skull base or face; what is deeper may be calcified plexus or pineal gland
_SPECK_MM2 = 2.0  # bone of less is noise
_OPEN = 1 / 3  # of a ring's circumference; what is open farther, as half a head holder is, is no ring
_VAULT_MM2 = 5000.0  # a ring of less is none of the vault's, or its very top
_GOES_ON = 1.0  # mm per mm of height: by less a surface bends from one slice to the next
_LOOKED_AT = 6  # components of bone, the largest: those that could be the ring
_ANGLES = 360  # at which an outline is looked at
_EMPTY_HU = -300.0  # neither brain nor scalp
_WRAPPED_HU = 2800.0  # from pixel to pixel: no kernel is that sharp, but what does not fit 12 bits comes out low
_DARK_HU, _STEEP_HU = -200.0, 1400.0  # a pixel in bone below, and that much below its neighbours, has wrapped, too


@dataclasses.dataclass
class Ring:
    """The vault in one slice; lengths in mm from the first pixel along columns (x) and rows (y).

    Attributes:
      centre: (2,) x, y.
      radius: (720,) of the outer surface at evenly spaced angles, from +x towards +y.
      skull: (rows, columns) bool, bone and the marrow in it, nothing else of the slice.
      base: (720,) bool, where a ray meets bone of the skull base or the face.
      bone: (720,) bool, where the outer surface is bone; elsewhere the ring is open and its radius a bridge.
      cut_off: (720,) bool, where the surface is the end of the field of view.
      wrapped: (rows, columns) bool, metal whose HU did not fit and came out low.
      empty: whether there is air inside instead of a brain.
      problem: why nothing is cut here, or "".
    """

    centre: np.ndarray
    radius: np.ndarray
    skull: np.ndarray
    base: np.ndarray
    bone: np.ndarray
    cut_off: np.ndarray
    wrapped: np.ndarray
    empty: bool
    problem: str

    def points(self) -> np.ndarray:
        """(720, 2) x, y of the outer surface."""
        angle = np.arange(RAYS) * (2 * np.pi / RAYS)
        return self.centre + self.radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)


@dataclasses.dataclass
class _Outline:
    """Some components of bone, seen from the centre of their hull; mm.

    Attributes:
      members: labels of the components.
      centre: (2,) x, y.
      planes: (N, 3) of the hull: a point is inside where planes[:, :2] @ point + planes[:, 2] <= 0.
      corners: (N, 2) x, y, of which the hull is that.
      radius: (360,) to the outermost bone at evenly spaced angles; a bridge where there is none.
      bone: (360,) bool, where there is.
      solid: which part of what it encloses is not air.
    """

    members: tuple[int, ...]
    centre: np.ndarray
    planes: np.ndarray
    corners: np.ndarray
    radius: np.ndarray
    bone: np.ndarray
    solid: float = 1.0

    @property
    def area(self) -> float:
        return float(np.sum(self.radius * np.roll(self.radius, 1)) / 2 * np.sin(2 * np.pi / _ANGLES))

    @property
    def is_ring(self) -> bool:
        return self.bone.mean() >= 1 - _OPEN

    @property
    def is_vault(self) -> bool:
        return self.is_ring and self.area >= _VAULT_MM2

    @property
    def worth(self) -> float:
        """The more, the more there is of a head in it: of air there is little."""
        return self.bone.mean() * self.area * self.solid**4

    def holds(self, points: np.ndarray) -> np.ndarray:
        """Which of some points, (N, 2) x, y, are in the hull."""
        return (points @ self.planes[:, :2].T + self.planes[:, 2] <= 1e-6).all(1)


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
    outline = _choose(labels, count, hu, pixel_mm)
    if outline is None:
        return None
    k = max(1, round(_COARSE_MM / pixel_mm.min()))
    coarse_mm = float(np.sqrt(pixel_mm.prod()) * k)
    rows, columns = (-(-n // k) * k for n in hu.shape)
    chosen = np.isin(labels, outline.members)
    padded = np.pad(chosen, [(0, rows - hu.shape[0]), (0, columns - hu.shape[1])])
    coarse = padded.reshape(rows // k, k, columns // k, k).any((1, 3))
    y, x = _bridge(outline, pixel_mm * k, coarse.shape)
    coarse[y, x] = True
    closed = _close(coarse, coarse_mm)
    area = float(closed.sum() * coarse_mm**2)
    if area < 1000:
        return None
    inside = np.repeat(np.repeat(closed, k, 0), k, 1)[: hu.shape[0], : hu.shape[1]]
    no_speck = np.bincount(labels.ravel(), minlength=count + 1) * pixel_mm.prod() > _SPECK_MM2
    ring = chosen | (bone & inside & no_speck[labels])
    depth = ndimage.distance_transform_edt(np.pad(closed, 1))[1:-1, 1:-1] * coarse_mm
    depth = np.repeat(np.repeat(depth, k, 0), k, 1)[: hu.shape[0], : hu.shape[1]]
    deep = depth > _DEEP_MM[0]
    # Marrow: holes in the bone, but not the cavity, which is larger and deeper than any of them.
    holes, number = ndimage.label(_fill(ring) & ~ring)
    is_marrow = np.bincount(holes.ravel(), minlength=number + 1) * pixel_mm.prod() < 1000
    is_marrow |= np.bincount(holes[deep], minlength=number + 1) == 0
    is_marrow[0] = False
    skull = ring | is_marrow[holes]
    y, x = np.nonzero(inside)
    centre = np.array([x.mean(), y.mean()]) * pixel_mm[::-1]
    y, x = np.nonzero(ring & deep & (depth < _DEEP_MM[1]))
    angle = np.arctan2(y * pixel_mm[0] - centre[1], x * pixel_mm[1] - centre[0])
    base = np.bincount(np.rint(angle * RAYS / (2 * np.pi)).astype(int) % RAYS, minlength=RAYS) > 0
    radius, is_bone = _radius(hu, inside, ring, centre, pixel_mm, threshold)
    cut_off = _cut_off(hu, centre, radius, is_bone, pixel_mm)
    within = hu[inside & ~skull][::7]
    empty = bool(len(within) and np.median(within) < _EMPTY_HU)
    problem = ""
    if not outline.is_ring:
        problem = (
            "cut off by the field of view" if cut_off.mean() > 0.1 else "no ring of bone (open over more than a third)"
        )
    elif area < _VAULT_MM2:
        problem = "enclosed area below 50 cm2"
    elif ring.sum() * pixel_mm.prod() / area > 0.45:
        problem = "skull base or vertex (too much bone)"
    elif (ring & deep).sum() > 0.02 * max(deep.sum(), 1):
        problem = "skull base or face (bone inside)"
    return Ring(centre, radius, skull, base, is_bone, cut_off, _wrapped(hu, ring, skull), empty, problem)


def _choose(labels, count, hu, pixel_mm) -> _Outline | None:
    """The components that are the vault's ring or, where there is none, what comes nearest to one."""
    boxes = ndimage.find_objects(labels)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * pixel_mm.prod()
    extents = {int(i): [s.stop - s.start for s in boxes[i]] * pixel_mm for i in np.flatnonzero(sizes > 50)}
    largest = sorted((i for i in extents if extents[i].min() > 5), key=lambda i: -extents[i].prod())[:_LOOKED_AT]
    if not largest:
        return None
    pixels = {i + 1: _pixels(labels, boxes[i], i + 1, pixel_mm) for i in largest}
    found = [_outline((i,), pixels, hu, pixel_mm) for i in pixels]
    best = max(found, key=lambda o: (o.is_vault, o.worth))
    # What goes round a head, a frame or a box, has it inside, and air between.
    for inner in sorted(found, key=lambda o: o.area):
        if inner.is_ring and _is_around(best, inner, hu, pixel_mm):
            best = inner
            break
    whole = _gather(best, pixels, hu, pixel_mm)
    return whole if whole.is_vault else max((whole, *found), key=lambda o: (o.is_ring, o.worth))


def _gather(outline, pixels, hu, pixel_mm) -> _Outline:
    """A ring in pieces, from one of them: with what lies in its openings, a flap or the other half of it."""
    while True:
        others = [i for i in pixels if i not in outline.members and _lies_in_opening(outline, pixels[i])]
        grown = [_outline((*outline.members, i), pixels, hu, pixel_mm) for i in others]
        # A head holder takes in air.
        grown = [o for o in grown if o.worth > outline.worth and o.solid > 0.95 * outline.solid]
        if not grown:
            return outline
        outline = max(grown, key=lambda o: o.worth)


def _pixels(labels, box, label: int, pixel_mm) -> np.ndarray:
    """(N, 2) mm, x and y of a component's pixels."""
    y, x = np.nonzero(labels[box] == label)
    return np.stack([x + box[1].start, y + box[0].start], 1) * pixel_mm[::-1]


def _outline(members, pixels, hu, pixel_mm) -> _Outline:
    points = np.concatenate([pixels[i] for i in members])
    # A hull goes through the ends of rows; of their corners, so that even a line has one.
    row = np.rint(points[:, 1] / pixel_mm[0]).astype(int)
    row -= row.min()
    left, right = np.full(row.max() + 1, np.inf), np.full(row.max() + 1, -np.inf)
    np.minimum.at(left, row, points[:, 0])
    np.maximum.at(right, row, points[:, 0])
    y = points[:, 1].min() + np.flatnonzero(np.isfinite(left)) * pixel_mm[0]
    left, right = left[np.isfinite(left)] - pixel_mm[1] / 2, right[np.isfinite(right)] + pixel_mm[1] / 2
    ends = [np.stack([x, y + d], 1) for x in (left, right) for d in (-pixel_mm[0] / 2, pixel_mm[0] / 2)]
    ends = np.concatenate(ends)
    hull = spatial.ConvexHull(ends)
    a = ends[hull.vertices]
    b = np.roll(a, -1, 0)
    cross = a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1]
    centre = ((a + b) * cross[:, None]).sum(0) / (3 * cross.sum())
    away = points - centre
    angle = np.rint(np.arctan2(away[:, 1], away[:, 0]) * (_ANGLES / (2 * np.pi))).astype(int) % _ANGLES
    radius = np.zeros(_ANGLES)
    np.maximum.at(radius, angle, np.hypot(*away.T))
    bone = radius > np.median(radius[radius > 0]) / 2
    turn = np.arange(_ANGLES)
    radius = np.interp(turn, turn[bone], radius[bone], period=_ANGLES)
    outline = _Outline(members, centre, hull.equations, ends, radius, bone)
    outline.solid = _solid(outline, hu, pixel_mm)
    return outline


def _solid(outline, hu, pixel_mm, without=None) -> float:
    """Which part of an outline is not air; `without` another one in it."""
    low, high = outline.corners.min(0), outline.corners.max(0)
    points = np.stack(np.meshgrid(*(np.arange(a, b, 3.0) for a, b in zip(low, high, strict=True))), -1).reshape(-1, 2)
    points = points[outline.holds(points)]
    if without is not None:
        points = points[~without.holds(points)]
    x, y = np.rint(points / pixel_mm[::-1]).astype(int).T
    y, x = np.clip(y, 0, hu.shape[0] - 1), np.clip(x, 0, hu.shape[1] - 1)
    return float((hu[y, x] > _EMPTY_HU).mean()) if len(points) else 1.0


def _is_around(outer: _Outline, inner: _Outline, hu, pixel_mm) -> bool:
    """Whether one goes round the other, and is not a skull around a piece of its base."""
    if not 1000 < inner.area < outer.area or outer.holds(inner.corners).mean() < 0.5:
        return False
    between = _solid(outer, hu, pixel_mm, without=inner)
    return between < (0.9 if inner.is_vault else 0.75)  # not the marrow between two tables, nor a brain


def _lies_in_opening(outline: _Outline, points: np.ndarray) -> bool:
    """Whether a component, (N, 2) mm, lies where an outline is open and, if it is a ring, as far out as that is."""
    away = points - outline.centre
    angle = np.rint(np.arctan2(away[:, 1], away[:, 0]) * (_ANGLES / (2 * np.pi))).astype(int) % _ANGLES
    part = np.median(np.hypot(*away.T) / outline.radius[angle])
    return (~outline.bone[angle]).mean() > 0.5 and (0.7 < part < 1.25 or not outline.is_ring)


def _bridge(outline: _Outline, pixel_mm, shape) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that close an outline's openings, along the image's edge where it ends there."""
    turn = np.arange(0, _ANGLES, 0.25)
    gap = np.interp(turn, np.arange(_ANGLES), (~outline.bone).astype(float), period=_ANGLES) > 0
    radius = np.interp(turn[gap], np.arange(_ANGLES), outline.radius, period=_ANGLES)
    angle = turn[gap] * (2 * np.pi / _ANGLES)
    x = (outline.centre[0] + radius * np.cos(angle)) / pixel_mm[1]
    y = (outline.centre[1] + radius * np.sin(angle)) / pixel_mm[0]
    return tuple(np.clip(np.floor(v).astype(int), 0, n - 1) for v, n in ((y, shape[0]), (x, shape[1])))


def _wrapped(hu, ring, skull) -> np.ndarray:
    """(rows, columns) bool: steps beside bone that no kernel leaves, and dark pixels in it with steps all around."""
    out = np.zeros(hu.shape, bool)
    for axis, ends in ((0, (np.s_[:-1], np.s_[1:])), (1, (np.s_[:, :-1], np.s_[:, 1:]))):
        step = np.abs(np.diff(hu, axis=axis)) > _WRAPPED_HU
        for end in ends:
            out[end] |= step
    if out.any():
        out &= ndimage.binary_dilation(ring, np.ones((3, 3)))
    middle = hu[1:-1, 1:-1]
    y, x = np.nonzero(skull[1:-1, 1:-1] & (middle < _DARK_HU) & (middle > -900))  # or it is air
    around = np.stack([hu[y + 1 + dy, x + 1 + dx] for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))])
    out[y + 1, x + 1] |= (around - hu[y + 1, x + 1] > _STEEP_HU).sum(0) >= 3
    return out


def _cut_off(hu, centre, radius, bone, pixel_mm) -> np.ndarray:
    """(720,) bool: the outer surface lies at padding or at the edge of the image, or in an opening from there on."""
    angle = np.arange(RAYS) * (2 * np.pi / RAYS)
    way = np.stack([np.sin(angle), np.cos(angle)])
    size = np.reshape(hu.shape, (2, 1))

    def pixels(r):
        return np.rint((centre[::-1, None] + way * r) / pixel_mm[:, None]).astype(int)

    if not bone.any():
        return bone
    at = pixels(radius)
    ends = ((at < 2) | (at > size - 3)).any(0)
    # Padding is flat, as no tissue is, and reaches the border; pixels are known to be flat by the eight around.
    across, down = hu[:, 1:] == hu[:, :-1], hu[1:] == hu[:-1]
    flat = across[1:] & across[:-1] & down[:, 1:] & down[:, :-1]
    flat = flat[1:, 1:] & flat[:-1, 1:] & flat[1:, :-1] & flat[:-1, :-1]
    middle = hu[1:-1, 1:-1]
    flat &= (middle < -500) | (middle == 0)
    beside = hu[*np.clip(pixels(radius + 2.5), 0, size - 1)]
    if (beside[bone] < -500).mean() > 0.95:  # bone that lies in air ends there, no field of view does
        flat &= (middle <= AIR) | (middle > -900)
    around = np.stack([d for d in np.mgrid[-3:4, -3:4].reshape(2, -1).T if d @ d <= 9], 1)
    y, x = np.clip(at[:, :, None] - 1 + around[:, None], 0, size[:, None] - 3)
    if flat[y, x].any():
        labels, _ = ndimage.label(flat)
        border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        ends |= np.isin(labels[y, x], border[border > 0]).any(1)
    # An opening is the field of view's where one of its lips is.
    known = np.flatnonzero(bone)
    after = np.searchsorted(known, np.arange(RAYS))
    return np.where(bone, ends, ends[known[after % len(known)]] | ends[known[after - 1]])


def _radius(hu, inside, ring, centre, pixel_mm, threshold) -> tuple[np.ndarray, np.ndarray]:
    """(720,) mm to the outermost crossing of the threshold; over an opening, the radius of the closed ring; and where
    there is bone, (720,) bool.
    """
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
    is_bone = (a > threshold) & (edge > rim - _CLOSE_MM)
    return np.where(is_bone, edge, rim), is_bone


def normals(rings, scan: Scan, i: int) -> np.ndarray | None:
    """(720, 3) unit normals of the outer surface at slice i, outwards, in the axes x, y and up of the planes.

    From the contours of slices with a good ring, those within NEAR_MM or else the nearest of the two above and below.
    Of the others, as at the vertex, only where theirs goes on from the good ones'. None where there is no good one.
    """
    rise = scan.heights - scan.heights[i]
    beside = [k for k, ring in enumerate(rings) if ring is not None and k != i]
    beside = sorted((k for k in beside if abs(k - i) <= BESIDE or abs(rise[k]) <= NEAR_MM), key=lambda k: abs(rise[k]))
    good = [k for k in beside if not rings[k].problem]
    own = rings[i].points()
    along = ndimage.gaussian_filter1d(own, 4, axis=0, mode="wrap")
    along = np.roll(along, -1, 0) - np.roll(along, 1, 0)
    out = np.stack([along[:, 1], -along[:, 0]], 1) / np.linalg.norm(along, axis=1, keepdims=True)
    axes = np.stack([scan.axes[j] / scan.pixel_mm[j] for j in (1, 0)])
    # mm from this slice's surface to the others', along its normal in the plane; a sheared stack's own shift included.
    off = {k: ((rings[k].points() + axes @ (scan.positions[k] - scan.positions[i]) - own) * out).sum(1) for k in beside}
    slope = _slope(rings, rise, off, good, i)
    if slope is None:
        return None
    for k in beside:
        if k not in good and not any(rise[j] * rise[k] > 0 for j in good):
            goes_on = np.abs(off[k] / rise[k] - slope) < _GOES_ON
            if (goes_on & rings[k].bone).mean() > 0.9:
                good.append(k)
    slope = _slope(rings, rise, off, good, i)
    normal = np.concatenate([out, -slope[:, None]], 1)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _slope(rings, rise, off, near, i: int) -> np.ndarray | None:
    """(720,) mm outwards per mm up of slice i's surface, by least squares over the nearest of `near`, or None.

    Without openings, where there is no surface, and without what does not go on from the others.
    """
    near = [k for k in near if abs(rise[k]) <= max(NEAR_MM, 1.01 * min(abs(rise[j]) for j in near))]
    if not near:
        return None
    z, distance = rise[near][:, None], np.stack([off[k] for k in near])
    known = np.stack([rings[k].bone for k in near]) & rings[i].bone
    slopes = np.where(known, distance / z, np.nan)
    if len(near) > 2:
        usual = np.nanmedian(np.where(known.any(0), slopes, 0), 0)
    else:  # of two that disagree the flatter one
        usual = np.take_along_axis(slopes, np.argmin(np.where(known, np.abs(slopes), np.inf), 0)[None], 0)[0]
    weight = (np.abs(slopes - usual) < _GOES_ON).astype(float)
    n, z1, d1 = 1 + weight.sum(0), (weight * z).sum(0), (weight * distance).sum(0)
    square = (weight * z**2).sum(0) - z1**2 / n
    found = np.flatnonzero(weight.any(0))
    if not len(found):
        return None
    slope = ((weight * z * distance).sum(0) - z1 * d1 / n)[found] / square[found]
    return np.interp(np.arange(RAYS), found, slope, period=RAYS)
