"""The vault in a slice: its ring, a mask in which marrow is skull, its outer contour below the pixel.

Over slices: the normal of the outer surface, from the contours of neighbours.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from skullgan_jax.ct.scans import Scan

RAYS = 720
NEAR_MM = 4.0  # how far up and down a slice's surface is followed
_CLOSE_MM = 5.0  # thin sites and sutures that are open
_COARSE_MM = 1.0  # the grid on which rings are closed
_DEEP_MM = 22.0, 35.0  # bone this deep is skull base or face; what is deeper may be calcified plexus or pineal gland


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


def normals(rings, scan: Scan, i: int) -> np.ndarray:
    """(720, 3) unit normals of the outer surface at slice i, outwards, in the axes x, y and up of the planes."""
    rise = scan.heights - scan.heights[i]
    known = [k for k, ring in enumerate(rings) if ring is not None]
    reach = max(NEAR_MM, 1.01 * min((abs(rise[k]) for k in known if k != i), default=0))
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
