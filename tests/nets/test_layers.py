"""The layers: every form against XLA's, and all of them against torch, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skullgan_jax.nets import layers, networks
from tests.support import quick_jit

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
        (layers._downconv_patches, layers._downconv_winograd),
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
# B H W Cin Cout: oblong, one channel and image, odd channels; for conv3x3 also where the CPU's form changes. The last
# are so large that a CPU puts channels apart: with more of them before and after, times numbers or by a product.
SHAPES = {
    "upconv": [(2, 4, 8, 5, 3), (1, 8, 8, 1, 1), (3, 16, 16, 7, 2), (2, 64, 4, 5, 3)],
    "downconv": [(2, 4, 8, 5, 3), (1, 8, 8, 1, 1), (3, 16, 16, 7, 2)],
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


def assert_close(ours, theirs, relative, name=""):
    """Within `relative` of the largest element."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max(), err_msg=name)


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


@pytest.mark.parametrize("name", OPERATIONS)
def test_form_follows_the_platform(name):
    """Lowered for a GPU or a TPU, or in bfloat16, an operation is one convolution; on a float32 CPU, products."""
    x, kernel = operands(name, (2, 8, 8, 65, 9))
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
        run = quick_jit(public)
        y = run(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
        assert y.dtype == jnp.bfloat16
        assert_close(y.astype(jnp.float32), run(x, kernel), 1.5e-2, name)


def test_product():
    """A contraction of the last axis with the first."""
    x, kernel = operands("upconv", (2, 3, 4, 5, 6))
    np.testing.assert_allclose(layers.product(x, kernel), np.einsum("bhwc,cijd->bhwijd", x, kernel), atol=1e-5)


@functools.cache
def batch_norm(channels):
    """Parameters and statistics as initialised, and (params, stats, x, train) -> (y, stats)."""

    def make(rngs):
        return layers.BatchNorm(channels, rngs=rngs)

    params, stats = quick_jit(lambda: networks.split(make(nnx.Rngs(0)))[1:])()
    return params, stats, functools.partial(networks.apply, networks.structure(make))


def test_batch_norm_initialisation():
    """Scale N(1, 0.01), shift and running mean 0, running variance 1."""
    params, stats, _ = batch_norm(4096)
    scale = np.asarray(params["scale"], np.float64)
    assert abs(scale.mean() - 1) < 4 * 0.01 / 64
    assert abs(scale.std() - 0.01) < 4 * 0.01 / np.sqrt(2 * 4096)
    assert not params["bias"].any()
    assert not stats["mean"].any()
    assert (stats["var"] == 1).all()


def test_batch_norm_by_hand():
    """Two numbers 1 and 3: mean 2, variance 1, unbiased 2, a tenth of the way there."""
    params, stats, run = batch_norm(1)
    run = quick_jit(run, static_argnames="train")
    x = np.array([1, 3], np.float32).reshape(2, 1, 1, 1)
    y, after = run(params, stats, x, train=True)
    np.testing.assert_allclose(after["mean"], [0.2], rtol=1e-6)
    np.testing.assert_allclose(after["var"], [1.1], rtol=1e-6)  # 0.9 * 1 + 0.1 * 2
    scale = float(params["scale"][0])
    np.testing.assert_allclose(y.ravel(), [-scale / np.sqrt(1 + 1e-5), scale / np.sqrt(1 + 1e-5)], rtol=1e-6)
    y, same = run(params, after, x, train=False)
    np.testing.assert_allclose(y.ravel(), scale * (x.ravel() - 0.2) / np.sqrt(1.1 + 1e-5), rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, same, after)


def test_batch_norm_matches_torch():
    """Outputs, gradients and running statistics (1e-6 relative) over 3 training batches, then standing ones."""
    torch = pytest.importorskip("torch")
    channels = 5
    _, stats, run = batch_norm(channels)
    peer = torch.nn.BatchNorm2d(channels).double()
    random = np.random.default_rng(0)
    params = dict(zip(("scale", "bias"), random.uniform(0.5, 1.5, (2, channels)).astype(np.float32), strict=True))
    with torch.no_grad():
        peer.weight.copy_(torch.from_numpy(params["scale"]))
        peer.bias.copy_(torch.from_numpy(params["bias"]))

    @functools.partial(quick_jit, static_argnames="train")
    def step(params, stats, x, direction, train):
        y, backward, after = jax.vjp(lambda p, x: run(p, stats, x, train=train), params, x, has_aux=True)
        return y, after, *backward(direction)

    for train in (True, True, True, False):
        peer.train(train)
        peer.zero_grad()
        x = (random.standard_normal((4, 16, 16, channels)) * [1, 2, 0.1, 3, 1] + [0, 1, -2, 3, 0.5]).astype(np.float32)
        direction = random.standard_normal(x.shape, np.float32)
        tx = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).double().requires_grad_()
        ty = peer(tx)
        ty.backward(torch.from_numpy(direction.transpose(0, 3, 1, 2).copy()).double())
        y, stats, dparams, dx = step(params, stats, x, direction, train)
        assert_close(y, ty.detach().numpy().transpose(0, 2, 3, 1), 3e-6, "value")
        assert_close(dx, tx.grad.numpy().transpose(0, 2, 3, 1), 1e-5, "dx")
        assert_close(dparams["scale"], peer.weight.grad.numpy(), 1e-5, "dscale")
        assert_close(dparams["bias"], peer.bias.grad.numpy(), 1e-5, "dbias")
        for ours, theirs in ((stats["mean"], peer.running_mean), (stats["var"], peer.running_var)):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6, atol=1e-7)


