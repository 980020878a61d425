"""How commands take flags and fail."""

import argparse
import atexit
import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from typing import NoReturn

from skullgan_jax.command import output, progress
from skullgan_jax.errors import InputError, MachineError, Told, by_cause
from skullgan_jax.machine import devices, extras, memory, paths, signals

GOES_ON = "interrupted; give the same command again, and it goes on where it was"
_interrupted = "interrupted"


def typed(run: Callable[[], object], *, keep_memory: bool = False, on_cpu: bool = False) -> None:
    """Run a command as it was typed: the process is its own. A command's `run(argv)`, called from Python, changes none.

    SIGINT and SIGTERM end it at any moment with one line, and 130 or 143, unless it takes them itself.

    Args:
      run: the command.
      keep_memory: start the process again first, see memory.keep_memory.
      on_cpu: leave accelerators, and their memory, to others.
    """
    signals.hold()
    output.let_go()
    if on_cpu:
        os.environ["JAX_PLATFORMS"] = "cpu"
    if keep_memory:
        memory.keep_memory()
    signals.watch(_told)
    try:
        _settle()
        run()
        if error := output.lost():
            fail(by_cause(error, f"stdout: cannot be written ({error.strerror}); give it another place"))
    except SystemExit as ended:
        if ended.code in (InputError.status, MachineError.status):
            _say_no_more()
        raise
    finally:
        signals.over()


def _told(number: int) -> str:
    words = _interrupted if number == signal.SIGINT else _interrupted.replace("interrupted", "ended by SIGTERM", 1)
    return "" if progress.silenced() else f"error: {words}"


def _settle() -> None:
    """Refuse, or mend, a place that the libraries underneath would stumble over, each in its own way."""
    try:
        here = os.getcwd()
    except OSError as error:
        fail(f"the folder of this process is not there any more ({error.strerror}); cd to one that is")
    if not is_utf8(here):
        fail(not_utf8(here))
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/nonexistent"  # what keeps something there can do without, but must have a name
    # TensorStore waits for ever for a bucket that has the connection and sends nothing.
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS", "20")
    os.environ.setdefault("TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES", "1")


def is_utf8(name: str) -> bool:
    """Whether libraries that know no locale, as those that write checkpoints and stores, find what the system has."""
    try:
        return name.encode() == os.fsencode(name)
    except UnicodeEncodeError:  # bytes that are none, which Python escapes
        return False


def not_utf8(name: str) -> str:
    """What is said of a name that is not."""
    locale = sys.getfilesystemencoding()
    hint = "rename it" if locale == "utf-8" else f"the locale is {locale}: set LC_ALL=C.UTF-8, or rename it"
    return f"{ascii(os.fsencode(name))[2:-1]}: this name is not in UTF-8; {hint}"


def at_home(words: list[str]) -> list[str]:
    """The words of a command, `--flag=~/...` with the folder that ~ stands for: shells leave it there as it is.

    Raises:
      InputError: ~ of nobody that is known.
    """
    found = []
    for word in words:
        flag, equals, value = word.partition("=")
        known = flag.startswith("--") and value.startswith("~")
        found.append(f"{flag}={paths.at_home(value)}" if equals and known else word)
    return found


def _say_no_more() -> None:
    # Libraries that are torn down in the middle of their work warn of that, or raise where nobody listens.
    warnings.simplefilter("ignore")
    sys.unraisablehook = threading.excepthook = lambda _: None
    # The last of it comes when the hooks themselves are gone.
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


def fail(error: Told | str) -> NoReturn:
    """One line on stderr, and exit with the status of the error; that of bad input where it is a line alone."""
    progress.complain(error)
    sys.exit(error.status if isinstance(error, Told) else InputError.status)


@contextlib.contextmanager
def refusing(interrupted: str = "interrupted"):
    """End the command in one line, with the status of what is raised (see errors.py).

    A package to install, or a device that is not there, are what a user can change, too: exit 2.

    Args:
      interrupted: the line on Ctrl-C, exit 130, and with another word on SIGTERM, exit 143.
    """
    global _interrupted
    before, _interrupted = _interrupted, interrupted
    try:
        yield
    except Told as error:
        fail(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in extras.LEFT_OUT:
            raise
        fail(extras.missing(error.name))
    except (RuntimeError, AssertionError):
        if line := devices.missing():
            fail(line)
        raise
    except KeyboardInterrupt:  # where Python called the command, which a signal ends otherwise where it was typed
        progress.complain(interrupted)
        sys.exit(130)
    finally:
        _interrupted = before


class Parser(argparse.ArgumentParser):
    """Flags with an example in --help; a wrong one is one line and exit 2.

    Args:
      description: with examples.
      prog: what is typed, as the examples have it; as `skullgan COMMAND`, where that was typed, all of it says so.
      bare: the flags that words without one are likely to be meant for.
      any_name: those whose values need not be UTF-8.
    """

    def __init__(self, description: str, prog: str, *, bare: tuple[str, ...] = (), any_name: tuple[str, ...] = ()):
        if sys.argv[0].startswith("skullgan "):  # see cli.py
            description, prog = description.replace(prog, sys.argv[0]), sys.argv[0]
        super().__init__(
            description=description,
            prog=prog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._bare, self._any_name = bare, any_name

    def parse_args(self, args=None, namespace=None):
        try:
            args = at_home(sys.argv[1:] if args is None else args)
        except InputError as error:
            fail(error)
        flags, rest = self.parse_known_args(args, namespace)
        if 0 < len(rest) <= len(self._bare) and not any(word.startswith("-") for word in rest):
            meant = " ".join(f"--{flag}={word}" for flag, word in zip(self._bare, rest, strict=False))
            self.error(f"{' '.join(rest)}: name what they are, {meant}")
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        for flag, value in vars(flags).items():
            for word in value if isinstance(value, list) else [value]:
                if isinstance(word, str) and flag not in self._any_name and not is_utf8(word):
                    fail(f"--{flag}={not_utf8(word)}")
        return flags

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see {self.prog} --help")
