"""The front door of models: a model directory, a training workdir or a released .pth becomes a Model."""

import contextlib
import functools
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import safetensors

from skullgan_jax.errors import InputError
from skullgan_jax.model import checkpoint, directory, pytorch_pair
from skullgan_jax.model.trained import Model
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices.calibration import Calibration


def load(path: str | os.PathLike) -> Model:
    """Read a model directory, a training workdir (its best checkpoint, else its last) or a generator's .pth.

    Of a workdir another checkpoint can be named, e.g. runs/skull/checkpoints/1000.

    Raises:
      InputError: there is no model, or its files do not fit together.
    """
    folder = pathlib.Path(path)
    if checkpoint.is_one(folder):
        return _from_workdir(folder.parent.parent, int(folder.name))
    if checkpoint.exists(folder):
        return _from_workdir(folder)
    if folder.is_file():
        return pytorch_pair.read(generator=folder)
    try:
        model = _from_directory(folder)
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


def _from_directory(folder: pathlib.Path) -> Model:
    about, networks, standing = directory.read(folder)
    sizes: dict[str, Any] = {k: int(about[k]) for k in ("nc", "nz", "ngf", "ndf") if about[k] is not None}
    pair = Pair(**sizes)
    pair.graphs()  # refuses sizes that the architecture cannot have
    g, d = networks["generator"], networks.get("discriminator", {})
    tracked = about["batches_tracked"]
    counted = {"generator": 5, "discriminator": 4}  # how many BatchNorms each has
    if any(len(tracked[net]) != counted[net] or set(map(type, tracked[net])) != {int} for net in networks):
        raise ValueError("batches_tracked must be a number for each BatchNorm")
    return Model(
        pair=pair,
        g_params=g["params"],
        g_stats=g["stats"],
        d_params=d.get("params"),
        d_stats=d.get("stats"),
        calibration=Calibration.from_dict(about["calibration"]),
        pixel_mm=float(about["pixel_mm"]),
        provenance=about["provenance"],
        batches_tracked=tracked,
        standing=standing,
        folder=folder,
    )


def _check_shapes(model: Model, path: str | os.PathLike) -> None:
    g_params, g_stats, *d = jax.eval_shape(lambda: model.pair.init(0))
    alone = model.d_params is None
    expected = (g_params, g_stats, *((None, None) if alone else d), g_stats if model.standing is not None else None)
    found = (model.g_params, model.g_stats, model.d_params, model.d_stats, model.standing)
    if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, expected):
        raise InputError(f"{path}: the weights do not have the shapes that model.json states; export it again")


def _without_paths(config: dict) -> dict:
    """A config to hand out: where somebody's scans lie, and what their folders are called, stays at home."""
    names = {k: pathlib.Path(config[k]).name for k in ("pretrained", "checkpoint")}
    return {**config, **names, "data": {**config["data"], "path": pathlib.Path(config["data"]["path"]).name}}


def _from_workdir(folder: pathlib.Path, step: int | None = None) -> Model:
    return checkpoint.read(folder, functools.partial(_from_checkpoint, folder), step)


def _from_checkpoint(folder: pathlib.Path, checkpoints: checkpoint.Checkpoints, step: int) -> Model:
    meta = checkpoints.meta(step)
    pair = Pair(**meta["pair"])
    names = ("g_params", "g_stats", "d_params", "d_stats")
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        dict(zip(names, jax.eval_shape(lambda: pair.init(0)), strict=True)),
    )
    parts = jax.device_get(checkpoints.restore_parts(step, like))
    model = Model(
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
            **({"changes": meta["changes"]} if "changes" in meta else {}),
        },
        folder=folder,
    )
    for place in (folder, folder / "model"):  # where sampling keeps them, and what the end of the run exported
        if model.standing is None and (place / directory.STANDING).exists():
            with contextlib.suppress(OSError, safetensors.SafetensorError):  # damaged: to be computed again
                model.standing = directory.read_standing(place, "model_sha256", model.sha256)
    return model