def test_batch_norm_statistics_stay_float32():
    """A bfloat16 batch gives a bfloat16 output and float32 statistics."""
    params, stats, run = batch_norm(2)
    run = quick_jit(run, static_argnames="train")
    y, after = run(params, stats, jnp.ones((2, 4, 4, 2), jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}


@quick_jit
def noise_with_gradient(x, eps, direction):
    y, backward = jax.vjp(lambda x: layers.texture_noise(x, eps), x)
    return y, *backward(direction)


def test_texture_noise_by_hand():
    """Maximum 4: from -2 to 1 is kept; the standard deviation is that of five numbers, ddof 1."""
    x = np.array([4.0, 1.0, -2.0, -3.0, 0.0], np.float32).reshape(1, 1, 5, 1)
    eps = np.array([1.0, 1.0, -1.0, 1.0, 1.0], np.float32).reshape(x.shape)
    std = np.sqrt(30 / 4)  # mean 0, sum of squares 16 + 1 + 4 + 9
    got = quick_jit(layers.texture_noise)(x, eps).ravel()
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
    y, dx = noise_with_gradient(x, eps, direction)
    for channel in range(4):
        assert_close(y[..., channel], ty.detach().numpy()[:, channel], 1e-5, "value")
        assert_close(dx[..., channel], tx.grad.numpy()[:, channel], 1e-5, "dx")
    assert (np.abs(np.asarray(y) - x) > 0).mean() > 0.3


@pytest.mark.parametrize("value", [0.0, 0.5, -1.0, 0.1])
def test_texture_noise_of_a_constant_channel(value):
    """No spread, no noise; the gradient is finite and, where the mean is exact, the identity's (torch's answer)."""
    x = np.full((1, 16, 16, 1), value, np.float32)
    eps, direction = np.random.default_rng(0).standard_normal((2, *x.shape), np.float32)
    y, dx = noise_with_gradient(x, eps, direction)
    np.testing.assert_allclose(y, x, atol=1e-6)
    assert np.isfinite(dx).all()
    if value != 0.1:
        np.testing.assert_array_equal(dx, direction)


def make_conv(op, shape, **options):
    graph = nnx.graphdef(nnx.eval_shape(lambda: layers.Conv(op, shape, **options, rngs=nnx.Rngs(0))))
    return nnx.merge(graph, quick_jit(lambda: nnx.state(layers.Conv(op, shape, **options, rngs=nnx.Rngs(0))))())


@pytest.mark.parametrize(
    ("op", "shape"),
    [(layers.upconv, (64, 4, 4, 32)), (layers.downconv, (4, 4, 16, 128)), (layers.conv3x3, (3, 3, 32, 256))],
)
def test_conv_initialisation(op, shape):
    """Weights N(0, 0.01); biases fill +-1/sqrt(fan in) evenly."""
    conv = make_conv(op, shape, bias=op is not layers.upconv)
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
    assert abs(bias.std() / limit - 3**-0.5) < 4 * np.sqrt(1 / 15 / bias.size)  # its standard error: 1/sqrt(15 n)


def test_conv_adds_its_bias():
    """A zero image gives the bias, in the layer's dtype; parameters stay float32."""
    for dtype in (jnp.float32, jnp.bfloat16):
        conv = make_conv(layers.conv3x3, (3, 3, 2, 5), bias=True, dtype=dtype)
        y = quick_jit(conv)(jnp.zeros((1, 4, 4, 2)))
        assert y.dtype == dtype
        assert {conv.kernel[...].dtype, conv.bias[...].dtype} == {jnp.dtype("float32")}
        np.testing.assert_array_equal(y, jnp.broadcast_to(conv.bias[...].astype(dtype), y.shape))
