"""Rows of arrays that several processes fill at once, shard by shard: a Zarr v3 group on a disk or in a bucket.

All arrays have one entry a row; `crc32` (N,) uint32 is of what the others have there. A shard is written whole, its
`crc32` last: where that is there and right, all of it is. Attributes of the group say what the rows are; `complete`
that all N are there, as zarr.json comes into being before everything else. They are changed only as they were read:
whoever finds that another process was faster reads them again.
"""

import abc
import dataclasses
import functools
import json
import math
import pathlib
import re
import zlib
from collections.abc import Callable
from concurrent import futures
from typing import ClassVar, Self

import numpy as np
import tensorstore as ts

from skullgan_jax.errors import InputError, MachineError, Told, by_cause
from skullgan_jax.machine import places
from skullgan_jax.machine.paths import is_remote

_AT_ONCE = 4  # shards that are read and compared at the same time
_CRC = "crc32"
_CONTEXT = places.context()


class Damaged(InputError):
    """Rows that should be there cannot be read, or are not as they were written."""


@dataclasses.dataclass(frozen=True)
class Column:
    """One array of a store.

    Attributes:
      dtype: of its values.
      fill: what is read where nothing was written.
      shape: of a row.
      axes: names of the axes of that.
      together: rows that are compressed together, so that readers fetch that many at least; None leaves all of a shard
        as it is.
      about: attributes of the array.
    """

    dtype: str
    fill: float | str
    shape: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()
    together: int | None = None
    about: dict = dataclasses.field(default_factory=dict)


