"""PyTorch's zip format (torch.save since 1.6), read and written without PyTorch.

Reading executes nothing and believes nothing: see pytorch_zip.py and pytorch_pickle.py.
"""

import mmap
import os
import pathlib
import struct
import zipfile
from typing import Any

import numpy as np

from skullgan_jax.errors import InputError
from skullgan_jax.model.pytorch_pickle import DICT, DTYPES, TENSOR, Unpickler
from skullgan_jax.model.pytorch_zip import RESAVE, Refused, recognise, records


def read(path: str | os.PathLike) -> Any:
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
                raise Refused("is empty; copy it again")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            recognise(data)
            found = records(file, data)
        for name in ("data.pkl", "version"):
            if name not in found:
                raise Refused(f"a zip file without {name}, so not from torch.save; give a .pth of PyTorch")
        if "constants.pkl" in found:
            raise Refused(f"a TorchScript program, which is not read; {RESAVE}")
        return Unpickler(found).run()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); give a .pth file") from None
    except Refused as error:
        raise InputError(f"{path}: {error}") from None


def write(path: str | os.PathLike, arrays: dict[str, np.ndarray] | tuple[np.ndarray, ...] | np.ndarray) -> None:
    """Write a state dict, a tuple of tensors or one tensor, as torch.save does; torch.load(weights_only=True) reads it.

    Args:
      path: the file; it is written as told, so give a name beside the final one.
      arrays: of any dtype that `read` knows, little-endian.

    Raises:
      KeyError: another dtype.
    """
    pickled, tensors = _pickle(arrays)
    parts: list[tuple[str, bytes | memoryview]] = [
        ("data.pkl", pickled),
        ("byteorder", b"little"),
        *((f"data/{i}", array.reshape(-1).view(np.uint8).data) for i, array in enumerate(tensors)),
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


def _pickle(value: dict | tuple | np.ndarray) -> tuple[bytes, list[np.ndarray]]:
    """Protocol 2, the opcodes that torch.save writes, and its tensors. See pickletools for what each letter is."""
    names, tensors = {dtype: name for name, dtype in DTYPES.items()}, []

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    def number(value: int) -> bytes:
        return b"\x8a\x08" + struct.pack("<q", value)

    def function(name: str) -> bytes:
        return b"c" + name.replace(" ", "\n").encode() + b"\n"

    def tuple_of(*values: bytes) -> bytes:
        return b"(" + b"".join(values) + b"t"

    def tensor(array) -> bytes:
        array = np.asarray(array, order="C")
        tensors.append(array)
        storage, key = function(f"torch {names[array.dtype]}"), text(str(len(tensors) - 1))
        parts = (
            tuple_of(text("storage"), storage, key, text("cpu"), number(array.size)) + b"Q",
            number(0),
            tuple_of(*map(number, array.shape)),
            tuple_of(*(number(stride // array.itemsize) for stride in array.strides)),
            b"\x89",  # requires_grad False
            ordered_dict,  # backward hooks
        )
        return function(TENSOR) + tuple_of(*parts) + b"R"

    ordered_dict = function(DICT) + b")R"
    if isinstance(value, dict):
        body = ordered_dict + b"(" + b"".join(text(key) + tensor(array) for key, array in value.items()) + b"u"
    elif isinstance(value, tuple):
        body = tuple_of(*map(tensor, value))
    else:
        body = tensor(value)
    return b"\x80\x02" + body + b".", tensors
