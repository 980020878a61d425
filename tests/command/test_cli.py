"""What the console script calls itself and its commands."""

import re
import subprocess
import sys

import pytest

from skullgan_jax import cli
from skullgan_jax.command import flags
from skullgan_jax.machine import signals
from skullgan_jax.version import __version__


@pytest.fixture
def typed(monkeypatch, capsys):
    """A function of words: exit status, stdout and stderr of what was typed."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", list(words))
        monkeypatch.setattr(flags, "typed", lambda run, **_: run())
        monkeypatch.setattr(signals, "hold", lambda: None)
        status = 0
        try:
            cli.main()
        except SystemExit as ended:
            status = ended.code
        return (status, *capsys.readouterr())

    return run


def test_version(typed):
    assert typed("skullgan", "--version") == (0, f"skullgan_jax {__version__}\n", "")


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_usage(typed, words):
    status, said, _ = typed("skullgan", *words)
    assert (status, re.findall(r"^  (\w+) ", said, re.M)) == (0, list(cli.COMMANDS))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("smaple", "no command 'smaple'; did you mean sample? see skullgan --help"),
        ("xyz", "no command 'xyz'; see skullgan --help"),
        ("", "no command ''; see skullgan --help"),
    ],
)
def test_no_such_command(typed, word, said):
    assert typed("skullgan", word) == (2, "", f"error: {said}\n")


@pytest.mark.parametrize("command", ["prepare", "sample", "evaluate", "acoustics", "convert"])
@pytest.mark.parametrize("script", ["/usr/bin/skullgan", "/lib/skullgan_jax/__main__.py"])
def test_commands_are_called_as_they_were_typed(typed, command, script):
    name = f"skullgan {command}" if script.endswith("skullgan") else f"python -m skullgan_jax.{command}"
    status, said, _ = typed(script, command, "--help")
    assert (status, said.startswith(f"usage: {name} [-h]")) == (0, True)
    assert re.search(rf"^  {re.escape(name)} --\w+=", said, re.M)  # the example
    assert ("python -m" in said) == (not script.endswith("skullgan"))
    status, _, said = typed(script, command, "--nothing=1", *(["--model=m", "--num=1", "--input=i", "--output=o"]))
    assert (status, said.endswith(f"; see {name} --help\n")) == (2, True)


def test_words_without_their_flags(typed):
    status, _, said = typed("skullgan", "convert", "a.pth", "b")
    assert (status, said) == (
        2,
        "error: a.pth b: name what they are, --generator=a.pth --output=b; see skullgan convert --help\n",
    )
    assert typed("skullgan", "convert", "a", "b", "c")[2].startswith("error: unrecognized arguments: a b c; see")


def test_the_package_runs_as_its_script():
    done = subprocess.run(
        [sys.executable, "-m", "skullgan_jax", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"skullgan_jax {__version__}\n"
