"""A model on disk: a directory with the weights of the pair, their BatchNorm statistics and model.json.

Weights are safetensors: one file a network, no pickle, read without a framework.
"""

import dataclasses
import json
import os
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

import skullgan_jax
from skullgan_jax import checkpoint
from skullgan_jax.data.calibration import Calibration
from skullgan_jax.errors import InputError
from skullgan_jax.state import Pair

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained pair.

    params and stats of each network are nested dicts of float32 arrays; `standing` are the generator's BatchNorm
    statistics to sample with (see sample.py), None until they are computed.
    """

    pair: Pair
    g_params: dict
    g_stats: dict
    d_params: dict
    d_stats: dict
    calibration: Calibration
    pixel_mm: float
    provenance: dict
    standing: dict | None = None

    def save(self, folder: str | os.PathLike) -> None:
        """Write the directory beside, then rename it into place."""
        folder = pathlib.Path(folder)
        beside = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        generator = {"params": self.g_params, "stats": self.g_stats}
        if self.standing is not None:
            generator["standing"] = self.standing
        for name, tree in (
            ("generator", generator),
            ("discriminator", {"params": self.d_params, "stats": self.d_stats}),
        ):
            flat = traverse_util.flatten_dict(jax.device_get(tree), sep=".")
            safetensors.numpy.save_file(
                {k: np.ascontiguousarray(v) for k, v in flat.items()}, beside / f"{name}.safetensors"
            )
        description = {
            "format": FORMAT,
            **{k: v for k, v in dataclasses.asdict(self.pair).items() if k != "dtype"},
            "calibration": self.calibration.to_dict(),
            "pixel_mm": self.pixel_mm,
            "provenance": self.provenance,
            "version": skullgan_jax.__version__,
            "use": "research use only",
        }
        checkpoint.write_json(beside / "model.json", description)
        if folder.exists():
            old = folder.with_name(folder.name + ".old")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            beside.rename(folder)
            shutil.rmtree(old)
        else:
            beside.rename(folder)


def load(path: str | os.PathLike) -> Model:
    """Read a model directory or a training workdir (its best checkpoint, else its last).

    Raises:
      InputError: there is no model, or its files do not fit together.
    """
    folder = pathlib.Path(path)
    if checkpoint.exists(folder):
        return _from_workdir(folder)
    try:
        about = json.loads((folder / "model.json").read_text())
        if about["format"] != FORMAT:
            raise InputError(f"model.json has format {about['format']}, this version reads {FORMAT}; update it")
        pair = Pair(*(int(about[k]) for k in ("nc", "nz", "ngf", "ndf")))
        pair.graphs()  # refuses sizes that the architecture cannot have
        nets = []
        for name in ("generator", "discriminator"):
            file = folder / f"{name}.safetensors"
            file.stat()  # safetensors would not name the file that is missing
            flat = safetensors.numpy.load_file(file)
            nets.append(traverse_util.unflatten_dict(flat, sep="."))
        g, d = nets
        model = Model(
            pair=pair,
            g_params=g["params"],
            g_stats=g["stats"],
            d_params=d["params"],
            d_stats=d["stats"],
            calibration=Calibration.from_dict(about["calibration"]),
            pixel_mm=float(about["pixel_mm"]),
            provenance=about["provenance"],
            standing=g.get("standing"),
        )
    except InputError as e:
        raise InputError(f"{path}: {e}") from None
    except FileNotFoundError as e:
        raise InputError(
            f"{path}: no model here ({pathlib.Path(e.filename).name} is missing); "
            "give a model directory or a training workdir"
        ) from None
    except (KeyError, TypeError, ValueError, OSError, safetensors.SafetensorError) as e:
        raise InputError(f"{path}: not a readable model ({type(e).__name__}: {e}); export it again") from None
    _check_shapes(model, path)
    return model


def _check_shapes(model: Model, path) -> None:
    expected = jax.eval_shape(lambda: model.pair.init(0))
    found = (model.g_params, model.g_stats, model.d_params, model.d_stats)
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
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        dict(zip(names, jax.eval_shape(lambda: pair.init(0)), strict=True)),
    )
    parts = checkpoints.restore_parts(step, like)
    checkpoints.close()
    return Model(
        pair=pair,
        **parts,
        calibration=Calibration.from_dict(meta["calibration"]),
        pixel_mm=meta["pixel_mm"],
        provenance={
            "workdir": folder.name,
            "step": step,
            "config": _without_paths(meta["config"]),
            "data": meta["data"],
        },
    )
