"""What is said of compiling before it begins."""

import os

from skullgan_jax.train import program


def test_how_long_it_may_take(monkeypatch):
    for cores, seconds in ((1, 17), (2, 10), (8, 6)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert program._about("\n" * 12_686) == f", about {seconds} s"
    assert program._about("\n" * 2 * 12_686) == ", about 11 s"
