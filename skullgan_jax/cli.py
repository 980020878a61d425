"""The console script: `skullgan train ...` for `python -m skullgan_jax.main ...`, and so on."""

import sys

from skullgan_jax.machine import signals

USAGE = """usage: skullgan COMMAND [FLAGS]

  train     train the pair, e.g. skullgan train --config=configs/skull.py:demo --workdir=runs/demo
  prepare   head CTs to a training set, e.g. skullgan prepare --input=hospital/ --output=data/skulls
  sample    slices in HU, e.g. skullgan sample --model=runs/demo --num=1000 --output=skulls.npy
  evaluate  judge samples, e.g. skullgan evaluate --real=data/skulls --fake=skulls.npy --output=report/
  acoustics slices to sound, e.g. skullgan acoustics --input=skulls.npy --medium=kplan --output=medium.h5
  convert   PyTorch's .pth to a model and back, e.g. skullgan convert --generator=netG.pth --output=models/skullgan

skullgan COMMAND --help says more, skullgan --version which one this is."""
COMMANDS = ("train", "prepare", "sample", "evaluate", "acoustics", "convert")


def main() -> None:
    """The command that was typed."""
    signals.hold()  # what follows takes a while
    from skullgan_jax.command.flags import typed

    command = "".join(sys.argv[1:2])
    typed(_dispatch, keep_memory=command in ("train", "sample", "convert"), on_cpu=command == "prepare")


def _dispatch() -> None:
    """Call the command's module."""
    import difflib
    import importlib
    import pathlib

    from skullgan_jax.command.flags import fail
    from skullgan_jax.version import __version__

    script, command, *rest = sys.argv if sys.argv[1:] else (*sys.argv, "--help")
    if command in ("--help", "-h"):
        print(USAGE)
        return
    if command == "--version":
        print(f"skullgan_jax {__version__}")
        return
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        fail(f"no command {command!r}{f'; did you mean {near[0]}?' if near else ';'} see skullgan --help")
    if pathlib.Path(script).stem == "skullgan":
        sys.argv = [f"skullgan {command}", *rest]  # what --help and errors call it
    if command == "train":
        from skullgan_jax.main import run

        run([f"skullgan {command}", *rest])
    else:
        inside = ".__main__" if command in ("evaluate", "acoustics") else ""
        importlib.import_module(f"skullgan_jax.{command}{inside}").run(rest)
