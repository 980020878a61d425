"""Reading a run and training one leave the process as it was: loggers, hooks, signals, JAX's configuration."""

import logging
import os
import re
import signal
import sys
import threading

import jax
import matplotlib
import pytest

import skullgan_jax
from skullgan_jax.errors import InputError
from skullgan_jax.machine import programs
from skullgan_jax.model import checkpoint
from skullgan_jax.train import finish, loop
from tests.conftest import TINY, cache_in


def process() -> dict:
    """What a library must not change."""
    loggers = [logging.getLogger(), *(x for x in logging.Logger.manager.loggerDict.values() if hasattr(x, "level"))]
    return {
        "loggers": {x.name: (x.level, x.disabled, list(x.handlers), list(x.filters)) for x in loggers},
        "hooks": (sys.excepthook, sys.unraisablehook, threading.excepthook, sys.stdout, sys.stderr),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "jax": dict(jax.config.values),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "backend": matplotlib.rcParams._get_backend_or_none(),
        "threads": {t.name for t in threading.enumerate() if t.name == "monitor"},
    }


@pytest.fixture
def no_cache(compiled):
    """As a process that has no folder for compiled programs."""
    cache_in(None)
    yield
    cache_in(compiled)


def unchanged(before: dict) -> None:
    after = process()
    after["loggers"] = {name: after["loggers"][name] for name in before["loggers"]}  # new ones may be there
    for what, value in before.items():
        assert after[what] == value, what


def test_reading_a_run(finished, capfd):
    before = process()
    skullgan_jax.load(finished)
    unchanged(before)
    assert capfd.readouterr() == ("", "")


def test_training(finished_copy, tiny, no_cache, compiled, monkeypatch, capsys):
    """Also one that saves; compiled programs are kept while it lasts."""
    monkeypatch.setattr(programs, "folder", lambda: compiled)
    seen = []
    monkeypatch.setattr(finish, "finish", lambda *_: seen.append(jax.config.jax_compilation_cache_dir))
    before = process()
    loop.train(tiny(epochs=TINY["epochs"] + 1), finished_copy)
    unchanged(before)
    assert seen == [compiled]
    assert not (finished_copy / "compiled").exists()
    said = capsys.readouterr().err
    assert re.search(
        r"(compiling the step, about|the step was compiled before, in) \d+ s\n.*compiled the step in", said
    )
    assert checkpoint.Checkpoints(finished_copy, create=False).latest == 16


def test_a_run_that_is_refused(finished_copy, tiny, no_cache):
    before = process()
    with pytest.raises(InputError):
        loop.train(tiny(seed=7), finished_copy)
    unchanged(before)
