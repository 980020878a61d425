"""Several processes, one job, on JAX's own distributed runtime.

A process finds its place in JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID;
where they are not set, JAX asks Slurm, Open MPI or the TPU. All processes go on together or none does: what they must
agree on is compared at the start, and when one is lost the others end and say so. With one process all of this is
nothing.
"""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from skullgan_jax.command import progress
from skullgan_jax.errors import InputError, MachineError, Told
from skullgan_jax.machine import devices, signals
from skullgan_jax.processes import watch
from skullgan_jax.processes.jax_private import global_state

MEET_SECONDS = 50  # in which all processes must have met
# JAX ends a process itself, with a stack trace, if it has no contact for so long: only where watch.py could not. It
# looks so rarely that half of it may be over when a process is lost.
_HEARTBEAT_SECONDS = 120
_HOURS = 24 * 3600
# What a collective operation says when its connections break: on CPUs, GPUs and between slices.
_LINK = re.compile("Gloo|NCCL|^(ABORTED|DEADLINE_EXCEEDED|UNAVAILABLE):")
T = TypeVar("T")
_calls = itertools.count()  # of all processes together, in one order


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Join the job that the environment names, and leave it together. Before anything else of JAX.

    What one process is told ends all of them with its status (see errors.py), the loss of one with that of a
    MachineError; in one line.

    Raises:
      InputError: the environment names no job.
    """
    _meet()
    with (
        contextlib.nullcontext() if is_first() else progress.silence(),
        watch.abort_explained(),
        signals.before_leaving(watch.tell_signal),
    ):
        beating = watch.Watch()
        beating.start()
        try:
            yield
            # The first has more to do than the others. They stay, so that it is not taken for the only one left.
            from_first("finished", True)
        except Told as error:
            watch.leave(error, error.status)
        except KeyboardInterrupt:
            watch.leave("interrupted", 130)
        except BaseException as error:
            if isinstance(error, (RuntimeError, AssertionError)) and (line := devices.missing()):
                watch.leave(line, InputError.status)
            # A collective operation fails in many ways when a process is lost: time for the watch to tell it, and end.
            if isinstance(error, (jax.errors.JaxRuntimeError, ValueError)):
                time.sleep(watch.LOST_SECONDS + 10)
                if _LINK.search(str(error)):  # all are alive, and do not reach each other
                    reason = " ".join(str(error).split())[:200]
                    line = f"the processes of this job lost each other ({reason}); {watch.GOES_ON}"
                    watch.leave(line, MachineError.status)
            traceback.print_exc()
            watch.leave(f"{type(error).__name__}: {error}", 1)
        beating.stop()
        jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this process is the one that writes and talks."""
    return global_state.process_id == 0


def agree(prepare: Callable[[], T], same: Callable[[T], dict] = lambda _: {}) -> T:
    """Run `prepare` on every process and go on only if it succeeded on all of them.

    Args:
      prepare: what may raise InputError or MachineError.
      same: of its result, JSON values by name that must be equal everywhere.

    Returns:
      The result of this process.

    Raises:
      InputError: of any process, or naming what differs and the two hosts.
      MachineError: of any process.
    """
    if global_state.client is None:
        return prepare()
    result, refused, raised, described = None, None, InputError, {}
    try:
        result = prepare()
        described = same(result)
    except Told as error:
        refused, raised = str(error), type(error)
    mine = {"host": socket.gethostname(), "refused": refused, "status": raised.status, "same": described}
    gathered = gather(mine)
    line = _disagreement(gathered)
    if line is None:
        return result
    told = next((g["status"] for g in gathered if g["refused"] is not None), InputError.status)
    if not is_first():
        os._exit(told)  # the first one tells it
    raise (MachineError if told == MachineError.status else InputError)(line)


def from_first(name: str, value: T) -> T:
    """The JSON value that the first process gives; the others wait for it."""
    if global_state.client is None:
        return value
    key = f"first/{next(_calls)}/{name}"  # each is written once, and one job may train twice
    if is_first():
        global_state.client.key_value_set(key, json.dumps(value))
    return json.loads(global_state.client.blocking_key_value_get(key, 1000 * _HOURS))


def gather(value) -> list:
    """The JSON value of every process, in their order."""
    if global_state.client is None:
        return [value]
    client, name = global_state.client, f"gather/{next(_calls)}"
    client.key_value_set(f"{name}/{global_state.process_id:06d}", json.dumps(value))
    client.wait_at_barrier(name, 1000 * _HOURS)
    return [json.loads(text) for _, text in sorted(client.key_value_dir_get(f"{name}/"))]


