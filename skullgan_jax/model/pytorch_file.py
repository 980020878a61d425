"""PyTorch's zip format (torch.save since 1.6), read and written without PyTorch.

Reading executes nothing: the pickle inside is interpreted here, and of all that it can name only what builds tensors
and ordered dicts is known. No size that the file states is believed: an array is a view of the mapped file, inside
the bounds of its record, whose CRC-32 holds.
"""

import collections
import itertools
import mmap
import os
import pathlib
import pickletools
import struct
import zipfile
import zlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from skullgan_jax.errors import InputError

_DTYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
_STORAGES = {f"torch {name}": dtype for name, dtype in _DTYPES.items()}
_DICT, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
_GLOBALS = {_DICT, _TENSOR, _PARAMETER, *_STORAGES}

_MAX_PICKLE = 1 << 19  # bytes; a state dict of the pair needs 10,000, and a second reads this many
_MAX_DIRECTORY = 1 << 20  # bytes; the same, about 5,000
_RESAVE = "open it in PyTorch and torch.save(net.state_dict(), 'new.pth')"
_OLD = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "ustar")  # the magic number of torch < 1.6, and of its tar files


class _Refused(Exception):
    """What is wrong with the file, to be told with its name."""


class _Global(NamedTuple):
    """What a pickle names, e.g. "torch FloatStorage"; nothing is imported."""

    name: str


class _Storage(NamedTuple):
    values: np.ndarray  # one-dimensional


def read(path: str | os.PathLike):
    """What torch.save wrote: dicts, lists, tuples, numbers and strings, tensors as numpy arrays.

    The arrays are read-only views of the file, which is mapped, not loaded; they may have strides and share memory.

    Args:
      path: a file of the zip format.

    Raises:
      InputError: it cannot be read, is damaged, or holds anything else than tensors in containers.
    """
    path = pathlib.Path(path)
    try:
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                raise _Refused("is empty; copy it again")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            _recognise(data)
            records = _records(file, data)
        for name in ("data.pkl", "version"):
            if name not in records:
                raise _Refused(f"a zip file without {name}, so not from torch.save; give a .pth of PyTorch")
        if "constants.pkl" in records:
            raise _Refused(f"a TorchScript program, which is not read; {_RESAVE}")
        return _Unpickler(records).run()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); give a .pth file") from None
    except _Refused as error:
        raise InputError(f"{path}: {error}") from None


def _recognise(data: memoryview) -> None:
    """Say what else than the zip format it is."""
    if bytes(data[:4]) == b"PK\3\4":
        return
    if bytes(data[: len(_OLD[0])]) == _OLD[0] or bytes(data[257:262]) == _OLD[1].encode():
        raise _Refused(
            "in the format of PyTorch before 1.6, which is not read; re-save it with PyTorch: "
            "torch.save(torch.load('old.pth', map_location='cpu', weights_only=True), 'new.pth')"
        )
    if bytes(data[:512]).lstrip().lower().startswith((b"<!doctype", b"<html", b"version https://git-lfs")):
        raise _Refused("a web page or a pointer in place of the weights; download the file itself")
    raise _Refused("not a zip file, so not from torch.save of PyTorch 1.6 or later; give a .pth file, or copy it again")


class _Record(NamedTuple):
    data: memoryview
    crc: int

    def checked(self, name: str) -> memoryview:
        if zlib.crc32(self.data) != self.crc:
            raise _Refused(f"damaged: the checksum of {name} does not hold; copy or download it again")
        return self.data


def _records(file, data: memoryview) -> dict[str, _Record]:
    """The zip's members without their common folder. torch.save compresses nothing, so neither may they."""
    if _directory_bytes(data) > _MAX_DIRECTORY:
        raise _Refused("its table of contents is larger than that of any state dict; give a .pth of the pair")
    try:
        members = zipfile.ZipFile(file).infolist()
    except Exception as error:  # zipfile meets damage with a dozen types
        raise _Refused(f"a damaged or truncated zip file ({error}); copy or download it again") from None
    records, spans = {}, []
    for member in members:
        name = member.orig_filename
        root, slash, rest = name.partition("/")
        if not (root and slash and rest) or ".." in name.split("/") or "\\" in name or "\0" in name:
            raise _Refused(f"holds a member {name[:80]!r}, which torch.save does not write; give a .pth of PyTorch")
        if (
            member.compress_type != zipfile.ZIP_STORED
            or member.flag_bits & 1
            or member.compress_size != member.file_size
        ):
            raise _Refused(
                f"its member {name[:80]!r} is compressed or encrypted, which torch.save never does; {_RESAVE}"
            )
        if rest in records:
            raise _Refused(f"holds {rest[:80]!r} twice; {_RESAVE}")
        start = member.header_offset
        header = bytes(data[start : start + 30]) if start >= 0 else b""
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            raise _Refused(f"damaged: {name[:80]!r} is not where the table of contents says; copy or download it again")
        begin = start + 30 + sum(struct.unpack("<HH", header[26:]))
        end = begin + member.file_size
        if end > len(data):
            raise _Refused(f"truncated: {name[:80]!r} goes on after the end of the file; copy or download it again")
        spans.append((start, end))
        records[rest] = _Record(data[begin:end], member.CRC)
    spans.sort()
    if any(end > start for (_, end), (start, _) in itertools.pairwise(spans)):
        raise _Refused(f"its members overlap; {_RESAVE}")
    return records


