"""What passes and what fails: real against real, against the phantom's copies without detail, against controls."""

import json

import numpy as np
import pytest
from scipy import ndimage

from skullgan_jax.data import phantom
from skullgan_jax.evaluate import judge
from skullgan_jax.evaluate.inputs import Slices
from skullgan_jax.evaluate.measures import classify, compare, controls, pooled, table
from skullgan_jax.evaluate.report import figures, page
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


def test_of_slices_without_a_skull_each_number_is_0():
    """So that all distances are finite: those of SDR, thickness and intensity are the means of the reals."""
    hu = phantom.segments(12, 7)
    sets = {"real": hu, "fake": np.zeros_like(hu)}
    found = {name: measured(x, PIXEL_MM) for name, x in sets.items()}
    distances = pooled.pool(sets, found).distances(np.arange(12, 24), np.arange(12))
    assert all(np.isfinite(list(distances.values())))
    for name in controls.NAMES:
        assert distances[f"{name}_ks"] == 1
        np.testing.assert_allclose(distances[f"{name}_wasserstein"], found["real"][name].mean(), rtol=1e-4)


@pytest.mark.all
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
    assert any(line.startswith("2 of 30 fake slices hold no skull to measure") for line in metrics["notes"])
    assert np.isfinite(metrics["radiology"]["sdr"]["fake"]["mean"])


NUM = 52  # just enough to be judged


def odd(kind):
    """NUM slices that are no sample of skulls."""
    random, none = np.random.default_rng(0), np.zeros((NUM, 128, 128), np.int16)
    skulls = phantom.segments(NUM + 1, 11)
    one = np.repeat(skulls[-1:], NUM, 0)
    if kind == "alike":
        return one
    if kind == "two kinds":
        return np.where(np.arange(NUM)[:, None, None] % 2, one, skulls[:1])
    if kind == "nearly alike":
        return np.rint(one + random.normal(0, 5, one.shape)).astype(np.int16)
    if kind == "one skull":
        none[7] = skulls[0]
    elif kind == "dots":
        none[:, 40, 60:63] = 800
    elif kind == "a row of noise":
        none[:, 20] = random.integers(-500, 2500, (NUM, 128))
    elif kind == "specks":
        none[random.random(none.shape) < 0.02] = 1500
    else:
        return skulls[: int(kind)]
    return none


def reported(real, fake, folder, **options):
    """Metrics, of which the figures, the page and the JSON can be written."""
    metrics, arrays = judge.evaluate(slices("real", real), slices("fake", fake), **options)
    json.dumps(metrics, allow_nan=False)
    drawn = figures.draw(folder, metrics, arrays, 0)
    page.write(folder / "report.html", metrics, drawn)
    for figure in drawn.values():
        assert 3000 < figure.stat().st_size < 2_000_000
    return metrics


@pytest.fixture
def few_halvings(monkeypatch):
    monkeypatch.setattr(compare, "HALVINGS", 6)
    monkeypatch.setattr(compare.halvings, "__defaults__", (6,))
    monkeypatch.setattr(compare, "RESAMPLED", 20)
    monkeypatch.setattr(classify, "STEPS", 2)


# real, fake, the beginning of the headline, a word of a note
ODD = [
    ("dots", "52", "Too few reals with a skull to judge", "52 of 52 real slices hold no skull to measure"),
    ("alike", "52", "Too few different reals to judge", "fewer than 50 different reals (1 of 52)"),
]
MORE = [
    ("52", "dots", "Told from real by", "52 of 52 fake slices hold no skull to measure"),
    ("alike", "alike", "The fakes are copies of the real slices", "52 of 52 fakes (100%)"),
    ("nearly alike", "52", "Told from real by", "near duplicates of each other (effective number 1.0 of 52)"),
    ("52", "alike", "Told from real by", ""),
    ("52", "nearly alike", "Told from real by", "KID is far beyond its limit"),
    ("two kinds", "52", "Too few different reals to judge", "(2 of 52)"),
    ("52", "two kinds", "Told from real by", ""),
    ("one skull", "52", "Too few reals with a skull to judge", "(1 of 52)"),
    ("52", "one skull", "Told from real by", "51 of 52 fake slices hold no skull"),
    ("one skull", "one skull", "The fakes are copies", "51 of 52 fake slices hold no skull"),
    ("a row of noise", "52", "Too few reals with a skull to judge", "(0 of 52)"),
    ("52", "a row of noise", "Told from real by", "52 of 52 fake slices hold no skull"),
    ("52", "specks", "Told from real by", "KID is far beyond its limit"),
    ("1", "1", "The fakes are copies", "fewer than 50 slices (1 real, 1 fake)"),
    ("2", "nearly alike", "Too few slices to judge", "fewer than 50 slices (2 real, 52 fake)"),
    ("nearly alike", "3", "Too few slices to judge", "fewer than 50 slices (52 real, 3 fake)"),
]


@pytest.mark.parametrize(
    ("real", "fake", "headline", "note"), [*ODD, *(pytest.param(*x, marks=pytest.mark.all) for x in MORE)]
)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_sets_that_are_no_samples_of_skulls(real, fake, headline, note, few_halvings, tmp_path):
    """A report that says so, whatever is given."""
    metrics = reported(odd(real), odd(fake), tmp_path)
    assert metrics["verdict"]["headline"].startswith(headline)
    assert any(note in line for line in (*metrics["notes"], *metrics["left_out"]))


@pytest.mark.all
@pytest.mark.parametrize("kind", ["1", "2", "3", "alike", "dots", "one skull"])
def test_training_sets_that_are_none(kind, few_halvings, tmp_path):
    metrics = reported(odd("3"), odd("2"), tmp_path, train=slices("train", odd(kind)))
    assert metrics["memorisation"]["num_train"] == len(odd(kind))


@pytest.mark.all
def test_one_subject_with_nearly_all_slices(few_halvings, tmp_path):
    """Halves by subject would hold three slices."""
    hu = phantom.segments(110, 12)
    subjects = np.array(["a"] * 50 + list("bcdef"))
    metrics, arrays = judge.evaluate(slices("real", hu[:55], subjects), slices("fake", hu[55:]))
    figures.draw(tmp_path, metrics, arrays, 0)
    assert metrics["halved_by"] == "slice"
    assert "most reals are of one subject: of halves by subject some would hold 3 slices" in " ".join(metrics["notes"])
