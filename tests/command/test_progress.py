"""The line about long work."""

import time

import pytest

from skullgan_jax.command.progress import Progress, duration


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.9, "0:00:59"), (90061, "25:01:01"), (-1, "0:00:00")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_one_line_where_nobody_looks(capsys, monkeypatch):
    """Not on a terminal: every half minute and the end, with count, rate and time."""
    now = iter([100.0, 102.0, 131.0, 140.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    progress = Progress("sampled", 40, "slices")
    for done in (20, 31, 40):
        progress(done)
    assert capsys.readouterr().err.splitlines() == [
        "sampled 31/40, 1.0 slices/s, ETA 0:00:09",
        "sampled 40/40, 1.0 slices/s, in 0:00:40",
    ]


def test_a_line_rewritten_on_a_terminal(capsys, monkeypatch):
    now = iter([100.0, 102.0, 102.1, 104.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    progress = Progress("sampled", 40, "slices")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for done in (10, 11, 40):
        progress(done)
    assert capsys.readouterr().err.split("\r") == [
        "sampled 10/40, 5.0 slices/s, ETA 0:00:06 ",
        "sampled 40/40, 10.0 slices/s, in 0:00:04\n",
    ]
