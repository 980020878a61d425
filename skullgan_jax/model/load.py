"""The front door of models: a model directory, a training workdir or a released .pth becomes a Model."""

import contextlib
import functools
import math
import operator
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from skullgan_jax.errors import InputError
from skullgan_jax.machine import places, programs
from skullgan_jax.model import checkpoint, directory, pytorch_pair
from skullgan_jax.model.trained import Model
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices.calibration import Calibration

STARTER = "starter"
_STARTER = pathlib.Path(__file__).with_name(STARTER)


def place(path: str | os.PathLike) -> str | os.PathLike:
    """Where a model is that a user names: `starter` is the one of this package, unless there is one of that name."""
    return _STARTER if str(path) == STARTER and not pathlib.Path(path).exists() else path


@programs.kept()
def load(path: str | os.PathLike) -> Model:
    """Read a model directory, a training workdir (its best checkpoint, else its last) or a generator's .pth.

    Of a workdir another checkpoint can be named, e.g. runs/skull/checkpoints/1000. All of them may lie in a bucket,
    e.g. gs://bucket/runs/skull. "starter" is a small generator that comes with the package, to begin with; what it is,
    says the model card in its folder, `load("starter").folder`.

    Raises:
      InputError: there is no model, or its files do not fit together.
      MachineError: the bucket or the network failed.
    """
    try:
        return read(place(path))
    except OSError as e:
        raise InputError(f"{e.filename or path}: cannot be read ({e.strerror or e}); see to its rights") from None


def is_there(path: str | os.PathLike) -> bool:
    """Whether something that may be a model is there. Raises InputError, MachineError."""
    with places.opened(place(path)) as there:
        return there.holds_any() or places.file(path) is not None


def read(path: str | os.PathLike | places.Place) -> Model:
    """The same, of an opened place, too. Raises InputError, MachineError, OSError."""
    if named := checkpoint.split(path):
        with places.opened(named[0]) as there:
            if there.exists(f"checkpoints/{named[1]}"):
                return _checked(_from_workdir(there, named[1]), path)
    with places.opened(path) as there:
        if checkpoint.exists(there):
            return _checked(_from_workdir(there), path)
        if places.file(path):
            try:
                return pytorch_pair.read(generator=str(path))
            except InputError as error:
                how = f"say it in: skullgan convert --generator={path} --output=DIR --hu_scale=signed (or unit)"
                raise InputError(str(error).replace(pytorch_pair.ADVICE, how)) from None
        try:
            return _checked(_from_directory(there), path)
        except FileNotFoundError as e:
            raise InputError(
                f"{path}: no model here ({pathlib.Path(e.filename).name} is missing); "
                "give a model directory, a training workdir or a .pth, or the word starter"
            ) from None


