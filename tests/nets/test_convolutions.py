"""The convolutions: every form against XLA's, and all of them against torch, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax.nets import conv3x3, stride2
from skullgan_jax.nets.forms import product
from tests.nets.close import assert_close
from tests.support import quick_jit

# operation: (public function, its other forms, XLA's form, kernel shape of cin and cout)
OPERATIONS = {
    "upconv": (
        stride2.upconv,
        (stride2._upconv_matmul, stride2._upconv_karatsuba),
        stride2._upconv_xla,
        lambda cin, cout: (cin, 4, 4, cout),
    ),
    "downconv": (
        stride2.downconv,
        (stride2._downconv_patches, stride2._downconv_winograd),
        stride2._downconv_xla,
        lambda cin, cout: (4, 4, cin, cout),
    ),
    "conv3x3": (
        conv3x3.conv3x3,
        (conv3x3._conv3x3_matmul, conv3x3._conv3x3_winograd),
        conv3x3._conv3x3_xla,
        lambda cin, cout: (3, 3, cin, cout),
    ),
}
# B H W Cin Cout: oblong, one channel and image, odd channels; also where the CPU's form changes. The last
# are so large that a CPU puts channels apart: with more of them before and after, times numbers or by a product.
SHAPES = {
    "upconv": [
        (2, 4, 8, 5, 3),
        (1, 8, 8, 1, 1),
        (3, 16, 16, 7, 2),
        (2, 4, 8, 3, 33),
        (2, 8, 8, 3, 33),
        (2, 64, 4, 5, 3),
    ],
    "downconv": [(2, 4, 8, 5, 3), (1, 8, 8, 1, 1), (3, 16, 16, 7, 2), (2, 8, 8, 33, 3)],
    "conv3x3": [(2, 4, 8, 5, 3), (1, 8, 8, 67, 1), (3, 16, 16, 65, 2), (2, 128, 6, 4, 2), (2, 128, 6, 3, 5)],
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


def operands(name, shape, seed=0):
    b, h, w, cin, cout = shape
    random = np.random.default_rng(seed)
    x = random.standard_normal((b, h, w, cin), np.float32)
    return x, random.standard_normal(OPERATIONS[name][3](cin, cout), np.float32)


@functools.cache
def with_gradients(form, name, shape):
    """The value and both gradients of its inner product with a fixed random direction."""
    x, kernel = operands(name, shape)
    y = jax.eval_shape(form, x, kernel)
    direction = np.random.default_rng(1).standard_normal(y.shape, np.float32)

    @quick_jit
    def run(x, kernel):
        y, backward = jax.vjp(form, x, kernel)
        return y, *backward(jnp.asarray(direction, y.dtype))

    return run(x, kernel), direction


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_forms_are_equal(name, shape):
    """Value, gradient in x and gradient in the kernel, of each form and of what is chosen here: 1e-5 of the largest."""
    public, forms, xla, _ = OPERATIONS[name]
    expected, _ = with_gradients(xla, name, shape)
    for form in (*forms, public):
        got, _ = with_gradients(form, name, shape)
        for what, a, b in zip(("value", "dx", "dkernel"), got, expected, strict=True):
            assert_close(a, b, 1e-5, f"{getattr(form, '__name__', 'public')} {what}")


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_operations_match_torch(name, shape):
    """ConvTranspose2d(4, 2, 1), Conv2d(4, 2, 1) and Conv2d(3, 1, 1) in float64: 1e-5 of the largest."""
    torch = pytest.importorskip("torch")
    x, kernel = operands(name, shape)
    (y, dx, dkernel), direction = with_gradients(OPERATIONS[name][0], name, shape)
    to_torch = (0, 3, 1, 2) if name == "upconv" else (3, 2, 0, 1)
    tx = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).double().requires_grad_()
    tk = torch.from_numpy(kernel.transpose(to_torch).copy()).double().requires_grad_()
    if name == "upconv":
        ty = torch.nn.functional.conv_transpose2d(tx, tk, stride=2, padding=1)
    else:
        ty = torch.nn.functional.conv2d(tx, tk, stride=2 if name == "downconv" else 1, padding=1)
    ty.backward(torch.from_numpy(direction.transpose(0, 3, 1, 2).copy()).double())
    assert_close(y, ty.detach().numpy().transpose(0, 2, 3, 1), 1e-5, "value")
    assert_close(dx, tx.grad.numpy().transpose(0, 2, 3, 1), 1e-5, "dx")
    assert_close(dkernel, tk.grad.numpy().transpose(np.argsort(to_torch)), 1e-5, "dkernel")


@pytest.mark.parametrize("name", OPERATIONS)
def test_impulse_response(name):
    """One pixel set gives the kernel itself, at the places that torch's documentation puts it."""
    shape = _, h, w, cin, _ = (1, 4, 8, 3, 2)
    _, kernel = operands(name, shape)
    x = np.zeros((1, h, w, cin), np.float32)
    x[0, 1, 2, 0] = 1
    expected = np.zeros(jax.eval_shape(OPERATIONS[name][0], x, kernel).shape, np.float32)
    k = 3 if name == "conv3x3" else 4
    for i in range(k):
        for j in range(k):
            if name == "upconv":  # out = 2 in - 1 + tap
                expected[0, 1 + i, 3 + j] = kernel[0, i, j]
            elif name == "conv3x3":  # in = out - 1 + tap
                expected[0, 2 - i, 3 - j] = kernel[i, j, 0]
            elif i % 2 == 0 and j % 2 == 1:  # in = 2 out - 1 + tap, here out = (2 - i) / 2 and (3 - j) / 2
                expected[0, (2 - i) // 2, (3 - j) // 2] = kernel[i, j, 0]
    got = quick_jit(OPERATIONS[name][0])(x, kernel)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "products"),
    [
        ("upconv", (2, 8, 8, 9, 65), 9),
        ("upconv", (2, 8, 8, 65, 9), 1),
        ("downconv", (2, 8, 8, 65, 9), 9),
        ("downconv", (2, 8, 8, 9, 65), 1),
        ("conv3x3", (2, 8, 8, 65, 9), 16),
        ("upconv", (1, 64, 4, 5, 3), 1),
        ("conv3x3", (1, 128, 4, 4, 3), 1),
        ("conv3x3", (1, 128, 4, 4, 2), 0),
    ],
)
def test_form_follows_the_platform(name, shape, products):
    """Lowered for a GPU or a TPU, or in bfloat16, an operation is one convolution; on a float32 CPU, products."""
    x, kernel = operands(name, shape)
    public = OPERATIONS[name][0]

    def text(platform, dtype):
        exported = jax.export.export(jax.jit(public), platforms=[platform])
        return exported(x.astype(dtype), kernel.astype(dtype)).mlir_module()

    for platform, dtype in (("cuda", "float32"), ("tpu", "float32"), ("cuda", "bfloat16"), ("cpu", "bfloat16")):
        assert text(platform, dtype).count("stablehlo.convolution") == 1, (platform, dtype)
    on_cpu = text("cpu", "float32")
    assert on_cpu.count("stablehlo.convolution") == 0
    assert on_cpu.count("stablehlo.dot_general") == products


def test_bfloat16_operations():
    """In bfloat16 the values stay within its 8 bits of the float32 ones."""
    for name, (public, *_) in OPERATIONS.items():
        x, kernel = operands(name, (2, 8, 8, 33, 3))
        run = quick_jit(public)
        y = run(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
        assert y.dtype == jnp.bfloat16
        assert_close(y.astype(jnp.float32), run(x, kernel), 1.5e-2, name)


def test_product():
    """A contraction of the last axis with the first."""
    x, kernel = operands("upconv", (2, 3, 4, 5, 6))
    np.testing.assert_allclose(product(x, kernel), np.einsum("bhwc,cijd->bhwijd", x, kernel), atol=1e-5)
