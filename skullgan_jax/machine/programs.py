"""What JAX compiled, kept for the next process: one folder a user and kind of machine, for whatever compiles here.

It is <cache>/skullgan_jax/compiled/<kind>, where <cache> is $XDG_CACHE_HOME, else ~/.cache. Where JAX has a folder
already (JAX_COMPILATION_CACHE_DIR), that is used, and left to JAX. Where there is no home, or nothing can be written
there, programs are compiled again, and nothing is said.

Where that names a bucket, they are brought from it into a folder of this process before the first is compiled, and what
is new is sent there after. Programs are run: who may write to the bucket may run here what they like.
"""

import atexit
import contextlib
import os
import pathlib
import stat
import threading
import time
import warnings
import zlib
from collections.abc import Iterator

from skullgan_jax.errors import Told
from skullgan_jax.machine import memory, paths, places

LIMIT = 1 << 30  # bytes; a sampling program takes 0.4 MB, the step of training some MB
_LIMIT_OF_BUCKET = 64 << 20  # all of it is brought
_ENTRIES = "*-cache"  # what JAX calls them
_TIDIED = ".tidied"
_ZSTD = b"\x28\xb5\x2f\xfd"
# Of a folder that goes, or is full, in the middle of it all: it is compiled, then.
_UNHEARD = "Error (reading|writing) persistent compilation cache"
_lock = threading.Lock()
_users = 0
_before: dict[str, object] = {}
_tidy: set[str] = set()
_bucket: places.Bucket | None = None


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """While the block runs, JAX looks there before it compiles, and keeps what it compiles; as a decorator, too."""
    _enter()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", _UNHEARD)
            yield
    finally:
        _leave()


def folder() -> str | None:
    """The folder, made and tidied, or None where there can be none."""
    cache, home = paths.cache(), os.path.expanduser("~")
    if cache.parts[0] == "~" and not (os.path.isabs(home) and os.path.isdir(home)):
        return None
    path = cache.expanduser() / "compiled" / memory.kind()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = path.stat()
        # What lies there is run: nobody else may have put it there.
        if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return None
        if str(path) not in _tidy:
            tidy(path)
            _tidy.add(str(path))
        return str(path)
    except OSError:
        return None


def tidy(path: str | os.PathLike, limit: int = LIMIT) -> None:
    """Remove entries that were not written to their end, and beyond the limit those that were read the longest ago.

    JAX writes them in place, so that a kill or a full disk leaves one cut. It would warn of that, compile, and leave it
    there. One that another process is just writing may go with them: that process has its program all the same.

    Args:
      path: the folder.
      limit: bytes that may stay.

    Raises:
      OSError: it cannot be written.
    """
    stamp = pathlib.Path(path, _TIDIED)
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    began = time.time()
    found = []
    for entry in pathlib.Path(path).glob(_ENTRIES):
        with contextlib.suppress(FileNotFoundError):
            about = entry.stat()
            if about.st_mtime >= since and not _whole(entry):
                entry.unlink()
            else:
                found.append((max(about.st_atime, about.st_mtime), about.st_size, entry))
    size = sum(bytes_ for _, bytes_, _ in found)
    for _, bytes_, entry in sorted(found):
        if size <= limit:
            break
        entry.unlink(missing_ok=True)
        size -= bytes_
    stamp.touch()
    os.utime(stamp, (began - 1, began - 1))  # clocks of file systems are coarse


def took(name: str) -> float | None:
    """The seconds that `note` has of a program; None where it has none."""
    try:
        return float(_note(name).read_text())
    except (OSError, ValueError, TypeError):
        return None


def note(name: str, seconds: float) -> None:
    """Remember, beside what is kept, how long a program took to compile."""
    with contextlib.suppress(OSError, TypeError):
        _note(name).write_text(f"{seconds:.1f}")
    _send()


def _bring(url: str) -> str:
    """The folder of this process for what a bucket has of programs, and that. Raises InputError, MachineError."""
    global _bucket
    _bucket = places.Bucket(url)
    atexit.register(_bucket.__exit__)
    path = _bucket.local / memory.kind()
    path.mkdir()
    _bucket.bring(f"{path.name}/")
    tidy(path, _LIMIT_OF_BUCKET)
    return str(path)


def _send() -> None:
    """Have in the bucket, if there is one, what is new; one that fails costs the next process its time, and no more."""
    if _bucket is not None:
        with contextlib.suppress(Told, OSError):
            _bucket.sync()


def _note(name: str) -> pathlib.Path:
    """Raises TypeError where nothing is kept."""
    return pathlib.Path(_configured()["jax_compilation_cache_dir"], f"{name}.seconds")


def _whole(entry: pathlib.Path) -> bool:
    """Whether it unpacks."""
    packed = entry.read_bytes()
    if packed.startswith(_ZSTD):  # as where Python has it: a cut one JAX finds out itself, and compiles each time
        return True
    try:
        zlib.decompress(packed)
        return True
    except zlib.error:
        return False


def _enter() -> None:
    global _users
    with _lock:
        if not _users:
            _prepare()
        _users += 1


def _prepare() -> None:
    where, path = _configured()["jax_compilation_cache_dir"], None
    if where is None:
        if path := folder():
            _before.update(_configured())
    elif paths.is_remote(where):
        path = _bring(str(where))  # from now on: JAX would go there by itself, through TensorFlow
        # XLA's own, whose paths go into the names of programs: this folder has another name in each process.
        _configure(jax_persistent_cache_enable_xla_caches="none")
    if path:
        _configure(
            jax_compilation_cache_dir=path,
            # A dozen programs of moments make a second.
            jax_persistent_cache_min_compile_time_secs=0.0,
        )


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if not _users:
            _send()
            if _before:
                _configure(**_before)
                _before.clear()


def _configured() -> dict[str, object]:
    import jax

    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    return {name: getattr(jax.config, name) for name in names}


def _configure(**values: object) -> None:
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    for name, value in values.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks for the folder when it first compiles
