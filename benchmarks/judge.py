"""What the judgement of a checkpoint is worth and costs: python benchmarks/judge.py [--model=DIR] [--real=held_out.npy]

First KID, coverage and spread of one source judged against itself, mean and standard deviation of ten sets of phantoms,
by how many slices are compared. Then the seconds of judging a pair of the demo's size, and of its parts, the least of
five. With --model, how far apart its samples are where a few latents are drawn over and over with fresh texture noise,
as a generator that has collapsed does: the spread, which the alarm is raised by, and beside it the median distance over
all pairs, in parts of the same of the reals.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import skullgan_jax
from skullgan_jax.data import phantom
from skullgan_jax.model import draw
from skullgan_jax.nets import networks, rng
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices import features, fidelity
from skullgan_jax.slices.calibration import Calibration

SETS = 10


def numbers(real, fake) -> dict[str, float]:
    """Of what `features.describe` gave for two sets of one size."""
    scaled = np.concatenate(features.scaled(real, [fake]))
    gram, num = fidelity.Gram(scaled), len(real[0])
    real, fake = np.arange(num), np.arange(num, 2 * num)
    found = gram.compare(fake, real)

    def median(x):
        apart = np.linalg.norm(x[:, None] - x[None], axis=-1)
        return np.median(apart[np.triu_indices(num, 1)])

    return {
        "KID": found["kid"],
        "coverage": found["coverage"],
        "spread": gram.spread(fake, real),
        "all pairs": median(scaled[num:]) / median(scaled[:num]),
    }


def noise() -> None:
    print(f"{'slices':>7} {'KID':>16} {'coverage':>16} {'spread':>16} {'all pairs':>16}")
    for num in (64, 128, 256):
        described = features.describe(phantom.segments((SETS + 1) * num))
        sets = [[x[i * num : (i + 1) * num] for x in described] for i in range(SETS + 1)]
        found = [list(numbers(sets[0], one).values()) for one in sets[1:]]
        shown = zip(np.mean(found, 0), np.std(found, 0, ddof=1), strict=True)
        print(f"{num:7}", " ".join(f"{mean:8.3f} +-{sd:5.3f}" for mean, sd in shown), flush=True)


def cost() -> None:
    from ml_collections import ConfigDict

    from skullgan_jax.data.open import open_data
    from skullgan_jax.train import judge

    pair = Pair(nz=64, ngf=16, ndf=16)
    params, stats, *_ = pair.init(0)
    for num in (64, 128, 256):
        data = ConfigDict({"name": "skull", "path": "phantom", "num": 512, "pixel_mm": 0.46875})
        config = ConfigDict({"seed": 0, "judge_slices": num, "data": data})
        _, judge_of = judge.grid_and_judge(config, pair, open_data(data, 0))
        generate, key = draw.generator(pair), rng.stream(0, "judge")

        def drawn(num=num, generate=generate, key=key):
            jax.block_until_ready([generate(params, stats, key, i + jnp.arange(16)) for i in range(0, num, 16)])

        hu = phantom.segments(num)
        parts = {
            "all": lambda judge_of=judge_of: judge_of(params, stats),
            "drawing": drawn,
            "features": lambda hu=hu: features.describe(hu),
        }
        print(f"{num:7} slices:", ", ".join(f"{name} {least(f):.2f} s" for name, f in parts.items()), flush=True)


def least(f) -> float:
    """Seconds, the least of five after one that compiles."""
    f()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        f()
        times.append(time.perf_counter() - began)
    return min(times)


def collapse(model, real) -> None:
    num = len(real[0])
    graph, _ = model.pair.graphs()
    calibration: Calibration = model.calibration

    @jax.jit
    def generate(indices, latents):
        z, _ = rng.latents(rng.stream(0, "judge"), indices % latents, model.pair.nz, model.pair.ngf)
        _, texture = rng.latents(rng.stream(0, "judge"), indices, model.pair.nz, model.pair.ngf)
        return networks.apply(graph, model.g_params, model.standing or model.g_stats, z, texture, train=False)[0]

    print(f"{'latents':>7} {'KID':>8} {'coverage':>8} {'spread':>8} {'all pairs':>9}   of {num} samples")
    for latents in (1, 2, 3, 4, 8, 16, 32, 64, num):
        images = [np.asarray(generate(i + jnp.arange(16), latents))[..., 0] for i in range(0, num, 16)]
        hu = np.rint(calibration.to_hu(np.concatenate(images)[:num]))
        kid, coverage, spread, pairs = numbers(real, features.describe(hu)).values()
        print(f"{latents:7} {kid:8.2f} {coverage:8.2f} {spread:8.2f} {pairs:9.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a trained model")
    parser.add_argument("--real", help=".npy of slices in HU, 128 of which are compared; phantoms without")
    flags = parser.parse_args()
    noise()
    cost()
    if flags.model:
        real = np.load(flags.real, mmap_mode="r") if flags.real else phantom.segments(128)
        collapse(skullgan_jax.load(flags.model), features.describe(real[:128]))


if __name__ == "__main__":
    main()
