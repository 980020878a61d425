"""Slices to be mapped, in HU, read a few at a time."""

import dataclasses
import json
import pathlib
from collections.abc import Callable

import numpy as np

from skullgan_jax.data import prepared
from skullgan_jax.data.arrays import open_slices
from skullgan_jax.errors import InputError
from skullgan_jax.sampling.names import beside
from skullgan_jax.sampling.opened import is_store, open_store
from skullgan_jax.slices.size import PIXEL_MM


@dataclasses.dataclass(frozen=True)
class Slices:
    """What is there.

    Attributes:
      name: without its folders.
      num: how many slices.
      read: (first, last + 1) -> (n, 128, 128) HU.
      pixel_mm: edge of a pixel.
      hu_max: HU of the densest bone by the calibration; None where it is not said.
      about: what else is known of them, ready for JSON.
    """

    name: str
    num: int
    read: Callable[[int, int], np.ndarray]
    pixel_mm: float
    hu_max: float | None
    about: dict


def open_slices_of(path: str, *, split: str, pixel_mm: float | None) -> Slices:
    """Opens a sample store, a folder of `prepare`, or a .npy, beside which `sample` wrote what it is.

    Args:
      path: of any of them.
      split: of a folder of `prepare`.
      pixel_mm: of an array beside which nothing says it; None for the published 0.46875.

    Raises:
      InputError: it cannot be read, or is not complete.
    """
    name = pathlib.PurePosixPath(path.rstrip("/")).name
    if prepared.is_prepared(path):
        images, pixel = prepared.open_split(path, split)
        return Slices(name, len(images), lambda a, b: images[a:b], pixel, None, {"split": split})
    if is_store(path):
        store = open_store(path)
        pixel, hu_max, about = _said(store.about, path)
        return Slices(name, len(store), lambda a, b: store.read(a, b).hu, pixel, hu_max, about)
    images, sidecar = open_slices(path), beside(path, ".json")
    said = {}
    if sidecar.is_file():
        try:
            said = json.loads(sidecar.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{sidecar}: damaged ({error}); write it again or move it away") from None
    pixel, hu_max, about = _said(said if said.get("output") == name else {}, sidecar)
    return Slices(name, len(images), lambda a, b: images[a:b], pixel or pixel_mm or PIXEL_MM, hu_max, about)


def _said(about: dict, path) -> tuple[float | None, float | None, dict]:
    """Pixel, HUmax and the identity of samples, of what `sample` says of them."""
    try:
        if not about:
            return None, None, {}
        known = {k: about[k] for k in ("model", "model_sha256", "seed", "start", "batch_norm") if k in about}
        return float(about["pixel_mm"]), float(about["calibration"]["hu_max"]), known
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); sample again") from None