def _from_directory(place: places.Place) -> Model:
    """Raises InputError, OSError."""
    folder = place.local
    place.bring(*directory.FILES)
    try:
        about, networks, standing = directory.read(folder)
        given = [k for k in ("nc", "nz", "ngf", "ndf") if about[k] is not None]
        sizes: dict[str, Any] = {k: operator.index(about[k]) for k in given}
        sizes["d_norm"] = about.get("d_norm") or "batch"  # an earlier version knew no other
        sizes["d_batch_std"] = operator.index(about.get("d_batch_std") or 0)
        g, d = networks["generator"], networks.get("discriminator", {})
        tracked, pixel_mm = about["batches_tracked"], float(about["pixel_mm"])
        counted = {"generator": 5, "discriminator": 4 * (sizes["d_norm"] == "batch")}  # how many BatchNorms each has
        if any(len(tracked[net]) != counted[net] or set(map(type, tracked[net])) - {int} for net in networks):
            raise ValueError("batches_tracked must be a number for each BatchNorm")
        if not 0 < pixel_mm < math.inf:
            raise ValueError(f"pixel_mm is {pixel_mm}")
        pair = Pair(**sizes)
        pair.graphs()  # refuses sizes that the architecture cannot have
        provenance = about["provenance"]
        if isinstance(provenance, dict) and isinstance(provenance.get("config"), dict):  # an earlier version kept names
            provenance = {**provenance, "config": _without_paths(provenance["config"])}
        return Model(
            pair=pair,
            g_params=g["params"],
            g_stats=g["stats"],
            d_params=d.get("params"),
            d_stats=d.get("stats", {} if d else None),  # none of a discriminator without BatchNorm
            calibration=Calibration.from_dict(about["calibration"]),
            pixel_mm=pixel_mm,
            provenance=provenance,
            batches_tracked=tracked,
            standing=standing,
            folder=_kept_in(place),
        )
    except InputError as error:
        named = str(error).startswith(str(folder))
        raise error if named else InputError(f"{folder / 'model.json'}: {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as e:
        what = f"{type(e).__name__}: {e}"
        raise InputError(f"{folder / 'model.json'}: is damaged ({what}); copy or export the model again") from None


def _kept_in(place: places.Place) -> pathlib.Path | None:
    """Where what is computed of a model is kept: nowhere, of one in a bucket."""
    return place.local if place.mounted else None


def _checked(model: Model, path: str | os.PathLike | places.Place) -> Model:
    """Refuse weights of other shapes, and numbers that nothing but 0 HU would come of."""
    g_params, g_stats, *d = model.pair.shapes()
    alone = model.d_params is None
    expected = (g_params, g_stats, *((None, None) if alone else d), g_stats if model.standing is not None else None)
    found = (model.g_params, model.g_stats, model.d_params, model.d_stats, model.standing)
    if jax.tree.map(jnp.shape, found) != jax.tree.map(jnp.shape, expected):
        raise InputError(f"{path}: the weights do not have the shapes that model.json states; export it again")
    wrong = []
    for net, tree in zip(("generator", "generator", "discriminator", "discriminator", "standing"), found, strict=True):
        for (layer, leaf), array in traverse_util.flatten_dict(tree or {}).items():
            low, high = array.min(), array.max()  # both pass a NaN on
            if not (np.isfinite(low) and np.isfinite(high)) or (leaf == "var" and low < 0):
                wrong.append(f"{net} {layer}.{leaf}")
    if wrong:
        raise InputError(
            f"{path}: holds NaN, infinite weights or negative variances in {', '.join(wrong)}; take an earlier one"
        )
    return model


_PATHS = ("path", "pretrained", "checkpoint")  # fields of a config


def _without_paths(value: Any, name: str = "") -> Any:
    """A config to hand out: where somebody's data lie, and what folders and files are called, stays at home."""
    if isinstance(value, dict):
        return {k: _without_paths(v, k) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(v, name) for v in value]
    named = name.rpartition(".")[2] in _PATHS
    if isinstance(value, str) and value not in ("", "phantom") and (named or "/" in value or "\\" in value):
        return "(left out)"
    return value


def _from_workdir(place: places.Place, step: int | None = None) -> Model:
    return checkpoint.read(place, functools.partial(_from_checkpoint, place), step)


def _from_checkpoint(workdir: places.Place, checkpoints: checkpoint.Checkpoints, step: int) -> Model:
    folder = workdir.local
    meta = checkpoints.meta(step)
    pair = Pair(**meta["pair"])
    names = ("g_params", "g_stats", "d_params", "d_stats")
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        dict(zip(names, pair.shapes(), strict=True)),
    )
    parts = jax.device_get(checkpoints.restore_parts(step, like))
    model = Model(
        pair=pair,
        **parts,
        calibration=Calibration.from_dict(meta["calibration"]),
        pixel_mm=meta["pixel_mm"],
        # As PyTorch would have counted: the discriminator sees reals, fakes, and fakes again in a step.
        batches_tracked={"generator": [step] * 5, "discriminator": [3 * step] * len(parts["d_stats"])},
        provenance={
            "workdir": folder.name,
            "step": step,
            "config": _without_paths(meta["config"]),
            "data": meta["data"],
            **({"changes": _without_paths(meta["changes"])} if "changes" in meta else {}),
        },
        folder=_kept_in(workdir),
    )
    workdir.bring(directory.STANDING, f"model/{directory.STANDING}")
    for place in (folder, folder / "model"):  # where sampling keeps them, and what the end of the run exported
        if model.standing is None and (place / directory.STANDING).exists():
            with contextlib.suppress(OSError, InputError):  # damaged: to be computed again
                model.standing = directory.read_standing(place, "model_sha256", model.sha256)
    return model
