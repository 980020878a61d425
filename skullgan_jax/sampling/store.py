"""A store of samples: a Zarr v3 group on a disk or in a bucket, which several processes fill at once, shard by shard.

Arrays, of N samples: `hu` (N, 128, 128) int16, `index` (N,) of the seed's stream, the measures of radiology.NAMES (N,)
float32, and `crc32` (N,) of each sample's values and measures. A shard is written whole, its `crc32` last: where that
is there and right, all of it is. Attributes of the group say what the samples are; `complete` that all N are there, as
zarr.json comes into being before everything else. They are changed only as they were read: whoever finds that another
process was faster reads them again.
"""

import json
import math
import pathlib
import re
import zlib
from collections.abc import Callable
from concurrent import futures

import numpy as np
import tensorstore as ts

from skullgan_jax.errors import InputError
from skullgan_jax.model.draw import Samples
from skullgan_jax.slices import radiology
from skullgan_jax.slices.size import SIZE

FORMAT = 1
_CHUNK = 16  # samples that are compressed together; readers fetch that many at least
_COLUMNS = {"index": ("int64", -1), **{name: ("float32", "NaN") for name in radiology.NAMES}, "crc32": ("uint32", 0)}
_ARRAYS = ("hu", *_COLUMNS)
_AT_ONCE = 4  # shards that are read and compared at the same time
# A bucket that refuses should say so within a minute, not after the default of 32 tries.
_CONTEXT = ts.Context({"gcs_request_retries": {"max_retries": 6}})


class Damaged(InputError):
    """Samples that should be there cannot be read, or are not as they were written."""


def is_remote(path) -> bool:
    """Whether it is in a bucket."""
    return "://" in str(path)


