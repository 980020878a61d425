"""The configurations that come with the package: configs/ of a clone, which a wheel has in the package."""

import pathlib

from skullgan_jax.errors import InputError

_PACKAGE = pathlib.Path(__file__).parents[1]
SHIPPED = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())


def find(name: str) -> str:
    """The path of a configuration: a file of that name, else the one that came with the package.

    Args:
      name: e.g. configs/skull.py, or configs/skull.py:demo, whose end is kept.

    Raises:
      InputError: there is neither; names those that came with the package.
    """
    path, colon, size = name.partition(":")
    shipped = {f"configs/{file.name}": file for file in sorted(SHIPPED.glob("*.py"))}
    if pathlib.Path(path).is_file():
        return name
    if path not in shipped:
        raise InputError(f"--config={name}: no such file; give one, or of those that come along {', '.join(shipped)}")
    return f"{shipped[path]}{colon}{size}"


def found(argv: list[str]) -> list[str]:
    """The words of a training command, with the path of the configuration in the place of its name."""
    argv = list(argv)
    for i, word in enumerate(argv):
        flag, equals, name = word.partition("=")
        if flag in ("--config", "-config"):
            if equals:
                argv[i] = f"{flag}={find(name)}"
            elif i + 1 < len(argv):
                argv[i + 1] = find(argv[i + 1])
    return argv
