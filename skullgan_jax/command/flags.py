"""How commands take flags and fail."""

import argparse
import atexit
import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Callable
from typing import NoReturn

from skullgan_jax.command.progress import complain
from skullgan_jax.errors import InputError
from skullgan_jax.machine import extras, memory

GOES_ON = "interrupted; give the same command again, and it goes on where it was"


def typed(run: Callable[[], object], *, keep_memory: bool = False, on_cpu: bool = False) -> None:
    """Run a command as it was typed: the process is its own. A command's `run(argv)`, called from Python, changes none.

    Args:
      run: the command.
      keep_memory: start the process again first, see memory.keep_memory.
      on_cpu: leave accelerators, and their memory, to others.
    """
    if on_cpu:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if keep_memory:
        memory.keep_memory()
    try:
        run()
    except SystemExit as ended:
        if ended.code == 2:
            _say_no_more()
        raise


def _say_no_more() -> None:
    # Libraries that are torn down in the middle of their work warn of that, or raise where nobody listens.
    warnings.simplefilter("ignore")
    sys.unraisablehook = threading.excepthook = lambda _: None
    # The last of it comes when the hooks themselves are gone.
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def fail(error: Exception | str) -> NoReturn:
    """One line on stderr, exit 2."""
    complain(error)
    sys.exit(2)


@contextlib.contextmanager
def refusing(interrupted: str = "interrupted"):
    """What a user can change, a package to install, and Ctrl-C, end the command with one line and exit 2."""
    try:
        yield
    except InputError as error:
        fail(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in extras.LEFT_OUT:
            raise
        fail(extras.missing(error.name))
    except KeyboardInterrupt:
        fail(interrupted)


class Parser(argparse.ArgumentParser):
    """Flags with an example in --help; a wrong one is one line and exit 2.

    Args:
      description: with examples.
      prog: what is typed, as the examples have it; as `skullgan COMMAND`, where that was typed, all of it says so.
      bare: the flags that words without one are likely to be meant for.
    """

    def __init__(self, description: str, prog: str, *, bare: tuple[str, ...] = ()):
        if sys.argv[0].startswith("skullgan "):  # see cli.py
            description, prog = description.replace(prog, sys.argv[0]), sys.argv[0]
        super().__init__(
            description=description,
            prog=prog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._bare = bare

    def parse_args(self, args=None, namespace=None):
        flags, rest = self.parse_known_args(args, namespace)
        if 0 < len(rest) <= len(self._bare) and not any(word.startswith("-") for word in rest):
            meant = " ".join(f"--{flag}={word}" for flag, word in zip(self._bare, rest, strict=False))
            self.error(f"{' '.join(rest)}: name what they are, {meant}")
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return flags

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see {self.prog} --help")
