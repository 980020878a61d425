"""The pickle of PyTorch's files, interpreted here: it executes nothing.

Of all that a pickle can name only what builds tensors and ordered dicts is known. An array is a view of its record,
inside its bounds.
"""

import collections
import pickletools
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from skullgan_jax.model.pytorch_zip import RESAVE, Record, Refused

DTYPES = {
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
_STORAGES = {f"torch {name}": dtype for name, dtype in DTYPES.items()}
DICT = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_GLOBALS = {DICT, TENSOR, _PARAMETER, *_STORAGES}

_MAX_PICKLE = 1 << 19  # bytes; a state dict of the pair needs 10,000, and a second reads this many


class _Global(NamedTuple):
    """What a pickle names, e.g. "torch FloatStorage"; nothing is imported."""

    name: str


class _Storage(NamedTuple):
    values: np.ndarray  # one-dimensional


class Unpickler:
    """An interpreter of the part of pickle that torch.save needs for state dicts."""

    def __init__(self, records: dict[str, Record]):
        self.records = records
        self.storages: dict[str, np.ndarray] = {}
        order = bytes(records["byteorder"].checked("byteorder")[:8]) if "byteorder" in records else b"little"
        if order not in (b"little", b"big"):
            raise Refused("damaged: its byte order is neither little nor big; copy or download it again")
        self.order = order.decode()

    def run(self) -> Any:
        record = self.records["data.pkl"]
        if len(record.data) > _MAX_PICKLE:
            raise Refused(f"its pickle has {len(record.data)} bytes, more than a state dict needs; {RESAVE}")
        try:
            return self._interpret(bytes(record.checked("data.pkl")))
        except Refused:
            raise
        except Exception as error:  # pickletools and wrong arguments: what a damaged pickle can be is endless
            raise Refused(f"its pickle is damaged ({type(error).__name__}); copy or download it again") from None

    def _interpret(self, pickle: bytes) -> Any:
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        marks: list[int] = []

        def since_mark() -> list:
            start = marks.pop()
            values = stack[start:]
            del stack[start:]
            return values

        argument: Any
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
                    stack[-count:] = [tuple(stack[-count:])]
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
                        raise Refused(f"its pickle sets attributes, which no state dict needs; {RESAVE}")
                case name:
                    raise Refused(f"its pickle does {name}, which no state dict needs; {RESAVE}")
        raise Refused("its pickle has no end; copy or download it again")

    def _storage(self, kind, storage_type, key, _location, numel) -> _Storage:
        dtype = _STORAGES.get(storage_type.name) if isinstance(storage_type, _Global) else None
        if kind != "storage" or dtype is None or not isinstance(key, str):
            raise Refused(f"its pickle refers to something that is no tensor; {RESAVE}")
        if key not in self.storages:
            name = f"data/{key}"
            if name not in self.records:
                raise Refused(f"its record {name[:80]!r} is missing; copy or download it again")
            values = np.frombuffer(self.records[name].checked(name), np.uint8)
            values.flags.writeable = False
            self.storages[key] = values
        values = self.storages[key]
        if type(numel) is not int or numel < 0 or numel * dtype.itemsize != len(values):
            raise Refused(f"the sizes of data/{key[:80]} disagree; copy or download it again")
        return _Storage(values.view(dtype.newbyteorder(self.order) if self.order == "big" else dtype))


def _key(key):
    if type(key) not in (str, int):
        raise Refused(f"has a dict with keys that are neither names nor numbers; {RESAVE}")
    return key


def _known(name: str) -> _Global:
    if name not in _GLOBALS:
        name = ".".join(name.split())[:120]
        raise Refused(f"its pickle asks for {name}, which no state dict needs, and nothing of it was run; {RESAVE}")
    return _Global(name)


def _call(function, arguments):
    if type(function) is _Global and type(arguments) is tuple:
        if function.name == DICT and not arguments:
            return collections.OrderedDict()
        if function.name == _PARAMETER and isinstance(arguments[0], np.ndarray):
            return arguments[0]
        if function.name == TENSOR and isinstance(arguments[0], _Storage):
            return _tensor(arguments[0].values, *arguments[1:4])
    raise Refused(f"its pickle calls what no state dict needs; {RESAVE}")


def _tensor(values: np.ndarray, offset, shape, strides) -> np.ndarray:
    """A view of a storage; offset and strides count elements."""
    numbers = (offset, *shape, *strides)
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers) or len(shape) != len(strides) or len(shape) > 8:
        raise Refused("a tensor's shape is not one; copy or download it again")
    numel, last = 1, offset
    for size, stride in zip(shape, strides, strict=True):
        numel *= size
        last += (size - 1) * stride
    if numel and (last >= len(values) or numel > len(values)):
        raise Refused("a tensor is larger than what is stored of it; copy or download it again")
    steps = [stride * values.itemsize for stride in strides]
    if not numel:
        return np.empty(shape, values.dtype)
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)
