"""SIGINT and SIGTERM of a command that was typed: one line and the end of the process, at any moment.

Python runs its handlers in the main thread between two instructions, so not while XLA compiles or a library loads, and
an exception raised from one comes out anywhere, in a callback that swallows it or between two renames. So a thread of
its own waits for the signal, tells it, removes what this process has beside final names, and ends it where it stands.
What is on disk is whole, as it is after a kill, which nobody can foresee either.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

NUMBERS = (signal.SIGINT, signal.SIGTERM)
_SECONDS = 10  # that what is to be done before the end may take
_undo: dict[object, Callable[[int], None]] = {}
_calm = threading.RLock()
_deciding = threading.Lock()
_ending = threading.Event()


def hold() -> None:
    """Have them wait, also while the process starts itself again, until `watch` can tell them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)


def watch(told: Callable[[int], str]) -> None:
    """From now on they end this process, with the exit status of a shell, 130 or 143. Of the main thread.

    Whoever puts a handler of their own in place has the signal; a second SIGINT ends the process all the same.

    Args:
      told: of a signal's number the line for stderr, or nothing.
    """
    # Of its own, as what is called stderr is closed while TensorFlow loads.
    stderr = os.dup(2)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in NUMBERS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as SIGINT is of what a script has in the background
            signal.signal(number, _left_to_the_thread)

    def wait():
        again = False
        while True:
            for number in os.read(read, 64):
                with _deciding:
                    handler, second = signal.getsignal(number), again and number == signal.SIGINT
                    if handler is _left_to_the_thread or (second and handler != signal.SIG_IGN):
                        _ending.set()
                if _ending.is_set():
                    _end(stderr, told(number), number)
                again |= number == signal.SIGINT

    threading.Thread(target=wait, name="signals", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NUMBERS)


def over() -> None:
    """The command is done, or told why not: a signal changes that no more. One that came before has the last word."""
    with _deciding:
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)
    if _ending.is_set():
        threading.Event().wait()


def leave(status: int) -> None:
    """End this process at once, after what is to be done before."""
    guard = threading.Timer(_SECONDS, os._exit, [status])
    guard.daemon = True
    guard.start()
    if _calm.acquire(timeout=_SECONDS / 2):  # and never released
        for undo in reversed(list(_undo.values())):
            with contextlib.suppress(Exception):
                undo(status)
    os._exit(status)


@contextlib.contextmanager
def before_leaving(undo: Callable[[int], None]) -> Iterator[None]:
    """While the block runs, this is to be done before the process ends by a signal; it is given the exit status."""
    key = object()
    _undo[key] = undo
    try:
        yield
    finally:
        _undo.pop(key)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """No signal ends the process inside this block, which takes no more than moments."""
    with _calm:
        yield


def _left_to_the_thread(number, frame) -> None:
    pass


def _end(stderr: int, line: str, number: int) -> None:
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what is torn down in the middle of its work says much
        if line:
            os.write(stderr, f"{line}\n".encode(errors="backslashreplace"))
    leave(128 + number)
