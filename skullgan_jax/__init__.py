"""SkullGAN in JAX: synthetic CT slices of the human skull.

import skullgan_jax
model = skullgan_jax.load("models/skullgan")  # a model directory, a training workdir or netG_SkullGAN.pth
hu = model.sample(16, seed=0)  # (16, 128, 128) int16
dense = model.samples(16, seed=0, where="sdr > 0.6")  # .hu, .index and .measures
medium = skullgan_jax.acoustics.medium(hu, "kplan")  # density, speed of sound and attenuation
"""

import importlib

from skullgan_jax.errors import InputError, MachineError
from skullgan_jax.version import __version__

TYPE_CHECKING = False  # as typing has it, which takes time to import before anything else can happen
if TYPE_CHECKING:
    from skullgan_jax import acoustics
    from skullgan_jax.model.load import load
    from skullgan_jax.model.trained import Model
    from skullgan_jax.nets.networks import Discriminator, Generator
    from skullgan_jax.slices.calibration import Calibration

__all__ = [
    "Calibration",
    "Discriminator",
    "Generator",
    "InputError",
    "MachineError",
    "Model",
    "__version__",
    "acoustics",
    "load",
]

# Imported when they are asked for: JAX takes a second, and neither --help nor a worker of `prepare` needs it.
_HOMES = {
    "Calibration": "skullgan_jax.slices.calibration",
    "Discriminator": "skullgan_jax.nets.networks",
    "Generator": "skullgan_jax.nets.networks",
    "Model": "skullgan_jax.model.trained",
    "load": "skullgan_jax.model.load",
}


def __getattr__(name: str) -> object:
    if name == "acoustics":
        return importlib.import_module("skullgan_jax.acoustics")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
