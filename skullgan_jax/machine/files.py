"""Files and folders that under their final name are whole: written beside, flushed to disk, then renamed.

What is beside has a name of its own, and a mark, a small file next to it, says that it is ours while its writer lives
and after it was killed. The next writer of the same name removes what dead ones left, and nothing that no mark names.
"""

import contextlib
import ctypes
import errno
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import shutil
import socket
import uuid
from collections.abc import Collection, Iterator

from skullgan_jax.machine import signals
from skullgan_jax.machine.lock import flock

_MARK = "skullgan_jax writes beside this"
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h


@contextlib.contextmanager
def whole(path: str | os.PathLike, *, ours: Collection[str] = ()) -> Iterator[pathlib.Path]:
    """A new name beside `path` for a file or a folder, which takes the place of `path` at the end of the block.

    A folder takes the place of a folder, in one step where the system can exchange two. What somebody else keeps in
    that folder stays in it. If the block fails, what was there stays, and nothing is left beside it. Where `path` is a
    link, what it leads to is replaced.

    Args:
      path: the final name.
      ours: of a folder that is there, the names (patterns of fnmatch) that the new one replaces, whether it has them
        or not; "a/b" is b in its folders a. Entries of other names are carried over, unless the new one has the same.

    Raises:
      OSError: it cannot be written; or is a folder that cannot be renamed, a mount point, or should not, as who started
        this is in it.
    """
    final = pathlib.Path(os.path.realpath(path))
    if final.is_dir() and pathlib.Path.cwd().is_relative_to(final):
        raise OSError(errno.EBUSY, "it is, or holds, the folder that this runs in")
    if os.path.ismount(final):
        raise OSError(errno.EBUSY, "a disk is mounted there, so it takes a folder in it")
    if final.parent.is_file():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(final.parent))
    final.parent.mkdir(parents=True, exist_ok=True)
    clean(final)
    with _marked(final) as (partial, aside):
        try:
            yield partial
            if partial.is_dir() and final.is_dir():
                _carry_over(final, partial, ours)
            flush(partial)
            if old := _put(partial, final, aside):
                _carry_over(old, final, ours)  # what came into it since
            flush(final.parent, inside=False)
        finally:
            _tidy(final, partial, aside)


@contextlib.contextmanager
def beside(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """A new name beside `path` for what is gone at the end of the block, and after a kill with the next writer's.

    Raises:
      OSError: nothing can be written there.
    """
    final = pathlib.Path(os.path.realpath(path))
    final.parent.mkdir(parents=True, exist_ok=True)
    clean(final)
    with _marked(final) as (partial, _):
        try:
            yield partial
        finally:
            remove(partial)


def clean(final: str | os.PathLike) -> None:
    """Remove what killed writers of `final` left beside it; where one was killed between two renames, undo the first.

    Raises:
      OSError: it cannot be removed.
    """
    final = pathlib.Path(os.path.realpath(final))
    if not final.parent.is_dir():
        return
    named = re.compile(rf"\.{re.escape(final.name)}\.[0-9a-f]{{16}}\.mark")
    for mark in [final.with_name(name) for name in os.listdir(final.parent) if named.fullmatch(name)]:
        try:
            file = open(mark, "r+", encoding="utf-8")  # noqa: SIM115  closed by the block below
        except OSError:
            continue  # its writer is done with it, or it is somebody else's
        with file:
            # A lock is only known on the host that has it on some filesystems, so those of other hosts are left alone.
            if not flock(file):
                continue
            said = file.read()
            if _is_of_here(said):
                partial, aside = _names(final, mark.name[len(final.name) + 2 : -len(".mark")])
                _tidy(final, partial, aside)
            elif said:
                continue
            mark.unlink(missing_ok=True)  # an empty one: killed before it had anything beside it


@contextlib.contextmanager
def _marked(final: pathlib.Path) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    mine = uuid.uuid4().hex[:16]  # two hosts can have one process id
    mark, beside = final.with_name(f".{final.name}.{mine}.mark"), _names(final, mine)
    with signals.before_leaving(lambda _: _abandon(mark, *beside)), open(mark, "x", encoding="utf-8") as file:
        try:
            flock(file)
            json.dump({"mark": _MARK, "host": socket.gethostname(), "process": os.getpid()}, file)
            file.flush()
            yield beside
        finally:
            mark.unlink(missing_ok=True)


def _abandon(mark: pathlib.Path, *beside: pathlib.Path) -> None:
    """Remove what is beside in the middle of its writing, unless its writer is quicker: then the mark stays, too."""
    for path in beside:
        remove(path)
    if not any(path.exists() for path in beside):
        mark.unlink(missing_ok=True)


def _names(final: pathlib.Path, mine: str) -> tuple[pathlib.Path, pathlib.Path]:
    return final.with_name(f".{final.name}.{mine}.partial"), final.with_name(f".{final.name}.{mine}.old")


def _tidy(final: pathlib.Path, partial: pathlib.Path, aside: pathlib.Path) -> None:
    """Undo the first of two renames that has no second, and remove what is left beside."""
    if aside.exists() and not final.exists():
        aside.rename(final)
    remove(partial)
    remove(aside)


def _is_of_here(text: str) -> bool:
    try:
        said = json.loads(text)
        return said["mark"] == _MARK and said["host"] == socket.gethostname()
    except (ValueError, KeyError, TypeError):
        return False


def _carry_over(there: pathlib.Path, new: pathlib.Path, ours: Collection[str]) -> None:
    """Have what is not ours in both folders, the same file where the filesystem knows links, else a copy."""
    for entry in there.iterdir():
        target, folder = new / entry.name, entry.is_dir() and not entry.is_symlink()
        parts = (each.partition("/") for each in ours)
        inside = [rest for name, _, rest in parts if rest and fnmatch.fnmatchcase(entry.name, name)]
        if folder and inside:
            target.mkdir(exist_ok=True)
            _carry_over(entry, target, inside)
        elif os.path.lexists(target) or any(fnmatch.fnmatchcase(entry.name, each) for each in ours):
            continue
        elif folder:
            shutil.copytree(entry, target, symlinks=True, copy_function=_link)
        else:
            _link(entry, target)


def _link(source, target, **_):
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)
    return target


def _put(partial: pathlib.Path, final: pathlib.Path, aside: pathlib.Path) -> pathlib.Path | None:
    """Give it its final name; where the folder is now that had it, if one had."""
    if not (partial.is_dir() and final.is_dir()):
        partial.replace(final)
        return None
    if _exchange(partial, final):
        return partial
    final.rename(aside)
    partial.rename(final)
    return aside


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Exchange two names in one step; False where the system or the filesystem cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    here = -100  # AT_FDCWD
    return rename(here, os.fsencode(one), here, os.fsencode(other), _EXCHANGE) == 0


def place_new(partial: pathlib.Path, final: pathlib.Path) -> None:
    """Give a file on disk its final name, unless another has it by then: who has that one open keeps it.

    Raises:
      OSError: it cannot be done.
    """
    try:
        os.link(partial, final)
    except FileExistsError:
        pass
    except OSError:  # a filesystem without links
        if not final.exists():
            partial.rename(final)
    flush(final.parent, inside=False)


def flush(path: pathlib.Path, *, inside: bool = True) -> None:
    """Have a file, or a folder and all that is in it, on disk and not only in the system's memory."""
    for each in [path, *path.rglob("*")] if inside and path.is_dir() else [path]:
        if each.is_symlink():
            continue
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
