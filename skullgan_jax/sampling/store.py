"""A store of samples: a Zarr v3 group on a disk or in a bucket, which several processes fill at once, shard by shard.

Arrays, of N samples: `hu` (N, 128, 128) int16, `index` (N,) of the seed's stream, the measures of radiology.NAMES (N,)
float32, and `crc32` (N,) of each sample's values and measures. A shard is written whole, its `crc32` last: where that
is there and right, all of it is. Attributes of the group say what the samples are; `complete` that all N are there, as
zarr.json comes into being long before.
"""

import json
import math
import pathlib
import re
import zlib

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
# A bucket that refuses should say so within a minute, not after the default of 32 tries.
_CONTEXT = ts.Context({"gcs_request_retries": {"max_retries": 6}})


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
            self.about = _attributes(path)
            if self.about is None:
                raise InputError(f"{path}: no store of samples is here; check the path")
            self.shard = self.about["shard"]
            self._arrays = {name: _open(path, name).result() for name in _ARRAYS}
        except InputError:
            raise
        except Exception as error:  # TensorStore raises ValueError for anything at all
            raise _cannot(path, "opened", error) from None

    @classmethod
    def exists(cls, path) -> bool:
        """Whether there is one; InputError where something else is."""
        try:
            return _attributes(path) is not None
        except InputError:
            raise
        except Exception as error:
            raise _cannot(path, "opened", error) from None

    @classmethod
    def create(cls, path, about: dict, *, rows: int, shard: int) -> "Store":
        """A new one with room for that many samples; of processes that do so at once, each gets the same."""
        try:
            about = {**about, "num": rows, "shard": shard, "complete": False}
            for future in [_open(path, name, rows, shard) for name in _ARRAYS]:
                future.result()
            _put(path, about)  # last: where it is, all is
        except Exception as error:
            raise _cannot(path, "written", error) from None
        return cls(path)

    def grow(self, rows: int) -> None:
        """Makes room for more samples; a last shard that was not full is to be drawn again."""
        if rows <= len(self):
            return
        try:
            self._put_about(num=rows, complete=False)
            for name, array in self._arrays.items():
                shape = [rows] + [None] * (array.ndim - 1)
                self._arrays[name] = array.resize(exclusive_max=shape, expand_only=True).result()
        except Exception as error:
            raise _cannot(self.path, "written", error) from None

    def complete(self, **more) -> None:
        """Says in the attributes that all samples are there, and what else is known then."""
        try:
            self._put_about(**more, complete=True)
        except Exception as error:
            raise _cannot(self.path, "written", error) from None

    def _put_about(self, **changed) -> None:
        self.about = self.about | changed
        _put(self.path, self.about)

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
            if not self.uncommitted(shard, shard + 1):
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
        try:
            writing = [self._arrays[name][first:last].write(value) for name, value in values.items()]
            checked = _checked(samples)
            for future in writing:
                future.result()
            self._arrays["crc32"][first:last].write(checked).result()
        except Exception as error:
            raise _cannot(self.path, "written", error) from None

    def read(self, first: int, last: int) -> Samples:
        """The samples at positions first to last - 1, checked.

        Raises:
          InputError: they are not there, or not as they were written.
        """
        try:
            futures = {name: array[first:last].read() for name, array in self._arrays.items()}
            found = {name: future.result() for name, future in futures.items()}
        except Exception as error:
            raise _cannot(self.path, "read", error) from None
        checked = found.pop("crc32")
        samples = Samples(found.pop("index"), found.pop("hu"), found)
        if not np.array_equal(checked, _checked(samples)):
            raise InputError(f"{self.path}: samples {first} to {last - 1} are missing or damaged; draw them again")
        return samples

    def take(self, positions: np.ndarray) -> Samples:
        """The samples at ascending positions, checked; InputError as of `read`."""
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


def _attributes(path) -> dict | None:
    files = _files(path)
    found = files.read("zarr.json").result()
    if found.state == "missing":
        # Without zarr.json nothing says whose samples any shards are: a store that was just begun has none.
        begun = {f"{name}/zarr.json" for name in _ARRAYS}
        if any(key.decode() not in begun for key in files.list().result()):
            raise InputError(f"{path}: is there, and no store of samples; give another name or remove it")
        return None
    try:
        about = json.loads(found.value)["attributes"]
        if about["format"] != FORMAT or not about["shard"] >= 1 or about["complete"] not in (True, False):
            raise ValueError("of another version")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: is no store of samples, or damaged ({error}); give another name or remove it"
        ) from None
    return about


def _put(path, about: dict) -> None:
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": about}, indent=1)
    _files(path).write("zarr.json", text.encode()).result()


def _open(path, name: str, rows: int | None = None, shard: int = 0):
    """An array that is there; with `rows` one that may have to be made."""
    spec = {"driver": "zarr3", "kvstore": f"{_base(path)}/{name}/"}
    if rows is None:
        return ts.open(spec, context=_CONTEXT)
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
    return ts.open(spec | {"metadata": metadata}, open=True, create=True, context=_CONTEXT)


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
