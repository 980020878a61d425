"""The three convolutions of the pair, each in the form that is fastest where it runs.

Shapes are B H W C. The stride-2 4x4 transposed convolution (`upconv`), the stride-2 4x4 convolution (`downconv`) and
the 3x3 convolution (`conv3x3`) are linear functions, each with two statements of the same value:

- everywhere but on a float32 CPU: XLA's own convolution, which cuDNN and the TPU's compiler do best;
- on a CPU in float32: matrix products. XLA's CPU convolution is fine forward but falls off a cliff on gradients, and a
  2-tap filter applied to 2 positions needs 3 products instead of 4 in each direction (Karatsuba; its transpose is
  Winograd's F(2, 2)), so 9/16 of the arithmetic is enough, with additions and subtractions as the only extra. Where
  channels are few (NARROW) these cost what they save, and one product of 2 x 2 blocks takes their place. Where a large
  image has few channels, they are put apart (see layout.py).

`benchmarks/layers.py` measures all forms of every layer; the table is in docs/speed.md.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from skullgan_jax.nets.layout import apart, few, framed, together

_NHWC = ("NHWC", "HWIO", "NHWC")


def _directions(f, dx=None, dkernel=None):
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


def _where(condition, these, those):
    """`_directions` that are `these` where condition(shape of x, shape of kernel) holds, else `those`."""

    def chosen(*shapes):
        return these if condition(*shapes) else those

    return (
        lambda shape, x, kernel: chosen(x.shape, kernel.shape)[0](shape, x, kernel),
        lambda shape, kernel, dy: chosen(shape, kernel.shape)[1](shape, kernel, dy),
        lambda shape, x, dy: chosen(x.shape, shape)[2](shape, x, dy),
    )


def _by_platform(cpu, other):
    """Differentiable `f(x, kernel)`: `cpu` on a float32 CPU, else `other`, `_directions` both, of the same values.

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


