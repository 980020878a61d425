"""Sampling as the command does it: what writing costs, against PyTorch, and memory over the number of samples.

    python benchmarks/sample.py full      # the published sizes to .npy, alternating with PyTorch
    python benchmarks/sample.py small     # ngf 16 to a Zarr store
    python benchmarks/sample.py memory    # ngf 16, 10^3 and 10^5 samples, a process each
    python benchmarks/sample.py dtype --model=runs/demo    # what bfloat16 changes, in HU and in the measures

`drawing` is the same samples with their measures, dropped instead of written; medians of turns. PyTorch, in a process
of its own, draws them in batches of 16 and writes nothing. Programs are compiled before the clock starts.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np

from skullgan_jax.nets.pair import Pair, quick_to_compile
from skullgan_jax.slices.size import PIXEL_MM

SIZES = {"full": {"nz": 200, "ngf": 256, "ndf": 64}, "small": {"nz": 64, "ngf": 16, "ndf": 16}}
NUM = {"full": 64, "small": 2048}
OUTPUT = {"full": "s.npy", "small": "s.zarr"}


def _model(sizes: dict):
    """Fresh weights: how fast they are does not depend on what they have learned."""
    from skullgan_jax.model import trained
    from skullgan_jax.slices.calibration import Calibration

    pair = Pair(**sizes)
    trees = quick_to_compile(lambda: pair.init(0))()
    return trained.Model(
        pair,
        *trees,
        calibration=Calibration(0, 2734.53),
        pixel_mm=PIXEL_MM,
        provenance={},
        batches_tracked={"generator": [0] * 5, "discriminator": [0] * 4},
        standing=trees[1],
    )


def _job(folder: str, size: str):
    from skullgan_jax.sampling import job

    form = OUTPUT[size].split(".")[1]
    return job.Job(job.Identity("fresh"), num=NUM[size], output=f"{folder}/{OUTPUT[size]}", form=form)


def throughput(size: str, args) -> None:
    from benchmarks import pair
    from skullgan_jax.machine import memory

    memory.keep_memory()
    import jax

    from skullgan_jax.sampling import run

    trained = _model(SIZES[size])
    sampler = trained.sampler(seed=0)
    block = 512
    ranges = [(i, min(i + block, NUM[size])) for i in range(0, NUM[size], block)]

    def draw():
        for drawn in sampler.ranges(ranges):
            del drawn

    def write():
        with tempfile.TemporaryDirectory() as folder:
            run.run(trained, _job(folder, size))

    contestants = {"drawing": draw, "writing": write}
    with pair.Torch(**SIZES[size]) if size == "full" else contextlib.nullcontext() as torch:
        if torch:
            contestants["PyTorch"] = lambda: [torch.run("sample", 16) for _ in range(NUM[size] // 16)]
        times = pair.alternate(contestants, args.rounds, calls=1)
    seconds = {name: np.median(t) for name, t in times.items()}
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {SIZES[size]}, {NUM[size]} samples to {OUTPUT[size]}"
    )
    for name, taken in seconds.items():
        print(f"{name:8} {NUM[size] / taken:8.2f} slices/s  {seconds['writing'] / taken:6.3f} of the time of writing")


def memory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _model(SIZES["small"]).save(f"{folder}/model")
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled"}
        for num in (1000, 1000, 100_000):  # the first one compiles
            command = [sys.executable, "-m", "skullgan_jax.sample", f"--model={folder}/model", f"--num={num}"]
            started = time.perf_counter()
            ran = subprocess.Popen([*command, f"--output={folder}/s.zarr"], env=environment, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(ran.pid, 0)
            assert status == 0
            size = sum(p.stat().st_size for p in pathlib.Path(folder, "s.zarr").rglob("*") if p.is_file())
            print(
                f"{num:7,} samples: peak {used.ru_maxrss / 2**20:.2f} GiB, {time.perf_counter() - started:.0f} s, "
                f"{size / 2**20:,.0f} MiB written"
            )
            shutil.rmtree(f"{folder}/s.zarr")


def dtypes(path: str) -> None:
    import jax

    from skullgan_jax.model.load import load
    from skullgan_jax.slices import radiology

    trained, num = load(path), 256
    one, other = (next(trained.sampler(seed=0, dtype=d).ranges([(0, num)])) for d in ("float32", "bfloat16"))
    bone = one.hu > radiology.THRESHOLD_HU
    off = np.abs(other.hu.astype(int) - one.hu)[bone]
    print(f"{jax.devices()[0].device_kind}, {num} samples of {path}, bfloat16 against float32")
    parts = ", ".join(f"{q:g} % within {np.percentile(off, q):.0f}" for q in (50, 95, 99))
    print(f"HU in bone: mean difference {off.mean():.1f}; {parts}")
    for name in radiology.NAMES:
        a, b = one.measures[name], other.measures[name]
        print(f"{name:13} mean {np.nanmean(a):.4g} and {np.nanmean(b):.4g}, "
              f"per slice {np.nanmean(abs(a - b)):.3g} apart, SD over slices {np.nanstd(a):.3g}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["full", "small", "memory", "dtype"])
    parser.add_argument("--model", help="of dtype")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.what == "memory":
        memory()
    elif args.what == "dtype":
        dtypes(args.model)
    else:
        throughput(args.what, args)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main()
