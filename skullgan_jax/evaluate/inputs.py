"""Opens what is to be judged, and refuses what cannot be compared."""

import dataclasses
import json
import pathlib

import numpy as np

from skullgan_jax.data import fingerprint, prepared
from skullgan_jax.data.arrays import open_slices
from skullgan_jax.errors import InputError
from skullgan_jax.machine import paths, places
from skullgan_jax.sampling.opened import is_store, open_store
from skullgan_jax.sampling.store import Store
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.slices.size import PIXEL_MM


@dataclasses.dataclass
class Slices:
    """A set of slices.

    Attributes:
      name: what the user called it, without its folders.
      hu: (N, 128, 128) HU, real dtype, in memory.
      total: how many there are where it came from; N is at most that.
      pixel_mm: edge of a pixel.
      stated: whether the source said pixel_mm itself.
      subjects: (N,) str, or None where they are not known.
      seed: that the slices were sampled with, or None.
    """

    name: str
    hu: np.ndarray
    total: int
    pixel_mm: float
    stated: bool
    subjects: np.ndarray | None = None
    seed: int | None = None


def open_set(path: str, *, split: str, most: int | None, pixel_mm: float | None = None) -> Slices:
    """Opens arrays, a data set of `prepare`, or a sample store.

    Args:
      path: a .npy or .npz (beside which a .json of the same name may state pixel_mm), a folder or URL from `prepare`,
        or a Zarr v3 sample store.
      split: of a data set: train or held_out.
      most: at most so many slices, evenly spread; None for all.
      pixel_mm: of arrays that do not state it; None for 0.46875.

    Raises:
      InputError: it cannot be read, or does not hold HU.
    """
    subjects, seed, stated = None, None, True
    if is_store(path):
        images = open_store(path)
        pixel, seed = images.about["pixel_mm"], images.about.get("seed")
    elif prepared.is_prepared(path):
        images, pixel = prepared.open_split(path, split)
        _, rows = prepared.read(path, split)
        subjects = np.array([str(row["subject"]) for row in rows])
    else:
        images = open_slices(path)
        pixel, seed = _beside(path)
        stated = pixel is not None or pixel_mm is not None
        if pixel is None:
            pixel = PIXEL_MM if pixel_mm is None else pixel_mm
    total = len(images)
    chosen = np.arange(total)
    if most is not None and total > most:
        chosen = np.unique(np.linspace(0, total - 1, most).astype(int))
    if isinstance(images, Store):
        hu = images.take(chosen).hu
    else:
        hu = np.asarray(images[chosen] if len(chosen) < total else images)
    _check_hu(path, hu)
    name = pathlib.PurePosixPath(str(path).rstrip("/")).name
    return Slices(name, hu, total, float(pixel), stated, None if subjects is None else subjects[chosen], seed)


def _beside(path) -> tuple[float | None, int | None]:
    """The edge of a pixel and the seed, as far as the .json beside an array says them; `sample` writes one."""
    beside = f"{path[:-4]}.json" if paths.is_remote(path) else paths.at_home(path).with_suffix(".json")
    file = places.file(beside)
    if file is None:
        return None, None
    try:
        about = json.loads(file.read_text())
        value, seed = about.get("pixel_mm"), about.get("seed")
        value = None if value is None else float(value)
    except (ValueError, TypeError, AttributeError, OSError):
        raise InputError(f"{beside}: damaged; write it again, or move it away and give --pixel_mm") from None
    if value is not None and not 0 < value < 100:
        raise InputError(f"{beside}: pixel_mm is {value:g}; state the edge of a pixel in mm")
    return value, seed if isinstance(seed, int) else None


def trained_on(model, train: Slices) -> bool | None:
    """Whether these slices are what a model was trained on, by the fingerprint that it keeps.

    Args:
      model: a model.Model.
      train: all of a training set.

    Returns:
      None where the model does not say what it was trained on.
    """
    known = model.provenance.get("data")
    if not isinstance(known, dict) or "fingerprint" not in known:
        return None
    return fingerprint.known(known["fingerprint"], train.hu, Calibration.of(train.hu))


def _check_hu(path, hu: np.ndarray) -> None:
    """Refuses NaN, and what is no HU."""
    try:
        Calibration.of(hu).check_hu()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def check_pair(a: Slices, b: Slices) -> None:
    """Refuses sets of different pixel size.

    Raises:
      InputError: naming both.
    """
    if abs(a.pixel_mm - b.pixel_mm) > 1e-3 * a.pixel_mm:
        assumed = " (assumed; state it with --pixel_mm)"
        sizes = [f"{s.name} has {s.pixel_mm:g} mm pixels{'' if s.stated else assumed}" for s in (a, b)]
        raise InputError(f"{' and '.join(sizes)}: resample one of them")
