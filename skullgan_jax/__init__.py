"""SkullGAN in JAX: synthetic CT slices of the human skull.

import skullgan_jax
model = skullgan_jax.load("models/skullgan")  # a model directory, a training workdir or netG_SkullGAN.pth
hu = model.sample(16, seed=0)  # (16, 128, 128) int16
"""

from skullgan_jax.version import __version__ as __version__


def load(path):
    """Read a model: see skullgan_jax.model.load.load, which this imports when it is called."""
    from skullgan_jax.model.load import load

    return load(path)
