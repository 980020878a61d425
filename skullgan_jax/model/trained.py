"""A trained pair in memory: it draws slices, and is written to a directory."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import sys
from collections.abc import Iterator

import jax
import numpy as np
from flax import traverse_util

from skullgan_jax.command.progress import Progress
from skullgan_jax.errors import InputError
from skullgan_jax.model import directory, draw
from skullgan_jax.nets.pair import Pair, resolve_dtype
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.slices.size import SIZE
from skullgan_jax.version import __version__

BATCH_NORM = ("standing", "running", "batch")


@dataclasses.dataclass
class Model:
    """A trained pair.

    params and stats of each network are nested dicts of float32 arrays, those of the discriminator None if there is
    none. `standing` are the generator's BatchNorm statistics to sample with (see model/draw.py), None until they are
    computed; `folder` is the model directory that they belong to, if there is one. `batches_tracked` is how many
    batches each BatchNorm has seen, by network, for PyTorch.
    """

    pair: Pair
    g_params: dict
    g_stats: dict
    d_params: dict | None
    d_stats: dict | None
    calibration: Calibration
    pixel_mm: float
    provenance: dict
    batches_tracked: dict
    standing: dict | None = None
    folder: pathlib.Path | None = None
    _sampler: tuple | None = dataclasses.field(default=None, init=False, repr=False, compare=False)  # the last

    def compute_standing(self) -> None:
        """Compute the standing statistics, with progress on stderr, and store them in the model's folder.

        At full size that is a minute on a CPU. Where they cannot be stored they hold for this object alone.
        """
        num = draw.STANDING_LATENTS
        progress = Progress("standing statistics: latent", num, "latents")
        params = jax.device_put(self.g_params)
        pair = dataclasses.replace(self.pair, dtype="float32")  # the same for whatever the weights were trained with
        self.standing = jax.device_get(draw.standing_statistics(pair, params, num=num, progress=progress))
        if self.folder is not None:
            try:
                directory.write_standing(self.folder, self.standing, _standing_of())
            except OSError as e:
                print(
                    f"{self.folder}: {directory.STANDING} cannot be written ({e.strerror or e}); not kept",
                    file=sys.stderr,
                )

    def sampler(
        self, *, seed: int = 0, batch_norm: str = "standing", batch: int | None = None, dtype: str = "auto"
    ) -> draw.Sampler:
        """What draws the samples of a seed, on all devices of this process. Computes standing statistics if need be.

        Args:
          seed: of the stream.
          batch_norm: the statistics: "standing", those of these weights; "running", training's; "batch", those of each
            `batch` samples, as published.
          batch: samples per device at a time, by default 16 on a CPU and 64 elsewhere.
          dtype: what convolutions compute in; auto is float32 on a CPU and bfloat16 elsewhere.

        Raises:
          InputError: there is no such BatchNorm mode.
        """
        if batch_norm not in BATCH_NORM:
            raise InputError(f"batch_norm={batch_norm!r}: give one of {', '.join(BATCH_NORM)}")
        if batch_norm == "standing" and self.standing is None:
            self.compute_standing()
        wanted = (seed, batch_norm, batch, dtype)
        if self._sampler is None or self._sampler[0] != wanted:
            stats = {"standing": self.standing, "running": self.g_stats, "batch": None}[batch_norm]
            pair = dataclasses.replace(self.pair, dtype=resolve_dtype(dtype))
            batch = batch or draw.default_batch()
            options = {"seed": seed, "batch": batch}
            sampler = draw.Sampler(pair, self.g_params, stats, self.calibration, self.pixel_mm, **options)
            self._sampler = wanted, sampler
        return self._sampler[1]

    def sample(self, num: int, *, seed: int = 0, start: int = 0, progress=None, **options) -> np.ndarray:
        """Samples start to start + num - 1 of a seed, (num, 128, 128) int16 HU.

        Sample i depends on the model, the seed, i and the BatchNorm mode alone. `options` are those of `sampler`;
        progress is called with the number done.

        Raises:
          InputError: num is less than 1.
        """
        if num < 1:
            raise InputError(f"num={num}: give 1 or more")
        drawn = self.sampler(seed=seed, **options).ranges([(start, start + num)], progress)
        return next(drawn).hu

    def stream(
        self, batch_size: int, *, seed: int = 0, start: int = 0, num: int | None = None, **options
    ) -> Iterator[np.ndarray]:
        """The samples from `start` on in batches, (batch_size, 128, 128) int16 HU: `num` of them, or without an end.

        The devices draw ahead by two calls. `options` are those of `sampler`. For tf.data: `dataset`.
        """
        last = start + num if num is not None else draw.INDICES
        ranges = ((i, min(i + batch_size, last)) for i in range(start, last, batch_size))
        return (drawn.hu for drawn in self.sampler(seed=seed, **options).ranges(ranges))

    def dataset(self, batch_size: int, **options):
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
        digest = hashlib.sha256(repr((self.pair.nz, self.pair.ngf, self.pair.nc, self.calibration)).encode())
        flat = traverse_util.flatten_dict({"params": self.g_params, "stats": self.g_stats}, sep=".")
        for name in sorted(flat):
            digest.update(f"{name} {flat[name].shape}".encode())
            digest.update(np.ascontiguousarray(flat[name], "<f4"))
        return digest.hexdigest()

    def save(self, folder: str | os.PathLike) -> None:
        """Write the model directory, as a whole. Raises OSError."""
        networks = {"generator": (self.g_params, self.g_stats)}
        if self.d_params is not None:
            networks["discriminator"] = (self.d_params, self.d_stats)
        sizes = {k: v for k, v in dataclasses.asdict(self.pair).items() if k != "dtype"}
        about = {
            **(sizes if self.d_params is not None else {**sizes, "ndf": None}),
            "calibration": self.calibration.to_dict(),
            "pixel_mm": self.pixel_mm,
            "batches_tracked": self.batches_tracked,
            "provenance": self.provenance,
            "version": __version__,
            "use": "research use only",
        }
        standing = None if self.standing is None else (self.standing, _standing_of())
        directory.write(folder, networks, about, standing)


def _standing_of() -> dict[str, str]:
    """What standing statistics are computed of."""
    return {"latents": str(draw.STANDING_LATENTS), "seed": "0"}
