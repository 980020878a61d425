"""How images lie in memory: where a CPU takes them one by one, or puts their channels apart.

Images are B H W C everywhere else. Where a large one has few channels, these are put apart (C B H W), so that its rows
fill a vector. What does so begins and ends with a transpose; those of neighbours cancel.
"""

import jax
import jax.numpy as jnp
from jax import lax

FEW = 16  # channels, as many as a vector of a CPU holds


def few(size: int, channels: int) -> bool:
    """Whether the channels of an image are put apart on a CPU: a large one with few of them."""
    return size >= 128 and channels <= FEW


def apart(x):
    """B H W C -> C B H W."""
    return x.transpose(3, 0, 1, 2)


def together(x):
    """C B H W -> B H W C."""
    return x.transpose(1, 2, 3, 0)


def framed(x, axes=(2, 3)):
    """A frame of zeros around x along two axes; kept as it is, since what is fused with many is made as often.

    What makes x is written into the frame. A pad, which XLA would make of it were the place known to it, asks at each
    element whether it is in the frame, so that no vector is filled.
    """
    shape = [n + 2 * (axis in axes) for axis, n in enumerate(x.shape)]
    empty, one = lax.optimization_barrier((jnp.zeros(shape, x.dtype), jnp.int32(1)))
    place = [one if axis in axes else 0 for axis in range(x.ndim)]
    return lax.optimization_barrier(lax.dynamic_update_slice(empty, x, place))


def by_layout(where_few, elsewhere, x, *others):
    """`where_few(x, *others)` where the channels of x are put apart, else `elsewhere`, which gives the same values."""
    if x.dtype != jnp.float32 or not few(x.shape[1], x.shape[-1]):
        return elsewhere(x, *others)
    return lax.platform_dependent(x, *others, cpu=where_few, default=elsewhere)


def by_image(f, *arrays):
    """`f(*arrays)` for an f that treats each image alone: on a CPU image by image, elsewhere all at once.

    The activations of one image at full resolution stay in a CPU's cache; those of a batch go through its memory, and
    their buffers are what training needs most memory for. Each device takes an image at a time of those it holds.

    Args:
      f: from arrays (B, ...) to one array (B, ...), for any B.
      arrays: sharded over devices along B, if at all.
    """

    def one_by_one(*arrays):
        # Inside shard_map the arrays are those of one device already.
        devices = 1 if jax.sharding.get_abstract_mesh().manual_axes else jax.device_count()
        batch = arrays[0].shape[0]
        if batch % devices:
            return f(*arrays)

        def split(a):
            return a.reshape(devices, -1, *a.shape[1:]).swapaxes(0, 1)

        y = lax.map(lambda a: f(*a), tuple(split(a) for a in arrays))
        return y.swapaxes(0, 1).reshape(batch, *y.shape[2:])

    return lax.platform_dependent(*arrays, cpu=one_by_one, default=f)
