"""The console script: `skullgan train ...` for `python -m skullgan_jax.main ...`, and so on."""

import importlib
import sys

from skullgan_jax.command.flags import fail, typed

USAGE = """usage: skullgan COMMAND [FLAGS]

  train     train the pair, e.g. skullgan train --config=configs/skull.py:demo --workdir=runs/demo
  prepare   head CTs to a training set, e.g. skullgan prepare --input=hospital/ --output=data/skulls
  sample    slices in HU, e.g. skullgan sample --model=runs/demo --num=1000 --output=skulls.npy
  evaluate  judge samples, e.g. skullgan evaluate --real=data/skulls --fake=skulls.npy --output=report/
  convert   PyTorch's .pth to a model and back, e.g. skullgan convert --generator=netG.pth --output=models/skullgan

skullgan COMMAND --help says more."""


def main() -> None:
    """The command that was typed."""
    typed(_dispatch, keep_memory=sys.argv[1:2] in (["train"], ["sample"], ["convert"]))


def _dispatch() -> None:
    """Call the command's module."""
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
