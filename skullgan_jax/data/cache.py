"""Streams of images decoded once into a .npy that is then random access.

TFRecords and JPEGs can neither be shuffled globally nor taken up again exactly where a run stopped. A file of decoded
images can, and is as fast to read as skulls are.
"""

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.data.arrays import open_slices
from skullgan_jax.errors import InputError, by_cause
from skullgan_jax.machine import files, lock, paths
from skullgan_jax.slices.size import SIZE

NAME = "skullgan_jax_cache"  # the folder beside the data


def cached(
    name: str, folders: list[Path], decode: Callable[[], Iterable[np.ndarray]], *, num: int, dtype, what: str
) -> np.memmap:
    """The images of file `name` in the first folder that has it; where none has, they are decoded into it first.

    Of several processes of a host that want them one decodes, and the others wait for it and map the same file.

    Args:
      name: changes whenever the images do.
      folders: where to look; a new file goes to the first that can be written.
      decode: gives `num` images (128, 128) of `dtype`, in order.
      num: how many there are.
      dtype: of the images.
      what: begins the line of progress.

    Returns:
      (num, 128, 128), memory-mapped, read-only.

    Raises:
      InputError: no room, or what `decode` raises.
    """
    folders = [paths.at_home(folder) for folder in folders]
    if (path := _found(name, folders)) is None:
        path = _first_writable(folders) / name
        # One process decodes, and nobody takes a file away that others have mapped.
        with lock.in_turn(path, lambda: say(f"{path}: another process decodes into it; waiting for that")):
            if (there := _found(name, folders)) is None:
                _write(path, decode(), num, np.dtype(dtype).newbyteorder("<"), what)
            else:
                path = there
    return open_slices(path)


def _found(name: str, folders: list[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).exists()), None)


def _first_writable(folders: list[Path]) -> Path:
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f"{uuid.uuid4().hex}.partial"
            probe.touch()
            probe.unlink()
            return folder
        except OSError as error:
            last = error
    raise by_cause(last, f"{folders[-1]} cannot be written ({last.strerror}): decoded images need a folder that can")


def _write(path: Path, images: Iterable[np.ndarray], num: int, dtype: np.dtype, what: str):
    """Writes a .npy beside `path`, then gives it that name, if no other host was faster: there the file is whole."""
    header = dict(descr=dtype.str, fortran_order=False, shape=(num, SIZE, SIZE))
    progress = Progress(what, num, "images")
    try:
        with files.beside(path) as partial:
            # Not through a memory map, where a full disk is a crash instead of an error.
            with partial.open("xb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                done = 0
                for done, image in enumerate(images, 1):
                    file.write(image.astype(dtype, copy=False).tobytes())
                    progress(done)
            if done != num:
                raise InputError(f"{path.name}: {done} of {num} images are there; copy or make the data again")
            files.flush(partial)
            files.place_new(partial, path)
    except OSError as error:
        size = num * SIZE * SIZE * dtype.itemsize / 1e9
        raise by_cause(error, f"{path} cannot be written ({error.strerror}): it takes {size:.1f} GB") from None
