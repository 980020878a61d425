"""The forms that a linear layer has: by platform, by direction and by shape.

The convolutions of the pair, in stride2.py and conv3x3.py, are linear functions, each with two statements of the same
value:

- everywhere but on a float32 CPU: XLA's own convolution, which cuDNN and the TPU's compiler do best;
- on a CPU in float32: matrix products. XLA's CPU convolution is fine forward but falls off a cliff on gradients, and a
  2-tap filter applied to 2 positions needs 3 products instead of 4 in each direction (Karatsuba; its transpose is
  Winograd's F(2, 2)), so 9/16 of the arithmetic is enough, with additions and subtractions as the only extra. Where
  channels are few these cost what they save, and one product of 2 x 2 blocks takes their place. Where a large image has
  few channels, they are put apart (see layout.py).

Shapes are B H W C. `benchmarks/layers.py` measures all forms of every layer; the table is in docs/speed.md.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

NHWC = ("NHWC", "HWIO", "NHWC")


def directions(f, dx=None, dkernel=None):
    """A layer's forms by direction, `(f, dx, dkernel)`, of a linear f(x, kernel); the latter two by default f's own.

    Args:
      f: f(x, kernel), linear in both.
      dx: dx(shape, kernel, dy), the gradient in an x of that shape.
      dkernel: dkernel(shape, x, dy), the gradient in a kernel of that shape.
    """

    def own_dx(shape, kernel, dy):
        x = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda x: f(x, kernel), x)(dy)[0]

    def own_dkernel(shape, x, dy):
        kernel = jax.ShapeDtypeStruct(shape, dy.dtype)
        return jax.linear_transpose(lambda kernel: f(x, kernel), kernel)(dy)[0]

    return lambda _, x, kernel: f(x, kernel), dx or own_dx, dkernel or own_dkernel


def where(condition, these, those):
    """`directions` that are `these` where condition(shape of x, shape of kernel) holds, else `those`."""

    def chosen(*shapes):
        return these if condition(*shapes) else those

    return (
        lambda shape, x, kernel: chosen(x.shape, kernel.shape)[0](shape, x, kernel),
        lambda shape, kernel, dy: chosen(shape, kernel.shape)[1](shape, kernel, dy),
        lambda shape, x, dy: chosen(x.shape, shape)[2](shape, x, dy),
    )


def by_platform(cpu, other):
    """Differentiable `f(x, kernel)`: `cpu` on a float32 CPU, else `other`, `directions` both, of the same values.

    The platform is chosen when the computation is lowered, so that a program exported from a CPU for a GPU or TPU gets
    that platform's form. Both forms are linear in x and in kernel, so with the gradients dx(kernel, dy) and
    dkernel(x, dy) there are three functions of two arguments each, and the gradients of each of the three are the other
    two. Each is traced once for all that has its shapes, gradients of gradients, too.
    """

    def choose(on_cpu, elsewhere):
        @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
        @functools.partial(jax.jit, static_argnums=0)
        def chosen(shape, *operands):
            here, there = (functools.partial(form, shape) for form in (on_cpu, elsewhere))
            if operands[0].dtype != jnp.float32:
                return there(*operands)
            return lax.platform_dependent(*operands, cpu=here, default=there)

        return chosen

    f, dx, dkernel = (choose(*forms) for forms in zip(cpu, other, strict=True))

    def gradients(function, by_both):
        function.defvjp(
            lambda shape, *operands: (function(shape, *operands), operands),
            lambda _, operands, ct: by_both(*operands, ct),
        )

    gradients(f, lambda x, kernel, dy: (dx(x.shape, kernel, dy), dkernel(kernel.shape, x, dy)))
    gradients(dx, lambda kernel, dy, x: (dkernel(kernel.shape, x, dy), f((), x, kernel)))
    gradients(dkernel, lambda x, dy, kernel: (dx(x.shape, kernel, dy), f((), x, kernel)))
    return lambda x, kernel: f((), x, kernel)


def product(x, kernel):
    """(..., C) x (C, ...) as one plain matrix product: XLA's CPU backend copies around any other contraction."""
    y = x.reshape(-1, x.shape[-1]) @ kernel.reshape(kernel.shape[0], -1)
    return y.reshape(*x.shape[:-1], *kernel.shape[1:])


def shift(x, by: int, axis: int):
    """Move x by `by` places along axis, zeros moving in."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def take(x, i: int, axis: int):
    return lax.index_in_dim(x, i, axis, keepdims=False)
