"""Training data: skull slices in HU, CelebA, the built-in phantom, and their calibration."""

import dataclasses

import numpy as np
import psutil

from skullgan_jax.data import fingerprint, prepared
from skullgan_jax.data.arrays import open_slices
from skullgan_jax.data.batches import batches, num_steps_per_epoch, order
from skullgan_jax.data.celeba import open_celeba
from skullgan_jax.errors import InputError
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.slices.size import SIZE

__all__ = [
    "Calibration",
    "Dataset",
    "batches",
    "num_steps_per_epoch",
    "open_celeba",
    "open_data",
    "open_slices",
    "order",
]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Slices to train on.

    Attributes:
      images: (N, 128, 128), real dtype, random access; HU, or grey levels for CelebA.
      calibration: the values of -1 and +1.
      pixel_mm: the edge of a pixel in mm.
      name: skull, celeba or phantom.
      fingerprint: hex digits that change with the content; a resume on other data is refused by it.
    """

    images: np.ndarray
    calibration: Calibration
    pixel_mm: float
    name: str
    fingerprint: str


def open_data(data_config, seed: int, split: str = "train") -> Dataset:
    """Opens the data that a config names.

    Args:
      data_config: with fields `name` (skull or celeba), `path` (skull: a .npy or .npz, a folder or gs:// URL from
        `prepare`, or the word phantom; celeba: see `open_celeba`), `num` (of phantom slices or CelebA images) and
        `pixel_mm`.
      seed: of the phantom.
      split: of a folder from `prepare`, whose pixel size goes before the config's: train or held_out.

    Raises:
      InputError: one line on what is wrong with the config or the file.
    """
    name, path, pixel_mm = data_config.name, str(data_config.path), float(data_config.pixel_mm)
    if name == "celeba":
        images = open_celeba(path, data_config.num)
        return Dataset(images, Calibration(0, 255), pixel_mm, name, fingerprint.of(images))
    if name != "skull":
        raise InputError(f"--config.data.name is {name!r}: give skull or celeba")
    if not path:
        raise InputError("--config.data.path is empty: give a .npy/.npz of (N, 128, 128) HU, or the word phantom")
    if path == "phantom":
        from skullgan_jax.data.phantom import segments

        _check_room(data_config.num)
        name, images = "phantom", segments(data_config.num, seed)
    elif prepared.is_prepared(path):
        images, pixel_mm = prepared.open_split(path, split)
    else:
        images = open_slices(path)
    seen = fingerprint.Fingerprint()
    try:
        calibration = Calibration.of(images, also=seen.update)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Dataset(images, calibration, pixel_mm, name, seen.hexdigest())


def open_held_out(data_config, num: int, seed: int) -> np.ndarray | None:
    """Slices that are not trained on, of the data that a config names: what `prepare` kept apart, or more phantoms.

    Args:
      data_config: as `open_data` takes it, which has found nothing wrong with it.
      num: how many phantoms.
      seed: of the phantom.

    Returns:
      (N, 128, 128) HU, or None where there are none.

    Raises:
      InputError: they cannot be read.
    """
    path = str(data_config.path)
    if data_config.name != "skull":
        return None
    if path == "phantom":
        from skullgan_jax.data.phantom import segments

        return segments(num, seed, start=data_config.num)
    return (
        prepared.open_split(path, "held_out")[0]
        if prepared.is_prepared(path) and prepared.has(path, "held_out")
        else None
    )


def _check_room(num: int) -> None:
    needed, available = num * SIZE * SIZE * 2, psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"--config.data.num={num}: so many slices of the phantom take {needed / 1e9:.1f} GB of memory, "
            f"{available / 1e9:.1f} GB are available; give fewer"
        )