class Stop:
    """Turns SIGTERM and SIGINT of any process into a wish that all see before the same step.

    A second SIGINT interrupts at once. At the end both are whose they were, of a job SIGTERM too.

    Args:
      event: has `is_set()`; another way to wish it, of a single process.
    """

    def __init__(self, event=None):
        self.asked, self._event, self._old = "", event, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            # Of a job, JAX's preemption service has SIGTERM, which Python does not know of.
            for number in (signal.SIGINT,) if global_state.client else self._old:
                signal.signal(number, self._note)
        return self

    def _note(self, number, _):
        if self.asked and number == signal.SIGINT:
            signal.signal(number, self._old[number])
            signal.raise_signal(number)
            return
        self.asked = signal.Signals(number).name
        if global_state.client:
            os.kill(os.getpid(), signal.SIGTERM)

    def before(self, step: int) -> bool:
        """Whether to stop before this step; asked before each step by all processes."""
        if global_state.client:
            if multihost_utils.reached_preemption_sync_point(step):
                self.asked = self.asked or "SIGTERM"
                return True
            return False
        if self._event is not None and self._event.is_set():
            self.asked = self.asked or "request"
        return bool(self.asked)

    def __exit__(self, *_):
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _meet() -> None:
    """Start JAX's runtime, which says what fails in a stack trace: what can be asked before is."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [name for name in names if os.environ.get(name)]
    if given and len(given) < len(names):
        missing = " and ".join(name for name in names if name not in given)
        raise InputError(f"--distributed: {' and '.join(given)} without {missing}; set all three or none")
    place, where = {}, "the coordinator that the scheduler names"
    if given:
        where = os.environ[names[0]]
        host, _, port = where.rpartition(":")
        counted = [os.environ[name] for name in names[1:]]
        if not (host and port.isdecimal() and all(text.isdecimal() for text in counted)):
            values = " ".join(f"{name}={os.environ[name]}" for name in names)
            raise InputError(f"--distributed: {values}; give host:port, how many processes, and which this is, from 0")
        num, process = map(int, counted)
        if process >= num:
            raise InputError(f"--distributed: JAX_PROCESS_ID={process} JAX_NUM_PROCESSES={num}; give 0 to {num - 1}")
        if process == 0:
            _check_free(int(port))
        place = {"coordinator_address": where, "num_processes": num, "process_id": process}

    def too_late():
        told = f"{where} was not reached" if given and not _answers(host, int(port)) else "not all processes came"
        hint = "is process 0 running there, and the port open?" if told.endswith("reached") else "are all running?"
        progress.complain(f"--distributed: {told} within {MEET_SECONDS} s; {hint}")
        os._exit(MachineError.status)

    timer = threading.Timer(MEET_SECONDS, too_late)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **place,
            initialization_timeout=MEET_SECONDS + 30,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=60,
        )
    except ValueError:  # of an environment that names no job
        raise InputError(
            f"--distributed: no job found; set {', '.join(names)}, or start it by srun or on a TPU (see launch/)"
        ) from None
    finally:
        timer.cancel()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise InputError(
                f"--distributed: port {port} of JAX_COORDINATOR_ADDRESS cannot be had ({error.strerror}); give another"
            ) from None


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
        return True
    except OSError:
        return False


def _disagreement(gathered: list[dict]) -> str | None:
    """What stands against going on."""
    first = gathered[0]
    for process, other in enumerate(gathered):
        if other["refused"] is not None:
            everywhere = all(g["refused"] == other["refused"] for g in gathered)
            return other["refused"] if everywhere else f"process {process} on {other['host']}: {other['refused']}"
    for process, other in enumerate(gathered):
        keys = sorted(first["same"].keys() | other["same"].keys())
        different = [k for k in keys if first["same"].get(k) != other["same"].get(k)]
        if different:
            listed = ", ".join(
                f"{k} is {first['same'].get(k)!r} on {first['host']} (process 0) and {other['same'].get(k)!r} on "
                f"{other['host']} (process {process})"
                for k in different[:3]
            )
            more = f" and {len(different) - 3} more" if len(different) > 3 else ""
            return f"the processes of this job differ: {listed}{more}; give all the same software, config and data"
    return None
