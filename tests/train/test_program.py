"""What is said of compiling before it begins."""

import os

from skullgan_jax.train import program


def test_how_long_it_may_take(monkeypatch):
    for cores, seconds in ((1, 38), (2, 22), (8, 10)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert program._about("\n" * 13_366) == f", about {seconds} s"
    assert program._about("\n" * 2 * 13_366) == ", about 20 s"
