"""A model as training left it: what it was trained on."""

import skullgan_jax
from skullgan_jax.data import phantom
from skullgan_jax.evaluate import inputs
from skullgan_jax.slices.size import PIXEL_MM


def test_the_data_of_a_run_are_known_again(finished):
    model = skullgan_jax.load(finished)
    config = model.provenance["config"]
    hu = phantom.segments(config["data"]["num"], config["seed"])
    assert inputs.trained_on(model, inputs.Slices("all", hu, len(hu), PIXEL_MM, True)) is True
    assert inputs.trained_on(model, inputs.Slices("fewer", hu[1:], len(hu) - 1, PIXEL_MM, True)) is False
