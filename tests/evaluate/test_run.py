"""A model as training left it: what it was trained on, and what its card may say."""

import skullgan_jax
from skullgan_jax.data import phantom
from skullgan_jax.evaluate import inputs
from skullgan_jax.evaluate.report import card
from skullgan_jax.slices.size import PIXEL_MM


def test_the_data_of_a_run_are_known_again(finished):
    model = skullgan_jax.load(finished)
    config = model.provenance["config"]
    hu = phantom.segments(config["data"]["num"], config["seed"])
    assert inputs.trained_on(model, inputs.Slices("all", hu, len(hu), PIXEL_MM, True)) is True
    assert inputs.trained_on(model, inputs.Slices("fewer", hu[1:], len(hu) - 1, PIXEL_MM, True)) is False


def test_the_card_of_a_run_names_no_folder(same, finished):
    text = card.markdown(skullgan_jax.load(finished), same)
    assert '"workdir": "run"' in text
    assert str(finished.parent) not in text
