"""TensorFlow's import is quiet, and leaves the process as it was."""

import logging
import os

import pytest

from skullgan_jax.machine import tensorflow


@pytest.mark.parametrize("level", [None, "0"])
def test_nothing_is_heard_while_it_is_loaded(level, capfd, monkeypatch):
    """Not even of C++, and also if it fails; afterwards everything is, and the level is the user's."""
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    opened = set(os.listdir("/proc/self/fd"))

    def load():
        with tensorflow._unheard():
            assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == (level or "2")
            os.write(2, b"which instructions it found")
            raise ImportError

    with pytest.raises(ImportError):
        load()
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"
    assert os.environ.get("TF_CPP_MIN_LOG_LEVEL") == level
    assert set(os.listdir("/proc/self/fd")) == opened


def test_one_filter_however_often():
    for _ in range(2):
        tensorflow.import_tensorflow()
    assert logging.getLogger("absl").filters.count(tensorflow._is_for_users) == 1