def _directory_bytes(data: memoryview) -> int:
    """The size of the table of contents by either of the records at the file's end, whichever states more."""
    tail = bytes(data[-(22 + 65535 + 20 + 56) :])
    end = tail.rfind(b"PK\5\6")
    stated = [0]
    if 0 <= end <= len(tail) - 22:
        stated.append(struct.unpack_from("<L", tail, end + 12)[0] % 0xFFFFFFFF)  # all ones: see the record of zip64
    end64 = tail.rfind(b"PK\6\6")
    if 0 <= end64 <= len(tail) - 56:
        stated.append(struct.unpack_from("<Q", tail, end64 + 40)[0])
    return max(stated)


class _Unpickler:
    """An interpreter of the part of pickle that torch.save needs for state dicts."""

    def __init__(self, records: dict[str, _Record]):
        self.records, self.storages = records, {}
        order = bytes(records["byteorder"].checked("byteorder")[:8]) if "byteorder" in records else b"little"
        if order not in (b"little", b"big"):
            raise _Refused("damaged: its byte order is neither little nor big; copy or download it again")
        self.order = order.decode()

    def run(self):
        record = self.records["data.pkl"]
        if len(record.data) > _MAX_PICKLE:
            raise _Refused(f"its pickle has {len(record.data)} bytes, more than a state dict needs; {_RESAVE}")
        try:
            return self._interpret(bytes(record.checked("data.pkl")))
        except _Refused:
            raise
        except Exception as error:  # pickletools and wrong arguments: what a damaged pickle can be is endless
            raise _Refused(f"its pickle is damaged ({type(error).__name__}); copy or download it again") from None

    def _interpret(self, pickle: bytes):
        stack, memo, marks = [], {}, []

        def since_mark() -> list:
            start = marks.pop()
            values = stack[start:]
            del stack[start:]
            return values

        for opcode, argument, _ in pickletools.genops(pickle):
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    (result,) = stack
                    return result
                case "MARK":
                    marks.append(len(stack))
                case (
                    "BINUNICODE"
                    | "SHORT_BINUNICODE"
                    | "BINUNICODE8"
                    | "BININT"
                    | "BININT1"
                    | "BININT2"
                    | "LONG1"
                    | "BINFLOAT"
                ):
                    stack.append(argument)
                case "NONE" | "NEWTRUE" | "NEWFALSE":
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
                case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                    stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode.name]())
                case "TUPLE":
                    stack.append(tuple(since_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    values = tuple(stack[-count:])
                    del stack[-count:]
                    stack.append(values)
                case "APPEND":
                    value = stack.pop()
                    stack[-1].append(value)
                case "APPENDS":
                    values = since_mark()
                    stack[-1].extend(values)
                case "SETITEM":
                    value, key = stack.pop(), stack.pop()
                    stack[-1][_key(key)] = value
                case "SETITEMS":
                    values = since_mark()
                    stack[-1].update({_key(k): v for k, v in zip(values[::2], values[1::2], strict=True)})
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "GLOBAL":
                    stack.append(_known(argument))
                case "STACK_GLOBAL":
                    name, module = stack.pop(), stack.pop()
                    stack.append(_known(" ".join([module, name])))
                case "BINPERSID":
                    stack.append(self._storage(*stack.pop()))
                case "REDUCE":
                    arguments, function = stack.pop(), stack.pop()
                    stack.append(_call(function, arguments))
                case "BUILD":  # an ordered dict's attributes: the versions of its modules, of no use here
                    stack.pop()
                    if type(stack[-1]) is not collections.OrderedDict:
                        raise _Refused(f"its pickle sets attributes, which no state dict needs; {_RESAVE}")
                case name:
                    raise _Refused(f"its pickle does {name}, which no state dict needs; {_RESAVE}")
        raise _Refused("its pickle has no end; copy or download it again")

    def _storage(self, kind, storage_type, key, _location, numel) -> _Storage:
        dtype = _STORAGES.get(storage_type.name) if isinstance(storage_type, _Global) else None
        if kind != "storage" or dtype is None or not isinstance(key, str):
            raise _Refused(f"its pickle refers to something that is no tensor; {_RESAVE}")
        if key not in self.storages:
            name = f"data/{key}"
            if name not in self.records:
                raise _Refused(f"its record {name[:80]!r} is missing; copy or download it again")
            values = np.frombuffer(self.records[name].checked(name), np.uint8)
            values.flags.writeable = False
            self.storages[key] = values
        values = self.storages[key]
        if type(numel) is not int or numel < 0 or numel * dtype.itemsize != len(values):
            raise _Refused(f"the sizes of data/{key[:80]} disagree; copy or download it again")
        return _Storage(values.view(dtype.newbyteorder(self.order) if self.order == "big" else dtype))


def _key(key):
    if type(key) not in (str, int):
        raise _Refused(f"has a dict with keys that are neither names nor numbers; {_RESAVE}")
    return key


def _known(name: str) -> _Global:
    if name not in _GLOBALS:
        name = ".".join(name.split())[:120]
        raise _Refused(f"its pickle asks for {name}, which no state dict needs, and nothing of it was run; {_RESAVE}")
    return _Global(name)


def _call(function, arguments):
    if type(function) is _Global and type(arguments) is tuple:
        if function.name == _DICT and not arguments:
            return collections.OrderedDict()
        if function.name == _PARAMETER and isinstance(arguments[0], np.ndarray):
            return arguments[0]
        if function.name == _TENSOR and isinstance(arguments[0], _Storage):
            return _tensor(arguments[0].values, *arguments[1:4])
    raise _Refused(f"its pickle calls what no state dict needs; {_RESAVE}")


def _tensor(values: np.ndarray, offset, shape, strides) -> np.ndarray:
    """A view of a storage; offset and strides count elements."""
    numbers = (offset, *shape, *strides)
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers) or len(shape) != len(strides) or len(shape) > 8:
        raise _Refused("a tensor's shape is not one; copy or download it again")
    numel, last = 1, offset
    for size, stride in zip(shape, strides, strict=True):
        numel *= size
        last += (size - 1) * stride
    if numel and (last >= len(values) or numel > len(values)):
        raise _Refused("a tensor is larger than what is stored of it; copy or download it again")
    steps = [stride * values.itemsize for stride in strides]
    if not numel:
        return np.empty(shape, values.dtype)
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)


