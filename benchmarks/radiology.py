"""Time radiology.measure, its parts, and the same measures by scipy and numpy.

python benchmarks/radiology.py [--num=512] [--batch=64]

On the built-in phantom. Prints slices/s by the wall and by CPU time, what XLA needs to compile, and the greatest
difference between the two statements, which share the definitions and no code.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from skullgan_jax.data.phantom import segments
from skullgan_jax.slices import radiology
from skullgan_jax.slices.size import PIXEL_MM


def reference(image: np.ndarray, pixel_mm: float) -> dict[str, float]:
    """The measures of one slice with bone, ray by ray."""
    labels, _ = ndimage.label(image > radiology.THRESHOLD_HU, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    mask = labels == sizes.argmax()
    columns = np.flatnonzero(mask.any(0))
    first, last = mask.argmax(0), len(mask) - 1 - mask[::-1].argmax(0)
    top, bottom = np.full(len(mask), np.nan), np.full(len(mask), np.nan)
    for c in columns:
        top[c] = _edge(image[:, c], first[c])
        bottom[c] = len(mask) - 1 - _edge(image[::-1, c], len(mask) - 1 - last[c])
    thickness = [_along_normal(c, columns, top, bottom, round(2 / pixel_mm)) for c in columns]
    ratios = {"sdr": [], "sdr_minmax": [], "sdr_peaks": []}
    for c in range(0, len(mask), round(1.8 / pixel_mm)):
        ray = image[first[c] : last[c] + 1, c]
        if not mask[:, c].any() or len(ray) < 3:
            continue
        ratios["sdr_minmax"].append(ray[1:-1].min() / ray.max())
        quarter = (bottom[c] - top[c]) / 4
        low, high = np.ceil(top[c] + quarter), np.floor(bottom[c] - quarter)
        if high >= low:
            ratios["sdr"].append(image[int(low) : int(high) + 1, c].min() / ray.max())
        ends = np.concatenate([[0], ray, [0]])
        falls_down, falls_up = (np.flatnonzero((ray > 700) & (e < ray)) for e in (ends[2:], ends[:-2]))
        if len(falls_down) and len(falls_up) and falls_down[0] != falls_up[-1]:
            a, b = sorted((falls_down[0], falls_up[-1]))
            ratios["sdr_peaks"].append(ray[a : b + 1].min() / ((ray[a] + ray[b]) / 2))
    return {name: np.mean(values) if values else np.nan for name, values in ratios.items()} | {
        "thickness_mm": np.mean(thickness) * pixel_mm,
        "column_mm": np.nanmean(bottom - top) * pixel_mm,
        "mean_hu": image[mask].mean(),
        "area_mm2": mask.sum() * pixel_mm**2,
    }


def _edge(profile, first):
    v = np.maximum(np.concatenate([np.zeros(2), profile, np.zeros(6)]), 0)
    table = v[first + 2 : first + 7]
    half = table.max() / 2
    k = first + 2 + np.argmax(table >= half)
    linear = k - np.clip((v[k] - half) / max(v[k] - v[k - 1], 1), 0, 1)
    m = k if v[k] - half <= abs(v[k - 1] - half) else k - 1
    step = m + 1.5 - v[m - 1 : m + 2].sum() / table.max()
    sharp = np.clip(((v[m + 1] - v[m - 1]) / table.max() - 0.9) / 0.1, 0, 1)
    return linear + sharp * (step - linear) - 2


def _along_normal(c, columns, top, bottom, reach):
    near = columns[abs(columns - c) <= reach]
    slope = np.polyfit(near - c, top[near] - top[c], 1)[0] if len(near) > 1 else 0.0
    normal = np.array([-slope, 1]) / np.hypot(1, slope)
    inner = np.stack([np.arange(len(top)) - c, bottom - top[c]], 1)
    depth, side = inner @ normal, inner @ [normal[1], -normal[0]]
    j = np.flatnonzero(((side[:-1] <= 0) != (side[1:] <= 0)) & np.isfinite(side[:-1] + side[1:]))
    met = (depth[j] * side[j + 1] - depth[j + 1] * side[j]) / (side[j + 1] - side[j])
    return met[met > 0].min() if (met > 0).any() else (bottom[c] - top[c]) * normal[1]


def rate(name, f, batches, repeats=5):
    """Print slices/s of f over batches, tuples of its arguments, compiled and warm."""
    start = time.perf_counter()
    program = jax.jit(f).lower(*batches[0]).compile()
    compiled = time.perf_counter() - start
    jax.block_until_ready(program(*batches[0]))
    num = repeats * len(batches) * len(batches[0][0])
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        for batch in batches:
            jax.block_until_ready(program(*batch))
    wall, cpu = num / (time.perf_counter() - wall), num / (time.process_time() - cpu)
    print(f"{name:20} {wall:10.0f} {cpu:14.0f} {compiled:10.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    slices = segments(args.num // args.batch * args.batch).reshape(-1, args.batch, 128, 128)
    batches = [jnp.asarray(b, jnp.float32) for b in slices]
    print(f"{jax.devices()[0].device_kind}, {slices[..., 0, 0].size} slices in batches of {args.batch}")
    print(f"{'slices/s':20} {'wall':>10} {'per CPU second':>14} {'compile s':>10}")
    rate("measure", lambda hu: radiology.measure(hu, PIXEL_MM), [(b,) for b in batches])
    masks = [jax.jit(lambda hu: radiology.largest_component(hu > radiology.THRESHOLD_HU))(b) for b in batches]
    ends = [jax.jit(radiology._ends)(m) for m in masks]
    tops = [jax.jit(lambda hu, at: radiology._edge(hu, at, 1))(b, e[0]) for b, e in zip(batches, ends, strict=True)]
    bottoms = [jax.jit(lambda hu, at: radiology._edge(hu, at, -1))(b, e[1]) for b, e in zip(batches, ends, strict=True)]
    bones = [first <= last for first, last in ends]
    rate("  component", lambda hu: radiology.largest_component(hu > radiology.THRESHOLD_HU), [(b,) for b in batches])
    rate(
        "  edges",
        lambda hu, e: [radiology._edge(hu, *x) for x in zip(e, (1, -1), strict=True)],
        list(zip(batches, ends, strict=True)),
    )
    rate("  along the normal", lambda *x: radiology._along_normal(*x, 4), list(zip(tops, bottoms, bones, strict=True)))
    rays = [
        (b[:, :, ::4], *(x[:, None, ::4] for x in (*e, t, u)))
        for b, e, t, u in zip(batches, ends, tops, bottoms, strict=True)
    ]
    rate("  density ratios", radiology._density_ratios, rays)
    some = slices.reshape(-1, 128, 128)[: args.batch].astype(np.float64)
    start = time.process_time()
    expected = [reference(image, PIXEL_MM) for image in some]
    print(f"{'scipy and numpy':20} {'':10} {len(some) / (time.process_time() - start):14.0f}")
    got = radiology.measure(batches[0], PIXEL_MM)
    differences = {
        name: np.nanmax(np.abs(np.asarray(got[name]) - [e[name] for e in expected])) for name in radiology.NAMES
    }
    print("greatest difference: " + ", ".join(f"{name} {d:.1e}" for name, d in differences.items()))


if __name__ == "__main__":
    main()