class Store:
    """A store that is there; see the module.

    Args:
      path: a folder, or a URL such as gs://bucket/skulls.zarr.

    Attributes:
      about: the attributes of the group.
      shard: samples per file.

    Raises:
      InputError: it cannot be read, or something else is there.
    """

    def __init__(self, path):
        self.path = str(path)
        try:
            self.about = attributes(path)
            if self.about is None:
                raise InputError(f"{path}: no store of samples is here; check the path")
            self.shard = self.about["shard"]
            self._arrays = {name: _open(path, name).result() for name in _ARRAYS}
        except InputError:
            raise
        except Exception as error:  # TensorStore raises ValueError for anything at all
            raise _cannot(path, "opened", error) from None
        if any(array.chunk_layout.write_chunk.shape[0] != self.shard for array in self._arrays.values()):
            raise InputError(f"{path}: is damaged (its files do not hold {self.shard} samples each); remove it")

    @classmethod
    def create(cls, path, about: dict, *, rows: int, shard: int) -> "Store":
        """The one that is there, else a new one with room for that many samples.

        Of processes that do so at once, each gets the one of the first, which may be another than it asked for.
        """
        try:
            found, as_read = _read(path)
            if found is None:
                _write(path, {**about, "num": rows, "shard": shard, "complete": False}, as_read)
                found, _ = _read(path)
            with futures.ThreadPoolExecutor(len(_ARRAYS)) as pool:
                list(pool.map(lambda name: _make(path, name, found["num"], found["shard"]), _ARRAYS))
        except InputError:
            raise
        except Exception as error:
            raise _cannot(path, "written", error) from None
        return cls(path)

    def grow(self, rows: int) -> None:
        """Makes room for more samples; a last shard that was not full is to be drawn again."""
        self._put_about(lambda about: {"num": rows, "complete": False} if about["num"] < rows else {})
        rows = max(rows, self.about["num"])  # it may be that another process was killed before it made that room
        try:
            self._arrays = {name: _expand(self.path, name, rows, array) for name, array in self._arrays.items()}
        except Exception as error:
            raise _cannot(self.path, "written", error) from None

    def complete(self, **more) -> list[int]:
        """Says in the attributes that all samples are there, and what else is known then, if it is so.

        Every shard is read for that, of samples that another job made room for in the meantime, too.

        Returns:
          The shards that are missing or damaged: where there are any, nothing is said.
        """
        missing = []

        def checked(about):
            now = Store(self.path)
            with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
                there = list(pool.map(now.finished, range(now.shards(about["num"]))))
            missing[:] = [shard for shard, is_there in enumerate(there) if not is_there]
            return {} if missing else {**more, "complete": True}

        self._put_about(checked)
        return missing

    def _put_about(self, changed: Callable[[dict], dict]) -> None:
        """Changes the attributes by what `changed` says of those that are there, again if they were not by then."""
        while True:
            try:
                self.about, as_read = _read(self.path)
                if self.about is None:
                    raise InputError(f"{self.path}: was removed while samples were drawn into it")
                change = changed(self.about)
                self.about = self.about | change
                if not change or _write(self.path, self.about, as_read):
                    return
            except InputError:
                raise
            except Exception as error:
                raise _cannot(self.path, "written", error) from None

    def __len__(self) -> int:
        return self._arrays[_ARRAYS[-1]].shape[0]  # the last that `grow` resizes: killed in between, it is done again

    def shards(self, rows: int) -> int:
        """How many shards hold that many samples."""
        return -(-rows // self.shard)

    def rows(self, shard: int) -> tuple[int, int]:
        """First and last + 1 of the samples of a shard, by position in the store."""
        return shard * self.shard, min((shard + 1) * self.shard, len(self))

    def uncommitted(self, first: int, last: int) -> list[int]:
        """The shards from `first` to `last` - 1 that were not written whole, going by the record written last."""
        rows = slice(first * self.shard, min(last * self.shard, len(self)))
        try:
            there = self._arrays["crc32"][rows].read().result() != 0
        except Exception as error:
            raise _cannot(self.path, "read", error) from None
        return [s for s in range(first, last) if not there[(s - first) * self.shard :][: self.shard].all()]

    def finished(self, shard: int) -> bool:
        """Whether it was written whole and is so still: everything of it is read and compared."""
        try:
            if min((shard + 1) * self.shard, self.about["num"]) <= len(self) and not self.uncommitted(shard, shard + 1):
                self.read(*self.rows(shard))
                return True
        except InputError:
            pass
        return False

    def write(self, shard: int, samples: Samples) -> None:
        """Writes a shard, all its rows.

        Raises:
          InputError: it cannot be written.
        """
        first, last = self.rows(shard)
        values = {"hu": samples.hu, "index": samples.index, **samples.measures}
        # Where a store ended within a shard, a job of more samples may have written the rest of it by now.
        arrays = Store(self.path)._arrays if last % self.shard else self._arrays
        try:
            writing = [arrays[name][first:last].write(value) for name, value in values.items()]
            checked = _checked(samples)
            for future in writing:
                future.result()
            arrays["crc32"][first:last].write(checked).result()
        except Exception as error:
            raise _cannot(self.path, "written", error) from None

    def read(self, first: int, last: int) -> Samples:
        """The samples at positions first to last - 1, checked.

        Raises:
          Damaged: they are not there, or not as they were written.
        """
        try:
            futures = {name: array[first:last].read() for name, array in self._arrays.items()}
            found = {name: future.result() for name, future in futures.items()}
        except Exception as error:
            raise Damaged(_cannot(self.path, "read", error)) from None
        checked = found.pop("crc32")
        samples = Samples(found.pop("index"), found.pop("hu"), found)
        if not np.array_equal(checked, _checked(samples)):
            raise Damaged(f"{self.path}: samples {first} to {last - 1} are missing or damaged; draw them again")
        return samples

    def take(self, positions: np.ndarray) -> Samples:
        """The samples at ascending positions, checked; Damaged as of `read`."""
        parts = []
        for shard in np.unique(positions // self.shard):
            first, last = self.rows(int(shard))
            rows = positions[(positions >= first) & (positions < last)]
            parts.append(self.read(int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]])
        return Samples.concatenate(parts)


def _base(path) -> str:
    return str(path).rstrip("/") if is_remote(path) else pathlib.Path(path).absolute().as_uri()


def _files(path) -> ts.KvStore:
    return ts.KvStore.open(f"{_base(path)}/", context=_CONTEXT).result()


def attributes(path) -> dict | None:
    """What the samples of a store are; None where nothing is. InputError where something else is."""
    try:
        return _read(path)[0]
    except InputError:
        raise
    except Exception as error:
        raise _cannot(path, "opened", error) from None


def _read(path) -> tuple[dict | None, bytes]:
    """The attributes, None where nothing is, and what `_write` compares."""
    files = _files(path)
    found = files.read("zarr.json").result()
    if found.state == "missing":
        # Without zarr.json nothing says whose samples any shards are. Earlier versions made the arrays first.
        begun = {f"{name}/zarr.json" for name in _ARRAYS}
        if any(key.decode() not in begun for key in files.list().result()):
            found = files.read("zarr.json").result()  # another process may have made all of it just now
            if found.state == "missing":
                raise InputError(f"{path}: is there, and no store of samples; give another name or remove it")
    if found.state == "missing":
        return None, found.stamp.generation
    try:
        about = json.loads(found.value)["attributes"]
        if about["format"] != FORMAT or not about["shard"] >= 1 or about["complete"] not in (True, False):
            raise ValueError("of another version")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no store of samples, or damaged ({error}); give another name or remove it"
        ) from None
    return about, found.stamp.generation


