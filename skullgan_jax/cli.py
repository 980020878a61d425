"""The console script: `skullgan train ...` is `python -m skullgan_jax.main ...`."""

import sys

USAGE = """usage: skullgan COMMAND [FLAGS]

  train     train the pair, e.g. skullgan train --config=configs/skull.py:demo --workdir=runs/demo

skullgan COMMAND --help says more."""


def main() -> None:
    """Dispatch to a command's module."""
    command, *rest = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        print(USAGE)
    elif command == "train":
        from skullgan_jax.main import run

        run([f"{sys.argv[0]} train", *rest])
    else:
        print(f"error: no command {command!r}; see skullgan --help", file=sys.stderr)
        sys.exit(2)