def write(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Write a state dict, as torch.save does, which torch.load(weights_only=True) reads.

    Args:
      path: the file; it is written as told, so give a name beside the final one.
      arrays: key -> array of any dtype that `read` knows, little-endian.

    Raises:
      KeyError: another dtype.
    """
    names = {dtype: name for name, dtype in _DTYPES.items()}
    arrays = {key: np.asarray(array, order="C") for key, array in arrays.items()}
    parts = [
        ("data.pkl", _pickle({key: (names[array.dtype], array) for key, array in arrays.items()})),
        ("byteorder", b"little"),
        *((f"data/{i}", array.reshape(-1).view(np.uint8)) for i, array in enumerate(arrays.values())),
        ("version", b"3\n"),
    ]
    with open(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in parts:
            info = zipfile.ZipInfo(f"archive/{name}")  # of 1980, so that equal weights are equal files
            info.file_size = len(data)
            padding = -(file.tell() + 30 + len(info.filename) + 4) % 64  # tensors begin where vector loads like it
            info.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
            with archive.open(info, "w") as member:
                member.write(data)


def _pickle(tensors: dict[str, tuple[str, np.ndarray]]) -> bytes:
    """Protocol 2, the opcodes that torch.save writes. See pickletools for what each letter is."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def function(name: str) -> bytes:
        return b"c" + name.replace(" ", "\n").encode() + b"\n"

    def tuple_of(*values: bytes) -> bytes:
        return b"(" + b"".join(values) + b"t"

    ordered_dict = function(_DICT) + b")R"
    out = [b"\x80\x02", ordered_dict, b"("]
    for i, (key, (storage, array)) in enumerate(tensors.items()):
        strides = [stride // array.itemsize for stride in array.strides]
        where = tuple_of(text("storage"), function(f"torch {storage}"), text(str(i)), text("cpu"), number(array.size))
        out += [
            text(key),
            function(_TENSOR),
            tuple_of(
                where + b"Q",
                number(0),
                tuple_of(*map(number, array.shape)),
                tuple_of(*map(number, strides)),
                b"\x89",  # requires_grad False
                ordered_dict,  # backward hooks
            ),
            b"R",
        ]
    return b"".join([*out, b"u."])
