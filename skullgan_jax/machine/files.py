"""Files and folders that under their final name are whole: written beside, flushed to disk, then renamed."""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A new name beside `path` for a file or a folder, which takes the place of `path` at the end of the block.

    A folder takes the place of a whole folder. If the block fails, what was there stays, and nothing is left beside it.

    Raises:
      OSError: it cannot be written.
    """
    final, mine = pathlib.Path(path), uuid.uuid4().hex[:8]  # two hosts can have one process id
    if final.parent.is_file():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(final.parent))
    final.parent.mkdir(parents=True, exist_ok=True)
    partial, aside = (final.with_name(f".{final.name}.{mine}.{end}") for end in ("partial", "old"))
    try:
        yield partial
        flush(partial)
        if partial.is_dir() and final.is_dir():
            final.rename(aside)
        partial.replace(final)
    finally:
        remove(partial)
        remove(aside)


def flush(path: pathlib.Path) -> None:
    """Have a file, or all of a folder, on disk and not only in the system's memory."""
    for each in [path, *path.rglob("*")] if path.is_dir() else [path]:
        opened = os.open(each, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def remove(path: pathlib.Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a file of UTF-8. Raises OSError."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike, value) -> None:
    """Write JSON without NaN or infinity, which it does not have. Raises OSError, ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: str | os.PathLike) -> str:
    """The hash of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
