"""The discriminator as a classifier, against the network asked directly."""

import dataclasses

import numpy as np
import pytest

import skullgan_jax
from skullgan_jax.data import phantom
from skullgan_jax.evaluate.measures import classify
from skullgan_jax.nets import networks
from skullgan_jax.slices import fade
from skullgan_jax.slices.calibration import Calibration
from tests.support import quick_jit


@pytest.fixture(scope="module")
def asked(small_model):
    """A model whose discriminator calls about half of the phantoms real, and its logits of 32 of them by batch."""
    model, hu = skullgan_jax.load(small_model), phantom.segments(32, 3)
    _, graph = model.pair.graphs()
    run = quick_jit(lambda params, stats, x: networks.apply(graph, params, stats, x, train=True)[0])

    def logits(params, some):
        return np.asarray(run(params, model.d_stats, model.calibration.to_unit(some.astype(np.float32))[..., None]))

    middle = np.median(logits(model.d_params, hu[:16]))
    last = model.d_params["conv6"] | {"bias": model.d_params["conv6"]["bias"] - middle}
    model.d_params = model.d_params | {"conv6": last}
    return model, hu, lambda some: logits(model.d_params, some)


def test_shares_are_of_batches_of_one_set(asked):
    model, hu, logits = asked
    sets = {"real": hu[:16], "fake": hu[16:]}
    found = classify.discriminator(model, sets, None, 0)
    for name, some in sets.items():  # one batch each: its order does not matter
        assert found[name]["value"] == np.mean(logits(some) > 0)
    assert found["real"]["value"] == 0.5
    assert found["passes"] in (True, False)


def test_one_that_learned_from_pairs_calls_real_what_is_above_the_median(asked):
    """Of all reals and fakes: its logits mean nothing by themselves."""
    model, hu, _ = asked
    params = {k: v for k, v in model.d_params.items() if k.startswith("conv")}
    params["conv6"] = params["conv6"] | {"bias": params["conv6"]["bias"] + 100}
    pair = dataclasses.replace(model.pair, d_norm="none")
    plain = dataclasses.replace(model, pair=pair, d_params=params, d_stats={})
    sets = {"real": hu[:16], "fake": hu[16:], "noise": np.zeros_like(hu[:16])}
    found = classify.discriminator(plain, sets, None, 0)
    assert found["real"]["value"] + found["fake"]["value"] == 1
    same = classify.discriminator(plain, {"real": hu, "fake": hu}, None, 0)
    assert (same["real"]["value"], same["passes"]) == (0.5, True)


def test_with_a_floor_slices_are_shown_as_they_were_in_training(asked):
    model, _, _ = asked
    hu = np.zeros((32, 128, 128), np.int16)
    hu[:, ::4] = np.random.default_rng(0).integers(400, 800, (32, 32, 1))  # rows, which air beside them takes half of
    params = {k: v for k, v in model.d_params.items() if k.startswith("conv")}
    calibration, pair = Calibration(0, 2000, 400), dataclasses.replace(model.pair, d_norm="none")
    plain = dataclasses.replace(model, pair=pair, d_params=params, d_stats={}, calibration=calibration)
    _, graph = pair.graphs()
    run = quick_jit(lambda x: networks.apply(graph, params, {}, x, train=True)[0])
    sharp = calibration.to_unit(hu.astype(np.float32))[..., None]
    seen, unseen = (np.asarray(run(x)) for x in (np.asarray(fade.faded(sharp, -0.6)), sharp))
    rank, otherwise = (np.argsort(np.argsort(logits)) for logits in (seen, unseen))
    risen = rank - otherwise > np.median(rank - otherwise)
    assert np.mean(rank[risen] > 15) > np.mean(otherwise[risen] > 15)
    found = classify.discriminator(plain, {"real": hu[risen], "fake": hu[~risen]}, None, 0)
    assert found["real"]["value"] == np.mean(rank[risen] > 15)


def test_a_last_batch_that_is_not_full_is_filled_up(asked):
    model, hu, _ = asked
    found = classify.discriminator(model, {"real": hu, "fake": hu[:21]}, None, 0)
    assert (found["real"]["num"], found["fake"]["num"]) == (32, 21)


def test_who_calls_all_real_says_nothing(asked):
    model, hu, _ = asked
    last = model.d_params["conv6"]
    sure = dataclasses.replace(model, d_params=model.d_params | {"conv6": last | {"bias": last["bias"] + 1e3}})
    found = classify.discriminator(sure, {"real": hu, "fake": hu}, None, 0)
    assert (found["real"]["value"], found["passes"]) == (1, None)
