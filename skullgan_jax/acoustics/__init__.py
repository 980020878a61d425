"""From HU to sound: acoustic maps of slices by the named models of the literature, and the field of a transducer.

from skullgan_jax import acoustics
medium = acoustics.medium(hu, "kplan")  # .density, .sound_speed, .alpha_coeff, .alpha_power
acoustics.compare(hu[0], hu_max=model.calibration.hu_max)  # a figure of all models side by side
print(acoustics.aberration(one_medium, pixel_mm).shift_mm)  # what a skull does to the focus of an array
"""

from skullgan_jax.acoustics.focus import (
    Focus,
    aberration,
    flat_array,
    geometric_delays,
    reversed_delays,
    sonicate,
    targets,
)
from skullgan_jax.acoustics.maps import MODELS, Medium, medium, upsample
from skullgan_jax.acoustics.pictures import compare, field
from skullgan_jax.acoustics.solver import Field, Grid, simulate, tone_burst

__all__ = [
    "MODELS",
    "Field",
    "Focus",
    "Grid",
    "Medium",
    "aberration",
    "compare",
    "field",
    "flat_array",
    "geometric_delays",
    "medium",
    "reversed_delays",
    "simulate",
    "sonicate",
    "targets",
    "tone_burst",
    "upsample",
]
