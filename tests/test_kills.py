"""Killed at any moment, a command leaves what was there or the new one whole, and touches nobody else's files."""

import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import pytest

from skullgan_jax.data import phantom
from skullgan_jax.evaluate import judge
from skullgan_jax.evaluate.inputs import Slices
from skullgan_jax.evaluate.report import figures

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def computed(small_model, tmp_path_factory):
    """What is written, computed once."""
    folder = tmp_path_factory.mktemp("computed")
    shutil.copytree(small_model, folder / "model")
    sets = (Slices(name, phantom.segments(6, seed), 6, 0.5, True) for seed, name in enumerate(("real", "fake")))
    metrics, arrays = judge.evaluate(*sets)
    pictures = {path.name: path.read_bytes() for path in figures.draw(folder, metrics, arrays, 0).values()}
    (folder / "judged.pickle").write_bytes(pickle.dumps((metrics, arrays, pictures)))
    return folder


@pytest.mark.all
@pytest.mark.parametrize("kills", ["8", pytest.param("50", marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["save", "convert", "to_torch", "evaluate"])
def test_killed_at_random_moments(what, kills, computed):
    done = subprocess.run(
        [sys.executable, "-m", "tests.killed", what, computed, kills], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["the new"] + counts["the old"] + counts["nothing yet"] == int(kills)
