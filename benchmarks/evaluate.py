"""Seconds, memory and error rates of the evaluation: python benchmarks/evaluate.py [--seeds=20] [--real=SLICES.npy]

The whole command on 2,000 against 2,000 phantom slices, with its peak memory. Then, over the seeds, how often two
samples of one source pass every test, and a sample of another source and the idealised skulls fail where they should.
With --real, halves of those slices are the two samples, and the phantom the other source.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np

from skullgan_jax.data import phantom
from skullgan_jax.evaluate import judge
from skullgan_jax.evaluate.inputs import Slices
from skullgan_jax.evaluate.measures import table
from skullgan_jax.slices.size import PIXEL_MM

NUM, HALF = 2000, 200


def whole() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(("real", "fake")):
            np.save(pathlib.Path(folder, f"{name}.npy"), phantom.segments(NUM, 0, i * NUM))
        flags = [f"--real={folder}/real.npy", f"--fake={folder}/fake.npy", f"--output={folder}/report"]
        started = time.perf_counter()
        code = (
            "import resource, sys\nfrom skullgan_jax.evaluate.__main__ import run\nrun(sys.argv[1:])\n"
            "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, file=sys.stderr)"
        )
        ran = subprocess.run([sys.executable, "-c", code, *flags], stderr=subprocess.PIPE, text=True, check=True)
        said = ran.stderr
        print(said.strip())
        peak = float(re.search(r"peak (\S+)", said)[1])
        print(f"{NUM} against {NUM}: {time.perf_counter() - started:.0f} s, peak {peak:.2f} GiB")


def told(real: np.ndarray, fake: np.ndarray, seed: int) -> tuple[dict, list[str]]:
    """Metrics, and the tests that the fakes fail."""
    sets = [Slices(name, hu, len(hu), PIXEL_MM, True) for name, hu in (("real", real), ("fake", fake))]
    metrics, _ = judge.evaluate(*sets, seed=seed)
    failed = [name for name, test in metrics["tests"].items() if not test["fake"]["passes"]]
    return metrics, failed + [n for n in ("two_sample", "classifier") if not metrics[n]["fake"]["passes"]]


def rates(seeds: int, real: np.ndarray | None) -> None:
    same = other = control = 0
    for seed in range(seeds):
        if real is None:
            a, b = np.split(phantom.segments(2 * HALF, 1000 + seed), 2)
            # Another source: every second row twice, the detail of half the resolution.
            c = np.repeat(phantom.segments(HALF, 2000 + seed)[:, ::2], 2, 1)
        else:
            order = np.random.default_rng(seed).permutation(len(real))
            a, b = (real[np.sort(x)] for x in np.array_split(order, 2))
            c = phantom.segments(HALF, 2000 + seed)
        metrics, failed = told(a, b, seed)
        simple = all(metrics["tests"][n]["control"]["passes"] for n in table.SIMPLE)
        others = not any(metrics["tests"][n]["control"]["passes"] for n in table.OTHERS)
        others &= not any(metrics[n]["control"]["passes"] for n in ("two_sample", "classifier"))
        _, apart = told(a, c, seed)
        same, control, other = same + (not failed), control + (simple and others), other + bool(apart)
        print(f"seed {seed}: same source fails {failed}; other source fails {apart}; {simple=} {others=}", flush=True)
    print(f"passes every test: {same} of {seeds}; other source told: {other}; controls as they should: {control}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--real")
    parser.add_argument("--only_rates", action="store_true", help="leave the whole command out")
    flags = parser.parse_args()
    if not flags.only_rates:
        whole()
    rates(flags.seeds, np.load(flags.real) if flags.real else None)


if __name__ == "__main__":
    main()