class Rows(abc.ABC):
    """A store that is there; see the module. What it is of is said by subclasses, which may have types for rows.

    Args:
      path: a folder, or a URL such as gs://bucket/skulls.zarr.

    Attributes:
      about: the attributes of the group.
      shard: rows per file.
      FORMAT: what the attributes have as `format`; another one, where rows are drawn in a way that may give other bits.
      EARLIER: formats that are read as well. Nothing more is drawn into those.
      NAMES: of the arrays, in the order in which their values are checked.
      OF, DONE, UNIT: what the rows are, what is done to make them and what they are counted in, for messages.

    Raises:
      InputError: it cannot be read, or something else is there.
    """

    FORMAT: ClassVar[int | str]
    EARLIER: ClassVar[tuple[int | str, ...]] = ()
    NAMES: ClassVar[tuple[str, ...]]
    OF: ClassVar[str]
    DONE: ClassVar[str]
    UNIT: ClassVar[str]

    @classmethod
    @abc.abstractmethod
    def columns(cls, about: dict) -> dict[str, Column]:
        """The arrays of a store with these attributes, by name."""

    def __init__(self, path):
        self.path = str(path)
        try:
            self.about = self.attributes(path)
            if self.about is None:
                raise InputError(f"{path}: no store of {self.OF} is here; check the path")
            self.shard = self.about["shard"]
            self._arrays = {name: _open(path, name).result() for name in (*self.NAMES, _CRC)}
        except Told:
            raise
        except Exception as error:  # TensorStore raises ValueError for anything at all
            raise _cannot(path, "opened", error) from None
        if any(array.chunk_layout.write_chunk.shape[0] != self.shard for array in self._arrays.values()):
            raise InputError(f"{path}: is damaged (its files do not hold {self.shard} {self.OF} each); remove it")

    @classmethod
    def create(cls, path, about: dict, *, rows: int, shard: int) -> Self:
        """The one that is there, else a new one with room for that many rows.

        Of processes that do so at once, each gets the one of the first, which may be another than it asked for.
        """
        try:
            found, as_read = cls._read(path)
            if found is None:
                _write(path, {**about, "num": rows, "shard": shard, "complete": False}, as_read)
                found, _ = cls._read(path)
            columns = {**cls.columns(found), _CRC: Column("uint32", 0)}
            with futures.ThreadPoolExecutor(len(columns)) as pool:
                list(pool.map(lambda name: _make(path, name, columns[name], found["num"], found["shard"]), columns))
        except Told:
            raise
        except Exception as error:
            raise _cannot(path, "written", error) from None
        return cls(path)

    def grow(self, rows: int) -> None:
        """Makes room for more rows; a last shard that was not full is to be drawn again."""
        self._put_about(lambda about: {"num": rows, "complete": False} if about["num"] < rows else {})
        rows = max(rows, self.about["num"])  # it may be that another process was killed before it made that room
        try:
            self._arrays = {name: _expand(self.path, name, rows, array) for name, array in self._arrays.items()}
        except Exception as error:
            raise _cannot(self.path, "written", error) from None

    def complete(self, num: int, **more) -> list[int]:
        """Says in the attributes that all rows are there, if it is so, and what else is known of `num` rows.

        Every shard is read for that, of rows that another job made room for in the meantime, too: what is known of
        those is said by that job.

        Returns:
          The shards that are missing or damaged: where there are any, nothing is said.
        """
        missing = []

        def checked(about):
            missing[:] = type(self)(self.path).unfinished(about["num"])
            return {} if missing or (more and about["num"] != num) else {**more, "complete": True}

        self._put_about(checked)
        return missing

    def _put_about(self, changed: Callable[[dict], dict]) -> None:
        """Changes the attributes by what `changed` says of those that are there, again if they were not by then."""
        while True:
            try:
                self.about, as_read = self._read(self.path)
                if self.about is None:
                    raise InputError(f"{self.path}: was removed while {self.OF} were written into it")
                change = changed(self.about)
                self.about = self.about | change
                if not change or _write(self.path, self.about, as_read):
                    return
            except Told:
                raise
            except Exception as error:
                raise _cannot(self.path, "written", error) from None

    def __len__(self) -> int:
        return self._arrays[_CRC].shape[0]  # the last that `grow` resizes: killed in between, it is done again

    def shards(self, rows: int) -> int:
        """How many shards hold that many rows."""
        return -(-rows // self.shard)

    def rows(self, shard: int) -> tuple[int, int]:
        """First and last + 1 of the rows of a shard, by position in the store."""
        return shard * self.shard, min((shard + 1) * self.shard, len(self))

    def uncommitted(self, first: int, last: int) -> list[int]:
        """The shards from `first` to `last` - 1 that were not written whole, going by the record written last."""
        rows = slice(first * self.shard, min(last * self.shard, len(self)))
        try:
            there = self._arrays[_CRC][rows].read().result() != 0
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

    def unfinished(self, rows: int) -> list[int]:
        """The shards of so many rows that are missing or damaged: all are read."""
        with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            there = list(pool.map(self.finished, range(self.shards(rows))))
        return [shard for shard, is_there in enumerate(there) if not is_there]

    def write(self, shard: int, values: dict[str, np.ndarray]) -> None:
        """Writes a shard, all its rows: by name (rows of the shard, ...) each.

        Raises:
          InputError: it cannot be written.
          MachineError: it cannot be now, for lack of space or of an answer.
        """
        first, last = self.rows(shard)
        # Where a store ended within a shard, a job of more rows may have written the rest of it by now.
        arrays = type(self)(self.path)._arrays if last % self.shard else self._arrays
        try:
            writing = [arrays[name][first:last].write(values[name]) for name in self.NAMES]
            checked = _checked([values[name] for name in self.NAMES], arrays.values())
            for future in writing:
                future.result()
            arrays[_CRC][first:last].write(checked).result()
        except Exception as error:
            raise _cannot(self.path, "written", error) from None

    def read(self, first: int, last: int) -> dict[str, np.ndarray]:
        """The rows first to last - 1 of all arrays, by name, checked.

        Raises:
          Damaged: they are not there, or not as they were written.
          MachineError: the bucket does not answer.
        """
        try:
            futures = {name: array[first:last].read() for name, array in self._arrays.items()}
            found = {name: future.result() for name, future in futures.items()}
        except Exception as error:
            told = _cannot(self.path, "read", error)
            # A bucket that does not answer is not damaged. What a disk does not give is, whatever its reason.
            raise (told if isinstance(told, MachineError) and is_remote(self.path) else Damaged(told)) from None
        checked = found.pop(_CRC)
        if not np.array_equal(checked, _checked(list(found.values()), self._arrays.values())):
            raise Damaged(f"{self.path}: {self.OF} {first} to {last - 1} are missing or damaged; draw them again")
        return found

    def take(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at ascending positions, checked; Damaged as of `read`."""
        parts = []
        for shard in np.unique(positions // self.shard):
            first, last = self.rows(int(shard))
            rows = positions[(positions >= first) & (positions < last)]
            found = Rows.read(self, int(rows[0]), int(rows[-1]) + 1)
            parts.append({name: values[rows - rows[0]] for name, values in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in self.NAMES}

    @classmethod
    def attributes(cls, path) -> dict | None:
        """What the rows of a store are; None where nothing is. InputError where something else is."""
        try:
            return cls._read(path)[0]
        except Told:
            raise
        except Exception as error:
            raise _cannot(path, "opened", error) from None

    @classmethod
    def _read(cls, path) -> tuple[dict | None, bytes]:
        """The attributes, None where nothing is, and what `_write` compares."""
        files = _files(path)
        found = files.read("zarr.json").result()
        if found.state == "missing":
            # Without zarr.json nothing says what any shards are. Earlier versions made the arrays first.
            begun = {f"{name}/zarr.json" for name in (*cls.NAMES, _CRC)}
            if any(key.decode() not in begun for key in files.list().result()):
                found = files.read("zarr.json").result()  # another process may have made all of it just now
                if found.state == "missing":
                    raise InputError(f"{path}: is there, and no store of {cls.OF}; give another name or remove it")
        if found.state == "missing":
            return None, found.stamp.generation
        try:
            about = json.loads(found.value)["attributes"]
            known = about["format"] in (cls.FORMAT, *cls.EARLIER)
            if not known or not about["shard"] >= 1 or about["complete"] not in (True, False):
                raise ValueError("of another version")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: is no store of {cls.OF}, or damaged ({error}); give another name or remove it"
            ) from None
        return about, found.stamp.generation


def _base(path) -> str:
    return str(path).rstrip("/") if is_remote(path) else pathlib.Path(path).absolute().as_uri()


def _files(path) -> ts.KvStore:
    return ts.KvStore.open(f"{_base(path)}/", context=_CONTEXT).result()


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


def _make(path, name: str, column: Column, rows: int, shard: int) -> None:
    """Makes an array, if it is not there."""
    try:
        _open(path, name).result()
        return
    except ValueError:
        pass
    little, checked = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    codecs: list[dict] = [little, checked]
    if column.together:
        size = np.dtype(column.dtype).itemsize
        packed = {"cname": "zstd", "clevel": 1, "shuffle": "shuffle", "typesize": size, "blocksize": 0}
        sharding = {
            "chunk_shape": [math.gcd(column.together, shard), *column.shape],
            "codecs": [little, {"name": "blosc", "configuration": packed}, checked],
            "index_codecs": [little, checked],
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    metadata = {
        "shape": [rows, *column.shape],
        "data_type": column.dtype,
        "fill_value": column.fill,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard, *column.shape]}},
        "codecs": codecs,
        "dimension_names": ["sample", *column.axes],
        "attributes": column.about,
    }
    try:
        ts.open(_spec(path, name) | {"metadata": metadata}, create=True, context=_CONTEXT).result()
    except ValueError:
        _open(path, name).result()  # another process was faster, or it fails for the same reason


def _cannot(path, be: str, error: Exception) -> Told:
    reason = " ".join(re.split(r" \[[a-z_ ]+=", str(error))[0].replace("\0", "/").split())
    if len(reason) > 240:  # what failed stands first, why last
        reason = f"{reason[:110]} ... {reason[-120:]}"
    return by_cause(error, f"{path}: cannot be {be} ({reason})")


def _checked(values: list[np.ndarray], arrays) -> np.ndarray:
    """(n,) uint32: the CRC of each row's values, one array after the other; 0 is what was never written."""
    dtypes = [np.dtype(array.dtype.numpy_dtype).newbyteorder("<") for array in arrays]
    values = [np.ascontiguousarray(v, dtype) for v, dtype in zip(values, dtypes, strict=False)]
    return np.fromiter((functools.reduce(_crc, row, 0) or 1 for row in zip(*values, strict=True)), np.uint32)


def _crc(so_far: int, value: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(value), so_far)
