"""The model that comes with the package."""

import json

import numpy as np
import pytest

from skullgan_jax import sample
from skullgan_jax.model.load import load, place
from skullgan_jax.slices.calibration import BONE_HU


@pytest.fixture(scope="module")
def starter():
    return load("starter")


def test_it_draws_bone(starter):
    """From side to side, of plausible measures, with nothing between air and bone."""
    drawn = starter.samples(32, seed=0)
    assert (drawn.hu.max(axis=1) > BONE_HU).all()
    assert not ((drawn.hu > 0) & (drawn.hu < starter.calibration.hu_floor)).any()
    assert 3 < np.mean(drawn.measures["thickness_mm"]) < 9
    assert 0.5 < np.mean(drawn.measures["sdr"]) < 0.95
    assert np.std(drawn.measures["thickness_mm"]) > 0.5


def test_it_is_small_and_says_what_it_is(starter):
    files = {path.name: path.stat().st_size for path in starter.folder.iterdir() if path.is_file()}
    assert sum(files.values()) <= 4_000_000
    assert starter.d_params is None
    assert starter.standing is not None
    assert "Copyright (c) 2019, Chris Rorden" in (starter.folder / "LICENSE").read_text()
    assert "one head" in (starter.folder / "MODEL_CARD.md").read_text()
    assert json.loads((starter.folder / "model.json").read_text())["use"] == "research use only"


def test_commands_take_it_by_its_name(starter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample.run(["--model=starter", "--num=3", "--output=bone.npy"])
    np.testing.assert_array_equal(np.load("bone.npy"), starter.sample(3))
    assert json.loads((tmp_path / "bone.json").read_text())["model"] == "starter"


def test_a_folder_of_that_name_goes_first(tmp_path, monkeypatch, starter):
    monkeypatch.chdir(tmp_path)
    assert place("starter") == starter.folder
    (tmp_path / "starter").mkdir()
    assert str(place("starter")) == "starter"
