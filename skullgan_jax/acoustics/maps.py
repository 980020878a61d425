"""HU to density, speed of sound and attenuation, by the named models of the literature.

They differ a lot, at 1000 HU by half: so there is no default, and the name of the model goes with the maps. Every model
is elementwise, and says what becomes of HU that its law was not made for. Water is 1000 kg/m3, 1500 m/s and
0.0022 dB/(MHz^y cm), unless a model says otherwise.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from skullgan_jax.errors import InputError

BONE_HU = 100.0  # above it attenuates as bone, where the law of a model does not say from where; TUSNet's
_WATER_DENSITY, _WATER_SPEED, _WATER_ALPHA = 1000.0, 1500.0, 0.0022
_NEPER_PER_M = 20 / math.log(10) / 100  # in dB/cm


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["density", "sound_speed", "alpha_coeff"],
    meta_fields=["alpha_power", "model", "hu_max"],
)
@dataclasses.dataclass(frozen=True)
class Medium:
    """Maps of one or of many slices, all of one shape, float32.

    Attributes:
      density: kg/m3.
      sound_speed: m/s.
      alpha_coeff: attenuation, alpha(f) = alpha_coeff f^alpha_power in dB/cm with f in MHz.
      alpha_power: y of the power law, one for all; None is a medium without absorption.
      model: the name of the model, and of the one that attenuation is from where that is another.
      hu_max: the HU that the model took as densest bone; None where it takes none.
    """

    density: jax.Array
    sound_speed: jax.Array
    alpha_coeff: jax.Array
    alpha_power: float | None
    model: str
    hu_max: float | None = None


@dataclasses.dataclass(frozen=True)
class Model:
    """One way from HU to a medium.

    Attributes:
      maps: (HU, HUmax) -> density, sound speed.
      alpha: (HU, HUmax) -> attenuation in dB/(MHz^y cm), or None where the source names none.
      power: y.
      formula, outside, source: for people; `outside` is what becomes of HU that the law was not made for.
      needs_hu_max: whether it asks for the densest bone.
    """

    maps: Callable
    alpha: Callable | None
    power: float | None
    formula: str
    outside: str
    source: str
    needs_hu_max: bool = False


def hounsfield2density(h: jax.Array) -> jax.Array:
    """Density in kg/m3 of H = HU + 1000, four lines as k-Wave fits them to Schneider 1996 (Phys. Med. Biol. 41:111).

    H below 930: 1.0258 H - 5.680; below 1098: 0.90827 H + 103.615; below 1260: 0.51084 H + 539.998; from there
    0.66254 H + 348.856. They meet within 0.5 kg/m3.
    """
    return jnp.select(
        [h < 930, h < 1098, h < 1260],
        [
            1.025793065681423 * h - 5.680404011488714,
            0.9082709691264 * h + 103.6151457847139,
            0.5108369316599 * h + 539.9977189228704,
        ],
        0.6625370912451 * h + 348.8555178455294,
    )


def _speed(density):
    """ITRUSST and k-Plan: c = 1.33 rho + 167."""
    return 1.33 * density + 167


def _tusnet(hu, _):
    density = jnp.maximum(hounsfield2density(jnp.where(hu < 25, 0.0, hu)), 997.0)
    return density, _speed(density)


def _tusnet_alpha(hu, _):
    return jnp.where(hu > BONE_HU, 13.3, 0.53)


def _kwave(hu, _):
    density = jnp.clip(hounsfield2density(hu + 1000), _WATER_DENSITY, 2100.0)
    return density, jnp.maximum(_speed(density), _WATER_SPEED)


def _kplan(hu, _):
    density = jnp.select(
        [hu < 60, hu < 1000],
        [_line(hu, (-990, 1.2), (60, 1060)), _line(hu, (60, 1060), (1000, 1530))],
        _line(hu, (1000, 1530), (1950, 2150)),
    )
    density = jnp.maximum(density, _WATER_DENSITY)
    return density, jnp.maximum(_speed(density), _WATER_SPEED)


def _line(hu, start, end):
    return start[1] + (hu - start[0]) * ((end[1] - start[1]) / (end[0] - start[0]))


def _kplan_alpha(hu, _):
    return jnp.where(hu > BONE_HU, 13.3, _WATER_ALPHA)


def _bone(hu, hu_max):
    """1 - porosity."""
    return jnp.clip(hu / hu_max, 0.0, 1.0)


def _aubry(hu, hu_max):
    bone = _bone(hu, hu_max)
    return 1000 * (1 - bone) + 2200 * bone, 1500 * (1 - bone) + 3100 * bone


def _aubry_alpha(hu, hu_max):
    return jnp.where(hu > BONE_HU, 0.2 + 7.8 * _root(1 - _bone(hu, hu_max)), _WATER_ALPHA)


def _marsac(hu, hu_max):
    bone = _bone(hu, hu_max)
    return 1000 + 1700 * bone, 1500 + 1500 * bone


def _marsac_prestus(hu, _):
    bone = (jnp.clip(hu, 300.0, 2000.0) - 300) / 1700
    return 994 + 1106 * bone, 1500 + 1860 * bone


def _bric(hu, _):
    bone = jnp.where(hu < 300, 0.0, jnp.minimum(hu, 2000.0) / 2000)
    return 1000 + 900 * bone, 1500 + 1600 * bone


def _bric_alpha(hu, _):
    porosity = 1 - (jnp.minimum(hu, 2000.0) - 300) / 1700
    return jnp.where(hu < 300, _WATER_ALPHA, 4 + 4.7 * _root(porosity))


def _webb(hu, _):
    return _kwave(hu, None)[0], jnp.maximum(0.75 * hu + 1320, _WATER_SPEED)


def _webb_alpha(hu, _):
    return jnp.where(hu > (_WATER_SPEED - 1320) / 0.75, 2600 * _NEPER_PER_M * jnp.exp(-0.0016 * hu), _WATER_ALPHA)


def _root(x):
    """The square root, and 0 below 0; of gradients, which at 0 would be infinite, 0 there."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)


