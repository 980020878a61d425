"""What reading a user's file must not do: run, write, or take more time and memory than the file is worth."""

import contextlib
import importlib
import sys
import threading
import time
import tracemalloc

_FORBIDDEN = ("os.", "subprocess.", "socket.", "shutil.", "exec", "compile", "import", "pickle.", "ctypes.", "marshal.")
importlib.import_module("encodings.cp437")  # zipfile does, when it meets the first name that is not UTF-8

_seen = _thread = None


def _hook(event, arguments):
    if _seen is None or threading.get_ident() != _thread:  # libraries that other tests used have threads of their own
        return
    writes = event == "open" and not (isinstance(arguments[1], str) and set(arguments[1]) <= set("rb"))
    if writes or event.startswith(_FORBIDDEN):
        _seen.append((event, str(arguments)[:200]))


sys.addaudithook(_hook)


@contextlib.contextmanager
def nothing_done():
    """Fails if Python, in the block, runs or imports code, starts a process, or opens a file for writing."""
    global _seen, _thread
    _thread, _seen = threading.get_ident(), (seen := [])
    try:
        yield
    finally:
        _seen = None
    assert not seen, seen


def limits(seconds: float, megabytes: float):
    """Two contexts for the same block, one after the other: to watch memory takes four times as long as to read."""
    return _quick(seconds), _small(megabytes)


@contextlib.contextmanager
def _quick(seconds: float):
    """Fails if the block takes longer; not if the machine is busy with other things."""
    began = time.process_time()
    yield
    took = time.process_time() - began
    assert took <= seconds, f"{took:.2f} s"


@contextlib.contextmanager
def _small(megabytes: float):
    """Fails if the block allocates more than that."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 1e6 * megabytes, f"{peak / 1e6:.0f} MB"
