import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.slices import chunks
from skullgan_jax.slices.calibration import Calibration

PUBLISHED = Calibration(0, 2734.531494140625)


def test_ends_and_middle():
    hu = np.array([-1000, 0, 1000, 3000], np.int16)
    x = Calibration(-1000, 3000).to_unit(hu)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, [-1, -0.5, 0, 1])


def test_published_formula():
    hu = np.random.default_rng(0).uniform(0, 2734.5, 1000)
    published = (hu / 2734.531494140625 - 0.5) / 0.5
    np.testing.assert_allclose(PUBLISHED.to_unit(hu), published, atol=2e-7)


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "u2", "i4", "f2", "f4", ">f4", "f8"])
def test_round_trip(dtype):
    hu = np.arange(-100, 100, 3).clip(0 if "u" in dtype else -100).astype(dtype)
    range_ = Calibration.of(hu[:, None])
    x = range_.to_unit(hu)
    assert x.dtype == np.float32
    assert x.min() == -1
    assert x.max() == 1
    np.testing.assert_allclose(range_.to_hu(x), hu.astype("f4"), atol=1e-4)


def test_the_input_is_left_alone():
    hu = np.array([0, 100], np.float32)
    Calibration(0, 100).to_unit(hu)
    Calibration(0, 100).to_hu(hu)
    np.testing.assert_array_equal(hu, [0, 100])


def test_jax_arrays():
    x = jax.jit(PUBLISHED.to_unit)(jnp.array([0, 1367, 2734], jnp.int16))
    assert x.dtype == jnp.float32
    np.testing.assert_allclose(x, [-1, -0.0001943, 0.9996113], atol=1e-6)
    hu = jax.jit(PUBLISHED.to_hu)(jnp.array([-1, 0, 1], jnp.bfloat16))
    assert hu.dtype == jnp.float32
    np.testing.assert_allclose(hu, [0, 1367.265747, 2734.531494], rtol=1e-6)


def test_dict_round_trip():
    of_numpy = Calibration(np.int16(-5), np.float32(7.5))
    text = json.dumps(of_numpy.to_dict())
    assert text == '{"hu_min": -5.0, "hu_max": 7.5}'
    assert Calibration.from_dict(json.loads(text) | {"other": 1}) == of_numpy


@pytest.mark.parametrize("values", [{}, {"hu_min": 0}, {"hu_min": 0, "hu_max": "x"}, None])
def test_bad_dict(values):
    with pytest.raises(InputError, match="need numbers hu_min and hu_max"):
        Calibration.from_dict(values)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 0), (float("nan"), 1), (0, float("inf"))])
def test_bad_ends(low, high):
    with pytest.raises(InputError, match="need finite hu_min < hu_max"):
        Calibration(low, high)


def test_of_reads_every_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK", 3)
    hu = np.zeros((8, 4, 4), np.int16)
    hu[4, 1, 2], hu[7, 3, 3] = -1024, 2900
    np.save(tmp_path / "hu.npy", hu)
    assert Calibration.of(np.load(tmp_path / "hu.npy", mmap_mode="r")) == Calibration(-1024, 2900)


def test_of_counts_what_is_not_finite(monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK", 3)
    hu = np.zeros((8, 4, 4), np.float32)
    hu[4, 1, :2], hu[7, 3, 3] = np.nan, -np.inf
    with pytest.raises(InputError, match=r"^3 NaN or infinite values in 2 of 8 slices, the first in slice 4: "):
        Calibration.of(hu)


def test_of_refuses_a_constant():
    with pytest.raises(InputError, match="every value is 7: "):
        Calibration.of(np.full((3, 4, 4), 7))


def test_a_floor_is_what_all_but_a_share_of_bone_is_above(monkeypatch):
    """Bone of 101 to 1100 HU, once each, in chunks: a hundredth of 1000 pixels may lie below the floor."""
    monkeypatch.setattr(chunks, "_CHUNK", 3)
    images = np.zeros((10, 20, 20), np.int16)
    images[:, :10, :10] = np.random.default_rng(0).permutation(np.arange(101, 1101)).reshape(10, 10, 10)
    scale = Calibration.of(images)
    assert scale.floored(images, 0).hu_floor == 101
    assert scale.floored(images, 0.01).hu_floor == 111
    assert Calibration(0, 1100, 111).to_dict() == {"hu_min": 0.0, "hu_max": 1100.0, "hu_floor": 111.0}
    assert Calibration.from_dict(Calibration(0, 1100, 111).to_dict()) == Calibration(0, 1100, 111)
    assert str(Calibration(0, 1100, 111)) == "0 to 1100 (0 below 111)"


@pytest.mark.parametrize("of", [np.asarray, jnp.asarray, jax.jit(jnp.asarray)])
def test_nothing_is_drawn_between_air_and_the_floor(of):
    x = of(np.array([-1, -0.8, -0.5001, -0.5, 1, 1.5], np.float32))
    np.testing.assert_allclose(
        Calibration(-1000, 1000, -500).to_hu(x), [-1000, -1000, -1000, -500, 1000, 1500], atol=1e-3
    )


@pytest.mark.parametrize("floor", [0, -1, 101, float("nan")])
def test_bad_floor(floor):
    with pytest.raises(InputError, match="hu_floor"):
        Calibration(0, 100, floor)
