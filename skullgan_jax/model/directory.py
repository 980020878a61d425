"""A model directory: the weights of the pair, their BatchNorm statistics and model.json, as plain trees.

Weights are safetensors: one file a network, no pickle, read without a framework. The statistics that samples are drawn
with lie in a file of their own, since they may come later.
"""

import json
import os
import pathlib

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from skullgan_jax.errors import InputError
from skullgan_jax.machine import files
from skullgan_jax.nets.networks import Weights

FORMAT = 1
STANDING = "standing.safetensors"
_FILES = ("model.json", "generator.safetensors", "discriminator.safetensors", STANDING)


def write(
    folder: str | os.PathLike,
    networks: dict[str, tuple[Weights, Weights]],
    about: dict,
    standing: tuple[Weights, dict[str, str]] | None,
) -> None:
    """Write the directory, as a whole.

    Args:
      folder: where to; a model that is there goes, what else lies in its folder stays.
      networks: network -> (params, stats), nested dicts of float32 arrays.
      about: of model.json; format and hashes of the files are added.
      standing: the statistics to sample with and what they were computed of, or None.

    Raises:
      OSError: it cannot be written.
    """
    with files.whole(folder, ours=_FILES) as partial:
        partial.mkdir()
        for name, (params, stats) in networks.items():
            _write(partial / f"{name}.safetensors", {"params": params, "stats": stats})
        hashes = {f"{name}.safetensors": files.sha256(partial / f"{name}.safetensors") for name in networks}
        text = json.dumps({"format": FORMAT, **about, "files": hashes}, indent=2)
        (partial / "model.json").write_text(text + "\n", encoding="utf-8")
        if standing is not None:
            write_standing(partial, *standing)


def write_standing(folder: pathlib.Path, tree: Weights, about: dict[str, str]) -> None:
    """Keep the statistics to sample with in a model directory or a workdir, and what they were computed of.

    They are not taken for those of other weights: in a model directory the hash of the generator's file goes with them,
    anywhere `model_sha256` of `about`.

    Raises:
      OSError: they cannot be written.
    """
    if (folder / "model.json").exists():
        about = {"generator": _about(folder)["files"]["generator.safetensors"]} | about
    with files.whole(folder / STANDING) as partial:
        _write(partial, tree, about)


def read_standing(folder: pathlib.Path, name: str, value: str) -> Weights | None:
    """The statistics that are kept there, if they are, and are of the weights that this name and value stand for.

    Raises:
      OSError, safetensors.SafetensorError: the file is damaged.
    """
    path = folder / STANDING
    if not path.exists():
        return None
    with safetensors.safe_open(path, "numpy") as file:
        fits = (file.metadata() or {}).get(name) == value
    return _read(path) if fits else None


def read(folder: pathlib.Path) -> tuple[dict, dict[str, dict[str, Weights]], Weights | None]:
    """(model.json, network -> {"params", "stats"}, the statistics to sample with or None); a shape is not looked at.

    Raises:
      InputError: it has another format.
      KeyError, TypeError, ValueError, OSError, safetensors.SafetensorError: a file is missing or damaged.
    """
    about = _about(folder)
    if about["format"] != FORMAT:
        raise InputError(f"model.json has format {about['format']}, this version reads {FORMAT}; update it")
    names = ["generator"] + (["discriminator"] if about["ndf"] is not None else [])
    networks = {name: _read(folder / f"{name}.safetensors") for name in names}
    return about, networks, read_standing(folder, "generator", about["files"]["generator.safetensors"])


def write_safetensors(path: pathlib.Path, arrays: dict[str, np.ndarray], about: dict[str, str] | None = None) -> None:
    """Write a safetensors file; OSError where it cannot be written, of which the library makes its own error."""
    try:
        safetensors.numpy.save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, path, about)
    except safetensors.SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from None


def _about(folder: pathlib.Path) -> dict:
    return json.loads((folder / "model.json").read_text())


def _write(path: pathlib.Path, tree: dict, about: dict | None = None) -> None:
    write_safetensors(path, traverse_util.flatten_dict(jax.device_get(tree), sep="."), about)


def _read(path: pathlib.Path) -> dict:
    path.stat()  # safetensors would not name the file that is missing
    return traverse_util.unflatten_dict(safetensors.numpy.load_file(path), sep=".")