def _write(path, about: dict, as_read: bytes) -> bool:
    """Whether the attributes were what was read, and are these now."""
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": about}, indent=1)
    return bool(_files(path).write("zarr.json", text.encode(), if_equal=as_read).result().generation)


def _spec(path, name: str) -> dict:
    return {"driver": "zarr3", "kvstore": f"{_base(path)}/{name}/"}


def _open(path, name: str):
    return ts.open(_spec(path, name), context=_CONTEXT)


def _expand(path, name: str, rows: int, array):
    """The array with that many rows at least."""
    if array.shape[0] >= rows:
        return array
    try:
        return array.resize(exclusive_max=[rows] + [None] * (array.ndim - 1), expand_only=True).result()
    except ValueError:
        now = _open(path, name).result()
        if now.shape[0] < rows:
            raise
        return now  # another process made even more room


def _make(path, name: str, rows: int, shard: int) -> None:
    """Makes an array, if it is not there."""
    try:
        _open(path, name).result()
        return
    except ValueError:
        pass
    little, checked = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    if name == "hu":
        shape, dtype, fill, axes = (SIZE, SIZE), "int16", 0, ["sample", "row", "column"]
        packed = {"cname": "zstd", "clevel": 1, "shuffle": "shuffle", "typesize": 2, "blocksize": 0}
        sharding = {
            "chunk_shape": [math.gcd(_CHUNK, shard), *shape],
            "codecs": [little, {"name": "blosc", "configuration": packed}, checked],
            "index_codecs": [little, checked],
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    else:
        (dtype, fill), shape, axes, codecs = _COLUMNS[name], (), ["sample"], [little, checked]
    metadata = {
        "shape": [rows, *shape],
        "data_type": dtype,
        "fill_value": fill,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *shape]}},
        "codecs": codecs,
        "dimension_names": axes,
        "attributes": {"long_name": radiology.DEFINITIONS[name]} if name in radiology.NAMES else {},
    }
    try:
        ts.open(_spec(path, name) | {"metadata": metadata}, create=True, context=_CONTEXT).result()
    except ValueError:
        _open(path, name).result()  # another process was faster, or it fails for the same reason


def _cannot(path, be: str, error: Exception) -> InputError:
    reason = " ".join(re.split(r" \[[a-z_ ]+=", str(error))[0].replace("\0", "/").split())
    if len(reason) > 240:  # what failed stands first, why last
        reason = f"{reason[:110]} ... {reason[-120:]}"
    return InputError(f"{path}: cannot be {be} ({reason})")


def _checked(samples: Samples) -> np.ndarray:
    """(n,) uint32: the CRC of each sample's values, its index and its measures; 0 is what was never written."""
    columns = np.stack([samples.measures[name] for name in radiology.NAMES], 1).astype("<f4")
    rows = zip(np.ascontiguousarray(samples.hu, "<i2"), samples.index.astype("<i8"), columns, strict=True)
    sums = (zlib.crc32(c, zlib.crc32(i, zlib.crc32(hu))) or 1 for hu, i, c in rows)
    return np.fromiter(sums, np.uint32, len(samples))