MODELS: dict[str, Model] = {
    "tusnet": Model(
        _tusnet,
        _tusnet_alpha,
        1.5,
        "HU below 25 are 0; rho = max(h2d(HU), 997), without the 1000 that h2d is fitted with; c = 1.33 rho + 167; "
        "alpha 13.3 above 100 HU, else 0.53",
        "bone below 984 HU is water; no upper end",
        "TUSNet, tusnet_sims.m",
    ),
    "kwave": Model(
        _kwave,
        None,
        None,
        "rho = h2d(HU + 1000) from 1000 to 2100; c = 1.33 rho + 167",
        "below water (-13 HU) water, above 2100 kg/m3 (1643 HU) 2100",
        "k-Wave, hounsfield2density (Schneider 1996); PRESTUS, medium_pct_density.m",
    ),
    "kplan": Model(
        _kplan,
        _kplan_alpha,
        1.0,
        "rho on lines through (-990, 1.2), (60, 1060), (1000, 1530), (1950, 2150) HU, kg/m3; c = 1.33 rho + 167; "
        "alpha 13.3 above 100 HU",
        "below water (0 HU) water; above 1950 HU the last line goes on",
        "k-Plan's calibration, as in PRESTUS",
    ),
    "aubry": Model(
        _aubry,
        _aubry_alpha,
        1.0,
        "phi = 1 - HU / HUmax; rho = 1000 phi + 2200 (1 - phi); c = 1500 phi + 3100 (1 - phi); "
        "alpha = 0.2 + 7.8 sqrt(phi) above 100 HU, read as dB/(MHz cm), as BabelBrain does",
        "HU below 0 are 0, above HUmax HUmax",
        "Aubry 2003, J. Acoust. Soc. Am. 113:84; BabelBrain",
        needs_hu_max=True,
    ),
    "marsac": Model(
        _marsac,
        None,
        None,
        "rho = 1000 + 1700 HU / HUmax; c = 1500 to 3000 over the range of rho",
        "HU below 0 are 0, above HUmax HUmax",
        "Marsac 2017, Int. J. Hyperthermia 33:635; BabelBrain",
        needs_hu_max=True,
    ),
    "marsac_prestus": Model(
        _marsac_prestus,
        None,
        None,
        "b = (HU - 300) / 1700; rho = 994 + 1106 b; c = 1500 + 1860 b",
        "HU below 300 are 300, above 2000 are 2000",
        "PRESTUS",
    ),
    "bric": Model(
        _bric,
        _bric_alpha,
        1.43,
        "rho = 1000 + 900 HU / 2000; c = 1500 + 1600 HU / 2000; alpha = 4 + 4.7 sqrt(1 - (HU - 300) / 1700)",
        "below 300 HU water, with a step there; above 2000 are 2000",
        "BRIC, tussim_skull_3D.m",
    ),
    "webb": Model(
        _webb,
        _webb_alpha,
        1.3,
        "GE, bone kernel, 120 kVp: c = 0.75 HU + 1320; alpha = 2600 exp(-0.0016 HU) Np/m at 1 MHz, that is "
        "225.8 exp(-0.0016 HU) dB/cm; rho, which it does not have, as of kwave",
        "below 1500 m/s (240 HU) water; no upper end",
        "Webb 2018, IEEE Trans. UFFC 65:1111; WebbHU",
    ),
}


