"""Worker processes that leave signals to the process they work for, and end with it, however it ends."""

import multiprocessing
import signal
import threading
from multiprocessing import connection, context, resource_tracker

from skullgan_jax.machine import signals
from skullgan_jax.machine.quiet import quiet


class _Process(context.SpawnProcess):
    def start(self):
        """Start it whole, or not at all; it inherits that signals are held."""
        with signals.undisturbed():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.NUMBERS)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self):
        """What it is for, for as long as there is somebody to do it for."""
        threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
        super().run()


class _Context(context.SpawnContext):
    Process = _Process


def new_processes() -> context.SpawnContext:
    """The context for an executor: processes that share nothing, as threads of XLA or TensorFlow survive no fork.

    Ctrl-C in a terminal reaches them too, but they do not see it. If this process is killed, they end at once.
    """
    with quiet():  # what it cleans up after a kill, it says
        resource_tracker.ensure_running()
    return _Context()


def _end_with_parent() -> None:
    connection.wait([multiprocessing.parent_process().sentinel])
    signals.leave(1)
