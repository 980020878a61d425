"""The stride-2 4x4 convolution (`downconv`) and the transposed one (`upconv`), each in the form that is fastest.

Shapes are B H W C; why there are several forms, says forms.py.
"""

import jax.numpy as jnp
from jax import lax

from skullgan_jax.nets.forms import NHWC, by_platform, directions, product, shift, take, where
from skullgan_jax.nets.layout import apart, few, framed, together

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


_DOWNCONV_BLOCKS = directions(_downconv_blocks, _downconv_blocks_dx, _downconv_blocks_dkernel)


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


_UPCONV_BLOCKS = directions(_upconv_blocks, _upconv_blocks_dx, _upconv_blocks_dkernel)


# --- stride-2 4x4 transposed convolution, padding 1 ------------------------------------------------------------------


def _upconv_xla(x, kernel):
    return lax.conv_transpose(
        x,
        _turned(kernel),
        strides=(2, 2),
        padding=((2, 2), (2, 2)),
        dimension_numbers=NHWC,
        transpose_kernel=True,
    )


def _upconv_matmul(x, kernel):
    """One product to 16 Cout, then four shifted sums: the least work per weight, best on tiny images."""
    b, h, w, _ = x.shape
    y = product(x, kernel)  # B H W 4 4 Cout; tap k of input row i lands on output row 2 i + k - 1

    def rows(y, axis, taps):
        t = [take(y, k, taps) for k in range(4)]
        return [t[1] + shift(t[3], 1, axis), t[2] + shift(t[0], -1, axis)]

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
        first, second = take(a, 0, axis), take(a, 1, axis)
        return [first, first + second, second]

    def rows(m, phase, axis):
        """Products m0, m1, m2 with the two rows of a block on axis `phase` -> output rows 4j to 4j+3."""
        a, b = ([take(t, p, phase) for t in m] for p in (0, 1))
        return [
            b[0] + shift(b[2], 1, axis),
            a[1] - a[0] - a[2],
            b[1] - b[0] - b[2],
            a[2] + shift(a[0], -1, axis),
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


_UPCONV_APART = directions(_upconv_apart, _upconv_apart_dx, _upconv_apart_dkernel)
_UPCONV_TOGETHER = where(lambda x, kernel: kernel[-1] <= NARROW, _UPCONV_BLOCKS, directions(_upconv_cpu))
upconv = by_platform(
    where(lambda x, kernel: few(2 * x[1], kernel[-1]), _UPCONV_APART, _UPCONV_TOGETHER), directions(_upconv_xla)
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
    return lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=NHWC)


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
        first, second = take(k, 0, axis), take(k, 1, axis)
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


downconv = by_platform(
    where(lambda x, kernel: 4 <= kernel[2] <= NARROW, _DOWNCONV_BLOCKS, directions(_downconv_cpu)),
    directions(_downconv_xla),
)
downconv.__doc__ = """torch's Conv2d(4, stride 2, padding 1, no bias).

Args:
  x: (B, H, W, Cin), H and W multiples of 4.
  kernel: (4, 4, Cin, Cout).

Returns:
  (B, H/2, W/2, Cout).
"""
