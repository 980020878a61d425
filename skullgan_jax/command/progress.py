"""What commands tell on stderr, a line at a time: what happened, and of long work how much, how fast and how long."""

import contextlib
import sys
import time

_silent = False


@contextlib.contextmanager
def silence():
    """Tell nothing: of a job of several processes one tells."""
    global _silent
    before, _silent = _silent, True
    try:
        yield
    finally:
        _silent = before


def silenced() -> bool:
    """Whether another process tells."""
    return _silent


def say(line: str) -> None:
    """One line on stderr."""
    if not _silent:
        write(f"{_one_line(line)}\n")


def complain(error: Exception | str) -> None:
    """The one line on stderr that a command fails with."""
    write(f"error: {_one_line(error)}\n")


def write(text: str) -> None:
    """To stderr, as it is; one that cannot be written is given up: it does not decide what a command does."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end="", file=sys.stderr, flush=True)


def _one_line(text) -> str:
    """Whatever line breaks a message of somebody else's brings."""
    return " ".join(str(text).split())


def duration(seconds: float) -> str:
    """90061 -> 25:01:01."""
    seconds = int(max(seconds, 0))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class Progress:
    """Call it with the number done. On a terminal the line is rewritten, elsewhere there is one each half minute.

    Args:
      what: begins the line, e.g. "sampled".
      total: how many there are.
      unit: what is counted, e.g. "slices".
      done: how many there were before, which do not count for the rate.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0):
        self.what, self.total, self.unit, self.started = what, total, unit, time.monotonic()
        self.shown, self.before = self.started, done

    def __call__(self, done: int) -> None:
        if _silent:
            return
        last, terminal, now = done >= self.total, sys.stderr.isatty(), time.monotonic()
        if not last and now - self.shown < (0.2 if terminal else 30):
            return
        self.shown, seconds = now, max(now - self.started, 1e-9)
        rate = max(done - self.before, 1e-9) / seconds
        rest = f"in {duration(seconds)}" if last else f"ETA {duration((self.total - done) / rate)}"
        line = f"{self.what} {done}/{self.total}, {rate:.1f} {self.unit}/s, {rest}"
        end = "\n" if last or not terminal else " \r"  # the space wipes what a longer line left
        write(line + end)
