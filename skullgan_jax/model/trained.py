"""A model on disk: a directory with the weights of the pair, their BatchNorm statistics and model.json.

Weights are safetensors: one file a network, no pickle, read without a framework. The statistics that samples are drawn
with lie in a file of their own, since they may come later.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

import skullgan_jax
from skullgan_jax.command.progress import Progress
from skullgan_jax.errors import InputError
from skullgan_jax.model import checkpoint, draw
from skullgan_jax.nets import networks
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.train.state import Pair, resolve_dtype

FORMAT = 1
BATCH_NORM = ("standing", "running", "batch")
_STANDING = "standing.safetensors"


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
                self._save_standing(self.folder)
            except OSError as e:
                print(f"{self.folder}: {_STANDING} cannot be written ({e.strerror or e}); not kept", file=sys.stderr)

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
        from skullgan_jax.data.batches import import_tensorflow

        tf = import_tensorflow()
        batch = tf.TensorSpec((None, networks.SIZE, networks.SIZE), tf.int16)
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
        """Write the directory beside, then rename it into place."""
        folder = pathlib.Path(folder)
        beside = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        networks = {"generator": (self.g_params, self.g_stats)}
        if self.d_params is not None:
            networks["discriminator"] = (self.d_params, self.d_stats)
        for name, (params, stats) in networks.items():
            _write(beside / f"{name}.safetensors", {"params": params, "stats": stats})
        sizes = {k: v for k, v in dataclasses.asdict(self.pair).items() if k != "dtype"}
        description = {
            "format": FORMAT,
            **(sizes if self.d_params is not None else {**sizes, "ndf": None}),
            "calibration": self.calibration.to_dict(),
            "pixel_mm": self.pixel_mm,
            "batches_tracked": self.batches_tracked,
            "provenance": self.provenance,
            "files": {f"{name}.safetensors": sha256(beside / f"{name}.safetensors") for name in networks},
            "version": skullgan_jax.__version__,
            "use": "research use only",
        }
        checkpoint.write_json(beside / "model.json", description)
        if self.standing is not None:
            self._save_standing(beside)
        if folder.exists():
            old = folder.with_name(folder.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            beside.rename(folder)
            shutil.rmtree(old)
        else:
            beside.rename(folder)

    def _save_standing(self, folder: pathlib.Path) -> None:
        """With what they were computed of, so that they are not taken for those of other weights."""
        about = {
            "generator": json.loads((folder / "model.json").read_text())["files"]["generator.safetensors"],
            "latents": str(draw.STANDING_LATENTS),
            "seed": "0",
        }
        beside = folder / f"{_STANDING}.tmp"
        _write(beside, self.standing, about)
        os.replace(beside, folder / _STANDING)


def _write(path: pathlib.Path, tree: dict, about: dict | None = None) -> None:
    write_safetensors(path, traverse_util.flatten_dict(jax.device_get(tree), sep="."), about)


def write_safetensors(path: pathlib.Path, arrays: dict[str, np.ndarray], about: dict[str, str] | None = None) -> None:
    """Write a safetensors file; OSError where it cannot be written, of which the library makes its own error."""
    try:
        safetensors.numpy.save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, path, about)
    except safetensors.SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from None


def sha256(path: str | os.PathLike) -> str:
    """The hash of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: str | os.PathLike) -> Model:
    """Read a model directory, a training workdir (its best checkpoint, else its last) or a generator's .pth.

    Raises:
      InputError: there is no model, or its files do not fit together.
    """
    folder = pathlib.Path(path)
    if checkpoint.exists(folder):
        return _from_workdir(folder)
    if folder.is_file():
        from skullgan_jax.model import pytorch_pair

        return pytorch_pair.read(generator=folder)
    try:
        about = json.loads((folder / "model.json").read_text())
        if about["format"] != FORMAT:
            raise InputError(f"model.json has format {about['format']}, this version reads {FORMAT}; update it")
        sizes = {k: int(about[k]) for k in ("nc", "nz", "ngf", "ndf") if about[k] is not None}
        pair = Pair(**sizes)
        pair.graphs()  # refuses sizes that the architecture cannot have
        g = _read(folder / "generator.safetensors")
        d = _read(folder / "discriminator.safetensors") if "ndf" in sizes else {"params": None, "stats": None}
        tracked = about["batches_tracked"]
        if any(len(tracked[net]) != n or set(map(type, tracked[net])) != {int} for net, n in _counted(d).items()):
            raise ValueError("batches_tracked must be a number for each BatchNorm")
        model = Model(
            pair=pair,
            g_params=g["params"],
            g_stats=g["stats"],
            d_params=d["params"],
            d_stats=d["stats"],
            calibration=Calibration.from_dict(about["calibration"]),
            pixel_mm=float(about["pixel_mm"]),
            provenance=about["provenance"],
            batches_tracked=tracked,
            standing=_standing(folder, about["files"]["generator.safetensors"]),
            folder=folder,
        )
    except InputError as e:
        raise InputError(f"{path}: {e}") from None
    except FileNotFoundError as e:
        raise InputError(
            f"{path}: no model here ({pathlib.Path(e.filename).name} is missing); "
            "give a model directory, a training workdir or a .pth"
        ) from None
    except (KeyError, TypeError, ValueError, OSError, safetensors.SafetensorError) as e:
        raise InputError(f"{path}: not a readable model ({type(e).__name__}: {e}); export it again") from None
    _check_shapes(model, path)
    return model


