"""Seconds and memory to drop near duplicates: python benchmarks/duplicates.py [--num=100000] [--batch=256]

First what a pair of phantoms costs: compared exactly by XOR and popcount as in slices/duplicates.py, as a float32
matrix product (areas less twice the overlap), by XOR and popcount in NumPy; and bounded from below by the counts in
160 blocks of 5 x 8 pixels, with the share of pairs that this and the difference of areas cannot leave out.

Then streams of phantoms, in batches, nothing extrapolated. Worst case: only copies are dropped, so that each slice is
compared with nearly all before it. Published: as they are, by the published rule. Copied: 36 % are replaced by a slice
of the same batch, shifted by a pixel. Seconds are of Distinct.add alone, packing included.
"""

import argparse
import os
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from skullgan_jax.data.phantom import segments
from skullgan_jax.slices import duplicates


class Stream:
    """Slices that go through one Distinct, and what that takes."""

    def __init__(self, name: str, least: int):
        self.name, self.distinct = name, duplicates.Distinct(least)
        self.num = self.pairs = 0
        self.wall = self.cpu = 0.0

    def add(self, hu):
        before, wall, cpu = len(self.distinct), time.perf_counter(), time.process_time()
        self.distinct.add(hu)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        self.num += len(hu)
        self.pairs += len(hu) * before + len(hu) * (len(hu) - 1) // 2

    def report(self):
        print(
            f"{self.name:10} {self.num:8,} {len(self.distinct):8,} {self.pairs:15,} {self.wall:7.1f} {self.cpu:7.1f} "
            f"{self.cpu / self.pairs * 1e9:7.1f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:9.2f}",
            flush=True,
        )


def cost(name: str, f, pairs: int):
    """Prints what a pair costs, the least of five."""
    f()
    times = []
    for _ in range(5):
        wall, cpu = time.perf_counter(), time.process_time()
        f()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = np.min(times, axis=0) / pairs * 1e9
    print(f"{name:44} {wall:8.1f} {cpu:8.1f}", flush=True)


def pair():
    hu = segments(1024 + 256, seed=1)
    bits = hu[:, : duplicates.ROWS] > duplicates.THRESHOLD_HU
    counts = bits.reshape(-1, 10, 5, 16, 8).sum((2, 4), dtype=np.uint8).reshape(-1, 160)
    words = duplicates._pack(hu)
    a, b, block = words[:256], words[256:], jnp.asarray(duplicates._block(words[256:]))
    x, y = (jnp.asarray(part.reshape(len(part), -1), jnp.float32) for part in (bits[:256], bits[256:]))
    product = jax.jit(lambda x, y: x.sum(1)[:, None] + y.sum(1) - 2 * x @ y.T)

    @jax.jit
    def bound(p, q):
        def add(i, total):
            one, other = p[:, i, None], q[i]
            return total + (jnp.maximum(one, other) - jnp.minimum(one, other)).astype(jnp.uint16)

        return jax.lax.fori_loop(0, 160, add, jnp.zeros((p.shape[0], q.shape[1]), jnp.uint16), unroll=8)

    p, q = jnp.asarray(counts[:256]), jnp.asarray(counts[256:].T)
    a64, b64 = a[:16].view(np.uint64), b.view(np.uint64)
    pairs = len(a) * len(b)
    print(f"{'nanoseconds per pair':44} {'wall':>8} {'CPU':>8}")
    cost("exact: XOR and popcount", lambda: duplicates._compare(a, block), pairs)
    cost("exact: matrix product", lambda: product(x, y).block_until_ready(), pairs)
    cost(
        "exact: XOR and popcount, NumPy",
        lambda: [np.bitwise_count(b64 ^ r).sum(1, np.uint16) for r in a64],
        pairs // 16,
    )
    cost("bound: counts in blocks", lambda: bound(p, q).block_until_ready(), pairs)
    exact, coarse = np.asarray(product(x, y)), np.asarray(bound(p, q))
    areas = bits.sum((1, 2))
    near = duplicates.PUBLISHED
    by_area = np.mean(abs(areas[:256, None] - areas[256:]) < near)
    by_blocks, alike = np.mean(coarse < near), np.mean(exact < near)
    print(f"pairs left by area {by_area:.2%}, by blocks {by_blocks:.2%}; near duplicates {alike:.2%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    pair()
    streams = Stream("worst case", 1), Stream("published", duplicates.PUBLISHED), Stream("copied", duplicates.PUBLISHED)
    rng = np.random.default_rng(0)
    for start in range(0, args.num, args.batch):
        hu = segments(min(args.batch, args.num - start), start=start)
        copied = hu.copy()
        again = rng.random(len(hu)) < 0.36
        copied[again] = np.roll(hu[rng.integers(0, len(hu), again.sum())], 1, axis=2)
        for stream, part in zip(streams, (hu, hu, copied), strict=True):
            stream.add(part)
    heads = "slices", "kept", "pairs compared", "wall s", "CPU s", "ns/pair", "peak GiB"
    print(f"{'':10} {heads[0]:>8} {heads[1]:>8} {heads[2]:>15} {heads[3]:>7} {heads[4]:>7} {heads[5]:>7} {heads[6]:>9}")
    for stream in streams:
        stream.report()


if __name__ == "__main__":
    main()
