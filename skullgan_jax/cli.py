"""The console script, `skullgan train ...` for `python -m skullgan_jax.main ...`; how commands take flags and fail."""

import argparse
import atexit
import contextlib
import importlib
import os
import sys
import threading
import warnings
from typing import NoReturn

from skullgan_jax.command.progress import complain
from skullgan_jax.errors import InputError

USAGE = """usage: skullgan COMMAND [FLAGS]

  train     train the pair, e.g. skullgan train --config=configs/skull.py:demo --workdir=runs/demo
  prepare   head CTs to a training set, e.g. skullgan prepare --input=hospital/ --output=data/skulls
  sample    slices in HU, e.g. skullgan sample --model=runs/demo --num=1000 --output=skulls.npy
  evaluate  judge samples, e.g. skullgan evaluate --real=data/skulls --fake=skulls.npy --output=report/
  convert   PyTorch's .pth to a model and back, e.g. skullgan convert --generator=netG.pth --output=models/skullgan

skullgan COMMAND --help says more."""


GOES_ON = "interrupted; give the same command again, and it goes on where it was"


def main() -> None:
    """Dispatch to a command's module."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        print(USAGE)
    elif command == "train":
        from skullgan_jax.main import run

        run([f"{sys.argv[0]} train", *rest])
    elif command in ("prepare", "sample", "convert"):
        importlib.import_module(f"skullgan_jax.{command}").run(rest)
    elif command == "evaluate":
        from skullgan_jax.evaluate.__main__ import run

        run(rest)
    else:
        fail(f"no command {command!r}; see skullgan --help")


def fail(error: Exception | str) -> NoReturn:
    """One line on stderr, exit 2."""
    # Libraries that are torn down in the middle of their work warn of that, or raise where nobody listens.
    warnings.simplefilter("ignore")
    sys.unraisablehook = threading.excepthook = lambda _: None
    # The last of it comes when the hooks themselves are gone.
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))
    complain(error)
    sys.exit(2)


@contextlib.contextmanager
def refusing(interrupted: str = "interrupted"):
    """What a user can change, and Ctrl-C, end the command with one line and exit 2."""
    try:
        yield
    except InputError as error:
        fail(error)
    except KeyboardInterrupt:
        fail(interrupted)


class Parser(argparse.ArgumentParser):
    """Flags with an example in --help; a wrong one is one line and exit 2."""

    def __init__(self, description: str, **options):
        super().__init__(
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; see --help")
