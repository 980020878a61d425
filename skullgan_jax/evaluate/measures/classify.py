"""Real or fake, by the discriminator of the model and by a network that does not share the generator's history."""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from skullgan_jax.evaluate.measures import compare, intervals
from skullgan_jax.evaluate.measures.embedding import folds
from skullgan_jax.nets import networks, rng
from skullgan_jax.nets.layers import BatchNorm
from skullgan_jax.slices import fade
from skullgan_jax.slices.chunks import in_chunks

FOLDS = 2
STEPS, BATCH, LEARNING_RATE = 150, 32, 1e-3
MOST = 1000  # slices of each set
_WIDTHS = (2, 8, 16, 32, 64)
_BATCH = 16  # of the discriminator, as published
_SAYS_NOTHING = 0.05  # a share of the reals so small, or so near to all, is no judgement
_CHUNK = 100  # slices of which outputs are computed at a time
_HU, _DETAIL_HU = 1000.0, 100.0  # what is 1 to the network


def _conv(x, kernel):
    """4x4, stride 2, padding 1. At these widths XLA's own convolution trains faster than the pair's products."""
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _mean3(x, axis: int):
    """Mean over three neighbours along an axis, zeros beyond the sides."""
    n = x.shape[axis]
    padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])
    return sum(jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(3)) / 3


class Network(nnx.Module):
    """Four 4x4 convolutions of stride 2, each with BatchNorm and LeakyReLU 0.2, the mean over the image, one output."""

    def __init__(self, rngs: nnx.Rngs):
        def he(*shape):
            return nnx.Param(math.sqrt(2 / math.prod(shape[:-1])) * jax.random.normal(rngs.params(), shape))

        self.kernels = nnx.List([he(4, 4, c, w) for c, w in itertools.pairwise(_WIDTHS)])
        self.norms = nnx.List([BatchNorm(w, rngs=rngs) for w in _WIDTHS[1:]])
        self.last = he(_WIDTHS[-1], 1)
        self.bias = nnx.Param(jnp.zeros(1))

    def __call__(self, hu, train: bool):
        """Slices hu (B, 128, 128) -> logits (B,)."""
        x = jnp.stack([hu / _HU, (hu - _mean3(_mean3(hu, 1), 2)) / _DETAIL_HU], -1)  # B 128 128 2
        for kernel, norm in zip(self.kernels, self.norms, strict=True):
            x = nnx.leaky_relu(norm(_conv(x, kernel[...]), train), 0.2)  # B 64 64 8 ... B 8 8 64
        return (x.mean((1, 2)) @ self.last[...] + self.bias[...])[:, 0]


