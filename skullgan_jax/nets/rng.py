"""Random numbers from a seed, a named stream and an index; nothing else, and no key is ever stored.

`stream(seed, "latent")` folded with a step or a sample index gives the key of that step or sample. Sample i is the same
whatever the batch it is computed in, the number of devices, or the order.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from skullgan_jax.errors import InputError
from skullgan_jax.slices.size import SIZE

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)


def check(seed: int) -> None:
    """Raises InputError if a seed has more than the 32 bits that JAX takes of it."""
    if not 0 <= seed < 1 << 32:
        raise InputError(f"seed={seed}: give 0 to 2^32 - 1")


def stream(seed: int, name: str) -> jax.Array:
    """The key of a named stream of a seed. Raises InputError as `check`."""
    if isinstance(seed, int):  # of a traced one nothing can be told
        check(seed)
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _threefry(key0, key1, counter):
    """Threefry-2x32 with 20 rounds (Salmon et al. 2011), on the counter (counter, 0): two uint32 words per counter.

    The same function as `jax.extend.random.threefry_2x32`, unrolled so that XLA fuses it with what consumes the bits,
    and with both words used. On a CPU jax.random.normal takes four times as long, a fifth of a sampled image.
    """
    keys = (key0, key1, key0 ^ key1 ^ np.uint32(0x1BD11BDA))
    x0, x1 = counter + key0, jnp.broadcast_to(key1, counter.shape)
    for i in range(20):
        x0 = x0 + x1
        rotation = _ROTATIONS[i % 8]
        x1 = (x1 << rotation) | (x1 >> (32 - rotation))
        x1 = x1 ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0 = x0 + keys[j % 3]
            x1 = x1 + keys[(j + 1) % 3] + np.uint32(j)
    return x0, x1


def _bits_to_normal(bits):
    """uint32 -> N(0, 1) float32 by the inverse error function of 23 uniform bits, centred in their cells."""
    one_to_two = lax.bitcast_convert_type((bits >> 9) | np.uint32(0x3F800000), jnp.float32)
    centred = (one_to_two - 1) * 2 - np.float32(1 - 2.0**-23)  # exact, symmetric, never +-1
    return np.float32(np.sqrt(2)) * lax.erf_inv(centred)


def normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """N(0, 1) for each of B keys.

    Args:
      keys: (B,) jax.random keys.
      shape: of one sample; the first axis is even.

    Returns:
      (B, *shape) float32; row i depends on keys[i] alone.
    """
    data = jax.random.key_data(keys)
    key0, key1 = (data[:, i].reshape(-1, *(1 for _ in shape)) for i in (0, 1))
    half = (keys.shape[0], shape[0] // 2, *shape[1:])
    counter = jnp.zeros(half, jnp.uint32)
    stride = 1
    for axis in range(len(half) - 1, 0, -1):
        counter += lax.broadcasted_iota(jnp.uint32, half, axis) * np.uint32(stride)
        stride *= half[axis]
    return jnp.concatenate([_bits_to_normal(word) for word in _threefry(key0, key1, counter)], 1)


def latents(key: jax.Array, indices: jax.Array, nz: int, ngf: int) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Latent and texture noise of samples `indices` of a stream.

    Args:
      key: the stream's key.
      indices: (B,) int32 or uint32.
      nz: size of the latent.
      ngf: the generator's width.

    Returns:
      z (B, nz) float32, uniform(-1, 1), and the pair of noise arrays (B, 128, 128, ngf/2) and (B, 128, 128, ngf/8).
    """
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 3))(indices)
    z = jax.vmap(lambda k: jax.random.uniform(k, (nz,), jnp.float32, -1.0, 1.0))(keys[:, 0])
    noise = [normal(keys[:, i + 1], (SIZE, SIZE, c)) for i, c in enumerate((ngf // 2, ngf // 8))]
    return z, (noise[0], noise[1])
