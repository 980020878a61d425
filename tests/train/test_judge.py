"""The judgement of samples that are slices themselves, against the same numbers taken by hand."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax.data import phantom
from skullgan_jax.data.open import open_data
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices import features, fidelity
from skullgan_jax.train import judge

NUM = 64
_SIZES = itertools.count(100)


@pytest.fixture(scope="module")
def config(load_config):
    config = load_config("skull", "demo")
    config.data.num, config.judge_slices = 80, NUM
    return config


@pytest.fixture
def judged(config, monkeypatch):
    """A function of slices in HU: what a generator is judged by that draws them."""

    def numbers(hu):
        data = open_data(config.data, config.seed)
        drawn = jnp.asarray(data.calibration.to_unit(hu)[..., None])
        monkeypatch.setattr(judge.draw, "generator", lambda pair: lambda params, stats, key, indices: drawn[indices])
        pair = Pair(nz=next(_SIZES), ngf=16, ndf=4)  # another each time, as tests make the judgement of one pair once
        _, judge_of = judge.grid_and_judge(config, pair, data)
        return judge_of(None, None)

    return numbers


def test_the_numbers_are_the_evaluations_against_held_out_slices(judged, config, capfd):
    fresh, fakes = phantom.segments(NUM, config.seed, start=80), phantom.segments(NUM, 5)
    found = judged(fakes)
    assert f"checkpoints are judged by {NUM} samples against as many held-out slices" in capfd.readouterr().err
    features_of = np.concatenate(features.scaled(features.describe(fresh), [features.describe(fakes)]))
    expected = fidelity.Gram(features_of).compare(np.arange(NUM, 2 * NUM), np.arange(NUM))
    assert found["kid"] == pytest.approx(expected["kid"], abs=1e-3)
    assert found["coverage"] == pytest.approx(expected["coverage"], abs=0.02)
    assert found["coverage"] > 0.9  # the same source
    assert found["spread"] > 0.9


def test_two_slices_over_and_over_have_no_spread(judged):
    found = judged(np.tile(phantom.segments(2, 5), (NUM // 2, 1, 1)))
    assert found["spread"] < 0.01
    assert found["coverage"] < 0.2


@pytest.mark.parametrize(("num", "told"), [(None, "no held-out ones"), (49, "but 49 held-out ones, fewer than 50")])
def test_without_held_out_slices_by_those_of_training(num, told, judged, config, monkeypatch, capfd):
    kept = None if num is None else phantom.segments(num, 3)
    monkeypatch.setattr(judge, "open_held_out", lambda *_: kept)
    data = phantom.segments(80, config.seed)
    found = judged(data[np.linspace(0, 79, NUM).astype(int)])
    assert told in capfd.readouterr().err
    assert (found["coverage"], found["spread"], found["swd"]) == (1, pytest.approx(1), pytest.approx(0, abs=1e-3))
