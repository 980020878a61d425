"""Slices from a generator: sample i is a function of (model, seed, i, BatchNorm mode) alone.

Batch b of a seed holds the samples b B to b B + B - 1, whoever draws it, wherever and for whatever, and B is the
backend's: a program of another size sums in another order, and where that moves a pixel over the edge of the texture
noise's mask, which is all or nothing, a sample changes by tens of HU or hundreds. With one size the bits are the same
for whatever is asked for, on any number of devices.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from skullgan_jax.nets import networks, rng
from skullgan_jax.nets.layers import BN_MOMENTUM
from skullgan_jax.nets.networks import Weights
from skullgan_jax.nets.pair import Pair, compiler_options
from skullgan_jax.slices import radiology
from skullgan_jax.slices.calibration import Calibration

BATCH = 16
STANDING_LATENTS = 256
INDICES = 1 << 32  # an index is folded into a key as 32 bits


def batch_of(batch_norm: str, asked: int | None) -> int:
    """Samples that a device draws at a time: as many as are asked for if they share statistics, else the backend's.

    On a CPU 16, which no pair minds: small ones draw as many a second as with 64, in a quarter of the memory.
    """
    if batch_norm == "batch" and asked is not None:
        return asked
    return BATCH if jax.default_backend() == "cpu" else 4 * BATCH


@functools.cache
def generator(pair: Pair) -> Callable:
    """Jitted `generate(params, stats, key, indices) -> (B, 128, 128, nc)` in [-1, 1], BatchNorm from `stats`.

    For weights that change, as in training. One function a pair, so that all who call it with the same batch size share
    one compiled program.
    """
    graph, _ = pair.graphs()

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def generate(params, stats, key, indices):
        z, noise = rng.latents(key, indices, pair.nz, pair.ngf)
        return networks.apply(graph, params, stats, z, noise, train=False)[0]

    return generate


def key(seed: int) -> jax.Array:
    """The stream that samples of a seed come from."""
    return rng.stream(seed, "sample")


def standing_statistics(
    pair: Pair,
    params: Weights,
    *,
    seed: int = 0,
    batch: int = BATCH,
    num: int = STANDING_LATENTS,
    progress: Callable[[int], object] | None = None,
) -> Weights:
    """BatchNorm statistics for sampling: batch means and unbiased variances averaged over num/batch seeded batches.

    Unlike running statistics they are of these weights alone, not of a trail of earlier ones. progress is called with
    the number of latents done.
    """
    one, stream, total = _batch_statistics(pair, batch), rng.stream(seed, "standing"), _no_statistics(pair)
    for start in range(0, num, batch):
        # Waited for: where 32 programs wait on a CPU, asking for one more holds a thread, and a step before them that
        # is under way on several devices has one a device and no more. It would wait for its last device for ever.
        total = jax.block_until_ready(jax.tree.map(jnp.add, total, one(params, stream, start)))
        if progress:
            progress(start + batch)
    return jax.tree.map(lambda s: s / (num // batch), total)


@functools.cache
def _batch_statistics(pair: Pair, batch: int) -> Callable:
    """Jitted (params, stream, start) -> the statistics of one batch of latents."""
    graph, _ = pair.graphs()

    @functools.partial(jax.jit, compiler_options=compiler_options())
    def one(params, stream, start):
        z, noise = rng.latents(stream, start + jnp.arange(batch), pair.nz, pair.ngf)
        moved = networks.apply(graph, params, _no_statistics(pair), z, noise, train=True)[1]
        return jax.tree.map(lambda s: s / BN_MOMENTUM, moved)  # from zero, one move is a tenth of the batch's

    return one


def _no_statistics(pair: Pair) -> Weights:
    return jax.tree.map(jnp.zeros_like, pair.shapes()[1])


@dataclasses.dataclass(frozen=True)
class Samples:
    """Some samples of a seed.

    Attributes:
      index: (n,) int64.
      hu: (n, 128, 128) int16.
      measures: name -> (n,) float32, see radiology.NAMES.
    """

    index: np.ndarray
    hu: np.ndarray
    measures: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice | np.ndarray) -> "Samples":
        """Some of them, by a slice or an array of positions."""
        return Samples(self.index[rows], self.hu[rows], {k: v[rows] for k, v in self.measures.items()})

    @classmethod
    def concatenate(cls, parts: Sequence["Samples"]) -> "Samples":
        measures = {k: np.concatenate([p.measures[k] for p in parts]) for k in parts[0].measures}
        return cls(np.concatenate([p.index for p in parts]), np.concatenate([p.hu for p in parts]), measures)


class Sampler:
    """Draws the samples of one seed on all devices of this process.

    Args:
      pair: the structure; its dtype is what convolutions compute in.
      params: the generator's, float32.
      stats: the BatchNorm statistics to sample with, which are folded into the weights; None takes those of each batch,
        as published: a sample then depends on the `batch` samples that it is drawn among.
      calibration: HU of -1 and +1.
      pixel_mm: edge of a pixel, for the measures.
      seed: of the stream.
      batch: samples per device at a time; see batch_of.
    """

    def __init__(
        self,
        pair: Pair,
        params: Weights,
        stats: Weights | None,
        calibration: Calibration,
        pixel_mm: float,
        *,
        seed: int,
        batch: int,
    ) -> None:
        devices = jax.local_devices()
        mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
        everywhere, self._by_device = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        if stats is not None:
            params = _fold(pair.dtype, everywhere)(params, stats)
        self.batch, self._devices = batch, len(devices)
        rng.check(seed)
        self._params, self._key = jax.device_put(params, everywhere), _key(everywhere)(np.uint32(seed))
        self._program = _compiled(pair, stats is not None, calibration, pixel_mm, batch, mesh)

    def batches(self, numbers: Iterable[int]) -> Iterator[Samples]:
        """Whole batches by their numbers, in the order given; two calls of the devices are queued ahead."""
        numbers = iter(numbers)
        queue: collections.deque[tuple[list[int], tuple]] = collections.deque()
        while True:
            while len(queue) < 2 and (some := list(itertools.islice(numbers, self._devices))):
                padded = some + [some[-1]] * (self._devices - len(some))
                starts = jax.device_put(np.array(padded, np.uint32) * np.uint32(self.batch), self._by_device)
                queue.append((some, self._program(self._params, self._key, starts)))
            if not queue:
                return
            some, (hu, measures) = queue.popleft()
            index = (np.array(some)[:, None] * self.batch + np.arange(self.batch)).ravel()
            measured = {k: np.asarray(v)[: len(index)] for k, v in measures.items()}
            drawn = Samples(index, np.asarray(hu)[: len(index)], measured)
            for i in range(len(some)):
                yield drawn[i * self.batch : (i + 1) * self.batch]

    def ranges(
        self, ranges: Iterable[tuple[int, int]], progress: Callable[[int], object] | None = None
    ) -> Iterator[Samples]:
        """The samples of each range of indices [first, last), one after the other.

        Args:
          ranges: read as far ahead as batches are queued.
          progress: called with the number of samples so far.
        """
        ranges, ahead = itertools.tee(ranges)
        batches = self.batches(_without_repeats(self._numbers(ahead)))
        first_held, done = -1, 0
        for first, last in ranges:
            parts = []
            for number in range(first // self.batch, -(-last // self.batch)):
                if first_held != number * self.batch:
                    held, first_held = next(batches), number * self.batch
                parts.append(held[max(first - first_held, 0) : last - first_held])
                done += len(parts[-1])
                if progress:
                    progress(done)
            yield Samples.concatenate(parts)

    def _numbers(self, ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
        for first, last in ranges:
            yield from range(first // self.batch, -(-last // self.batch))


def _without_repeats(numbers: Iterable[int]) -> Iterator[int]:
    """Neighbouring ranges may share a batch, which is drawn once."""
    return (number for number, _ in itertools.groupby(numbers))


@functools.cache
def _fold(dtype: str, sharding: NamedSharding) -> Callable:
    """Jitted (params, stats) -> the weights that are sampled with."""
    return jax.jit(
        lambda params, stats: jax.tree.map(lambda x: x.astype(dtype), networks.fold(params, stats)),
        out_shardings=sharding,
    )


@functools.cache
def _key(sharding: NamedSharding) -> Callable:
    """Jitted `key`, as one program instead of three."""
    return jax.jit(key, out_shardings=sharding)


@functools.cache
def _compiled(
    pair: Pair, folded: bool, calibration: Calibration, pixel_mm: float, batch: int, mesh: jax.sharding.Mesh
) -> jax.stages.Compiled:
    """`_program`, compiled, for `Sampler.batches`."""
    everywhere, by_device = (NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("data")))
    params, stats, *_ = pair.shapes()
    if folded:
        params = jax.eval_shape(_fold(pair.dtype, everywhere), params, stats)
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), params)
    stream = jax.eval_shape(_key(everywhere), np.uint32(0))
    starts = jax.ShapeDtypeStruct((mesh.size,), np.uint32, sharding=by_device)
    run = _program(pair, folded, calibration, pixel_mm, batch, mesh)
    return run.lower(params, stream, starts).compile(compiler_options())


@functools.cache
def _program(
    pair: Pair, folded: bool, calibration: Calibration, pixel_mm: float, batch: int, mesh: jax.sharding.Mesh
) -> Callable:
    """Jitted (params, key, starts) -> (hu, measures): a batch on each device from its start."""
    graph = networks.structure(functools.partial(pair.generator, folded=folded))
    stats = {} if folded else pair.shapes()[1]

    def draw(params, key, starts):
        indices = starts[0] + jnp.arange(batch, dtype=jnp.uint32)
        z, noise = rng.latents(key, indices, pair.nz, pair.ngf)
        unused = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), stats)
        images = networks.apply(graph, params, unused, z, noise, train=not folded)[0][..., 0]
        limits = jnp.iinfo(jnp.int16)
        hu = jnp.clip(jnp.rint(calibration.to_hu(images)), limits.min, limits.max).astype(jnp.int16)
        return hu, radiology.measure(hu, pixel_mm)

    everywhere, by_device = PartitionSpec(), PartitionSpec("data")
    return jax.jit(
        jax.shard_map(
            draw,
            mesh=mesh,
            in_specs=(everywhere, everywhere, by_device),
            out_specs=by_device,
            check_vma=False,  # nothing is the same on two devices but the weights
        )
    )
