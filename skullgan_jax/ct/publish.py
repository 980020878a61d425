"""The data set as others read it: TFDS shards or plain arrays, put in place as a whole, here or in a bucket."""

import contextlib
import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from skullgan_jax.command.progress import Progress
from skullgan_jax.ct.pieces import MEASURES, Piece
from skullgan_jax.ct.window import DEFINITIONS
from skullgan_jax.errors import InputError, MachineError, by_cause
from skullgan_jax.machine import files
from skullgan_jax.machine.paths import is_remote
from skullgan_jax.slices.size import SIZE

SPLITS = ("train", "held_out")
CACHE = "skullgan_jax_cache"  # made by readers, of what is here now
_PER_SHARD = 2000  # segments: 66 MB
_NUMBERS = (*MEASURES, *DEFINITIONS, "angle")


def summary(output: str) -> dict | None:
    """summary.json of a data set that is there, or None where there is nothing.

    Raises:
      InputError: something else is there, or it cannot be read.
      MachineError: nor by anybody, for now.
    """
    try:
        if is_remote(output):
            gfile = _gfile()
            if not gfile.exists(output):
                return None
            with gfile.GFile(f"{output}/summary.json") as file:
                return _checked(json.loads(file.read()))
        folder = pathlib.Path(output)
        with contextlib.suppress(OSError):
            files.clean(folder)  # an earlier run may have been killed between two renames
        if not folder.exists():
            return None
        return _checked(json.loads((folder / "summary.json").read_text(encoding="utf-8")))
    except Exception as error:  # buckets fail in a dozen ways
        reason = " ".join(str(error).split())[:120]
        told = by_cause(error, f"--output={output}: cannot be read ({reason}); give the same command again")
        if isinstance(told, MachineError):
            raise told from None
        raise InputError(
            f"--output={output}: is there, and no data set of prepare ({reason}); give another folder or remove it"
        ) from None


def _checked(found: dict) -> dict:
    known = all(isinstance(s[k], str) for s in found["scans"].values() for k in ("subject", "split"))
    if not re.fullmatch(r"1\.\d+\.0", found["version"]) or not isinstance(found["files"], list) or not known:
        raise ValueError("of another version")
    return found


def rows(pieces: list[Piece], scan: str) -> Iterator[dict]:
    """What is known of each accepted segment of a scan."""
    for piece in pieces:
        about = {k: v for k, v in piece.about.items() if k not in ("notes", "told_by")}
        for known in piece.known:
            if not known["reason"]:
                yield {"scan": scan, **about, **{k: v for k, v in known.items() if k != "reason"}}


def write_arrays(folder: pathlib.Path, splits: dict[str, dict[str, list[Piece]]]) -> None:
    """<split>.npy, (N, 128, 128) int16 HU.

    Raises:
      OSError: it cannot be written.
    """
    for split, scans in splits.items():
        images = [piece.accepted for pieces in scans.values() for piece in pieces]
        count = sum(not k["reason"] for pieces in scans.values() for p in pieces for k in p.known)
        header = {"descr": "<i2", "fortran_order": False, "shape": (count, SIZE, SIZE)}
        with (folder / f"{split}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for accepted in images:
                file.write(accepted().astype("<i2").tobytes())


def write_tfds(folder: pathlib.Path, splits: dict[str, dict[str, list[Piece]]], version: str) -> None:
    """TFRecord shards with image and metadata, for tfds.builder_from_directory.

    Raises:
      OSError: it cannot be written.
    """
    from skullgan_jax.machine.tensorflow import import_tensorflow

    tf = import_tensorflow()
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Tensor(shape=(SIZE, SIZE), dtype=np.int16),
            **{k: tfds.features.Text() for k in ("subject", "scan", "region", "kernel")},
            **{k: np.float32 for k in (*_NUMBERS, "kvp", "source_slice_mm", "source_pixel_mm")},
            "slice": np.int32,
        }
    )
    infos = []
    for split, scans in splits.items():
        table = [row for scan, pieces in scans.items() for row in rows(pieces, scan)]
        images = (image for pieces in scans.values() for piece in pieces for image in piece.accepted())
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name="skulls", split=split, filetype_suffix="tfrecord"
        )
        lengths = [len(table[i : i + _PER_SHARD]) for i in range(0, len(table), _PER_SHARD)]
        segments, size = zip(table, images, strict=True), 0
        progress = Progress(f"written to {split}", len(table), "segments")
        for shard, length in enumerate(lengths):
            path = template.sharded_filepath(shard_index=shard, num_shards=len(lengths))
            try:
                with tf.io.TFRecordWriter(str(path)) as writer:
                    for _ in range(length):
                        row, image = next(segments)
                        record = features.serialize_example({"image": image, **row})
                        size += len(record)
                        writer.write(record)
            except tf.errors.OpError as error:
                raise OSError(error.message) from None
            progress(sum(lengths[: shard + 1]))
        infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=infos,
        version=version,
        filename_template=template,
        description="Segments of the skull in HU, cut from head CTs; split by subject.",
        homepage="https://arxiv.org/abs/2308.00206",
    )


@contextlib.contextmanager
def replacing(output: str, old: dict | None) -> Iterator[pathlib.Path]:
    """A name for a new folder on this machine, which is put in the place of `output` at the end of the block.

    Args:
      output: where to; files there that no data set of ours brought stay.
      old: the summary of the data set that is there.

    Raises:
      OSError: it cannot be written.
      InputError: it cannot be written to a bucket.
      MachineError: the bucket does not answer.
    """
    ours = {*(old or {}).get("files", ()), CACHE}
    if not is_remote(output):
        with files.whole(output, ours=ours) as folder:
            yield folder
        return
    with files.beside(output.rsplit("/", 1)[1]) as folder:
        yield folder
        try:
            _upload(folder, output, ours)
        except Exception as error:  # buckets fail in a dozen ways
            line = f"--output={output}: cannot be written ({' '.join(str(error).split())[:200]})"
            raise by_cause(error, line) from None


def _upload(folder: pathlib.Path, url: str, ours: set[str]) -> None:
    """What makes it a data set goes first and comes last, so that half of one is never taken for one."""
    gfile = _gfile()
    gfile.makedirs(url)
    new = sorted(folder.iterdir(), key=lambda p: (p.suffix == ".json", p.name == "summary.json"))
    stale = [name for name in gfile.listdir(url) if name in ours]
    for name in sorted(stale, key=lambda n: n != "dataset_info.json"):
        if name != "summary.json":  # it says what is ours: needed if this is interrupted
            gfile.remove(f"{url}/{name}")
    progress = Progress(f"copied to {url}", len(new), "files")
    for i, path in enumerate(new, 1):
        gfile.copy(str(path), f"{url}/{path.name}", overwrite=True)
        progress(i)


def _gfile():
    from skullgan_jax.machine.tensorflow import import_tensorflow

    return import_tensorflow().io.gfile
