"""What a command may do to its process: all of it where it was typed, nothing where Python calls it."""

import atexit
import os
import sys
import threading
import warnings

import pytest

from skullgan_jax import cli, convert, sample
from skullgan_jax.command import flags, output
from skullgan_jax.machine import memory, signals


@pytest.fixture
def done(monkeypatch):
    """What was done to the process; neither a restart nor the hooks of its end come to pass."""
    done = []
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("glibc", "2.39"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(os, "execv", lambda *_: done.append("started again"))
    monkeypatch.setattr(atexit, "register", lambda _: done.append("stderr closed"))
    monkeypatch.setattr(warnings, "simplefilter", lambda _: done.append("no warnings"))
    for name in ("hold", "watch", "over"):
        monkeypatch.setattr(signals, name, lambda *_, name=name: done.append(f"signals: {name}"))
    monkeypatch.setattr(output, "let_go", lambda: None)
    for module, name in ((sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    yield done
    os.environ.pop("GLIBC_TUNABLES", None)


def test_home(monkeypatch, tmp_path, capsys):
    """A shell leaves ~ as it is within a word."""
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--output=~/x.npy", "--where=sdr<1", "a~b", "--model=m~/~"]
    assert flags.at_home(words) == [f"--output={tmp_path}/x.npy", *words[1:]]
    with pytest.raises(SystemExit) as ended:
        sample.run(["--model=m", "--num=1", "--output=~nobody-at-all/x.npy"])
    assert ended.value.code == 2
    assert "nobody knows where ~nobody-at-all is" in capsys.readouterr().err


@pytest.mark.parametrize("command", [sample, convert])
def test_a_call_from_python_leaves_the_process_alone(command, done, capsys):
    hooks = sys.unraisablehook, threading.excepthook
    with pytest.raises(SystemExit) as ended:
        command.run(["--no_such_flag"])
    assert (ended.value.code, capsys.readouterr().err.count("error: ")) == (2, 1)
    assert (done, hooks) == ([], (sys.unraisablehook, threading.excepthook))
    assert "GLIBC_TUNABLES" not in os.environ


@pytest.mark.parametrize(("name", "again"), [("sample", True), ("convert", True), ("prepare", False)])
def test_a_typed_command_owns_its_process(name, again, done, monkeypatch, capsys):
    """It starts again where it allocates much, and when it has failed nothing is said after its one line."""
    monkeypatch.setattr(sys, "argv", ["skullgan", name, "--no_such_flag"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code, capsys.readouterr().err.count("error: ")) == (2, 1)
    began = ["signals: hold", "signals: hold", *again * ["started again"], "signals: watch"]
    assert done == [*began, "no warnings", "stderr closed", "signals: over"]
    assert ("hugetlb" in os.environ.get("GLIBC_TUNABLES", "")) == again


def test_what_ends_well_says_what_it_likes(done, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["skullgan", "--help"])
    cli.main()
    assert (done, capsys.readouterr().err) == (
        ["signals: hold", "signals: hold", "signals: watch", "signals: over"],
        "",
    )
