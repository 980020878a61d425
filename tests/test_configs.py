"""The shipped configurations: what is published, what the demo changes, and where each number lives."""

import dataclasses
import runpy

import jax
import pytest

from skullgan_jax.nets.pair import Pair
from skullgan_jax.train import recipe
from skullgan_jax.train.fields import flat
from skullgan_jax.train.recipe import Recipe, Relativistic
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


CONFIGS = {"skull": Recipe, "celeba": Recipe, "small_data": Relativistic}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("size", [(), ("demo",)])
def test_every_recipe_and_model_field_is_a_flag(name, size, load_config):
    """But what the recipe decides: the kind of its discriminator."""
    config, kind = load_config(name, *size), CONFIGS[name]
    assert type(recipe.of(config.recipe)) is kind
    assert set(config.recipe) == {f.name for f in dataclasses.fields(kind)}
    assert set(config.model) == {f.name for f in dataclasses.fields(Pair)} - {"d_norm", "d_batch_std"}
    for field in dataclasses.fields(kind):
        assert type(config.recipe[field.name]) is type(field.default), field.name


@pytest.mark.parametrize("name", ["skull", "small_data"])
def test_every_field_has_a_meaning(name, load_config):
    fields = runpy.run_path(ROOT / "configs" / f"{name}.py")["FIELDS"]
    meanings = {name: meaning for name, (_, meaning) in fields.items()}
    for config, size in [(name, ()), (name, ("demo",)), *([("celeba", ())] if name == "skull" else [])]:
        assert flat(load_config(config, *size).to_dict()).keys() == meanings.keys()
    assert min(len(meaning.split()) for meaning in meanings.values()) >= 3
    assert len(set(meanings.values())) == len(meanings)


def test_the_recipes_are_the_defaults(load_config):
    assert Recipe(**load_config("skull").recipe) == Recipe()
    assert Relativistic(**load_config("small_data").recipe) == Relativistic()


@pytest.mark.parametrize("size", [(), ("demo",)])
def test_small_data_differs_in_its_recipe_alone(size, load_config):
    """The generator, its data and what is shown are those of skull.py."""
    skull, small = (load_config(name, *size) for name in ("skull", "small_data"))
    skull.recipe = small.recipe
    assert differences(skull, small).keys() <= {"epochs", "checkpoint_every", "sample_every"}


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
    for name in ("skull", "small_data"):
        with pytest.raises(ValueError, match=rf"there is only configs/{name}.py and configs/{name}.py:demo"):
            load_config(name, "large")
