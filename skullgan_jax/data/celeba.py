"""CelebA for pretraining: 128 x 128 grey faces, decoded once, in parallel, into a uint8 file (1.6 GB for 100,000)."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from skullgan_jax.data import cache, prepared
from skullgan_jax.errors import InputError
from skullgan_jax.machine import paths
from skullgan_jax.machine.tensorflow import import_tensorflow
from skullgan_jax.slices.size import SIZE

_DECODING = b"1"  # part of the cache's name: change it whenever `_to_grey` changes
_SPLITS = ("train", "validation", "test")


def open_celeba(data_dir: str = "", num: int = 100_000, cache_dir: str | None = None) -> np.memmap:
    """The first `num` images of CelebA (of 202,599; published: 100,000), in file order.

    Each is cropped to its central square, made grey (ITU-R 601 luma) and resized to 128 x 128 (bilinear,
    antialiased). The first call decodes them, with progress on stderr; later ones open the decoded file.

    Args:
      data_dir: a TFDS data_dir with `celeb_a/<version>` in it ("" for TFDS's own), that version's directory
        (taken record after record, train, validation, test; TFDS stored each shuffled, once and for all),
        or a folder of JPEGs or PNGs (or one with `img_align_celeba` in it), taken in the order of names.
      num: images.
      cache_dir: where the decoded file goes; by default `<data_dir>/skullgan_jax_cache`, or
        the user's cache (paths.cache) where that cannot be written.

    Returns:
      (num, 128, 128) uint8, memory-mapped, read-only.

    Raises:
      InputError: no CelebA there, fewer than `num` images, one that cannot be decoded, no room for them.
    """
    if num < 1:
        raise InputError(f"config.data.num is {num}: give 1 or more")
    if paths.is_remote(data_dir):
        raise InputError(f"{data_dir} is not on this machine: copy it to a local disk and give that path")
    root = paths.at_home(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    if prepared.is_prepared(root):
        raise InputError(
            f"{root} holds skulls from prepare, no CelebA: give them with --config.data.name=skull, or another path"
        )
    try:
        version = _find_version(root)
        files = [] if version else _find_files(root)
        identity = _identify_version(version) if version else _identify_files(files, num)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from None
    if not version and not files:
        raise InputError(
            f"{root} holds no CelebA: run `tfds build celeb_a`, or set config.data.path to a folder of JPEGs"
        )
    folders = [Path(cache_dir)] if cache_dir else [root / cache.NAME, paths.cache()]

    def decode() -> Iterable[np.ndarray]:
        tf = import_tensorflow()
        encoded, label, count = _read_version(version) if version else _read_files(tf, files)
        if count < num:
            raise InputError(f"{version or root} holds {count} images, fewer than {num}: lower config.data.num")
        return _decode(tf, encoded.take(num), label)

    name = f"celeba_{num}_{identity}.npy"
    return cache.cached(name, folders, decode, num=num, dtype=np.uint8, what="CelebA: decoded")


def _find_version(root: Path) -> Path | None:
    """The directory of a prepared TFDS version: `root` itself, or the newest below it."""
    if (root / "dataset_info.json").is_file():
        return root
    folder = root if root.name == "celeb_a" else root / "celeb_a"
    infos = folder.glob("*/dataset_info.json")
    # An unfinished build is called 2.1.0.incomplete...
    versions = [p.parent for p in infos if re.fullmatch(r"\d+\.\d+\.\d+", p.parent.name)]
    return max(versions, key=lambda p: [int(n) for n in p.name.split(".")], default=None)


def _find_files(root: Path) -> list[Path]:
    for folder in (root, root / "img_align_celeba"):
        names = os.listdir(folder) if folder.is_dir() else []
        names = [n for n in names if n.lower().endswith((".jpg", ".jpeg", ".png")) and not n.startswith(".")]
        if names:
            return [folder / n for n in sorted(names)]
    return []


def _identify_version(version: Path) -> str:
    """A hash of what TFDS says about the dataset: its version, splits, shards and sizes."""
    return _hash([(version / "dataset_info.json").read_bytes()])


def _identify_files(files: list[Path], num: int) -> str:
    """A hash of the names that count and of 64 sizes: to ask for all takes a minute over a network."""
    files = files[:num]
    some = files[:: max(1, len(files) // 64)]
    return _hash([*(f.name.encode() for f in files), *(b"%d" % f.stat().st_size for f in some)])


def _hash(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join([_DECODING, *parts])).hexdigest()[:12]


def _read_version(version: Path):
    """A tf.data.Dataset of encoded images in file order, a function that names the i-th, and their count."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(version)
        splits = [s for s in _SPLITS if s in builder.info.splits]
        dataset = builder.as_dataset(
            split="+".join(splits),
            decoders=tfds.decode.PartialDecoding({"image": True}, {"image": tfds.decode.SkipDecoding()}),
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),  # shard after shard
        )
    except Exception as error:  # TFDS raises whatever a broken file runs into
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{version} is no TFDS dataset of images ({reason}): build celeb_a again") from None
    count = sum(builder.info.splits[s].num_examples for s in splits)
    return dataset.map(lambda x: x["image"]), lambda i: f"{version}: image {i} of {'+'.join(splits)}", count


def _read_files(tf, files: list[Path]):
    """The same for a list of files."""
    dataset = tf.data.Dataset.from_tensor_slices([os.fspath(f) for f in files])
    return dataset.map(tf.io.read_file, num_parallel_calls=tf.data.AUTOTUNE), lambda i: files[i], len(files)


def _decode(tf, encoded, label: Callable) -> Iterable[np.ndarray]:
    """Yields (128, 128) uint8, in order, decoded on all cores."""
    images = encoded.map(lambda x: _to_grey(tf, x), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    images = images.prefetch(256).as_numpy_iterator()
    done = 0
    try:
        for image in images:
            yield image
            done += 1
    except tf.errors.OpError as error:  # it arrives in order, in the place of the image
        reason = re.sub(r"\{\{.*?\}\}|\[.*", "", error.message.splitlines()[0]).strip()  # graph nodes
        raise InputError(f"{label(done)} cannot be decoded ({reason}): replace or remove it") from None


def _to_grey(tf, encoded):
    """One encoded image of any size -> (128, 128) uint8."""
    # It decodes PNG too, in spite of its name.
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    height, width = tf.unstack(tf.shape(image)[:2])
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = tf.cast(image[top : top + side, left : left + side], tf.float32)
    # Grey before the resize, which is then a third of the work.
    grey = tf.linalg.matvec(square, [0.299, 0.587, 0.114])
    small = tf.image.resize(grey[..., None], (SIZE, SIZE), "bilinear", antialias=True)[..., 0]
    return tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8)
