"""The radiology of slices: skull density ratio, thickness, intensity. Pure JAX, for the sampler and for the evaluation.

Bone is what is above 200 HU, and of that the largest component, two pixels being neighbours if they share a side or a
corner (8-connectivity, as `prepare` cuts). A ray is a column of pixels from the first of that bone to the last.

Where bone ends: at half of the table's peak, not at the threshold. An edge imaged with a symmetric point-spread
function passes half of its height where it truly is, whereas 200 HU is passed outside: an analytic slab of 1500 HU
reads 0.6 mm too thick by the threshold with unblurred edges and 1.2 mm with a point-spread function of sigma one pixel
(0.46875 mm). Half the peak reads slabs, arcs and two tables within 0.05 mm as long as a table is 2.5 times as thick as
the point-spread function is wide at half its maximum; thinner tables lose height and read thicker, by 0.1 mm where
tables of 1.7 and 2 mm are blurred with a sigma of one pixel.

On the 16 samples published with SkullGAN (arXiv 2308.00206) this gives SDR 0.554 (minmax), 0.609 (central) and 0.646
(peaks), mean 1364 HU, and a thickness of 4.38 mm along the normal and 4.52 mm along the column, where threshold
crossings read 5.18 mm and 5.35 mm. So the 5.2 mm known for those samples is 0.8 mm above ours: it is the distance
between 200 HU crossings, 0.4 mm outside of the bone on each side. Compare thicknesses by one definition only.

The central half of a ray lies between the same edges. A homogeneous slab of 5 mm then reads an SDR of 1.00 under any of
these blurs (0.98 at a sigma of one pixel, were the half taken between pixels above 200 HU). `minmax` does see the blur:
such a slab reads 1 with unblurred edges, 0.89 at a full width at half maximum of one pixel, 0.53 at a sigma of one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from skullgan_jax.machine import programs
from skullgan_jax.slices.calibration import BONE_HU
from skullgan_jax.slices.chunks import in_chunks

THRESHOLD_HU = BONE_HU
RAY_MM = 1.8
PEAK_HU = 700.0
_TABLE = 5  # pixels from the edge in which a table has its peak
_SLOPE_MM = 2.0  # to each side, over which the direction of the outer table is fitted
_SHARP = 0.9  # an edge that rises by more than this part of its height over two pixels is a step, not a blur
_BATCH = 64  # what these need fits into a CPU's cache
_WORD = 32
_DOWN = (1, 2, 4, 8)  # rows, columns: bone is wider than it is thick
_ACROSS = (1, 2, 4, 8, 16, 32)

_MASK = "Mask: > 200 HU, largest 8-connected component."
_RAYS = "Rays: columns 1.8 mm apart (every 4th of 128, 32 rays, at 0.46875 mm) with >= 3 bone pixels."
_COLUMNS = "Rays: all columns with bone (128 in a whole segment)."
_EDGES = "Edges: sub-pixel, at half of the table's peak (full width at half maximum, not the threshold)."
DEFINITIONS = {
    "sdr": "Skull density ratio, central: least HU of the central half of a ray, between its edges, / greatest HU of "
    f"the ray; mean over rays. {_MASK} {_RAYS} {_EDGES} Source: SkullGAN, arXiv 2308.00206, as read by BabelBrain.",
    "sdr_minmax": "Skull density ratio, minmax: least HU / greatest HU of a ray without the pixel at either end, which "
    f"is partly air; mean over rays. {_MASK} {_RAYS} Source: SkullGAN, arXiv 2308.00206.",
    "sdr_peaks": "Skull density ratio, peaks: least HU between the first local peaks above 700 HU from either end of a "
    f"ray / mean of the two peaks; mean over the rays that have two. {_MASK} {_RAYS} Source: as in Kranion.",
    "thickness_mm": "Thickness along the normal of the outer table, a line fitted to its edge over 2 mm to each side, "
    f"from edge to edge; mean over rays. {_MASK} {_COLUMNS} {_EDGES} Source: skullgan_jax.",
    "column_mm": "Thickness along the column, from edge to edge, longer than thickness_mm where the skull is steep; "
    f"mean over rays. {_MASK} {_COLUMNS} {_EDGES} Source: skullgan_jax.",
    "mean_hu": f"Mean intensity: mean HU over the pixels of the mask; no rays. {_MASK} Source: arXiv 2308.00206.",
    "area_mm2": f"Area of the mask: its pixels x the area of one; no rays. {_MASK} Source: skullgan_jax.",
}
NAMES = tuple(DEFINITIONS)


def measure(hu: jax.Array, pixel_mm: float) -> dict[str, jax.Array]:
    """Measure each slice; DEFINITIONS says what is measured.

    A slice depends on itself alone.

    Args:
      hu: (B, 128, 128) of any real dtype, HU; outer table on top, 0 where there is no skull.
      pixel_mm: side of a pixel; static, for it decides which columns are rays.

    Returns:
      (B,) float32 for each of NAMES. NaN where a slice has nothing to measure: no bone (area_mm2 is 0 then), no ray of
      three pixels or more (the density ratios), no ray with two peaks (sdr_peaks).
    """
    hu = hu.astype(jnp.float32)
    width = hu.shape[2]
    mask = largest_component(hu > THRESHOLD_HU)
    first, last = _ends(mask)
    bone = first <= last  # (B, W)
    top = jnp.where(bone, _edge(hu, first, 1), 0)
    bottom = jnp.where(bone, _edge(hu, last, -1), 0)
    normal = _along_normal(top, bottom, bone, max(1, round(_SLOPE_MM / pixel_mm)))
    pixels = mask.sum((1, 2), dtype=jnp.int32)
    rays = slice(None, None, min(width, max(1, round(RAY_MM / pixel_mm))))
    ratios = _density_ratios(hu[:, :, rays], *(x[:, None, rays] for x in (first, last, top, bottom)))
    return ratios | {
        "thickness_mm": _mean(normal, bone) * pixel_mm,
        "column_mm": _mean(bottom - top, bone) * pixel_mm,
        "mean_hu": jnp.where(pixels > 0, jnp.where(mask, hu, 0).sum((1, 2)) / jnp.maximum(pixels, 1), jnp.nan),
        "area_mm2": pixels * jnp.float32(pixel_mm**2),
    }


_program = functools.partial(jax.jit, static_argnums=1)(measure)


@programs.kept()
def measured(hu: np.ndarray, pixel_mm: float) -> dict[str, np.ndarray]:
    """The same of a set of any size, in batches of one shape, for numpy.

    Args:
      hu: (N, 128, 128) of any real dtype, HU.
      pixel_mm: side of a pixel.

    Returns:
      (N,) float32 for each of NAMES, NaN as of `measure`.
    """
    if not len(hu):
        return {name: np.zeros(0, np.float32) for name in NAMES}
    found = in_chunks(lambda chunk: _program(chunk, pixel_mm), hu, _BATCH)
    return {name: found[name] for name in NAMES}


def _mean(x, ok):
    """Mean of x (B, N) where ok; NaN where nothing is."""
    count = ok.sum(1)
    return jnp.where(count > 0, jnp.where(ok, x, 0).sum(1) / jnp.maximum(count, 1), jnp.nan)


def _ends(mask):
    """First and last row of the mask in each column, (B, W) int32; first > last where there is none."""
    height = mask.shape[1]
    row = jnp.arange(height, dtype=jnp.int16)[:, None]
    first, last = jnp.where(mask, row, height).min(1), jnp.where(mask, row, -1).max(1)
    return first.astype(jnp.int32), last.astype(jnp.int32)


def _edge(hu, end, inwards: int):
    """Row, sub-pixel, where a ray first reaches half the peak of its table.

    Between two pixels the profile is taken as linear. That serves a blurred edge; an unblurred one puts all of its rise
    into one pixel, and the position then follows from how much of that pixel is bone.

    Args:
      hu: (B, H, W) float32.
      end: (B, W) int32, the first bone pixel met.
      inwards: 1 from the top down, -1 from the bottom up.

    Returns:
      (B, W) float32.
    """
    at = end[:, None] + inwards * jnp.arange(-2, _TABLE + 1)[:, None]
    inside = (at >= 0) & (at < hu.shape[1])
    window = jnp.take_along_axis(hu, jnp.clip(at, 0, hu.shape[1] - 1), 1)
    window = jnp.where(inside, jnp.maximum(window, 0), 0)
    farther, before, here, after = (window[:, i : i + _TABLE] for i in range(4))  # (B, _TABLE, W) each
    peak = jnp.maximum(here.max(1, keepdims=True), 1)
    half = peak / 2
    # Every pixel of the table, as if it were the first above half the peak; then the first that is.
    k = jnp.arange(_TABLE, dtype=jnp.float32)[:, None]
    linear = k - jnp.clip((here - half) / jnp.maximum(here - before, 1), 0, 1)
    is_mixed = jnp.abs(here - half) <= jnp.abs(before - half)  # or else the one before is
    outer, mixed, inner = (jnp.where(is_mixed, a, b) for a, b in ((before, farther), (here, before), (after, here)))
    step = jnp.where(is_mixed, k, k - 1) + 1.5 - (outer + mixed + inner) / peak
    sharp = jnp.clip(((inner - outer) / peak - _SHARP) / (1 - _SHARP), 0, 1)
    crossing = jnp.where(here >= half, linear + sharp * (step - linear), jnp.inf).min(1)
    return end + inwards * crossing


def _along_normal(top, bottom, bone, reach: int):
    """Distance from the outer edge in each column, along the outer edge's normal, to the polyline of the inner edge.

    Args:
      top: (B, W) float32, row of the outer edge; 0 where there is no bone.
      bottom: (B, W) float32, of the inner edge.
      bone: (B, W) bool.
      reach: columns to each side, to which the line is fitted whose normal it is.

    Returns:
      (B, W) float32, pixels. A normal that leaves the image before it meets the inner edge takes that to be parallel.
    """
    width = top.shape[1]
    # Least squares; rows are taken relative to the column's own, where float32 is exact enough.
    around = ((0, 0), (reach, reach))
    tops, weights = jnp.pad(top, around), jnp.pad(bone.astype(jnp.float32), around)
    n = sx = sy = sxx = sxy = jnp.zeros_like(top)
    for i in range(2 * reach + 1):
        x, w = i - reach, weights[:, i : i + width]
        y = w * (tops[:, i : i + width] - top)
        n, sx, sy, sxx, sxy = n + w, sx + w * x, sy + y, sxx + w * x * x, sxy + y * x
    spread = n * sxx - sx * sx
    slope = jnp.where(spread > 0, (n * sxy - sx * sy) / jnp.maximum(spread, 1), 0)
    down = lax.rsqrt(1 + slope * slope)[:, None]
    across = -slope[:, None] * down
    # Inner edge against every normal: how far along it, and on which side. It is met where the side changes.
    column = jnp.arange(width, dtype=jnp.float32)
    dx, dy = column[:, None] - column, bottom[:, :, None] - top[:, None]  # (W, W), (B, W, W): inner edge, ray
    depth, side = dx * across + dy * down, dx * down - dy * across
    d0, d1, s0, s1 = depth[:, :-1], depth[:, 1:], side[:, :-1], side[:, 1:]
    meets = ((s0 <= 0) != (s1 <= 0)) & (bone[:, :-1] & bone[:, 1:])[:, :, None]
    met = (d0 * s1 - d1 * s0) / jnp.where(meets, s1 - s0, 1)
    distance = jnp.where(meets & (met > 0), met, jnp.inf).min(1)
    return jnp.where(jnp.isfinite(distance), distance, (bottom - top) * down[:, 0])


def _density_ratios(hu, first, last, top, bottom):
    """The three skull density ratios of hu (B, H, R), given (B, 1, R) the ends and the edges of its R rays."""
    row = jnp.arange(hu.shape[1])[:, None]
    ray = (row >= first) & (row <= last)
    enough = (last - first >= 2)[:, 0]
    greatest = jnp.where(ray, hu, -jnp.inf).max(1)
    greatest = jnp.where(enough, greatest, 1)

    def least(inside):
        return jnp.where(inside, hu, jnp.inf).min(1)

    quarter = (bottom - top) / 4
    central = least(ray & (row >= top + quarter) & (row <= bottom - quarter))
    minmax = least((row > first) & (row < last))
    # From each end the first pixel above 700 HU behind which the profile falls.
    profile = jnp.where(ray, hu, 0)
    before, after = (jnp.pad(profile, ((0, 0), pad, (0, 0))) for pad in ((1, 0), (0, 1)))
    high = ray & (hu > PEAK_HU)
    outer, _ = _ends(high & (after[:, 1:] < hu))
    _, inner = _ends(high & (before[:, :-1] < hu))
    # A plateau is left by the far end from each side, so that the two change places: it counts as a pair of peaks.
    upper, lower = jnp.minimum(outer, inner)[:, None], jnp.maximum(outer, inner)[:, None]
    between = least((row >= upper) & (row <= lower))
    peaks = sum(jnp.where(row == at, profile, 0).sum(1) for at in (upper, lower)) / 2
    two = enough & (outer != inner) & (peaks > 0)
    return {
        "sdr": _mean(central / greatest, enough & jnp.isfinite(central)),
        "sdr_minmax": _mean(minmax / greatest, enough),
        "sdr_peaks": _mean(between / jnp.where(two, peaks, 1), two),
    }


def largest_component(mask: jax.Array) -> jax.Array:
    """Keep of each mask its largest 8-connected component; among equals the first in raster order.

    Exact. Components are flooded one after the other from their first pixel, until what is left cannot hold a larger
    one: one or two floods for a skull, thousands for a mask of thousands of specks. A flood runs through all slices of
    the batch at once, on 32 rows to a word.

    Args:
      mask: (B, H, W) bool, H a multiple of 32.

    Returns:
      The same.
    """
    whole = _pack(mask)
    grow = _make_grow(whole)

    def more(state):
        return (state[2] > state[4]).any()

    def flood(state):
        part, rest, left, best, best_size = state
        grown = grow(part)
        done, size = (grown == part).all((0, 1)), _size(grown)
        larger = done & (size > best_size)
        rest, left = jnp.where(done, rest & ~grown, rest), jnp.where(done, left - size, left)
        best, best_size = jnp.where(larger, grown, best), jnp.where(larger, size, best_size)
        return jnp.where(done, _first_pixel(rest), grown), rest, left, best, best_size

    none = jnp.zeros_like(whole)
    state = _first_pixel(whole), whole, _size(whole), none, _size(none)
    return _unpack(lax.while_loop(more, flood, state)[3])


def _pack(mask):
    """(B, H, W) bool -> (H / 32, W, B) uint32, the first row in the lowest bit."""
    b, h, w = mask.shape
    bit = jnp.arange(_WORD, dtype=jnp.uint32)[:, None]
    words = (mask.reshape(b, h // _WORD, _WORD, w).astype(jnp.uint32) << bit).sum(2, dtype=jnp.uint32)
    return words.transpose(1, 2, 0)  # the batch last: every operation is then one on long vectors


def _unpack(words):
    n, w, b = words.shape
    bit = jnp.arange(_WORD, dtype=jnp.uint32)[:, None]
    return ((words.transpose(2, 0, 1)[:, :, None] >> bit) & 1).astype(bool).reshape(b, n * _WORD, w)


def _size(words):
    return lax.population_count(words).astype(jnp.int32).sum((0, 1))


def _down(words, rows: int):
    """A list of words, first rows first, moved down by less than 32 rows."""
    carried = [jnp.zeros_like(words[0]), *(w >> (_WORD - rows) for w in words[:-1])]
    return [(w << rows) | c for w, c in zip(words, carried, strict=True)]


def _up(words, rows: int):
    carried = [*(w << (_WORD - rows) for w in words[1:]), jnp.zeros_like(words[0])]
    return [(w >> rows) | c for w, c in zip(words, carried, strict=True)]


def _make_grow(whole):
    """A function of part of `whole` to more of the components it is in; the same where they are complete.

    To the eight neighbours, then along columns and along rows by powers of two, as far as `whole` has no gap.
    """
    words = list(whole)
    down, up, across = [], [], []
    solid = [a & b for a, b in zip(words, _down(words, 1), strict=True)]
    for n in _DOWN:  # whole from this pixel to the one n rows above
        down.append(solid)
        up.append(_up(solid, n))
        solid = [a & b for a, b in zip(solid, _down(solid, n), strict=True)]
    solid = whole[:, 1:] & whole[:, :-1]
    for n in _ACROSS:
        across.append(solid)
        solid = solid[:, n:] & solid[:, :-n]

    def grow(part):
        edge = jnp.zeros_like(part[:, :1])
        part = part | jnp.concatenate([part[:, 1:], edge], 1) | jnp.concatenate([edge, part[:, :-1]], 1)
        parts = list(part)
        parts = [(p | d | u) & w for p, d, u, w in zip(parts, _down(parts, 1), _up(parts, 1), words, strict=True)]
        for move, gaps in ((_down, down), (_up, up)):
            for n, solid in zip(_DOWN, gaps, strict=True):
                parts = [p | (q & s) for p, q, s in zip(parts, move(parts, n), solid, strict=True)]
        part = jnp.stack(parts)
        for n, solid in zip(_ACROSS, across, strict=True):
            part = jnp.concatenate([part[:, :n], part[:, n:] | (part[:, :-n] & solid)], 1)
        for n, solid in zip(_ACROSS, across, strict=True):
            part = jnp.concatenate([part[:, :-n] | (part[:, n:] & solid), part[:, -n:]], 1)
        return part

    return grow


def _first_pixel(words):
    """The one pixel that comes first in raster order; nothing of nothing."""
    column = jnp.arange(words.shape[1], dtype=jnp.int32)[:, None]
    rows = lax.reduce(words, jnp.uint32(0), lax.bitwise_or, (1,))  # (words, B)
    earlier = jnp.cumsum(rows != 0, 0) > 1
    row = jnp.where(earlier, 0, rows & -rows)
    in_row = words & row[:, None]
    first = jnp.where((in_row != 0).any(0), column, words.shape[1]).min(0)
    return jnp.where(column == first, in_row, 0)
