"""The sampling command, in this process, and what it is to draw."""

import functools

import pytest

import skullgan_jax
from skullgan_jax import sample
from skullgan_jax.model import load

SEED = 3


@pytest.fixture(scope="session")
def hu(small_model):
    """The first samples of the seed."""
    return skullgan_jax.load(small_model).sample(64, seed=SEED)


@pytest.fixture(scope="session")
def measures(small_model):
    return next(skullgan_jax.load(small_model).sampler(seed=SEED).ranges([(0, 64)])).measures


@pytest.fixture(scope="session")
def _loaded_once():
    """Reads a model once: none is changed where it lies."""
    return functools.cache(load.load)


@pytest.fixture
def command(small_model, capsys, monkeypatch, _loaded_once):
    """A function of flags: exit status and lines on stderr of the command, in shards of 16."""
    monkeypatch.setattr(load, "load", _loaded_once)

    def run(**flags):
        flags = {"model": small_model, "seed": SEED, "shard": 16} | flags
        try:
            sample.run([f"--{name}={value}" for name, value in flags.items()])
            status = 0
        except SystemExit as ended:
            status = ended.code
        return status, capsys.readouterr().err.splitlines()

    return run
