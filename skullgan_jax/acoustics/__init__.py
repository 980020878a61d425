"""From HU to sound: acoustic maps of slices by the named models of the literature, and the field of a transducer.

from skullgan_jax import acoustics
medium = acoustics.medium(hu, "kplan")  # .density, .sound_speed, .alpha_coeff, .alpha_power
acoustics.compare(hu[0], hu_max=model.calibration.hu_max)  # a figure of all models side by side
"""

from skullgan_jax.acoustics.maps import MODELS, Medium, medium, upsample
from skullgan_jax.acoustics.pictures import compare
from skullgan_jax.acoustics.solver import Field, Grid, simulate, tone_burst

__all__ = ["MODELS", "Field", "Grid", "Medium", "compare", "medium", "simulate", "tone_burst", "upsample"]
