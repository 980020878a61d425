"""Stdout and stderr of a command: what cannot be written there is dropped, for it does not decide what is done."""

import errno
import io
import os
import sys


class _Stream(io.FileIO):
    """A file descriptor whose reader may go, or whose disk may be full.

    Attributes:
      lost: why something could not be written, other than that nobody reads any more.
    """

    lost: OSError | None = None

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EPIPE:
                self.lost = self.lost or error
            return len(data)


def let_go() -> None:
    """Have the process's streams so. One that is closed is opened to nowhere: the next file would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        if name != "stdin":
            buffer = io.BufferedWriter(_Stream(number, "w", closefd=False))
            encoding = getattr(getattr(sys, name), "encoding", None) or "utf-8"
            lines = name == "stderr" or os.isatty(number)
            stream = io.TextIOWrapper(buffer, encoding, errors="backslashreplace", line_buffering=lines)
            setattr(sys, name, stream)


def lost() -> OSError | None:
    """Why not all that was asked for on stdout is there; nothing where its reader had enough."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return getattr(raw, "lost", None)