def _counted(d: dict) -> dict[str, int]:
    """How many BatchNorms each network has."""
    return {"generator": 5} | ({"discriminator": 4} if d["params"] is not None else {})


def _read(path: pathlib.Path) -> dict:
    path.stat()  # safetensors would not name the file that is missing
    return traverse_util.unflatten_dict(safetensors.numpy.load_file(path), sep=".")


def _standing(folder: pathlib.Path, generator: str) -> dict | None:
    """The stored statistics, if they are there and of this generator, given by its hash."""
    path = folder / _STANDING
    if not path.exists():
        return None
    with safetensors.safe_open(path, "numpy") as file:
        fits = (file.metadata() or {}).get("generator") == generator
    return _read(path) if fits else None


def _check_shapes(model: Model, path) -> None:
    g_params, g_stats, d_params, d_stats = jax.eval_shape(lambda: model.pair.init(0))
    if model.d_params is None:
        d_params, d_stats = None, None
    expected = (g_params, g_stats, d_params, d_stats, g_stats if model.standing is not None else None)
    found = (model.g_params, model.g_stats, model.d_params, model.d_stats, model.standing)
    if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, expected):
        raise InputError(f"{path}: the weights do not have the shapes that model.json states; export it again")


def _without_paths(config: dict) -> dict:
    """A config to hand out: where somebody's scans lie, and what their folders are called, stays at home."""
    names = {k: pathlib.Path(config[k]).name for k in ("pretrained", "checkpoint")}
    return {**config, **names, "data": {**config["data"], "path": pathlib.Path(config["data"]["path"]).name}}


def _from_workdir(folder: pathlib.Path) -> Model:
    checkpoints = checkpoint.Checkpoints(folder, create=False)
    step = checkpoints.best
    meta = checkpoints.meta(step)
    pair = Pair(**meta["pair"])
    names = ("g_params", "g_stats", "d_params", "d_stats")
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        dict(zip(names, jax.eval_shape(lambda: pair.init(0)), strict=True)),
    )
    parts = jax.device_get(checkpoints.restore_parts(step, like))
    checkpoints.close()
    return Model(
        pair=pair,
        **parts,
        calibration=Calibration.from_dict(meta["calibration"]),
        pixel_mm=meta["pixel_mm"],
        # As PyTorch would have counted: the discriminator sees reals, fakes, and fakes again in a step.
        batches_tracked={"generator": [step] * 5, "discriminator": [3 * step] * 4},
        provenance={
            "workdir": folder.name,
            "step": step,
            "config": _without_paths(meta["config"]),
            "data": meta["data"],
        },
    )
