"""Data sets that `prepare` wrote: TFDS shards or plain arrays, on this machine or in a bucket."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from skullgan_jax.data import cache
from skullgan_jax.data.arrays import open_slices
from skullgan_jax.errors import InputError, MachineError, Told, by_cause
from skullgan_jax.machine import paths, places
from skullgan_jax.machine.tensorflow import import_tensorflow


def is_prepared(path) -> bool:
    """Whether `prepare` wrote what is there."""
    if paths.is_remote(path) and str(path).endswith((".npy", ".npz")):
        return False
    try:
        return _read_text(path, "summary.json") is not None
    except InputError:
        return True  # and opening it says what is wrong


def open_split(path, split: str) -> tuple[np.ndarray, float]:
    """The segments of a split, and the edge of a pixel in mm.

    TFDS shards are decoded once, into `skullgan_jax_cache` in the folder, or the user's cache (paths.cache) where it
    cannot be written or is a bucket.

    Args:
      path: the folder, or its URL.
      split: train or held_out.

    Returns:
      (N, 128, 128) int16 HU, memory-mapped, read-only; mm.

    Raises:
      InputError: it cannot be read, or has no such split.
    """
    text = _read_text(path, "summary.json")
    pixel_mm, npy, splits = _summary(path, text)
    if split not in splits:
        raise InputError(f"{path} has no segments in {split}, only in {' and '.join(sorted(splits))}: add scans to it")
    if npy:
        return open_slices(f"{path}/{split}.npy"), pixel_mm
    builder = _builder(path)
    name = f"{split}_{hashlib.sha256(text.encode()).hexdigest()[:12]}.npy"
    folders = [paths.cache()] if paths.is_remote(path) else [Path(path, cache.NAME), paths.cache()]
    num = builder.info.splits[split].num_examples
    what = f"{split}: decoded"
    return cache.cached(
        name, folders, lambda: _decode(path, builder, split), num=num, dtype=np.int16, what=what
    ), pixel_mm


def has(path, split: str) -> bool:
    """Whether there are segments in a split. Raises InputError."""
    return split in _summary(path, _read_text(path, "summary.json"))[2]


def _summary(path, text: str | None) -> tuple[float, bool, set[str]]:
    """The edge of a pixel in mm, whether arrays are plain, and the splits that hold segments. Raises InputError."""
    try:
        summary = json.loads(text)
        pixel_mm, npy = float(summary["pixel_mm"]), summary["format"] == "npy"
        return pixel_mm, npy, {s["split"] for s in summary["scans"].values() if s["windows"].get("accepted")}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path}/summary.json: damaged; prepare the folder again") from None


def read(path, split: str) -> tuple[np.ndarray, list[dict]]:
    """The segments of a split with what is known of each.

    Args:
      path: the folder, or its URL.
      split: train or held_out.

    Returns:
      (N, 128, 128) int16 HU, memory-mapped, and N dicts: subject and scan (hashes), slice, angle, region, kernel, kvp,
      source_slice_mm, source_pixel_mm, column_mm, thickness_3d_mm, thickest_mm, lean_degrees, sdr, mean_hu, max_hu.

    Raises:
      InputError: it cannot be read, or has no such split.
    """
    images, _ = open_split(path, split)
    try:
        rows = json.loads(_read_text(path, "segments.json") or "")[split]
    except (ValueError, KeyError, TypeError):
        rows = []
    if len(rows) != len(images):
        raise InputError(f"{path}/segments.json: damaged; prepare the folder again")
    return images, rows


def _read_text(path, name: str) -> str | None:
    """A file of the data set, or None where there is none."""
    try:
        with places.opened(path) as place:
            found, _ = place.read(name)
        return found.decode() if found is not None else None
    except (OSError, UnicodeDecodeError) as error:
        raise by_cause(error, f"{path}/{name}: cannot be read ({' '.join(str(error).split())[:120]})") from None


def _builder(path):
    import_tensorflow()  # before TFDS does, which would let it talk
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(str(path))
    except Exception as error:  # TFDS raises whatever a broken file runs into
        raise _damaged(path, error) from None


def _decode(path, builder, split: str) -> Iterable[np.ndarray]:
    import tensorflow_datasets as tfds

    try:
        dataset = builder.as_dataset(
            split=split,
            decoders=tfds.decode.PartialDecoding({"image": True}),
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),  # in order
        )
        yield from (x["image"] for x in dataset.as_numpy_iterator())
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path, error: Exception) -> Told:
    reason = " ".join(str(error).split())[:120]
    told = by_cause(error, f"{path}: cannot be read ({reason}); give the same command again")
    if isinstance(told, MachineError):
        return told
    return InputError(f"{path} is no data set of prepare, or damaged ({reason}): prepare it again")
