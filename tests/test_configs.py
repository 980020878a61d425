"""The shipped configurations: what is published, what the demo changes, and where each number lives."""

import dataclasses
import runpy

import jax
import pytest

from skullgan_jax.nets.pair import Pair
from skullgan_jax.train.fields import flat
from skullgan_jax.train.recipe import Recipe
from tests.conftest import ROOT


def differences(one, other):
    one, other = flat(one.to_dict()), flat(other.to_dict())
    assert one.keys() == other.keys()
    return {k: v for k, v in other.items() if one[k] != v}


def test_the_published_numbers(load_config):
    config = load_config("skull")
    assert (config.epochs, config.batch_size, config.data.pixel_mm) == (1000, 16, 60 / 128)
    assert (config.final_slices, config.pretrained, config.checkpoint) == (1000, "", "")
    sizes = {k: v for k, v in config.model.items() if k != "dtype"}
    shapes = jax.eval_shape(lambda: Pair(**sizes).init(0))
    assert [sum(x.size for x in jax.tree.leaves(t)) for t in (shapes[0], shapes[2])] == [192_002_304, 11_164_353]


@pytest.mark.parametrize(("name", "size"), [("skull", ()), ("skull", ("demo",)), ("celeba", ()), ("celeba", ("demo",))])
def test_every_recipe_and_model_field_is_a_flag(name, size, load_config):
    config = load_config(name, *size)
    assert set(config.recipe) == {f.name for f in dataclasses.fields(Recipe)}
    assert set(config.model) == {f.name for f in dataclasses.fields(Pair)}
    for field in dataclasses.fields(Recipe):
        assert type(config.recipe[field.name]) is type(field.default), field.name


def test_every_field_has_a_meaning(load_config):
    meanings = {name: meaning for name, (_, meaning) in runpy.run_path(ROOT / "configs" / "skull.py")["FIELDS"].items()}
    for name, size in (("skull", ()), ("skull", ("demo",)), ("celeba", ())):
        assert flat(load_config(name, *size).to_dict()).keys() == meanings.keys()
    assert min(len(meaning.split()) for meaning in meanings.values()) >= 3
    assert len(set(meanings.values())) == len(meanings)


def test_skull_recipe_is_the_default(load_config):
    assert Recipe(**load_config("skull").recipe) == Recipe()


def test_the_demo_is_small_and_needs_no_data(load_config):
    changed = differences(load_config("skull"), load_config("skull", "demo"))
    assert changed["data.path"] == "phantom"
    assert changed["model.ngf"] <= 32
    assert {k.split(".")[0] for k in changed} <= {"data", "model", "recipe", "epochs", "judge_slices"}
    assert {k for k in changed if k.startswith("recipe")} <= {"recipe.lr", "recipe.gate_epoch"}


def test_celeba_differs_in_data_and_length_alone(load_config):
    changed = differences(load_config("skull"), load_config("celeba"))
    assert changed == {
        "data.name": "celeba",
        "data.num": 100_000,
        "epochs": 10,
        "sample_every": 1,
        "checkpoint_every": 1,
    }


def test_another_size_is_refused(load_config):
    with pytest.raises(ValueError, match=r"there is only configs/skull.py and configs/skull.py:demo"):
        load_config("skull", "large")
