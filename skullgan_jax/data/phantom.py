"""The built-in phantom: procedural CT segments of the skull, in HU, for a machine that has no data.

A segment is drawn as anatomy first and imaged second:

1. a smooth outer contour row(column): a hyperbola with its own fall on each side, plus a slow wobble;
2. for every pixel its depth along the contour's normal, and the foot of that normal: its column of origin;
3. thickness as a function of the foot: the inner surface undulates, thins and is grooved by vessels;
4. HU from porosity: none in the two tables, marrow in the diploe, patchy along the bone and across it;
5. a Gaussian point-spread function over the whole, which makes the partial-volume edges of a CT.

Lengths are in pixels of 60 mm / 128 unless a name ends in `_mm`. The distributions were fitted, by eye and in
numbers, to the 16 samples published with SkullGAN (arXiv 2308.00206); for the numbers see the test.
"""

import numpy as np
from scipy import ndimage

from skullgan_jax.slices.size import PIXEL_MM, SIZE

FIRST_ROW, LAST_ROW = 10, 51  # of bone
BLUR_ROWS = 2  # the most by which the point-spread function reaches beyond them

# Curves along the bone run past both sides of the image: the foot of an edge pixel may lie outside it.
MARGIN = 16
ARC = np.arange(-MARGIN, SIZE + MARGIN, dtype=np.float32)


def segments(num: int, seed: int = 0, start: int = 0) -> np.ndarray:
    """Draw segments `start` to `start + num - 1` of the endless data set named by `seed`.

    Segment i is a function of (seed, i) alone, so parts drawn separately fit together.

    Args:
      num: how many segments.
      seed: names the data set, >= 0.
      start: index of the first segment, >= 0.

    Returns:
      (num, 128, 128) int16, HU; outer table on top, 0 wherever there is no skull.
    """
    out = np.zeros((num, SIZE, SIZE), np.int16)
    for k in range(num):
        _draw(np.random.default_rng((seed, start + k)), out[k])
    return out


