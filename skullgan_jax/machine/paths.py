"""Paths as users write them."""

import os
import pathlib

from skullgan_jax.errors import InputError


def at_home(path) -> pathlib.Path:
    """A path whose ~ or ~user is the folder that it stands for.

    Raises:
      InputError: there is no such user, or nothing is known of their folder.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        name = pathlib.Path(path).parts[0]
        raise InputError(f"{path}: nobody knows where {name} is; write the folder out") from None


def cache() -> pathlib.Path:
    """What one command keeps for the next: $XDG_CACHE_HOME/skullgan_jax, else ~/.cache/skullgan_jax, the ~ as it is."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return pathlib.Path(base if os.path.isabs(base) else "~/.cache", "skullgan_jax")


def is_remote(path) -> bool:
    """Whether it is a URL, of something in a bucket."""
    return "://" in str(path)


def of_here(flag: str, value) -> pathlib.Path:
    """What a flag names, on this machine. Raises InputError: it is a URL."""
    if is_remote(value):
        raise InputError(
            f"{flag}={value}: this is written to folders of this machine alone; give one, and copy it there"
        )
    return pathlib.Path(value)
