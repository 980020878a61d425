"""What a job changes of its process is undone at its end."""

import ctypes
import signal

from skullgan_jax.command import progress
from skullgan_jax.processes import watch


def abort_handler():
    """The address of the handler of SIGABRT, which Python does not know of."""
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    found = libc.signal(signal.SIGABRT, None)
    libc.signal(signal.SIGABRT, found)
    return found


def test_abort_is_explained_for_as_long_as_a_job_lasts():
    before = abort_handler()
    with watch.abort_explained():
        assert abort_handler() == ctypes.cast(watch._aborted, ctypes.c_void_p).value
    assert abort_handler() == before


def test_silence_ends(capfd):
    with progress.silence():
        progress.say("nothing")
        progress.Progress("sampled", 4, "slices")(4)
    progress.say("something")
    assert capfd.readouterr().err == "something\n"