def _draw(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw one segment into `image`, (128, 128) int16 of zeros."""
    contour = _contour(rng)
    slope = np.gradient(contour)
    thickness = _thickness(rng, contour, slope)
    lowest = min(int(np.max(contour + thickness / np.hypot(1, slope))) + 1, LAST_ROW)
    rows = slice(FIRST_ROW - BLUR_ROWS, lowest + BLUR_ROWS + 1)
    foot, depth = _foot_and_depth(contour, slope, rows)
    height = np.interp(foot, ARC, thickness).astype(np.float32) - depth  # over the inner surface
    # The part of a pixel that is bone. The inner surface is rough within the slice, so its edge is wider.
    coverage = np.clip(depth + 0.5, 0, 1) * np.clip(height / 1.5 + 0.5, 0, 1)
    hu = coverage * _tissue(rng, foot, depth, height)
    hu = ndimage.gaussian_filter(hu, rng.uniform(0.46, 0.6), mode="nearest")
    hu[hu < 10] = 0  # the far tail of the blur
    image[rows] = np.rint(np.minimum(hu, 2999))


def _contour(rng: np.random.Generator) -> np.ndarray:
    """Outer contour: (160,) float32, the row where bone begins, for every column in ARC."""
    apex = np.clip(rng.normal(62, 9), 36, 72)
    # The chord of a segment is level, so its ends fall by nearly the same number of rows.
    share = np.clip(rng.beta(0.65, 1.25) + rng.normal(0, 0.12, 2), 0, 1)
    fall = 5.3 + 13.7 * share
    # A hyperbola: nearly a parabola when its roundness is large, flanks and a short bend when it is small.
    roundness = rng.uniform(0.4, 1.5, 2)
    side = (apex < ARC).astype(int)
    reach = (ARC - apex) / np.where(side, SIZE - 1 - apex, apex)
    bend = roundness[side]
    arc = fall[side] * (np.hypot(reach, bend) - bend) / (np.hypot(1, bend) - bend)
    # The wobble leaves the apex and both ends where they are.
    wobble, knots = 0.4 * _noise(rng, ARC.size, 11), (0, apex, SIZE - 1)
    wobble -= np.interp(ARC, knots, np.interp(knots, ARC, wobble))
    contour = ndimage.gaussian_filter1d(arc + wobble, 4)
    top = contour[MARGIN:-MARGIN].min()
    return (contour - top + rng.uniform(10.3, 11.3)).astype(np.float32)


def _thickness(rng: np.random.Generator, contour: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Thickness along the normal for every column in ARC: (160,) float32."""
    mean = (2.7 + 3.5 * rng.beta(1.0, 1.15)) / PIXEL_MM
    relative = 1 + 0.12 * _noise(rng, ARC.size, 20) + 0.03 * _noise(rng, ARC.size, 4)
    relative += rng.normal(0, 0.1) * (ARC - SIZE / 2) / (SIZE / 2)
    # Grooves of vessels and pits of granulations, cut into the inner surface.
    for _ in range(rng.poisson(0.5)):
        centre, width = rng.uniform(0, SIZE), rng.uniform(5, 16)
        relative -= rng.uniform(0.08, 0.35) * np.exp(-(((ARC - centre) / width) ** 4))
    relative /= relative[MARGIN:-MARGIN].mean()
    # Steep thick arcs end on the last row. The blur carries the 200 HU line about a pixel further down.
    room = (LAST_ROW - 1.3 - contour) * np.hypot(1, slope)
    return np.maximum(np.minimum(mean * relative, room), 4).astype(np.float32)


def _foot_and_depth(contour: np.ndarray, slope: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel, the foot of the contour's normal through it and the signed distance along it.

    The foot f of pixel (r, c) solves (c - f) + (r - y(f)) y'(f) = 0. Two Gauss-Newton steps are enough:
    distance is stationary at the foot, so what is left of the error enters the depth in second order only.

    Returns:
      (rows, 128) float32 each; foot is a column, depth is positive on the side of the bone.
    """
    row, column = np.mgrid[rows, :SIZE].astype(np.float32)
    foot = column
    for step in range(3):
        y, dy = np.interp(foot, ARC, contour), np.interp(foot, ARC, slope)
        if step < 2:
            foot = foot + (column - foot + (row - y) * dy) / (1 + dy**2)
    depth = (row - y - (column - foot) * dy) / np.hypot(1, dy)
    return foot.astype(np.float32), depth.astype(np.float32)


def _tissue(rng: np.random.Generator, foot: np.ndarray, depth: np.ndarray, height: np.ndarray) -> np.ndarray:
    """HU before imaging, as if bone went on beyond its surfaces: (rows, 128).

    Args:
      rng: the segment's generator.
      foot: (rows, 128) float32, column of origin of the normal through the pixel.
      depth: (rows, 128) float32, distance under the outer surface.
      height: (rows, 128) float32, distance over the inner surface.
    """
    cortical = 1710 + 660 * rng.beta(2.0, 1.5)
    marrow = 0.15 + 0.5 * rng.beta(1.5, 2.2)  # porosity of the diploe
    # The outer table passes into the diploe slowly, the inner one within a millimetre. Both keep their own
    # thickness, so that thin bone has little diploe and the tables fuse where it is thinnest.
    outer_mm, inner_mm = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.7)
    diploe = _smoothstep((depth * PIXEL_MM - outer_mm) / 1.8)
    diploe *= _smoothstep((height * PIXEL_MM - inner_mm) / 1.0)
    # Marrow spaces lie along the tables, so their texture is a grid over (depth, foot), from depth -4 on.
    texture = 0.4 * _noise(rng, (32, ARC.size), (0.8, 1.5)) + 0.3 * _noise(rng, ARC.size, 12)
    texture = ndimage.map_coordinates(texture, (depth + 4, foot + MARGIN), order=1, mode="nearest")
    porosity = diploe * marrow * np.exp(texture)
    if rng.random() < 0.15:  # a suture: a narrow wavy gap through the bone
        path = rng.uniform(8, SIZE - 8) + rng.uniform(-0.8, 0.8) * depth
        path += 1.2 * _noise(rng, (len(path), 1), 1.5)
        porosity += 0.5 * np.exp(-((foot - path) ** 2))
    # Mineralisation varies along the bone and is lower inside.
    mineral = np.interp(foot, ARC, 1 + 0.06 * _noise(rng, ARC.size, 5)) - 0.17 * depth / (depth + height)
    # Pores too fine to see, most of them in the diploe, and the noise of the scanner.
    grain = (0.06 + 0.04 * diploe) * rng.standard_normal(foot.shape, dtype=np.float32)
    return cortical * (mineral * (1 - np.minimum(porosity, 0.68)) + grain)


def _noise(rng: np.random.Generator, shape: int | tuple, sigma: float | tuple) -> np.ndarray:
    """Gaussian noise of mean 0, smoothed by a Gaussian of `sigma` and scaled back to about unit variance."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap")
    return smooth * np.sqrt(np.prod(2 * np.sqrt(np.pi) * (np.ones(smooth.ndim) * sigma)))


def _smoothstep(x: np.ndarray) -> np.ndarray:
    """A rise from 0 at x <= 0 to 1 at x >= 1 without corners."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
