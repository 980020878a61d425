"""Whether --train is what the model was trained on, said in the report and on stderr."""

import dataclasses

import numpy as np
import pytest

import skullgan_jax
from skullgan_jax.data import phantom
from skullgan_jax.evaluate import __main__ as command
from skullgan_jax.evaluate import inputs, verdict
from skullgan_jax.evaluate.report import card, page
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


def test_another_set_is_told(tmp_path, model, capfd):
    """On stderr, in the report and in the card; on sets too small for most of the work."""
    names = "real", "fake", "other"
    for name, hu in zip(names, np.split(phantom.segments(30, 6), 3), strict=True):
        np.save(tmp_path / f"{name}.npy", hu)
    output = tmp_path / "out"
    sets = (f"--{flag}={tmp_path}/{name}.npy" for flag, name in zip(("real", "fake", "train"), names, strict=True))
    command.run([*sets, f"--model={model}", f"--output={output}", "--pixel_mm=0.46875"])
    text, about = (output / "report.html").read_text(), (output / "model_card.md").read_text()
    told = "what was given as --train is not what the model was trained on"
    assert f"note: {told}" in capfd.readouterr().err
    assert told in text
    assert told in about
    assert "Trained on: see provenance" in about
    assert not [word for word in (*names, tmp_path.name) if f"{word}.npy" in about or word == tmp_path.name in about]
    assert "<strong>not what the model was trained on</strong>" in text


def test_the_same_set_is_told_too(report, same):
    assert not any("trained on" in note for note in same["notes"])
    assert "These slices are what the model was trained on" in (report / "report.html").read_text()
    assert "Trained on: 120 slices" in (report / "model_card.md").read_text()


def test_of_a_model_without_one_nothing_is_told(report, same, tmp_path):
    metrics = same | {"memorisation": same["memorisation"] | {"trained_on": None}}
    some = slices("some", np.zeros((0, 128, 128)))
    assert not any("trained on" in note for note in verdict.notes(metrics, some, some))
    page.write(tmp_path / "report.html", metrics, {path.stem: path for path in (report / "figures").iterdir()})
    text = (tmp_path / "report.html").read_text()
    assert "Nearest of 120 training slices" in text
    assert "fingerprint" not in text


def test_the_card_of_a_run_names_no_folder(same, old):
    text = card.markdown(skullgan_jax.load(old / "run"), same)
    assert '"workdir": "run"' in text
    assert str(old) not in text
    assert "/tmp/old" not in text  # where it was trained
