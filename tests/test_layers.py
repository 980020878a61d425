"""The layers: every form against XLA's, and all of them against torch, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skullgan_jax import layers

# operation: (public function, its other forms, XLA's form, kernel shape of cin and cout)
OPERATIONS = {
    "upconv": (
        layers.upconv,
        (layers._upconv_matmul, layers._upconv_karatsuba),
        layers._upconv_xla,
        lambda cin, cout: (cin, 4, 4, cout),
    ),
    "downconv": (
        layers.downconv,
        (layers._downconv_winograd,),
        layers._downconv_xla,
        lambda cin, cout: (4, 4, cin, cout),
    ),
    "conv3x3": (
        layers.conv3x3,
        (layers._conv3x3_matmul, layers._conv3x3_winograd),
        layers._conv3x3_xla,
        lambda cin, cout: (3, 3, cin, cout),
    ),
}
# B H W Cin Cout; odd channels, one channel, one image, and the widths at which the CPU changes its form
SHAPES = [(2, 4, 4, 5, 3), (1, 8, 8, 1, 1), (3, 16, 16, 7, 2), (2, 8, 4, 17, 5), (2, 4, 8, 67, 9), (1, 4, 12, 3, 1)]
CASES = [(name, shape) for name in OPERATIONS for shape in SHAPES]


def operands(name, shape, seed=0):
    b, h, w, cin, cout = shape
    random = np.random.default_rng(seed)
    x = random.standard_normal((b, h, w, cin), np.float32)
    return x, random.standard_normal(OPERATIONS[name][3](cin, cout), np.float32)


def with_gradients(form, x, kernel):
    """The value and both gradients of its inner product with a fixed random direction."""
    y = jax.eval_shape(form, x, kernel)
    direction = np.random.default_rng(1).standard_normal(y.shape, np.float32)

    @jax.jit
    def run(x, kernel):
        y, backward = jax.vjp(form, x, kernel)
        return y, *backward(jnp.asarray(direction, y.dtype))

    return run(x, kernel), direction


def assert_close(ours, theirs, relative, name=""):
    """Within `relative` of the largest element."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max(), err_msg=name)


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_forms_are_equal(name, shape):
    """Value, gradient in x and gradient in the kernel, of each form and of what is chosen here: 1e-5 of the largest."""
    public, forms, xla, _ = OPERATIONS[name]
    x, kernel = operands(name, shape)
    expected, _ = with_gradients(xla, x, kernel)
    for form in (*forms, public):
        got, _ = with_gradients(form, x, kernel)
        for what, a, b in zip(("value", "dx", "dkernel"), got, expected, strict=True):
            assert_close(a, b, 1e-5, f"{getattr(form, '__name__', 'public')} {what}")


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_operations_match_torch(name, shape):
    """ConvTranspose2d(4, 2, 1), Conv2d(4, 2, 1) and Conv2d(3, 1, 1) in float64: 1e-5 of the largest."""
    torch = pytest.importorskip("torch")
    x, kernel = operands(name, shape)
    (y, dx, dkernel), direction = with_gradients(OPERATIONS[name][0], x, kernel)
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


@pytest.mark.parametrize(("name", "shape"), CASES)
def test_impulse_response(name, shape):
    """One pixel set gives the kernel itself, at the places that torch's documentation puts it."""
    _, h, w, cin, cout = shape
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
    got = OPERATIONS[name][0](x, kernel)
    # Taps that would land outside are cut off by the shapes above: none here.
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("name", OPERATIONS)
def test_form_follows_the_platform(name):
    """Exported for a GPU or a TPU, or in bfloat16, an operation is one convolution; on a float32 CPU matrix products."""
    x, kernel = operands(name, (2, 8, 8, 65, 3))
    public = OPERATIONS[name][0]

    def text(platform, dtype):
        exported = jax.export.export(jax.jit(public), platforms=[platform])
        return exported(x.astype(dtype), kernel.astype(dtype)).mlir_module()

    for platform, dtype in (("cuda", "float32"), ("tpu", "float32"), ("cuda", "bfloat16"), ("cpu", "bfloat16")):
        assert text(platform, dtype).count("stablehlo.convolution") == 1, (platform, dtype)
    on_cpu = text("cpu", "float32")
    assert on_cpu.count("stablehlo.convolution") == 0
    assert on_cpu.count("stablehlo.dot_general") in (9, 16)  # 3 x 3 or 4 x 4 products