def _shift(x, by: int, axis: int):
    """Move x by `by` places along axis, zeros moving in."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (by, -by, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), config)


def _take(x, i: int, axis: int):
    return lax.index_in_dim(x, i, axis, keepdims=False)


# --- both stride-2 4x4 convolutions, padding 1, as a product of blocks -----------------------------------------------

NARROW = 32  # channels of the larger image, up to which nine products of less arithmetic are no faster than one


def _blocks(x):
    """The 2 x 2 blocks of an image in a frame of zeros: B H W C -> B H/2+1 W/2+1 4C."""
    b, h, w, c = x.shape
    x = framed(x, (1, 2)).reshape(b, h // 2 + 1, 2, w // 2 + 1, 2, c)
    return lax.optimization_barrier(x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 2 + 1, w // 2 + 1, 4 * c))


def _corners(y):
    """The four places around each corner of an image in a frame of zeros, last ones first: B H W C -> B H+1 W+1 4C.

    Output (p, q) of a convolution sees the blocks (p, q) to (p+1, q+1), so block (p, q) is seen by those at its corner.
    """
    _, h, w, _ = y.shape
    y = framed(y, (1, 2))
    return lax.optimization_barrier(
        jnp.concatenate([y[:, i : i + h + 1, j : j + w + 1] for i in (1, 0) for j in (1, 0)], -1)
    )


def _taps(kernel):
    """4 4 Cin Cout -> block of two rows, of two columns, row of the block, its column, Cin, Cout."""
    return kernel.reshape(2, 2, 2, 2, *kernel.shape[2:]).transpose(0, 2, 1, 3, 4, 5)


def _downconv_blocks(x, kernel):
    """One product to what a block gives to the four outputs that see it, then their sums."""
    b, h, w, c = x.shape
    taps = _taps(kernel).reshape(4, 4 * c, -1).swapaxes(0, 1)
    y = product(_blocks(x), taps).reshape(b, h // 2 + 1, w // 2 + 1, 2, 2, -1)
    return sum(y[:, i : i + h // 2, j : j + w // 2, i, j] for i in range(2) for j in range(2))


def _downconv_blocks_dx(shape, kernel, dy):
    """One product of the four outputs that see a block."""
    b, h, w, c = shape
    taps = _taps(kernel).transpose(0, 1, 5, 2, 3, 4).reshape(-1, 4 * c)
    blocks = lax.optimization_barrier(product(_corners(dy), taps)).reshape(b, h // 2 + 1, w // 2 + 1, 2, 2, c)
    dx = blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, h + 2, w + 2, c)
    return lax.optimization_barrier(dx[:, 1:-1, 1:-1])


def _downconv_blocks_dkernel(shape, x, dy):
    x, dy = (v.reshape(-1, v.shape[-1]) for v in (_blocks(x), _corners(dy)))
    taps = lax.optimization_barrier(x.T @ dy).reshape(2, 2, shape[2], 2, 2, shape[3])
    return taps.transpose(3, 0, 4, 1, 2, 5).reshape(shape)


_DOWNCONV_BLOCKS = _directions(_downconv_blocks, _downconv_blocks_dx, _downconv_blocks_dkernel)


def _turned(kernel):
    """Of a transposed convolution, Cin 4 4 Cout, that of the convolution whose transpose it is."""
    return kernel.transpose(1, 2, 3, 0)


def _upconv_blocks(x, kernel):
    b, h, w, _ = x.shape
    return _downconv_blocks_dx((b, 2 * h, 2 * w, kernel.shape[-1]), _turned(kernel), x)


def _upconv_blocks_dx(_, kernel, dy):
    return _downconv_blocks(dy, _turned(kernel))


def _upconv_blocks_dkernel(shape, x, dy):
    return _downconv_blocks_dkernel((*shape[1:], shape[0]), dy, x).transpose(3, 0, 1, 2)


_UPCONV_BLOCKS = _directions(_upconv_blocks, _upconv_blocks_dx, _upconv_blocks_dkernel)


# --- stride-2 4x4 transposed convolution, padding 1 ------------------------------------------------------------------


def _upconv_xla(x, kernel):
    return lax.conv_transpose(
        x,
        _turned(kernel),
        strides=(2, 2),
        padding=((2, 2), (2, 2)),
        dimension_numbers=_NHWC,
        transpose_kernel=True,
    )


def _upconv_matmul(x, kernel):
    """One product to 16 Cout, then four shifted sums: the least work per weight, best on tiny images."""
    b, h, w, _ = x.shape
    y = product(x, kernel)  # B H W 4 4 Cout; tap k of input row i lands on output row 2 i + k - 1

    def rows(y, axis, taps):
        t = [_take(y, k, taps) for k in range(4)]
        return [t[1] + _shift(t[3], 1, axis), t[2] + _shift(t[0], -1, axis)]

    columns = [jnp.stack(rows(c, 1, 3), 2) for c in rows(y, 2, 4)]  # each B H 2 W Cout
    return jnp.stack(columns, 4).reshape(b, 2 * h, 2 * w, -1)


def _upconv_karatsuba(x, kernel):
    """Two neighbouring pixels times two pairs of taps in three products instead of four, along each axis.

    Taps (0, 1) and (2, 3) act as a 2-tap filter whose outputs are blocks of two rows: block i gets x_i g_0, block i+1
    gets x_i g_1. For the pixels 2j and 2j+1 with m0 = x_2j g_0, m2 = x_2j+1 g_1 and m1 = (x_2j + x_2j+1)(g_0 + g_1),
    the middle block is m1 - m0 - m2 and the outer ones are m0 and m2, the latter shared with the next pair.
    """
    b, h, w, c = x.shape

    def three(a, axis):
        first, second = _take(a, 0, axis), _take(a, 1, axis)
        return [first, first + second, second]

    def rows(m, phase, axis):
        """Products m0, m1, m2 with the two rows of a block on axis `phase` -> output rows 4j to 4j+3."""
        a, b = ([_take(t, p, phase) for t in m] for p in (0, 1))
        return [
            b[0] + _shift(b[2], 1, axis),
            a[1] - a[0] - a[2],
            b[1] - b[0] - b[2],
            a[2] + _shift(a[0], -1, axis),
        ]

    pixels = x.reshape(b, h // 2, 2, w // 2, 2, c)
    taps = kernel.reshape(c, 2, 2, 2, 2, -1)  # Cin, pair of rows, row of the pair, the same for columns, Cout
    m = [
        [product(v, u) for v, u in zip(three(vs, 3), three(us, 2), strict=True)]
        for vs, us in zip(three(pixels, 2), three(taps, 1), strict=True)
    ]  # 3 x 3 of B H/2 W/2 2 2 Cout
    columns = [rows(m_row, 4, 2) for m_row in m]  # 3 x 4 of B H/2 W/2 2 Cout
    image = [rows([c[k] for c in columns], 3, 1) for k in range(4)]  # column, row: B H/2 W/2 Cout
    y = jnp.stack([jnp.stack([column[r] for column in image], 3) for r in range(4)], 2)
    return y.reshape(b, 2 * h, 2 * w, -1)


# Row 2 i of the output sees tap 1 of row i and tap 3 of row i - 1, row 2 i + 1 tap 2 of i and tap 0 of i + 1:
# (tap, row in the frame) by phase. The same holds for columns.
_PHASES = (((1, 1), (3, 0)), ((2, 1), (0, 2)))


def _upconv_apart(x, kernel):
    """One product to 16 Cout, then four sums of four places, the phases, which are put in turn at last."""
    b, h, w, c = x.shape
    x = framed(x, (1, 2))
    y = kernel.transpose(1, 2, 3, 0).reshape(-1, c) @ x.reshape(-1, c).T
    y = y.reshape(4, 4, -1, b, h + 2, w + 2)

    def phase(rows, columns):
        places = [y[i, j, :, :, r : r + h, s : s + w] for i, r in rows for j, s in columns]
        return lax.optimization_barrier(sum(places))

    phases = [jnp.stack([phase(rows, columns) for columns in _PHASES], -1) for rows in _PHASES]
    y = jnp.stack(phases, 3)  # Cout B H 2 W 2
    return together(lax.optimization_barrier(y.reshape(-1, b, 2 * h, 2 * w)))


def _upconv_apart_seen(dy):
    """All that x sees of dy, B 2H 2W Cout: 16 Cout rows of B H W."""
    b, h, w, c = dy.shape
    blocks = framed(apart(dy)).reshape(c, b, h // 2 + 1, 2, w // 2 + 1, 2).transpose(3, 5, 0, 1, 2, 4)
    blocks = lax.optimization_barrier(blocks)
    taps = [
        blocks[i % 2, j % 2, :, :, i // 2 : i // 2 + h // 2, j // 2 : j // 2 + w // 2]
        for i in range(4)
        for j in range(4)
    ]
    return lax.optimization_barrier(jnp.stack(taps).reshape(16 * c, -1))


# XLA would drop a transpose of a product for a product in another order, which takes three times as long.


def _upconv_apart_dx(shape, kernel, dy):
    return lax.optimization_barrier(kernel.reshape(kernel.shape[0], -1) @ _upconv_apart_seen(dy)).T.reshape(shape)


def _upconv_apart_dkernel(shape, x, dy):
    x = lax.optimization_barrier(x.reshape(-1, x.shape[-1]))
    return lax.optimization_barrier(_upconv_apart_seen(dy) @ x).T.reshape(shape)


def _upconv_cpu(x, kernel):
    # On 4 x 4 images the transformed kernel (9/4 of 134 million weights at full size) costs more than it saves.
    return (_upconv_karatsuba if x.shape[1] >= 8 else _upconv_matmul)(x, kernel)


_UPCONV_APART = _directions(_upconv_apart, _upconv_apart_dx, _upconv_apart_dkernel)
_UPCONV_TOGETHER = _where(lambda x, kernel: kernel[-1] <= NARROW, _UPCONV_BLOCKS, _directions(_upconv_cpu))
upconv = _by_platform(
    _where(lambda x, kernel: few(2 * x[1], kernel[-1]), _UPCONV_APART, _UPCONV_TOGETHER), _directions(_upconv_xla)
)
upconv.__doc__ = """torch's ConvTranspose2d(4, stride 2, padding 1, no bias).