@functools.cache
def _compiled():
    """The training of a network, and its outputs."""
    graph = networks.structure(Network)
    optimizer = optax.adam(LEARNING_RATE)

    def logits(params, stats, hu, train):
        return networks.apply(graph, params, stats, hu, train=train)

    def loss(params, stats, hu, labels):
        out, stats = logits(params, stats, hu, True)
        return optax.sigmoid_binary_cross_entropy(out, labels).mean(), stats

    @jax.jit
    def init(key):
        _, params, stats = networks.split(Network(nnx.Rngs(key)))
        return params, stats, optimizer.init(params)

    @jax.jit
    def step(params, stats, adam, hu, labels):
        grads, stats = jax.grad(loss, has_aux=True)(params, stats, hu, labels)
        updates, adam = optimizer.update(grads, adam)
        return optax.apply_updates(params, updates), stats, adam

    def train(sets, seed: int):
        """A loop of Python: inside of a compiled one XLA's CPU convolutions are many times slower."""
        draw = compare.generator(seed, "classifier")
        params, stats, adam = init(rng.stream(seed, "classifier"))
        labels = np.repeat(np.float32([1, 0]), BATCH // 2)
        for _ in range(STEPS):
            hu = np.concatenate([x[draw.integers(len(x), size=BATCH // 2)] for x in sets])
            mirrored = draw.random(BATCH) < 0.5
            hu[mirrored] = hu[mirrored, :, ::-1]  # as good a skull
            params, stats, adam = step(params, stats, adam, hu, labels)
        return params, stats

    return train, jax.jit(lambda params, stats, hu: logits(params, stats, hu, False)[0])


def trained(real: np.ndarray, fake: np.ndarray, subjects: np.ndarray | None, seed: int) -> dict:
    """A small network trained anew to tell the two sets apart, cross-validated.

    `Network` on a slice and its fine detail (the slice less its mean over 3 x 3 pixels, ten times as bright, or else it
    would look at outlines first); 150 steps of Adam at 1e-3 on batches of 32, mirror images included, on at most 1000
    slices of each set, in two folds (whole subjects where they are known).

    Args:
      real: (N, 128, 128) HU.
      fake: (M, 128, 128) HU.
      subjects: (N,) or None.
      seed: of weights and batches.

    Returns:
      What `intervals.accuracy` gives.
    """
    n = min(len(real), len(fake), MOST)
    picked = [np.linspace(0, len(x) - 1, n).astype(int) for x in (real, fake)]
    subjects = None if subjects is None else subjects[picked[0]]
    sets = [np.asarray(x[i], np.float32) for x, i in zip((real, fake), picked, strict=True)]
    fold = [folds(n, subjects, FOLDS), folds(n, None, FOLDS)]
    hits = [np.zeros(n, bool), np.zeros(n, bool)]
    train, outputs = _compiled()
    for i in range(FOLDS):
        state = train([x[f != i] for x, f in zip(sets, fold, strict=True)], FOLDS * seed + i)
        for k, (x, f) in enumerate(zip(sets, fold, strict=True)):
            hits[k][f == i] = (in_chunks(functools.partial(outputs, *state), x[f == i], _CHUNK) > 0) == (k == 0)
    return intervals.accuracy(*hits, subjects)


def discriminator(model, sets: dict[str, np.ndarray], subjects: np.ndarray | None, seed: int) -> dict:
    """The share of each set that the model's own discriminator calls real.

    Slices are mapped to [-1, 1] by the model's calibration and shown in shuffled batches of 16 of one set, BatchNorm by
    the batch and what it is told of the batch, as in training; the running statistics are of neither reals nor fakes.
    Real is a logit above 0, and of a discriminator without BatchNorm, which learned from the differences of pairs
    alone, one above the median of all reals and fakes. Where samples have a floor, it is shown them and the reals
    fading into air, as it saw the reals. Trained until it could not tell, it should call about as many fakes as
    held-out reals real.

    Args:
      model: with a discriminator.
      sets: {"real", "fake", ...: (N, 128, 128) HU}.
      subjects: of the reals, or None.
      seed: of the shuffling.

    Returns:
      {set: share with its 95 % interval}, "difference" of real and fake, and "passes": whether the 99.5 % interval
      of the difference includes 0; None where it calls (nearly) all reals the same and so says nothing.
    """
    _, graph = model.pair.graphs()
    fades = model.pair.d_norm == "none" and model.calibration.floor is not None

    @jax.jit
    def logits(params, stats, x):
        x = fade.faded(x, model.calibration.floor) if fades else x
        return networks.apply(graph, params, stats, x, train=True)[0]

    def judged(name: str, hu: np.ndarray) -> np.ndarray:
        order = compare.generator(seed, f"discriminator {name}").permutation(len(hu))
        found = np.zeros(len(hu), np.float32)
        for start in range(0, len(hu), _BATCH):
            some = np.take(order, range(start, start + _BATCH), mode="wrap")
            x = model.calibration.to_unit(np.asarray(hu[some], np.float32))[..., None]
            found[some] = np.asarray(logits(model.d_params, model.d_stats, np.repeat(x, model.pair.nc, -1)))
        return found

    outputs = {name: judged(name, hu) for name, hu in sets.items()}
    level = 0 if model.pair.d_norm == "batch" else np.median(np.concatenate([outputs["real"], outputs["fake"]]))
    called = {name: found > level for name, found in outputs.items()}
    of = {"real": subjects}
    wide = {name: intervals.share(hits, of.get(name)) for name, hits in called.items()}
    strict = {n: intervals.share(called[n], of.get(n), intervals.DECIDES) for n in ("real", "fake")}
    apart = intervals.difference(strict["real"], strict["fake"])
    says_nothing = min(wide["real"].value, 1 - wide["real"].value) < _SAYS_NOTHING and apart.low <= 0 <= apart.high
    return {
        **{name: dataclasses.asdict(s) for name, s in wide.items()},
        "difference": dataclasses.asdict(intervals.difference(wide["real"], wide["fake"])),
        "passes": None if says_nothing else apart.low <= 0 <= apart.high,
    }