def test_bfloat16_operations():
    """In bfloat16 the values stay within its 8 bits of the float32 ones."""
    for name, (public, *_) in OPERATIONS.items():
        x, kernel = operands(name, (2, 8, 8, 33, 3))
        y = jax.jit(public)(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
        assert y.dtype == jnp.bfloat16
        assert_close(y.astype(jnp.float32), public(x, kernel), 1.5e-2, name)


def test_product():
    """A contraction of the last axis with the first."""
    x, kernel = operands("upconv", (2, 3, 4, 5, 6))
    np.testing.assert_allclose(layers.product(x, kernel), np.einsum("bhwc,cijd->bhwijd", x, kernel), atol=1e-5)


@functools.cache
def batch_norm(channels):
    graph, state = nnx.split(layers.BatchNorm(channels, rngs=nnx.Rngs(0)))

    @functools.partial(jax.jit, static_argnames="train")
    def run(state, x, train):
        module = nnx.merge(graph, state)
        y = module(x, train)
        return y, nnx.state(module)

    return state, run


def test_batch_norm_initialisation():
    """Scale N(1, 0.01), shift and running mean 0, running variance 1."""
    module = layers.BatchNorm(4096, rngs=nnx.Rngs(0))
    scale = np.asarray(module.scale[...], np.float64)
    assert abs(scale.mean() - 1) < 4 * 0.01 / 64
    assert abs(scale.std() - 0.01) < 4 * 0.01 / np.sqrt(2 * 4096)
    assert not module.bias[...].any()
    assert not module.mean[...].any()
    assert (module.var[...] == 1).all()


def test_batch_norm_by_hand():
    """Two numbers 1 and 3: mean 2, variance 1, unbiased 2, a tenth of the way there."""
    state, run = batch_norm(1)
    x = np.array([1, 3], np.float32).reshape(2, 1, 1, 1)
    y, after = run(state, x, True)
    np.testing.assert_allclose(after["mean"][...], [0.2], rtol=1e-6)
    np.testing.assert_allclose(after["var"][...], [1.1], rtol=1e-6)  # 0.9 * 1 + 0.1 * 2
    scale = float(state["scale"][...][0])
    np.testing.assert_allclose(y.ravel(), [-scale / np.sqrt(1 + 1e-5), scale / np.sqrt(1 + 1e-5)], rtol=1e-6)
    y, same = run(after, x, False)
    np.testing.assert_allclose(y.ravel(), scale * (x.ravel() - 0.2) / np.sqrt(1.1 + 1e-5), rtol=1e-5)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), same, after))


def test_batch_norm_matches_torch():
    """Outputs, gradients and running statistics (1e-6 relative) over 3 training batches, then standing ones."""
    torch = pytest.importorskip("torch")
    channels = 5
    state, run = batch_norm(channels)
    peer = torch.nn.BatchNorm2d(channels).double()
    random = np.random.default_rng(0)
    scale, bias = random.uniform(0.5, 1.5, (2, channels)).astype(np.float32)
    state = jax.tree.map(lambda v: v, state)  # a copy to write to
    state["scale"][...], state["bias"][...] = jnp.asarray(scale), jnp.asarray(bias)
    with torch.no_grad():
        peer.weight.copy_(torch.from_numpy(scale))
        peer.bias.copy_(torch.from_numpy(bias))
    for train in (True, True, True, False):
        peer.train(train)
        x = (random.standard_normal((4, 16, 16, channels)) * [1, 2, 0.1, 3, 1] + [0, 1, -2, 3, 0.5]).astype(np.float32)
        direction = random.standard_normal(x.shape, np.float32)
        tx = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).double().requires_grad_()
        ty = peer(tx)
        ty.backward(torch.from_numpy(direction.transpose(0, 3, 1, 2).copy()).double())

        def inner(x, state=state, train=train, direction=direction):
            y, after = run(state, x, train)
            return jnp.sum(y * direction), (y, after)

        dx, (y, after) = jax.grad(inner, has_aux=True)(x)
        assert_close(y, ty.detach().numpy().transpose(0, 2, 3, 1), 3e-6, "value")
        assert_close(dx, tx.grad.numpy().transpose(0, 2, 3, 1), 1e-5, "dx")
        for ours, theirs in ((after["mean"], peer.running_mean), (after["var"], peer.running_var)):
            np.testing.assert_allclose(ours[...], theirs.numpy(), rtol=1e-6, atol=1e-7)
        state = after


def test_batch_norm_statistics_stay_float32():
    """A bfloat16 batch gives a bfloat16 output and float32 statistics."""
    state, run = batch_norm(2)
    y, after = run(state, jnp.ones((2, 4, 4, 2), jnp.bfloat16), True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}


