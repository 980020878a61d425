"""The adversarial losses, as pure functions of logits."""

import jax.numpy as jnp
import optax


def bce(logits, target: float):
    """Binary cross-entropy of logits (B,) against one target in [0, 1]: a float32 scalar, the mean over the batch.

    The original applies BCE to sigmoid outputs in float32, which saturate beyond |logit| of about 15; this is the same
    number without the saturation.
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, jnp.float32(target)))