Args:
  x: (B, H, W, Cin), H and W even.
  kernel: (Cin, 4, 4, Cout), torch's weight with the last axes moved.

Returns:
  (B, 2 H, 2 W, Cout).
"""


# --- stride-2 4x4 convolution, padding 1 -----------------------------------------------------------------------------


def _downconv_xla(x, kernel):
    return lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_NHWC)


def _downconv_patches(x, kernel):
    """One product of all 16 pixels that an output sees: three times as fast where these are few numbers."""
    _, h, w, c = x.shape
    blocks = _blocks(x)
    seen = [blocks[:, i : i + h // 2, j : j + w // 2] for i in range(2) for j in range(2)]
    return product(jnp.concatenate(seen, -1), _taps(kernel).reshape(16 * c, -1))


def _downconv_winograd(x, kernel):
    """The transpose of `_upconv_karatsuba`: F(2, 2) over blocks of two rows, three products for two outputs."""
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    blocks = x.reshape(b, h // 2 + 1, 2, w // 2 + 1, 2, c)

    def three(d, axis):
        """Outputs 2j and 2j+1 see blocks 2j, 2j+1 and 2j+2."""
        n = d.shape[axis]
        even, odd = lax.slice_in_dim(d, 0, n, 2, axis), lax.slice_in_dim(d, 1, n, 2, axis)
        first, last = (lax.slice_in_dim(even, i, i + n // 2, axis=axis) for i in (0, 1))
        return [first - odd, odd, odd - last]

    def taps(k, axis):
        first, second = _take(k, 0, axis), _take(k, 1, axis)
        return [first, first + second, second]

    def outputs(m):
        return [m[0] + m[1], m[1] - m[2]]

    def flat(v):  # B H/4 2 W/4 2 C -> B H/4 W/4 4 C
        return v.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // 4, w // 4, 4 * c)

    kernel = kernel.reshape(2, 2, 2, 2, c, -1)  # pair of rows, row of the pair, the same for columns, Cin, Cout
    m = [
        [product(flat(v), u.reshape(4 * c, -1)) for v, u in zip(three(vs, 3), taps(us, 1), strict=True)]
        for vs, us in zip(three(blocks, 1), taps(kernel, 0), strict=True)
    ]  # 3 x 3 of B H/4 W/4 Cout
    columns = [jnp.stack(outputs(m_row), 3) for m_row in m]  # 3 of B H/4 W/4 2 Cout
    return jnp.stack(outputs(columns), 2).reshape(b, h // 2, w // 2, -1)


def _downconv_cpu(x, kernel):
    return (_downconv_winograd if x.shape[-1] >= 4 else _downconv_patches)(x, kernel)


downconv = _by_platform(
    _where(lambda x, kernel: 4 <= kernel[2] <= NARROW, _DOWNCONV_BLOCKS, _directions(_downconv_cpu)),
    _directions(_downconv_xla),
)
downconv.__doc__ = """torch's Conv2d(4, stride 2, padding 1, no bias).