def medium(hu, model: str, *, hu_max: float | None = None, attenuation: str | None = None) -> Medium:
    """Acoustic maps of HU.

    Args:
      hu: HU of any shape and real dtype, numpy or JAX; of slices (..., H, W), 0 or air where there is no bone.
      model: a name in MODELS.
      hu_max: HU of the densest bone, for models that ask for it: the calibration's, `model.calibration.hu_max`. Never
        the maximum of a slice, by which each would be of another material.
      attenuation: the model to take attenuation from, where `model` names none, or in its place.

    Returns:
      maps of the shape of `hu`, float32. Differentiable, but at the steps and corners of a model's law.

    Raises:
      InputError: no such model; it needs hu_max, or an attenuation; hu_max is not one number; the values are not HU.
    """
    law = _law(model)
    damped = _law(attenuation) if attenuation else law
    if damped.alpha is None:
        choices = ", ".join(name for name, each in MODELS.items() if each.alpha)
        raise InputError(f"model {attenuation or model} names no attenuation; take that of another too: {choices}")
    needs = law.needs_hu_max or damped.needs_hu_max
    hu_max = checked_max(hu_max, f"model {model if law.needs_hu_max else attenuation}") if needs else None
    check_hu(hu)
    hu = jnp.asarray(hu, jnp.float32)
    density, speed = law.maps(hu, hu_max)
    name = model if damped is law else f"{model}, attenuation of {attenuation}"
    return Medium(density, speed, damped.alpha(hu, hu_max), damped.power, name, hu_max)


def upsample(hu, size: int) -> jax.Array:
    """Slices (..., N, N) on a grid of size x size pixels that covers the same square, float32 HU.

    Linear between pixel centres, the edge's value beyond the outermost centres: pixel i of n lies at (i + 1/2) / n of
    the width, before and after, so 60.0 mm stay 60.0 mm. HU are to be upsampled, not the maps, whose laws have steps.

    Raises:
      InputError: the size is smaller than that of the slices.
    """
    hu = jnp.asarray(hu, jnp.float32)
    if size < hu.shape[-1]:
        raise InputError(f"size {size}: is below the {hu.shape[-1]} pixels of the slices")
    return jax.image.resize(hu, (*hu.shape[:-2], size, size), "linear")


def _law(name: str) -> Model:
    if name not in MODELS:
        raise InputError(f"no acoustic model {name!r}; give one of {', '.join(MODELS)}")
    return MODELS[name]


def checked_max(hu_max, whose: str) -> float:
    """The HU of the densest bone, if it is a number that can be; InputError."""
    if hu_max is None:
        raise InputError(
            f"{whose} needs hu_max, the HU of the densest bone: the calibration's, for all slices the same"
        )
    if np.ndim(hu_max):
        raise InputError("hu_max: give the calibration's, one number; a maximum of each slice makes other materials")
    if not (math.isfinite(hu_max) and hu_max > BONE_HU):
        raise InputError(f"hu_max {hu_max}: give the HU of the densest bone, e.g. 2734.53")
    return float(hu_max)


def check_hu(hu) -> None:
    """InputError where values are no HU; under jit there are none to look at."""
    if isinstance(hu, jax.core.Tracer) or not np.issubdtype(np.asarray(hu).dtype, np.floating) or not np.size(hu):
        return
    greatest = float(np.abs(np.asarray(hu)).max())
    if not math.isfinite(greatest):
        raise InputError("NaN or infinity among the HU; set them to -1000 (air) or 0")
    if 0 < greatest <= 1:
        raise InputError("values between -1 and 1 are not HU; give those of sample(), or calibration.to_hu(values)")
