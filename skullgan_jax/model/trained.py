"""A trained pair in memory: it draws slices, and is written to a directory."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import jax
import numpy as np
from flax import traverse_util

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError
from skullgan_jax.machine import lock, programs
from skullgan_jax.model import directory, draw, select
from skullgan_jax.nets import networks
from skullgan_jax.nets.networks import Weights
from skullgan_jax.nets.pair import Pair, resolve_dtype
from skullgan_jax.slices import duplicates
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.slices.size import SIZE
from skullgan_jax.version import __version__

if TYPE_CHECKING:
    import tensorflow as tf

BATCH_NORM = ("standing", "running", "batch")


class Options(TypedDict, total=False):
    """How slices are drawn, see Model.sampler."""

    batch_norm: str
    batch: int | None
    dtype: str


@dataclasses.dataclass(repr=False, eq=False)
class Model:
    """A trained pair.

    params and stats of each network are nested dicts of float32 arrays, those of the discriminator None if there is
    none. `standing` are the generator's BatchNorm statistics to sample with (see model/draw.py), None until they are
    computed; `folder` is the model directory or workdir where they are kept, if there is one. `batches_tracked` is how
    many batches each BatchNorm has seen, by network, for PyTorch.

    Two models are equal if they draw and judge alike: equal weights and statistics of both networks, calibration and
    pixel size. Where they come from (provenance, folder, batches_tracked) and what follows from the weights or was
    chosen to run them (standing, the pair's dtype) is not compared. Models can be changed, so they have no hash.
    """

    pair: Pair
    g_params: Weights
    g_stats: Weights
    d_params: Weights | None
    d_stats: Weights | None
    calibration: Calibration
    pixel_mm: float
    provenance: dict[str, Any]
    batches_tracked: dict[str, list[int]]
    standing: Weights | None = None
    folder: pathlib.Path | None = None
    _sampler: tuple[tuple, draw.Sampler] | None = dataclasses.field(default=None, init=False)  # the last, and of what

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Model):
            return NotImplemented
        mine, others = (
            (m.calibration, m.pixel_mm, jax.tree.structure(m._weights()), jax.tree.leaves(m._weights()))
            for m in (self, other)
        )
        return mine[:3] == others[:3] and all(map(np.array_equal, mine[3], others[3]))

    def _weights(self) -> tuple[Weights | None, ...]:
        return self.g_params, self.g_stats, self.d_params, self.d_stats

    def __repr__(self) -> str:
        sizes = " ".join(f"{k}={getattr(self.pair, k)}" for k in ("nc", "nz", "ngf"))
        counts = f"generator of {networks.parameter_count(self.g_params):,} parameters, {sizes}; "
        if self.d_params is None:
            counts += "no discriminator"
        else:
            counts += f"discriminator of {networks.parameter_count(self.d_params):,}, ndf={self.pair.ndf}"
        there = "computed with the first samples" if self.standing is None else "there"
        return "\n".join(
            [
                f"SkullGAN: {counts}",
                f"  calibration  -1 to +1 is {self.calibration} HU; {self.pixel_mm:g} mm per pixel",
                f"  from         {_origin(self.provenance)}",
                f"  standing     statistics to sample with are {there}",
                f"  sha256       {self.sha256[:16]}",
            ]
        )

    @programs.kept()
    def compute_standing(self, *, verbose: bool = False) -> None:
        """Compute the standing statistics, and keep them in the model's folder.

        At full size that is a minute on a CPU. Where they cannot be kept they hold for this object alone.

        Args:
          verbose: tell on stderr how far it is, and why they could not be kept.
        """
        num = draw.STANDING_LATENTS
        progress = Progress("standing statistics: latent", num, "latents") if verbose else None
        params = jax.device_put(self.g_params)
        pair = dataclasses.replace(self.pair, dtype="float32")  # the same for whatever the weights were trained with
        self.standing = jax.device_get(draw.standing_statistics(pair, params, num=num, progress=progress))
        if self.folder is not None:
            try:
                directory.write_standing(self.folder, self.standing, self._standing_of())
            except OSError as e:
                if verbose:
                    say(f"{self.folder}: {directory.STANDING} cannot be written ({e.strerror or e}); not kept")

    def _standing_of(self) -> dict[str, str]:
        """What standing statistics are computed of."""
        return {"model_sha256": self.sha256, "latents": str(draw.STANDING_LATENTS), "seed": "0"}

    @programs.kept()
    def sampler(
        self,
        *,
        seed: int = 0,
        batch_norm: str = "standing",
        batch: int | None = None,
        dtype: str = "auto",
        at_a_time: int | None = None,
    ) -> draw.Sampler:
        """What draws the samples of a seed, on all devices of this process. Computes standing statistics if need be.

        Args:
          seed: of the stream.
          batch_norm: the statistics: "standing", those of these weights; "running", training's; "batch", those of each
            `batch` samples, as published.
          batch: samples whose statistics are taken together, by default 16 on a CPU and 64 elsewhere; nothing else
            depends on it.
          dtype: what convolutions compute in; auto is float32 on a CPU and bfloat16 elsewhere.
          at_a_time: samples that a device draws at a time, which decides how they are rounded; by default those of
            draw.batch_of, so that the same sample is the same bits. To go on with samples that were drawn otherwise.

        Raises:
          InputError: there is no such BatchNorm mode, or the generator makes no slices.
        """
        if self.pair.nc != 1:
            raise InputError(f"nc={self.pair.nc}: this generator makes {self.pair.nc} channels, a slice in HU has one")
        if batch_norm not in BATCH_NORM:
            raise InputError(f"batch_norm={batch_norm!r}: give one of {', '.join(BATCH_NORM)}")
        if batch_norm == "standing" and self.standing is None:
            self.compute_standing()
        at_a_time = at_a_time or draw.batch_of(batch_norm, batch)
        wanted = (seed, batch_norm, at_a_time, dtype)
        if self._sampler is None or self._sampler[0] != wanted:
            stats = {"standing": self.standing, "running": self.g_stats, "batch": None}[batch_norm]
            pair = dataclasses.replace(self.pair, dtype=resolve_dtype(dtype))
            sampler = draw.Sampler(
                pair,
                self.g_params,
                stats,
                self.calibration,
                self.pixel_mm,
                seed=seed,
                batch=at_a_time,
            )
            self._sampler = wanted, sampler
        return self._sampler[1]

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        start: int = 0,
        progress: Callable[[int], object] | None = None,
        **options: Unpack[Options],
    ) -> np.ndarray:
        """Samples start to start + num - 1 of a seed, (num, 128, 128) int16 HU.

        Sample i depends on the model, the seed, i and the BatchNorm mode alone. `options` are those of `sampler`;
        progress is called with the number done.

        Raises:
          InputError: num is less than 1.
        """
        return self.samples(num, seed=seed, start=start, progress=progress, **options).hu

    @programs.kept()
    def samples(
        self,
        num: int,
        *,
        seed: int = 0,
        start: int = 0,
        where: str | None = None,
        unique: int | None = None,
        max_draws: int | None = None,
        progress: Callable[[int], object] | None = None,
        **options: Unpack[Options],
    ) -> draw.Samples:
        """The same with index and measures; with `where` or `unique` the first that are wanted, as the command has it.

        Args:
          num: how many.
          seed: of the stream.
          start: index of the first that is drawn.
          where: a condition on measures, e.g. "sdr < 0.4 and thickness_mm > 6", see radiology.NAMES; None takes all.
          unique: least number of pixels, of the first 50 rows at 1200 HU, in which any two differ, True for the
            published 200; None takes all. Of the two conditions `where` comes first.
          max_draws: give up after so many; None is 100 num, at least 10,000.
          progress: called with the number there is so far.
          options: those of `sampler`.

        Raises:
          InputError: a number is out of its range, the condition is not understood, or too few samples are wanted.
        """
        unique = duplicates.PUBLISHED if unique is True else unique
        asked = (("num", num, 1), ("start", start, 0), ("unique", unique, 1), ("max_draws", max_draws, 1))
        for name, value, least in asked:
            if value is not None and value < least:
                raise InputError(f"{name}={value}: give {least} or more")
        if start + max(num, max_draws or 0) > draw.INDICES:
            raise InputError(f"start={start} num={num}: indices end at 2^32 - 1; give less, or another seed")
        condition = None if where is None else select.Where(where)
        sampler = self.sampler(seed=seed, **options)
        if condition is None and unique is None:
            return next(sampler.ranges([(start, start + num)], progress))
        return select.drawn(
            sampler, num, start=start, where=condition, unique=unique, max_draws=max_draws, progress=progress
        )

    def stream(
        self, batch_size: int, *, seed: int = 0, start: int = 0, num: int | None = None, **options: Unpack[Options]
    ) -> Iterator[np.ndarray]:
        """The samples from `start` on in batches, (batch_size, 128, 128) int16 HU: `num` of them, or without an end.

        The devices draw ahead by two calls. `options` are those of `sampler`. For tf.data: `dataset`; for PyTorch a
        recipe is in docs/sampling.md.
        """
        last = start + num if num is not None else draw.INDICES
        ranges = ((i, min(i + batch_size, last)) for i in range(start, last, batch_size))
        return (drawn.hu for drawn in self.sampler(seed=seed, **options).ranges(ranges))

    def dataset(self, batch_size: int, **options: Any) -> "tf.data.Dataset":
        """The same as a tf.data.Dataset of (B, 128, 128) int16 HU; each iteration begins at `start`."""
        from skullgan_jax.machine.tensorflow import import_tensorflow

        tf = import_tensorflow()
        batch = tf.TensorSpec((None, SIZE, SIZE), tf.int16)
        return tf.data.Dataset.from_generator(lambda: self.stream(batch_size, **options), output_signature=batch)

    @functools.cached_property
    def sha256(self) -> str:
        """The hash of the generator: names, shapes and float32 values of weights and statistics, and the calibration.

        The same for a model directory, the .pth that it was converted from and the workdir that it was exported from.
        """
        # As Python writes numbers, the shortest decimal of a float: stores and statistics keep what was said once.
        nz, ngf, nc = (int(size) for size in (self.pair.nz, self.pair.ngf, self.pair.nc))
        scale = ", ".join(f"{name}={hu + 0.0!r}" for name, hu in self.calibration.to_dict().items())  # -0.0 is 0.0
        begin = f"({nz}, {ngf}, {nc}, Calibration({scale}))"
        flat = traverse_util.flatten_dict({"params": self.g_params, "stats": self.g_stats}, sep=".")
        return directory.sha256(flat, begin)

    def save(self, folder: str | os.PathLike) -> None:
        """Write the model directory, as a whole.

        Args:
          folder: where to; a model that is there goes, what else lies in its folder stays.

        Raises:
          InputError: there is something else than a model, or another process writes there.
          OSError: it cannot be written.
        """
        networks = {"generator": (self.g_params, self.g_stats)}
        if self.d_params is not None and self.d_stats is not None:
            networks["discriminator"] = (self.d_params, self.d_stats)
        sizes = {k: v for k, v in dataclasses.asdict(self.pair).items() if k != "dtype"}
        about = {
            **(sizes if self.d_params is not None else sizes | dict.fromkeys(("ndf", "d_norm", "d_batch_std"))),
            "calibration": self.calibration.to_dict(),
            "pixel_mm": self.pixel_mm,
            "batches_tracked": self.batches_tracked,
            "provenance": self.provenance,
            "sha256": self.sha256,
            "version": __version__,
            "use": "research use only",
        }
        standing = None if self.standing is None else (self.standing, self._standing_of())
        with lock.only_writer(folder, "folder"):
            directory.write(folder, networks, about, standing)


def _origin(provenance: Any) -> str:
    """Where a model is from, in a few words; of model.json anything may be made."""
    match provenance:
        case {"workdir": workdir, "step": step, "data": {"name": data, "num": num}}:
            return f"{workdir}, step {step}, of {num} {data} slices"
        case {"workdir": workdir, "step": step}:
            return f"{workdir}, step {step}"
        case {"sources": [{"name": name, "sha256": sha256}, *more]}:
            return f"{name} (sha256 {str(sha256)[:16]}){' and a discriminator' if more else ''}"
    return "unknown"
