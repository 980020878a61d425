"""Whether --train is what the model was trained on, said in the report and on stderr."""

import dataclasses

import numpy as np
import pytest

import skullgan_jax
from skullgan_jax.data import phantom
from skullgan_jax.evaluate import __main__ as command
from skullgan_jax.evaluate import inputs
from skullgan_jax.slices.size import PIXEL_MM


def slices(name, hu):
    return inputs.Slices(name, hu, len(hu), PIXEL_MM, True)


@pytest.mark.parametrize(
    "provenance", [{}, {"data": None}, {"data": {"name": "skull"}}, {"generator": {"sha256": "1"}}]
)
def test_a_model_without_a_fingerprint_says_nothing(model, provenance):
    """As one that was converted from PyTorch."""
    converted = dataclasses.replace(skullgan_jax.load(model), provenance=provenance)
    assert inputs.trained_on(converted, slices("train", phantom.segments(3, 1))) is None


@pytest.fixture
def few(tmp_path):
    """A folder of sets too small for most of the work."""
    for name, hu in zip(("real", "fake", "other"), np.split(phantom.segments(30, 6), 3), strict=True):
        np.save(tmp_path / f"{name}.npy", hu)
    return tmp_path


def judged(few, model, train, capfd):
    """The page's words and stderr."""
    output = few / "out"
    flags = {"real": few / "real.npy", "fake": few / "fake.npy", "train": train, "model": model, "output": output}
    command.run([*(f"--{name}={value}" for name, value in flags.items()), "--pixel_mm=0.46875"])
    return (output / "report.html").read_text(), (output / "model_card.md").read_text(), capfd.readouterr().err


def test_another_set_is_told(few, model, sets, capfd):
    text, card, said = judged(few, model, few / "other.npy", capfd)
    told = "other.npy, given as --train, is not what the model was trained on"
    assert f"note: {told}" in said
    assert told in text
    assert told in card
    assert "Trained on: see provenance" in card
    assert "<strong>not what the model was trained on</strong>" in text


def test_the_same_set_is_told_too(few, model, sets, capfd):
    text, card, said = judged(few, model, sets / "train.npy", capfd)
    assert "is not what the model was trained on" not in said + text
    assert "These slices are what the model was trained on" in text
    assert "Trained on: 120 slices" in card


def test_a_model_without_one_is_passed_over(few, small_model, sets, capfd):
    text, _, said = judged(few, small_model, sets / "train.npy", capfd)
    assert "trained on" not in said
    assert "fingerprint" not in text
