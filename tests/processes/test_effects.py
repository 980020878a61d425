"""What a job changes of its process is undone at its end."""

import ctypes
import signal
import socket
import time

import pytest

from skullgan_jax.command import progress
from skullgan_jax.processes import distributed, watch


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


def test_an_abort_is_explained_only_where_the_coordinator_is_gone(monkeypatch):
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        there.listen()
        monkeypatch.setattr(watch.global_state, "coordinator_address", f"127.0.0.1:{there.getsockname()[1]}")
        monkeypatch.setattr(watch.global_state, "process_id", 1)
        assert watch._coordinator_answers()
    assert not watch._coordinator_answers()
    monkeypatch.setattr(watch.global_state, "process_id", 0)
    assert watch._coordinator_answers()


def test_an_abort_by_jax_that_is_faster_names_who_is_lost(monkeypatch, capsys):
    class Ended(Exception):
        pass

    def ended(code):
        raise Ended(code)

    monkeypatch.setattr(watch.os, "_exit", ended)
    monkeypatch.setattr(watch.global_state, "process_id", 0)
    monkeypatch.setattr(watch.global_state, "num_processes", 2)
    monkeypatch.setattr(watch.Watch, "latest", None)
    now, beating = time.monotonic(), watch.Watch()
    beating._seen |= {0: ("9", 9, "here", now), 1: ("5", 5, "there", now - 5)}
    beating.explain()
    beating._seen[1] = ("5", 5, "there", now - 50)
    with pytest.raises(Ended, match="75"):
        beating.explain()
    assert "error: process 1 on there gave no sign of life for 10 s" in capsys.readouterr().err
    beating._seen[0] = ("5", 5, "here", now - 50)  # suspended, for example
    beating.explain()


def test_who_stops_a_run_has_signals_only_so_long():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with distributed.Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert (stop.asked, stop.before(3)) == ("SIGINT", True)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
