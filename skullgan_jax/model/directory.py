"""A model directory: the weights of the pair, their BatchNorm statistics and model.json, as plain trees.

Weights are safetensors: one file a network, no pickle, read without a framework. The statistics that samples are drawn
with lie in a file of their own, since they may come later.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from concurrent import futures

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
_ABOUT = "model.json"
FILES = (_ABOUT, "generator.safetensors", "discriminator.safetensors", STANDING)


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
      InputError: there is something else than a model.
      OSError: it cannot be written.
    """
    _refuse_others(pathlib.Path(folder))
    files.clean(pathlib.Path(folder, STANDING))
    with files.whole(folder, ours=FILES) as partial:
        partial.mkdir()
        for name, (params, stats) in networks.items():
            _write(partial / f"{name}.safetensors", {"params": params, "stats": stats})
        hashes = {f"{name}.safetensors": files.sha256(partial / f"{name}.safetensors") for name in networks}
        text = json.dumps({"format": FORMAT, **about, "files": hashes}, indent=2)
        (partial / _ABOUT).write_text(text + "\n", encoding="utf-8")
        if standing is not None:
            write_standing(partial, *standing)


def _refuse_others(folder: pathlib.Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; give a folder")
    if not folder.is_dir() or not any(not name.startswith(".") for name in os.listdir(folder)):
        return
    try:
        about = json.loads((folder / _ABOUT).read_bytes())
    except (OSError, ValueError, RecursionError):
        about = None
    if not (isinstance(about, dict) and {"format", "files", "calibration"} <= about.keys()):
        raise InputError(f"{folder}: holds something else than a model, and is left as it is; give another folder")


def write_standing(folder: pathlib.Path, tree: Weights, about: dict[str, str]) -> None:
    """Keep the statistics to sample with in a model directory or a workdir, and what they were computed of.

    They are not taken for those of other weights: in a model directory the hash of the generator's file goes with them,
    anywhere `model_sha256` of `about`. A hash of their own goes with them, too.

    Raises:
      OSError: they cannot be written, or another model than that of `about` has taken the place of theirs.
    """
    flat = _flat(tree)
    about = {**about, "sha256": sha256(flat)}
    if (folder / _ABOUT).exists():
        there = _about(folder)
        if there.get("sha256", about["model_sha256"]) != about["model_sha256"]:
            raise OSError("another model is there by now")
        about["generator"] = there["files"]["generator.safetensors"]
    with files.whole(folder / STANDING) as partial:
        write_safetensors(partial, flat, about)


def read_standing(folder: pathlib.Path, name: str, value: str) -> Weights | None:
    """The statistics that are kept there, if they are, and are of the weights that this name and value stand for.

    Raises:
      InputError: the file is damaged.
      OSError: it cannot be read.
    """
    path = folder / STANDING
    if not path.exists():
        return None
    flat, about = _read(path)
    if about.get(name) != value:
        return None
    if about.get("sha256", found := sha256(flat)) != found:
        raise InputError(f"{path}: was changed: its values have sha256 {found}, it says {about['sha256']}; remove it")
    return traverse_util.unflatten_dict(flat, sep=".")


def read(folder: pathlib.Path) -> tuple[dict, dict[str, dict[str, Weights]], Weights | None]:
    """(model.json, network -> {"params", "stats"}, the statistics to sample with or None); a shape is not looked at.

    Raises:
      InputError: a file is damaged or has another format, or is not that of which model.json has the hash.
      KeyError, TypeError: model.json lacks something.
      FileNotFoundError: a file is missing.
    """
    about = _about(folder)
    if about["format"] != FORMAT:
        raise InputError(f"{folder / _ABOUT}: has format {about['format']}, this version reads {FORMAT}; update it")
    names = ["generator"] + (["discriminator"] if about["ndf"] is not None else [])
    hashes = {name: about["files"][f"{name}.safetensors"] for name in names}
    with futures.ThreadPoolExecutor(1) as pool:  # hashing takes as long as reading, and runs beside it
        found = {name: pool.submit(files.sha256, folder / f"{name}.safetensors") for name in names}
        flat = {name: _read(folder / f"{name}.safetensors")[0] for name in names}
    for name, hashed in hashes.items():
        if found[name].result() != hashed:
            raise InputError(
                f"{folder / name}.safetensors: the model's file was changed: sha256 {found[name].result()}, "
                f"model.json says {hashed}; copy, convert or export it again"
            )
    networks = {name: traverse_util.unflatten_dict(arrays, sep=".") for name, arrays in flat.items()}
    return about, networks, read_standing(folder, "generator", hashes["generator"])


def verify(folder: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """Each file of weights and what there is to say of it, once `read` has nothing against them."""
    about = _about(folder)
    said = [(folder / name, f"ok, sha256 {hashed}") for name, hashed in about["files"].items() if name in FILES]
    if (folder / STANDING).exists():
        _, known = _read(folder / STANDING)
        if known.get("generator") != about["files"]["generator.safetensors"]:
            word = "of other weights, so it is not used, and computed again with the first samples"
        elif "sha256" not in known:
            word = "written without a hash by an earlier version, so nothing to check it by"
        else:
            word = f"ok, sha256 of its values {known['sha256']}"
        said.append((folder / STANDING, word))
    return said


def sha256(arrays: Mapping[str, np.ndarray], begin: str = "") -> str:
    """The hash of arrays by their names, shapes and float32 values, in the order of names, after some text."""
    digest = hashlib.sha256(begin.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").data)
    return digest.hexdigest()


def write_safetensors(path: pathlib.Path, arrays: dict[str, np.ndarray], about: dict[str, str] | None = None) -> None:
    """Write a safetensors file; OSError where it cannot be written, of which the library makes its own error."""
    try:
        safetensors.numpy.save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, path, about)
    except safetensors.SafetensorError as error:
        raise OSError(f"{path.name}: {error}") from None


def _about(folder: pathlib.Path) -> dict:
    path = folder / _ABOUT
    try:
        about = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is {_extent(path)} ({error}); copy or export the model again") from None
    if not isinstance(about, dict):
        raise InputError(f"{path}: is damaged (it holds no fields); copy or export the model again")
    return about


def _flat(tree: Weights) -> dict[str, np.ndarray]:
    return traverse_util.flatten_dict(jax.device_get(tree), sep=".")


def _write(path: pathlib.Path, tree: dict) -> None:
    write_safetensors(path, _flat(tree))


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays by their dotted names, and what the file says of itself."""
    path.stat()  # safetensors would not name the file that is missing
    try:
        with safetensors.safe_open(path, "numpy") as file:
            about = file.metadata() or {}
        return safetensors.numpy.load_file(path), about
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: is {_extent(path)} ({error}); copy or export the model again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); copy or export it again") from None


def _extent(path: pathlib.Path) -> str:
    return "damaged or cut short" if path.stat().st_size else "empty"
