"""SkullGAN in JAX: synthetic CT slices of the human skull.

import skullgan_jax
model = skullgan_jax.load("models/skullgan")  # a model directory, a training workdir or netG_SkullGAN.pth
hu = model.sample(16, seed=0)  # (16, 128, 128) int16
"""

__version__ = "0.1.0"


def load(path):
    """Read a model: see skullgan_jax.model.trained.load, which this imports when it is called."""
    from skullgan_jax.model import trained as model

    return model.load(path)
