"""Worker processes that leave signals to the process they work for, and end with it, however it ends."""

import contextlib
import multiprocessing
import signal
import threading
from concurrent import futures
from multiprocessing import connection, resource_tracker

from skullgan_jax.machine import signals
from skullgan_jax.machine.quiet import quiet


class Pool(futures.ProcessPoolExecutor):
    """An executor of `jobs` new processes.

    Ctrl-C in a terminal reaches them too; here they do not see it. If this process is killed they end at once.
    """

    def __init__(self, jobs: int):
        with quiet():  # what cleans up after a kill says so
            resource_tracker.ensure_running()
        super().__init__(jobs, multiprocessing.get_context("spawn"), initializer=_end_with_parent)

    def submit(self, *args, **kwargs):
        """See concurrent.futures; a process that it starts is started whole."""
        with signals.undisturbed(), _held():
            return super().submit(*args, **kwargs)


@contextlib.contextmanager
def _held():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # which a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()

    def wait():
        connection.wait([parent.sentinel])
        signals.leave(1)

    threading.Thread(target=wait, name="parent", daemon=True).start()
