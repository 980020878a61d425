"""Acoustic maps: the values of each model by hand, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax import acoustics
from skullgan_jax.acoustics.maps import MODELS, hounsfield2density
from skullgan_jax.errors import InputError

HU_MAX = 2734.53
# At 0, 1000, 2000 and 2734.53 HU: density, then speed of sound.
VALUES = {
    "tusnet": ((997, 1011.9, 1673.9, 2160.6), (1493.0, 1512.8, 2393.3, 3040.6)),
    "kwave": ((1011.9, 1673.9, 2100, 2100), (1512.8, 2393.3, 2960, 2960)),
    "kplan": ((1000, 1530, 2182.6, 2662.0), (1500, 2201.9, 3069.9, 3707.5)),
    "aubry": ((1000, 1438.8, 1877.7, 2200), (1500, 2085.1, 2670.2, 3100)),
    "marsac": ((1000, 1621.7, 2243.4, 2700), (1500, 2048.5, 2597.1, 3000)),
    "marsac_prestus": ((994, 1449.4, 2100, 2100), (1500, 2265.9, 3360, 3360)),
    "bric": ((1000, 1450, 1900, 1900), (1500, 2300, 3100, 3100)),
    "webb": ((1011.9, 1673.9, 2100, 2100), (1500, 2070, 2820, 3370.9)),
}


def _medium(hu, name: str) -> acoustics.Medium:
    own = MODELS[name].alpha is not None
    return acoustics.medium(hu, name, hu_max=HU_MAX, attenuation=None if own else "kplan")


@pytest.mark.parametrize("name", list(MODELS))
def test_values(name):
    found = _medium(np.array([0, 1000, 2000, HU_MAX], np.float32), name)
    density, speed = VALUES[name]
    np.testing.assert_allclose(found.density, density, atol=0.051)
    np.testing.assert_allclose(found.sound_speed, speed, atol=0.051)
    assert {x.dtype for x in (found.density, found.sound_speed, found.alpha_coeff)} == {jnp.dtype("float32")}
    assert found.model.startswith(name)


def test_attenuation_by_hand():
    hu = np.array([0, 400, 1000, 1500], np.float32)
    phi = 1 - hu / HU_MAX
    for name, values, power in (
        ("tusnet", [0.53, 13.3, 13.3, 13.3], 1.5),
        ("kplan", [0.0022, 13.3, 13.3, 13.3], 1),
        ("aubry", [0.0022, *(0.2 + 7.8 * np.sqrt(phi[1:]))], 1),
        ("bric", [0.0022, *(4 + 4.7 * np.sqrt(1 - (hu[1:] - 300) / 1700))], 1.43),
        ("webb", [0.0022, *(2600 * 0.0868589 * np.exp(-0.0016 * hu[1:]))], 1.3),
    ):
        found = acoustics.medium(hu, name, hu_max=HU_MAX)
        np.testing.assert_allclose(found.alpha_coeff, values, rtol=1e-5, err_msg=name)
        assert found.alpha_power == power
    borrowed = acoustics.medium(hu, "kwave", attenuation="bric")
    assert (borrowed.model, borrowed.alpha_power) == ("kwave, attenuation of bric", 1.43)


def test_density_of_k_wave_at_its_knots():
    """Each line to the last digit that float32 holds, on both sides of each knot."""
    for h, a, b in (
        (929.0, 1.025793065681423, -5.680404011488714),
        (930.0, 0.9082709691264, 103.6151457847139),
        (1097.0, 0.9082709691264, 103.6151457847139),
        (1098.0, 0.5108369316599, 539.9977189228704),
        (1259.0, 0.5108369316599, 539.9977189228704),
        (1260.0, 0.6625370912451, 348.8555178455294),
    ):
        np.testing.assert_allclose(hounsfield2density(jnp.float32(h)), a * h + b, rtol=3e-7)


@pytest.mark.parametrize("name", list(MODELS))
def test_denser_is_faster(name):
    """From air to metal no map falls, and none is below water but in tusnet and marsac_prestus, who say so."""
    found = _medium(np.arange(-1100, 3300, dtype=np.int16), name)
    for values in (found.density, found.sound_speed):
        assert np.all(np.diff(values) >= -0.6)  # the lines of hounsfield2density meet within that
    assert found.density.min() >= {"tusnet": 997, "marsac_prestus": 994}.get(name, 1000)
    assert found.sound_speed.min() >= {"tusnet": 1493}.get(name, 1500)
    assert np.isfinite(found.alpha_coeff).all()


@pytest.mark.parametrize("name", [n if n == "bric" else pytest.param(n, marks=pytest.mark.all) for n in MODELS])
def test_gradients_are_differences(name):
    hu = jnp.array([450.0, 1200.0, 1700.0])  # away from steps

    def total(hu):
        found = _medium(hu, name)
        return found.density.sum() + found.sound_speed.sum() + 100 * found.alpha_coeff.sum()

    got = jax.jit(jax.grad(total))(hu)
    for i in range(3):
        step = jnp.zeros(3).at[i].set(4.0)
        want = (total(hu + step) - total(hu - step)) / 8
        np.testing.assert_allclose(got[i], want, rtol=5e-3, atol=1e-3)
    assert np.isfinite(jax.grad(total)(jnp.array([0.0, HU_MAX, 5000.0]))).all()


def test_any_leading_axes():
    hu = np.arange(24, dtype=np.int16).reshape(2, 3, 2, 2) * 100
    whole = acoustics.medium(hu, "aubry", hu_max=HU_MAX)
    assert whole.density.shape == hu.shape
    np.testing.assert_array_equal(whole.density[1, 2], acoustics.medium(hu[1, 2], "aubry", hu_max=HU_MAX).density)


def test_the_square_stays_as_wide():
    """A ramp stays the ramp, at the new pixels' centres; the mean of a slice stays."""
    ramp = np.broadcast_to(np.arange(128) * 10.0, (128, 128))
    fine = np.asarray(acoustics.upsample(ramp, 512))
    centres = (np.arange(512) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(fine[7], 10 * np.clip(centres, 0, 127), atol=1e-3)
    np.testing.assert_allclose(fine.mean(), ramp.mean(), rtol=1e-6)
    with pytest.raises(InputError, match="size 64: is below the 128 pixels"):
        acoustics.upsample(ramp, 64)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"model": "k-wave"}, "no acoustic model 'k-wave'; give one of tusnet, kwave"),
        ({"model": "kwave"}, "model kwave names no attenuation; take that of another too: tusnet, kplan, aubry"),
        ({"model": "kwave", "attenuation": "marsac"}, "model marsac names no attenuation"),
        ({"model": "aubry"}, "model aubry needs hu_max, .*the calibration's"),
        ({"model": "kwave", "attenuation": "aubry"}, "model aubry needs hu_max"),
        ({"model": "aubry", "hu_max": np.array([1800.0, 1900.0])}, "a maximum of each slice makes other materials"),
        ({"model": "aubry", "hu_max": float("nan")}, "hu_max nan: give the HU of the densest bone"),
    ],
)
def test_refused(arguments, line):
    with pytest.raises(InputError, match=line):
        acoustics.medium(np.full((4, 4), 500), **arguments)


@pytest.mark.parametrize(
    ("values", "line"), [(np.linspace(-1, 1, 9), "values between -1 and 1 are not HU"), ([np.nan, 500.0], "NaN")]
)
def test_what_is_no_hu(values, line):
    with pytest.raises(InputError, match=line):
        acoustics.medium(values, "tusnet")


def test_the_models_side_by_side():
    hu = np.zeros((64, 64), np.int16)
    hu[20:30] = 1000
    figure = acoustics.compare(hu, hu_max=2000)
    titles = [axes.get_title() for part in figure.subfigs for axes in part.axes]
    assert [t for t in titles if t] == list(MODELS)
    with pytest.raises(InputError, match="one slice"):
        acoustics.compare(hu[None], hu_max=2000)
