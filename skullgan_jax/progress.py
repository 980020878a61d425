"""What commands tell on stderr, a line at a time: what happened, and of long work how much, how fast and how long."""

import sys
import time


def say(line: str) -> None:
    """One line on stderr, whatever line breaks a message of somebody else's brings."""
    print(" ".join(line.split()), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """90061 -> 25:01:01."""
    seconds = int(max(seconds, 0))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class Progress:
    """Call it with the number done. On a terminal the line is rewritten, elsewhere only the last is printed.

    Args:
      what: begins the line, e.g. "sampled".
      total: how many there are.
      unit: what is counted, e.g. "slices".
    """

    def __init__(self, what: str, total: int, unit: str):
        self.what, self.total, self.unit, self.started = what, total, unit, time.monotonic()

    def __call__(self, done: int) -> None:
        last = done >= self.total
        if not (last or sys.stderr.isatty()):
            return
        seconds = max(time.monotonic() - self.started, 1e-9)
        rate = done / seconds
        rest = f"in {duration(seconds)}" if last else f"ETA {duration((self.total - done) / rate)} "
        line = f"{self.what} {done}/{self.total}, {rate:.1f} {self.unit}/s, {rest}"
        print(line, end="\n" if last else "\r", file=sys.stderr, flush=True)