def test_texture_noise_by_hand():
    """Maximum 4: from -2 to 1 is kept; the standard deviation is that of five numbers, ddof 1."""
    x = np.array([4.0, 1.0, -2.0, -3.0, 0.0], np.float32).reshape(1, 1, 5, 1)
    eps = np.array([1.0, 1.0, -1.0, 1.0, 1.0], np.float32).reshape(x.shape)
    std = np.sqrt(30 / 4)  # mean 0, sum of squares 16 + 1 + 4 + 9
    got = layers.texture_noise(x, eps).ravel()
    np.testing.assert_allclose(got, [4, 1 + std, -2 + 2 * std, -3, 0], rtol=1e-6)


def test_texture_noise_matches_torch():
    """Value and gradient against the float64 peer, in every sample and channel: 1e-5 of the largest."""
    torch = pytest.importorskip("torch")
    from benchmarks import torch_peer

    random = np.random.default_rng(0)
    x = random.standard_normal((3, 16, 16, 4), np.float32) * np.array([1, 0.01, 5, 1], np.float32)
    x[..., 3] -= 2  # one channel mostly below zero
    eps, direction = random.standard_normal((2, *x.shape), np.float32)
    tx = torch.from_numpy(np.moveaxis(x, -1, 1).copy()).double().requires_grad_()
    ty = torch_peer.texture_noise(tx, torch.from_numpy(np.moveaxis(eps, -1, 1).copy()).double())
    ty.backward(torch.from_numpy(np.moveaxis(direction, -1, 1).copy()).double())
    y, backward = jax.vjp(lambda x: layers.texture_noise(x, eps), x)
    (dx,) = backward(direction)
    for channel in range(4):
        assert_close(y[..., channel], ty.detach().numpy()[:, channel], 1e-5, "value")
        assert_close(dx[..., channel], tx.grad.numpy()[:, channel], 1e-5, "dx")
    assert (np.abs(np.asarray(y) - x) > 0).mean() > 0.3


@pytest.mark.parametrize("value", [0.0, 0.5, -1.0, 0.1])
def test_texture_noise_of_a_constant_channel(value):
    """No spread, no noise; the gradient is finite and, where the mean is exact, the identity's (torch's answer)."""
    x = np.full((1, 16, 16, 1), value, np.float32)
    eps, direction = np.random.default_rng(0).standard_normal((2, *x.shape), np.float32)
    y, backward = jax.vjp(lambda x: layers.texture_noise(x, eps), x)
    (dx,) = backward(direction)
    np.testing.assert_allclose(y, x, atol=1e-6)
    assert np.isfinite(dx).all()
    if value != 0.1:
        np.testing.assert_array_equal(dx, direction)


@pytest.mark.parametrize(
    ("op", "shape"),
    [(layers.upconv, (64, 4, 4, 32)), (layers.downconv, (4, 4, 16, 128)), (layers.conv3x3, (3, 3, 32, 256))],
)
def test_conv_initialisation(op, shape):
    """Weights N(0, 0.01); biases fill +-1/sqrt(fan in) evenly."""
    conv = layers.Conv(op, shape, bias=op is not layers.upconv, rngs=nnx.Rngs(0))
    kernel = np.asarray(conv.kernel[...], np.float64)
    assert kernel.shape == shape
    assert abs(kernel.mean()) < 4 * 0.01 / np.sqrt(kernel.size)
    assert abs(kernel.std() - 0.01) < 4 * 0.01 / np.sqrt(2 * kernel.size)
    if conv.bias is None:
        assert op is layers.upconv
        return
    bias = np.asarray(conv.bias[...], np.float64)
    limit = 1 / np.sqrt(np.prod(shape[:3]))
    assert 0.95 * limit < np.abs(bias).max() <= limit
    assert abs(bias.std() / limit - 3**-0.5) < 4 * np.sqrt(1 / 15 / bias.size)  # of |u|^2: variance 4/45, halved twice


def test_conv_adds_its_bias():
    """A zero image gives the bias, in the layer's dtype; parameters stay float32."""
    for dtype in (jnp.float32, jnp.bfloat16):
        conv = layers.Conv(layers.conv3x3, (3, 3, 2, 5), bias=True, dtype=dtype, rngs=nnx.Rngs(0))
        y = conv(jnp.zeros((1, 4, 4, 2)))
        assert y.dtype == dtype
        assert {conv.kernel[...].dtype, conv.bias[...].dtype} == {jnp.dtype("float32")}
        np.testing.assert_array_equal(y, jnp.broadcast_to(conv.bias[...].astype(dtype), y.shape))
