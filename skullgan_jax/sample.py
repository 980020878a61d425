"""Slices from a generator: sample i is a function of (model, seed, i) alone."""

import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from skullgan_jax import models, rng
from skullgan_jax.data.calibration import Calibration
from skullgan_jax.layers import BN_MOMENTUM
from skullgan_jax.state import Pair

BATCH = 16  # by default
STANDING_LATENTS = 256


@functools.cache
def generator(pair: Pair):
    """Jitted `generate(params, stats, key, indices) -> (B, 128, 128, nc)` in [-1, 1], BatchNorm from `stats`.

    One function a pair, so that all who call it with the same batch size share one compiled program.
    """
    graph, _ = pair.graphs()

    @jax.jit
    def generate(params, stats, key, indices):
        z, noise = rng.latents(key, indices, pair.nz, pair.ngf)
        return models.apply(graph, params, stats, z, noise, train=False)[0]

    return generate


def key(seed: int):
    """The stream that samples of a seed come from."""
    return rng.stream(seed, "sample")


def standing_statistics(
    pair: Pair, params: dict, *, seed: int = 0, batch: int = BATCH, num: int = STANDING_LATENTS, progress=None
) -> dict:
    """BatchNorm statistics for sampling: batch means and unbiased variances averaged over num/batch seeded batches.

    Unlike running statistics they are of these weights alone, not of a trail of earlier ones. progress is called with
    the number of latents done.
    """
    graph, _ = pair.graphs()
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: pair.init(0)[1]))

    @jax.jit
    def one(params, start):
        z, noise = rng.latents(rng.stream(seed, "standing"), start + jnp.arange(batch), pair.nz, pair.ngf)
        moved = models.apply(graph, params, zeros, z, noise, train=True)[1]
        return jax.tree.map(lambda s: s / BN_MOMENTUM, moved)  # from zero, one move is a tenth of the batch's

    total = zeros
    for start in range(0, num, batch):
        total = jax.tree.map(jnp.add, total, one(params, start))
        if progress:
            jax.block_until_ready(total)
            progress(start + batch)
    return jax.tree.map(lambda s: s / (num // batch), total)


def slices(
    pair: Pair, params, stats, calibration: Calibration, num: int, *, seed: int, batch: int = BATCH, progress=None
):
    """Samples 0 to num-1 of a seed, in HU.

    Args:
      pair: the structure.
      params: the generator's.
      stats: its BatchNorm statistics.
      calibration: of the model.
      num: how many.
      seed: of the stream.
      batch: how many at a time.
      progress: called with the number done.

    Returns:
      (num, 128, 128) int16, the first channel.
    """
    run = functools.partial(generator(pair), params, stats, key(seed))
    out = np.empty((num, models.SIZE, models.SIZE), np.int16)
    pending = run(jnp.arange(batch))
    for start in range(0, num, batch):
        current, pending = pending, run(start + batch + jnp.arange(batch)) if start + batch < num else None
        out[start : start + batch] = np.rint(calibration.to_hu(np.asarray(current)[: num - start, ..., 0]))
        if progress:
            progress(min(start + batch, num))
    return out


def save_slices(path: str | os.PathLike, hu: np.ndarray, about: dict) -> None:
    """A .npy of (N, 128, 128) int16 HU and a .json of the same name that says what it is; each renamed into place."""
    path = pathlib.Path(path)
    for final, write in (
        (path, lambda f: np.save(f, hu)),
        (path.with_suffix(".json"), lambda f: f.write((json.dumps(about, indent=2) + "\n").encode())),
    ):
        beside = final.with_name(final.name + ".tmp")
        with open(beside, "wb") as f:
            write(f)
        os.replace(beside, final)
