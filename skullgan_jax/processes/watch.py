"""Tells that a process of a job is lost, in time and in a sentence; ends this one when another fails."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time

import jax

from skullgan_jax.command import progress
from skullgan_jax.errors import MachineError
from skullgan_jax.processes.jax_private import global_state

GOES_ON = "the same command goes on from the last checkpoint"
LOST_SECONDS = 40  # without a sign of life
_BEAT_SECONDS = 2
_SILENT_SECONDS = 10  # that are enough where JAX says that somebody is lost


class Watch(threading.Thread):
    """Signs of life between the processes of a job.

    Every process counts up in the key-value store; who has not counted for LOST_SECONDS is lost. Time is counted in
    rounds, so that a process that was itself held up does not blame the others.
    """

    latest: "Watch | None" = None

    def __init__(self):
        super().__init__(name="watch", daemon=True)
        self._stopped = threading.Event()
        self._rounds = 0  # that the store answered
        self._seen: dict[int, tuple[str, int, str, float]] = {}  # process -> its last count, when in rounds, host, when
        Watch.latest = self

    def run(self):
        threading.Thread(target=self._beat, name="beat", daemon=True).start()
        silent, rounds = 0, 0
        while not self._stopped.wait(1):
            silent, rounds = (silent + 1, rounds) if rounds == self._rounds else (0, self._rounds)
            if silent > LOST_SECONDS:
                self._end({0: "the coordinator"}, LOST_SECONDS)

    def _beat(self):
        client, mine = global_state.client, global_state.process_id
        seen, host = self._seen, socket.gethostname()
        while not self._stopped.is_set():
            try:
                client.key_value_set(f"alive/{mine}", f"{self._rounds} {host}", allow_overwrite=True)
                alive = client.key_value_dir_get("alive/")
                failed = client.key_value_dir_get("failed/")
            except jax.errors.JaxRuntimeError:  # the coordinator does not answer; `run` counts for how long
                time.sleep(1)
                continue
            if failed:
                self._follow(*json.loads(failed[0][1]))
            self._rounds += 1
            for key, value in alive:
                count, _, name = value.partition(" ")
                process = int(key.rpartition("/")[2])
                if process not in seen or seen[process][0] != count:
                    seen[process] = count, self._rounds, name, time.monotonic()
            late = self._rounds - LOST_SECONDS // _BEAT_SECONDS
            lost = {process: name for process, (_, last, name, _) in seen.items() if last < late}
            if lost:
                self._end(lost, LOST_SECONDS)
            self._stopped.wait(_BEAT_SECONDS)

    def explain(self) -> None:
        """End this process as where one is lost, if one is silent: JAX, which looks for itself, was faster."""
        late = time.monotonic() - _SILENT_SECONDS
        lost = {process: name for process, (_, _, name, last) in self._seen.copy().items() if last < late}
        if lost and global_state.process_id not in lost:  # else it is this one that was held up
            self._end(lost, _SILENT_SECONDS)

    def _follow(self, process: int, code: int, line: str) -> None:
        """Another process failed with a reason."""
        if self._stopped.is_set() or process == global_state.process_id:
            return
        if global_state.process_id == 0:
            progress.complain(f"process {process}: {line}")
        os._exit(code)

    def _end(self, lost: dict[int, str], seconds: float) -> None:
        if self._stopped.is_set():
            return
        mine = global_state.process_id
        # The coordinator itself may get no answer, where another is lost.
        if mine in lost or mine == min(set(range(global_state.num_processes)) - lost.keys(), default=mine):
            listed = " and ".join(f"process {p} on {name}" for p, name in sorted(lost.items()))
            progress.complain(f"{listed} gave no sign of life for {seconds} s, so all of the job ends; {GOES_ON}")
        os._exit(MachineError.status)

    def stop(self) -> None:
        """Everything is done."""
        self._stopped.set()


def leave(error: Exception | str, code: int) -> None:
    """End this process at once, and the others with it, without their consent that JAX waits for at a regular end."""
    line = str(error)
    _tell_others(line, code)
    progress.complain(line)
    sys.stdout.flush()
    _outlive_them()
    os._exit(code)


def tell_signal(code: int) -> None:
    """What a signal does before it ends this process: end the others."""
    _tell_others("interrupted" if code == 128 + signal.SIGINT else "ended by SIGTERM", code)
    _outlive_them()


def _tell_others(line: str, code: int) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        global_state.client.key_value_set(
            f"failed/{global_state.process_id}", json.dumps([global_state.process_id, code, line])
        )


def _outlive_them() -> None:
    if global_state.process_id == 0:
        time.sleep(2 * _BEAT_SECONDS)  # the store goes with this process; the others read why


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number):
    if Watch.latest:
        Watch.latest.explain()
    if _coordinator_answers():  # it is not that, and whoever aborted said why, or was told to
        _set_handler(number, None)
        return signal.raise_signal(number)  # at the return
    progress.complain(f"process 0 is lost, so all of the job ends; {GOES_ON}")
    os._exit(MachineError.status)


def _coordinator_answers() -> bool:
    if global_state.process_id == 0:
        return True
    host, _, port = (global_state.coordinator_address or "").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
        return True
    except (OSError, ValueError):
        return False


def _set_handler(number: int, handler):
    """Set a handler of C and return the one before, as addresses; None is the system's own."""
    set_handler = ctypes.CDLL(None).signal
    set_handler.restype, set_handler.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    return set_handler(number, handler)


@contextlib.contextmanager
def abort_explained():
    """JAX aborts a process as soon as its coordinator is gone, from a thread of its own; have the last word.

    A handler of Python's own would only be noted down for after the abort, which does not return. An abort for another
    reason remains one; one from outside is left to threads that wait, as this one may hold what a handler needs.
    """
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGABRT])
    before = _set_handler(signal.SIGABRT, ctypes.cast(_aborted, ctypes.c_void_p))
    try:
        yield
    finally:
        _set_handler(signal.SIGABRT, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
