"""The system's lock on a file, which network filesystems know, too: it ends with its process, however that ends."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

from skullgan_jax.errors import InputError, by_cause
from skullgan_jax.machine import signals

_MARK = "skullgan_jax has this locked"
_held = threading.local()


def flock(file) -> bool:
    """Lock an open file for this process, unless another has it locked or the filesystem has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


@contextlib.contextmanager
def only_writer(output: str | os.PathLike, flag: str = "--output") -> Iterator[None]:
    """For the length of the block, be the only job that writes to this output.

    A file beside the output, .NAME.lock, is locked; it says whose it is, and goes at the end. What has an output may
    call what asks for it, too.

    Args:
      output: a file or a folder, which need not be there.
      flag: what the user calls it.

    Raises:
      InputError: another job has it, or nothing can be written there.
      MachineError: nothing can be written there for now.
    """
    final = pathlib.Path(os.path.realpath(output))
    path = final.with_name(f".{final.name}.lock")
    mine = _held.__dict__.setdefault("paths", set())
    if path in mine:
        yield
        return
    with contextlib.ExitStack() as stack:
        with signals.undisturbed():  # from the lock to what removes it
            _take(stack, path, output, flag)
            stack.enter_context(signals.before_leaving(lambda _: path.unlink(missing_ok=True)))
        mine.add(path)
        try:
            yield
        finally:
            mine.remove(path)
            path.unlink(missing_ok=True)


def _take(stack: contextlib.ExitStack, path: pathlib.Path, output, flag: str) -> None:
    """Lock the file until the stack ends; InputError as of only_writer."""
    try:
        if path.parent.is_file():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(_locked(path))
    except BlockingIOError:
        raise InputError(
            f"{flag}={output}: {holder(path)} writes to it; wait for it, stop it or give another place"
        ) from None
    except OSError as error:
        raise by_cause(error, f"{flag}={output}: cannot be written ({error.strerror}); give another place") from None
    if (said := file.read()) and _MARK not in said:
        raise InputError(f"{path}: is there and not of skullgan_jax; remove it, or give another {flag}")
    write_holder(file, mark=_MARK)


@contextlib.contextmanager
def in_turn(path: str | os.PathLike, waiting: Callable[[], object]) -> Iterator[None]:
    """For the length of the block, be the only process that makes this file; the others wait until they can be.

    Of this host, and of all hosts where the filesystem has locks that they share.

    Args:
      path: the file, which need not be there; its folder is.
      waiting: is called before this one waits.

    Raises:
      OSError: nothing can be written beside it.
    """
    path = pathlib.Path(os.path.realpath(path))
    here = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    # Lustre and others may have no locks at all, where those of one host decode beside each other.
    of_this_host = pathlib.Path(tempfile.gettempdir(), f"skullgan_jax.{os.getuid()}.{here}.lock")
    with _turn(of_this_host, waiting), _turn(path.with_name(f".{path.name}.lock"), waiting):
        yield


@contextlib.contextmanager
def _turn(path: pathlib.Path, waiting: Callable[[], object]) -> Iterator[None]:
    try:
        file = _locked(path)
    except BlockingIOError:
        waiting()
        file = _locked(path, wait=True)
    with file, signals.before_leaving(lambda _: path.unlink(missing_ok=True)):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: pathlib.Path, *, wait: bool = False):
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  who asks for it closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:
            pass  # a filesystem without locks: names beside are unique, so what the last to end writes is there, whole
        file.seek(0)
        # Its last owner may have removed it between the opening and the lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def write_holder(file, **more) -> None:
    """Say in a locked file who has it."""
    file.seek(0)
    file.truncate()
    file.write(json.dumps(this_process() | more) + "\n")
    file.flush()
    os.fsync(file.fileno())


def this_process() -> dict:
    """What a lock says of who has it."""
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def holder(path: pathlib.Path) -> str:
    """Who has a locked file, in words."""
    try:
        return named(path.read_text(encoding="utf-8"))
    except OSError:
        return "another job"


def named(said: str | bytes) -> str:
    """Who has it by what a lock says, in words."""
    try:
        about = json.loads(said)
        job = f", Slurm job {about['job']}" if about["job"] else ""
        return f"process {int(about['process'])} on {about['host']}{job} since {about['since']}"
    except (ValueError, KeyError, TypeError):
        return "another job"
