"""Slices that fade into air, as a discriminator of few slices sees them."""

import itertools

import jax.numpy as jnp


def faded(images, floor):
    """Images (B, H, W, C) whose air, -1, takes beside bone what bone would have there if it went on as it does.

    Of each of the eight neighbours that is bone the line through it and the pixel behind it goes on, or through half of
    it where that is air; their mean, the nearer four counted twice. It is kept to four fifths of the way from -1 to
    the floor, so that a sample of it that is cut at the floor has the outline of what was cut out. Bone stays.
    """
    over = jnp.pad(images + 1, ((0, 0), (2, 2), (2, 2), (0, 0)))
    height, width = images.shape[1:3]

    def beside(down, right):
        return over[:, 2 + down : 2 + down + height, 2 + right : 2 + right + width]

    total = count = 0.0
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        if (down, right) == (0, 0):
            continue
        nearest, behind = beside(down, right), beside(2 * down, 2 * right)
        onward = jnp.where(behind > 0, 2 * nearest - behind, nearest / 2)
        weight = jnp.where(nearest > 0, 1.0 if down and right else 2.0, 0.0)
        total += weight * jnp.clip(onward, 0, 0.8 * (floor + 1))
        count += weight
    return jnp.where(images > -1, images, total / jnp.maximum(count, 1) - 1)
