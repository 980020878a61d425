"""Slices on disk: .npy and .npz files of (N, 128, 128) HU."""

import difflib
import io
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import psutil

from skullgan_jax.errors import InputError, by_cause
from skullgan_jax.machine import paths, places
from skullgan_jax.slices.size import SIZE

_WANTED = f"(N, {SIZE}, {SIZE}) in HU"
_HEADER_LIMIT = 1 << 16  # bytes read to find a header; numpy writes 128
_NPY_MAGIC, _ZIP_MAGIC = b"\x93NUMPY", b"PK"


def open_slices(path) -> np.ndarray:
    """Opens a file of slices.

    One in a bucket is fetched once, see places.file. A `.npy` is memory-mapped, never read whole. A `.npz` has to be
    decompressed into memory; its array is the one called `hu`, else `images`, else the only one. No size written in a
    file is believed before it is checked against the file and the machine, and nothing is ever unpickled.

    Args:
      path: the file, or its URL. Integers, or floats up to 64 bits, in either byte order and either memory order.

    Returns:
      (N, 128, 128) in HU, read-only, in the dtype of the file; (N, 128, 128, 1) is squeezed.

    Raises:
      InputError: with one line that names the file, what is wrong with it and what to do.
    """
    if paths.is_remote(path) and (path := places.file(url := path)) is None:
        raise InputError(f"{url}: no such file: give a .npy or .npz file")
    path = paths.at_home(path)
    try:
        _check_is_file(path)
        with path.open("rb") as file:
            head = file.read(len(_NPY_MAGIC))
        if not head:
            raise InputError(f"{path} is empty (0 bytes): write or copy it again")
        if head == _NPY_MAGIC:
            images = _open_npy(path)
        elif head.startswith(_ZIP_MAGIC):
            images = _read_npz(path)
        else:
            raise InputError(f"{path} is neither a .npy nor a .npz file: write {_WANTED} with numpy.save(path, array)")
    except OSError as error:
        raise by_cause(error, f"{path} cannot be read: {error.strerror or error}") from None
    return images[..., 0] if images.ndim == 4 else images


def _check_is_file(path: Path):
    if path.is_file():
        return
    if path.is_dir():
        inside = _slice_files(path)
        raise InputError(f"{path} is a directory: give one .npy or .npz file" + _listing(" in it", inside))
    if path.exists():
        raise InputError(f"{path} is not a regular file: give a .npy or .npz file")
    if path.is_symlink():
        raise InputError(f"{path}: is a link to {path.readlink()}, which is not there: mount it or mend the link")
    if not path.parent.is_dir():
        raise InputError(f"{path}: no such file, nor is there a folder {path.parent}: check the path")
    inside = _slice_files(path.parent)
    near = difflib.get_close_matches(path.name, inside, n=3)
    if near:
        raise InputError(f"{path}: no such file: did you mean {' or '.join(near)}?")
    raise InputError(f"{path}: no such file: give a .npy or .npz file" + _listing(f" in {path.parent}", inside))


def _slice_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix in (".npy", ".npz"))


def _listing(where: str, names: list[str]) -> str:
    if not names:
        return f" (there is none{where})"
    return f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}{where})"


