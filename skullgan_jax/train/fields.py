"""The fields of --config: what --help says of them, and in a sentence what is wrong with one. It needs no JAX."""

import difflib
import pathlib
import re
import runpy
import textwrap

from skullgan_jax.errors import InputError
from skullgan_jax.train import config

_PUBLISHED = "configs/skull.py"
_KINDS = {bool: "True or False", int: "a whole number", float: "a number"}


def ask_for_help(argv: list[str]) -> bool:
    """Whether a command line asks for help."""
    return any(word == "-h" or word.startswith(("--help", "-help")) for word in argv[1:])


def help_text(argv: list[str], doc: str, flags: dict[str, str]) -> str:
    """What --help shows.

    Args:
      argv: the command line; of its --config, else of the published one, the fields are shown.
      doc: what the command is for, with examples.
      flags: name -> what it is.

    Raises:
      InputError: the config cannot be read.
    """
    name = _given(argv) or _PUBLISHED
    command = _command(argv[0])
    lines = [f"usage: {command} --config=FILE --workdir=DIR [--FLAG ...] [--config.FIELD=VALUE ...]", ""]
    lines += [doc.replace(_command("main.py"), command)]
    lines += ["flags:", *(line for flag, meaning in flags.items() for line in _entry(flag, meaning))]
    lines += ["", f"fields of {name}:"]
    values = of(name)
    published, own = (runpy.run_path(config.find(file).partition(":")[0]) for file in (_PUBLISHED, name))
    meanings = {field: meaning for field, (_, meaning) in own.get("FIELDS", published["FIELDS"]).items()}
    for field in sorted(values, key=[*meanings, *values].index):
        default = "none" if values[field] == "" else values[field]
        lines += _entry(f"config.{field}", f"{meanings.get(field, '')} (default {default})".lstrip())
    return "\n".join(lines)


def of(name: str) -> dict:
    """The fields of a config and their values, {"data.path": "phantom"}, of a name such as configs/skull.py:demo.

    Raises:
      InputError: it cannot be read.
    """
    path, _, size = config.find(name).partition(":")
    try:
        return flat(runpy.run_path(path)["get_config"](*[size] if size else []).to_dict())
    except Exception as error:  # whatever somebody's file raises
        what = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise InputError(f"--config={name}: {what}{error}") from None


def flat(config: dict, prefix="") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    out = {}
    for key, value in config.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def told(argv: list[str], error: Exception) -> str:
    """What is wrong with a command line, in the words of its reader where a field of the config is."""
    name = _given(argv)
    said = f"--config has no field {error.args[0]}; see --help" if isinstance(error, KeyError) else str(error)
    if not name:
        return said
    try:
        known = of(name)
    except InputError as unreadable:  # of which the reader gives all of its traceback
        return str(unreadable)
    if not any("config." in word for word in argv):
        return said
    for word in argv:
        field = re.match(r"--?(?:no)?config\.([\w.-]+)", word)
        if field and field[1] not in known:
            return _unknown(field[1], known)
    value = re.match(r"flag (--config\.([\w.]+)=.*?): ", str(error))
    kind = value and _KINDS.get(type(known[value[2]]))
    return f"{value[1]}: give {kind}" if kind else str(error)


def _unknown(field: str, known: dict) -> str:
    inside = [name for name in known if name.startswith(f"{field}.")]
    if inside:
        return f"--config.{field} is not one field; give those you mean, e.g. --config.{inside[0]}={known[inside[0]]}"
    group, _, last = field.rpartition(".")
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == group}
    close = [name for name in known if name.endswith(f".{field}")]
    close += [beside[name] for name in difflib.get_close_matches(last, beside, n=1)]
    close += difflib.get_close_matches(field, known, n=1, cutoff=0.8)
    return f"--config has no field {field}; " + (f"did you mean {close[0]}?" if close else "see --help")


def _command(program: str) -> str:
    """The command as it was typed, of its argv[0]: skullgan train, or python -m skullgan_jax.main."""
    path = pathlib.Path(program)
    if path.suffix == ".py":
        return "python -m skullgan_jax.main"
    return path.name.replace("__main__.py", "python -m skullgan_jax")


def _given(argv: list[str]) -> str:
    for word, after in zip(argv, [*argv[1:], ""], strict=True):
        if word in ("--config", "-config"):
            return after
        if word.startswith(("--config=", "-config=")):
            return word.partition("=")[2]
    return ""


def _entry(flag: str, meaning: str) -> list[str]:
    return textwrap.wrap(meaning, 120, initial_indent=f"  --{flag:<29} ", subsequent_indent=" " * 34)
