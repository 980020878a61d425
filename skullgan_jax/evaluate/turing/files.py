"""What goes to readers and comes back: the key of a test, and a file of answers for each reader."""

import json
import pathlib

from skullgan_jax.errors import InputError

KEY, ANSWERS = "skullgan_jax turing key 1", "skullgan_jax turing answers 1"
_WHAT = {KEY: "key", ANSWERS: "answers"}


def read(path: pathlib.Path, form: str) -> dict:
    """A key or a file of answers, checked field by field: it went through other people's hands.

    Args:
      path: of the file.
      form: KEY or ANSWERS.

    Raises:
      InputError: it cannot be read, is something else, or damaged.
    """
    what = _WHAT[form]
    try:
        found = json.loads(path.read_bytes(), parse_constant=_refuse)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give the {what} of a reading test") from None
    except (ValueError, RecursionError):
        raise InputError(f"{path}: is not JSON, or damaged: get the file again") from None
    if not isinstance(found, dict) or found.get("format") != form:
        raise InputError(f"{path}: is not the {what} of a reading test (format {form!r} missing): give another file")
    try:
        _check(found["test"], str)
        if form == KEY:
            for image in _check(found["images"], dict).values():
                if image["truth"] not in ("real", "fake"):
                    raise ValueError
            return found
        reader = {"name": " ".join(_check(found["reader"]["name"], str).split())}
        if not reader["name"] or not reader["name"].isprintable() or len(reader["name"]) > 200:
            raise ValueError
        reader |= {"role": _check(found["reader"]["role"], str), "years": _check(found["reader"]["years"], int, float)}
        for answer in _check(found["answers"], dict).values():
            if answer["answer"] not in ("real", "fake") or answer["confidence"] not in (1, 2, 3):
                raise ValueError
            _check(answer["seconds"], int, float)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: is damaged (a field is missing or has no sense): get the file again") from None
    return found | {"reader": reader}


def _refuse(constant: str):
    raise ValueError(f"{constant} is not JSON")


def _check(value, *kinds: type):
    if not isinstance(value, kinds):
        raise TypeError
    return value