def _open_npy(path: Path) -> np.memmap:
    with path.open("rb") as file:
        shape, fortran, dtype, offset = _read_header(path, file)
        size = os.fstat(file.fileno()).st_size
    _check_shape(path, shape, dtype)
    _check_size(path, size, shape, dtype, offset)
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _read_npz(path: Path) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            name = _choose(path, [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")])
            label = f"{path}[{name!r}]"
            info = archive.getinfo(name + ".npy")
            with archive.open(info) as member:
                shape, fortran, dtype, offset = _read_header(label, member)
                _check_shape(label, shape, dtype)
                _check_size(label, info.file_size, shape, dtype, offset)
                _check_memory(label, shape, dtype)
                member.seek(offset)
                return _read_array(label, member, shape, fortran, dtype)
    except (InputError, OSError):
        raise
    except Exception as error:  # a damaged zip fails in a dozen ways, an encrypted one in another
        raise InputError(f"{path} is damaged or no .npz ({_one_line(error)}): write or copy it again") from None


def _choose(path, names: list[str]) -> str:
    for wanted in ("hu", "images"):
        if wanted in names:
            return wanted
    if len(names) == 1:
        return names[0]
    if not names:
        raise InputError(f"{path} holds no array: write {_WANTED} with numpy.savez(path, hu=array)")
    listed = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    raise InputError(f"{path} holds {len(names)} arrays ({listed}): call the one to use hu")


def _read_header(label, file) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, whether the order is Fortran's, dtype, and the offset of the data in bytes."""
    head = io.BytesIO(file.read(_HEADER_LIMIT))  # a header that claims to be longer finds its end here
    try:
        version = np.lib.format.read_magic(head)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(head)
        else:  # version 3 exists for the names of structured dtypes alone
            raise ValueError(f"format version {version[0]}.{version[1]}")
        if any(n >= 1 << 48 for n in shape):
            raise ValueError("impossible shape")
    except Exception as error:  # numpy parses a literal here: a damaged one fails in a dozen ways
        raise InputError(f"{label} has a damaged .npy header ({_one_line(error)}): write or copy it again") from None
    return shape, fortran, dtype, head.tell()


def _check_shape(label, shape: tuple[int, ...], dtype: np.dtype):
    if dtype.hasobject:
        raise InputError(f"{label} holds Python objects, which are never unpickled: save a plain int16 array")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{label} has dtype {dtype}: save HU as int16 or float32")
    if shape[1:] in ((SIZE, SIZE), (SIZE, SIZE, 1)):
        if shape[0] < 1:
            raise InputError(f"{label} holds no slices (shape {shape}): give at least one, {_WANTED}")
        return
    fix = "cut or resample the slices"
    if len(shape) == 4 and shape[1:] == (1, SIZE, SIZE):
        fix = "drop the channel axis with numpy.squeeze(array, 1), or numpy.moveaxis(array, 1, -1)"
    elif len(shape) == 3 and shape[:2] == (SIZE, SIZE):
        fix = "put the slice axis first with numpy.moveaxis(array, -1, 0)"
    elif shape == (SIZE, SIZE):
        fix = "add the slice axis with array[None]"
    raise InputError(f"{label} has shape {shape}, expected {_WANTED}: {fix}")


def _check_size(label, size: int, shape: tuple[int, ...], dtype: np.dtype, offset: int):
    promised = offset + math.prod(shape) * dtype.itemsize  # Python integers: no overflow
    if size < promised:
        raise InputError(
            f"{label} is cut short: {size:,} bytes where shape {shape} {dtype} takes {promised:,}: copy it again"
        )
    if size > promised:
        raise InputError(
            f"{label} does not add up: {size:,} bytes where shape {shape} {dtype} takes {promised:,}: "
            "save one array per file"
        )


def _check_memory(label, shape: tuple[int, ...], dtype: np.dtype):
    needed, available = math.prod(shape) * dtype.itemsize, psutil.virtual_memory().available
    if needed > available:
        raise InputError(
            f"{label} needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are available: "
            "save it as .npy, which is read in place"
        )


def _read_array(label, member, shape: tuple[int, ...], fortran: bool, dtype: np.dtype) -> np.ndarray:
    flat = np.empty(math.prod(shape), dtype)  # pages come into being only as real bytes fill them
    rest = memoryview(flat.view(np.uint8))
    while rest:
        count = member.readinto(rest[: 1 << 20])
        if not count:
            raise InputError(f"{label} is cut short: {len(rest):,} of {flat.nbytes:,} bytes missing: copy it again")
        rest = rest[count:]
    flat.flags.writeable = False  # as a memory map is
    return flat.reshape(shape, order="F" if fortran else "C")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
