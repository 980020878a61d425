"""The 3x3 convolution, padding 1, in the form that is fastest where it runs.

Shapes are B H W C; why there are several forms, says forms.py.
"""

import jax.numpy as jnp
from jax import lax

from skullgan_jax.nets.forms import NHWC, by_platform, directions, product, shift, take, where
from skullgan_jax.nets.layout import apart, few, framed, together


def _conv3x3_xla(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=NHWC)


def _conv3x3_matmul(x, kernel):
    """One product to 9 Cout, then shifted sums."""
    y = product(x, kernel.transpose(2, 0, 1, 3))  # B H W 3 3 Cout

    def sums(y, axis, taps):
        return shift(take(y, 0, taps), 1, axis) + take(y, 1, taps) + shift(take(y, 2, taps), -1, axis)

    return sums(sums(y, 1, 3), 2, 3)


def _conv3x3_winograd(x, kernel):
    """F(2, 3) along each axis (Lavin & Gray, arXiv 1509.09308): four products for two outputs instead of six."""
    b, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def inputs(x, axis):
        d = [lax.slice_in_dim(x, i, i + x.shape[axis] - 3, 2, axis) for i in range(4)]
        return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]

    def taps(g):
        return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]

    def outputs(m):
        return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]

    m = [
        [product(v, u) for v, u in zip(inputs(vs, 2), taps(us), strict=True)]
        for vs, us in zip(inputs(x, 1), taps(kernel), strict=True)
    ]  # 4 x 4 of B H/2 W/2 Cout
    columns = [jnp.stack(outputs(m_row), 3) for m_row in m]
    return jnp.stack(outputs(columns), 2).reshape(b, h, w, -1)


def _conv3x3_apart(x, kernel):
    """Nine places of each channel, each times a number; of more channels one product to 9 Cout, then nine places."""
    b, h, w, c = x.shape
    x = framed(apart(x))
    places = [(i, j, (slice(i, i + h), slice(j, j + w))) for i in range(3) for j in range(3)]
    if kernel.shape[2] * kernel.shape[3] <= 8:
        number = kernel[..., None, None, None]
        y = sum(number[i, j, k] * x[k, None, :, *place] for k in range(c) for i, j, place in places)
    else:
        y = kernel.transpose(0, 1, 3, 2).reshape(-1, c) @ x.reshape(c, -1)
        y = y.reshape(3, 3, -1, b, h + 2, w + 2)
        y = sum(y[i, j, :, :, *place] for i, j, place in places)
    return together(lax.optimization_barrier(y))


def _conv3x3_apart_dx(shape, kernel, dy):
    return _conv3x3_apart(dy, kernel[::-1, ::-1].swapaxes(2, 3))


def _conv3x3_apart_dkernel(shape, x, dy):
    """One product of x with nine places of dy, or of dy with nine of x, whichever has fewer channels."""
    if dy.shape[-1] < x.shape[-1]:
        return _conv3x3_apart_dkernel(shape, dy, x)[::-1, ::-1].swapaxes(2, 3)
    _, h, w, c = x.shape
    x, dy = framed(apart(x)), apart(dy)
    seen = jnp.stack([x[:, :, i : i + h, j : j + w] for i in range(3) for j in range(3)])
    return (seen.reshape(9 * c, -1) @ dy.reshape(len(dy), -1).T).reshape(3, 3, c, -1)


def _conv3x3_cpu(x, kernel):
    return (_conv3x3_winograd if min(kernel.shape[2:]) >= 8 else _conv3x3_matmul)(x, kernel)


_CONV3X3_APART = directions(_conv3x3_apart, _conv3x3_apart_dx, _conv3x3_apart_dkernel)
conv3x3 = by_platform(
    where(lambda x, kernel: few(x[1], max(kernel[2:])), _CONV3X3_APART, directions(_conv3x3_cpu)),
    directions(_conv3x3_xla),
)
conv3x3.__doc__ = """torch's Conv2d(3, stride 1, padding 1, no bias).

Args:
  x: (B, H, W, Cin), H and W even.
  kernel: (3, 3, Cin, Cout).

Returns:
  (B, H, W, Cout).
"""