Args:
  x: (B, H, W, Cin), H and W multiples of 4.
  kernel: (4, 4, Cin, Cout).

Returns:
  (B, H/2, W/2, Cout).
"""


# --- 3x3 convolution, padding 1 --------------------------------------------------------------------------------------


def _conv3x3_xla(x, kernel):
    return lax.conv_general_dilated(x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=_NHWC)


def _conv3x3_matmul(x, kernel):
    """One product to 9 Cout, then shifted sums."""
    y = product(x, kernel.transpose(2, 0, 1, 3))  # B H W 3 3 Cout

    def sums(y, axis, taps):
        return _shift(_take(y, 0, taps), 1, axis) + _take(y, 1, taps) + _shift(_take(y, 2, taps), -1, axis)

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


_CONV3X3_APART = _directions(_conv3x3_apart, _conv3x3_apart_dx, _conv3x3_apart_dkernel)
conv3x3 = _by_platform(
    _where(lambda x, kernel: few(x[1], max(kernel[2:])), _CONV3X3_APART, _directions(_conv3x3_cpu)),
    _directions(_conv3x3_xla),
)
conv3x3.__doc__ = """torch's Conv2d(3, stride 1, padding 1, no bias).

Args:
  x: (B, H, W, Cin), H and W even.
  kernel: (3, 3, Cin, Cout).

Returns:
  (B, H, W, Cout).
"""
