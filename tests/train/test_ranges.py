"""Every field of the config has a range, and every value out of it is refused by name before anything is made."""

import itertools

import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.train import ranges
from skullgan_jax.train.fields import flat
from tests.train.refused import refusal

VALUES = (0, -1, 2, 0.5, 1e30, 99_999_999_999, float("nan"), float("inf"), -float("inf"), "word", True, None)
# What of them each field may be; text may be any, and is looked for later.
FROM_0 = {
    "seed",
    "recipe.patience",
    "recipe.gate_epoch",
    "recipe.blur_epoch",
    "recipe.shift",
    "recipe.batch_std",
    "final_slices",
    "patience",
}
FROM_1 = {
    "epochs",
    "data.num",
    "model.nz",
    "model.ndf",
    "judge_slices",
    "log_every",
    "sample_every",
    "checkpoint_every",
}
UP_TO_1 = {
    "recipe.lr",
    "recipe.eps",
    "recipe.g_factor",
    "recipe.d_factor",
    "recipe.real_target",
    "recipe.lr_end",
    "recipe.gamma_until",
    "recipe.average_share",
}
MAY_BE = (
    (FROM_0, (0, 2)),
    (FROM_1 | {"batch_size"}, (2,)),
    (UP_TO_1, (0.5,)),
    (("recipe.b1", "recipe.b2", "recipe.floor"), (0, 0.5)),
    (("recipe.gate_loss", "recipe.gamma", "recipe.gamma_end", "recipe.air"), (0, 0.5, 2)),
    (("recipe.mirror", "recipe.shift_share", "recipe.grain"), (0, 0.5)),
    (("recipe.average_images",), (0.5, 2)),
    (("data.pixel_mm",), (0.5, 2)),
    (("data.path", "pretrained", "checkpoint"), ("word",)),
    (("shard_state", "skip_damaged"), (True,)),
    (("data.name", "model.dtype", "model.nc", "model.ngf"), ()),
)
ALLOWED = {field: values for fields, values in MAY_BE for field in fields}


@pytest.fixture(scope="module")
def published(load_config):
    return flat(load_config("skull").to_dict())


@pytest.fixture(scope="module")
def small(load_config):
    return flat(load_config("small_data").to_dict())


def test_the_shipped_configs_are_in_range(load_config):
    for name, size in itertools.product(("skull", "celeba", "small_data"), ((), ("demo",))):
        ranges.check(flat(load_config(name, *size).to_dict()))


def test_every_field_has_a_range(published, small):
    assert ALLOWED.keys() == published.keys() | small.keys()


@pytest.mark.parametrize("config", ["published", "small"])
def test_every_field_at_every_value(config, request):
    published = request.getfixturevalue(config)
    for field, value in itertools.product(published, VALUES):
        allowed = any(value is each or (type(value) is type(each) and value == each) for each in ALLOWED[field])
        assert ranges.fits(field, value) == allowed, (field, value)
        if not allowed:
            with pytest.raises(InputError) as caught:
                ranges.check(published | {field: value})
            assert str(caught.value).startswith(f"--config.{field}={value}: "), (field, value)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("data.pixel_mm", 0.0, "--config.data.pixel_mm=0.0: must be above 0 and below 100"),
        ("data.pixel_mm", float("nan"), "--config.data.pixel_mm=nan: must be above 0 and below 100"),
        ("epochs", 99_999_999_999, "--config.epochs=99999999999: must be 1 or more and below 2^31"),
        ("epochs", 2_000_000_000, "--config.epochs=2000000000: of 4 steps each; give at most 536870911"),
        ("recipe.b1", 2.0, "--config.recipe.b1=2.0: must be 0 or more and below 1"),
        ("recipe.lr", 0.0, "--config.recipe.lr=0.0: must be above 0 and at most 1"),
        ("model.ngf", 1 << 20, "--config.model.ngf=1048576: must be 16 or more and at most 4096"),
        ("data.num", 2_000_000_000, "--config.data.num=2000000000: so many slices of the phantom take 65536.0 GB of "),
    ],
)
def test_a_run_is_not_begun(field, value, line, tiny, tmp_path):
    assert refusal(tiny(**{field: value}), tmp_path / "run").startswith(line)
    assert not (tmp_path / "run").exists()


def test_fields_that_a_config_of_ones_own_lacks_or_has_too_many(published):
    """One that came later has its default."""
    ranges.check({k: v for k, v in published.items() if k != "skip_damaged"} | {"mine": "note"})
    with pytest.raises(InputError, match=r"^--config: has no field recipe.lr; add it$"):
        ranges.check({k: v for k, v in published.items() if k != "recipe.lr"})
    with pytest.raises(InputError, match=r"^--config: has a field recipe.rate, which is none of recipe; take it out$"):
        ranges.check(published | {"recipe.rate": 1})


def test_no_config_is_of_two_recipes(published, small):
    with pytest.raises(InputError, match=r"^--config: has no field recipe.lr_end; add it$"):
        ranges.check({k: v for k, v in small.items() if k != "recipe.lr_end"})
    with pytest.raises(InputError, match=r"^--config: has a field recipe.gate_loss, which is none of recipe; take"):
        ranges.check(small | {"recipe.gate_loss": 0.9})
    with pytest.raises(InputError, match=r"^--config: has a field recipe.shift, which is none of recipe; take"):
        ranges.check(published | {"recipe.shift": 4})
