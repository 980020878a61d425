"""What passes and what fails: real against real, against the phantom's copies without detail, against controls."""

import numpy as np
from scipy import ndimage

from skullgan_jax.data import phantom
from skullgan_jax.evaluate import judge
from skullgan_jax.evaluate.inputs import Slices
from skullgan_jax.evaluate.measures import classify, compare, controls, pooled, table
from skullgan_jax.slices.radiology import measured

PIXEL_MM = 0.46875


def slices(name, hu, subjects=None):
    return Slices(name, hu, len(hu), PIXEL_MM, True, subjects)


def test_real_against_real_passes_every_test(same):
    assert all(test["fake"]["passes"] for test in same["tests"].values())
    assert same["two_sample"]["fake"]["passes"]
    assert same["classifier"]["fake"]["passes"]
    looks = [line for line in same["verdict"]["lines"] if line["passes"] is not None]
    assert same["verdict"]["headline"] == f"Not told from real by any of {len(looks)} looks"
    for name in ("precision", "recall", "density", "coverage"):
        assert same["fidelity"]["fake"][name] > 0.85


def test_simple_metrics_pass_the_controls_and_the_others_do_not(same):
    """As the paper warns: SDR, thickness and intensity are easily fooled."""
    assert all(same["tests"][name]["control"]["passes"] for name in table.SIMPLE)
    assert not any(same["tests"][name]["control"]["passes"] for name in table.OTHERS)
    assert not same["two_sample"]["control"]["passes"]
    assert not same["classifier"]["control"]["passes"]
    assert same["fidelity"]["control"]["precision"] < 0.05


def test_controls_have_the_numbers_they_are_asked_for():
    found = {n: x for n, x in measured(phantom.segments(60, 3), PIXEL_MM).items() if n in controls.NAMES}
    drawn = measured(controls.idealised(found, PIXEL_MM), PIXEL_MM)
    for name, most in (("sdr", 0.02), ("thickness_mm", 0.05), ("mean_hu", 10)):
        assert np.abs(drawn[name] - found[name]).max() < most


def test_smoothed_reals_fail_by_texture_alone():
    hu = phantom.segments(200, 6)
    fake = ndimage.median_filter(hu[100:], (1, 3, 3))
    every = pooled.pool(
        {"real": hu[:100], "fake": fake}, {"real": measured(hu[:100], PIXEL_MM), "fake": measured(fake, PIXEL_MM)}
    )
    pairs = compare.halvings(100, None, 1000, 0)
    tests = compare.judge(every.distances, pairs, {"fake": np.arange(100, 200)}, 0)
    assert not tests["spectrum"]["fake"]["passes"]
    assert tests["thickness_mm_ks"]["fake"]["passes"]


def test_a_collapsed_set_fails_by_diversity():
    hu = phantom.segments(115, 7)
    sets = {"real": hu[:100], "fake": np.repeat(hu[100:], 7, 0)[:100]}
    every = pooled.pool(sets, {name: measured(x, PIXEL_MM) for name, x in sets.items()})
    tests = compare.judge(every.distances, compare.halvings(100, None, 1000, 0), {"fake": np.arange(100, 200)}, 0)
    assert not tests["recall"]["fake"]["passes"]
    assert not tests["duplicates"]["fake"]["passes"]


def test_the_trained_network_finds_missing_detail(monkeypatch):
    monkeypatch.setattr(classify, "STEPS", 40)
    hu = phantom.segments(240, 8)
    found = classify.trained(hu[:120], ndimage.gaussian_filter(hu[120:], (0, 1, 1)), None, 0)
    assert found["value"] > 0.8
    assert not found["passes"]


def test_few_slices_say_what_is_left_out():
    hu = phantom.segments(60, 9)
    metrics, _ = judge.evaluate(slices("real", hu[:30]), slices("fake", hu[30:]))
    assert metrics["left_out"][0].startswith("fewer than 50 slices (30 real, 30 fake)")
    assert "KID" in metrics["left_out"][0]
    assert "tests" not in metrics
    assert set(metrics["radiology"]) >= {"sdr", "thickness_mm", "mean_hu"}
    assert metrics["verdict"]["headline"] == "Too few slices to judge"


def test_copies_and_empty_slices_are_told():
    hu = phantom.segments(30, 10)
    fake = np.concatenate([hu[:20], hu[20:28, :, ::-1], np.zeros((2, 128, 128), np.int16)])
    metrics, _ = judge.evaluate(slices("real", hu), slices("fake", fake))
    assert metrics["copies"]["num"] == 28
    assert metrics["verdict"]["headline"] == "The fakes are copies of the real slices"
    assert metrics["sets"]["fake"]["empty"] == 2
    assert any(line.startswith("2 fake slices hold no bone") for line in metrics["notes"])
    assert np.isfinite(metrics["radiology"]["sdr"]["fake"]["mean"])
