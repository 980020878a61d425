"""The layers against torch, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from skullgan_jax.nets import conv3x3, layers, networks, stride2
from tests.nets.close import assert_close
from tests.support import quick_jit


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


def test_batch_norm_of_two_batches_in_turns():
    """As of one after the other: outputs, gradients of the sum, running statistics."""
    params, stats, run = batch_norm(3)
    x, direction = np.random.default_rng(0).standard_normal((2, 4, 2, 8, 8, 3)).astype(np.float32)
    x[:, 1] = 3 * x[:, 1] + 2

    def both(params, x):
        y, after = run(params, stats, x.reshape(8, 8, 8, 3), train=True, batches=2)
        return jnp.sum(y.reshape(x.shape) * direction), (y.reshape(x.shape), after)

    def one_by_one(params, x):
        first, after = run(params, stats, x[:, 0], train=True)
        second, after = run(params, after, x[:, 1], train=True)
        y = jnp.stack((first, second), 1)
        return jnp.sum(y * direction), (y, after)

    found, expected = (quick_jit(jax.grad(f, (0, 1), has_aux=True))(params, x) for f in (both, one_by_one))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)
    assert np.abs(expected[1][1]["mean"]).max() > 0.1


def test_batch_norm_statistics_stay_float32():
    """A bfloat16 batch gives a bfloat16 output and float32 statistics."""
    params, stats, run = batch_norm(2)
    run = quick_jit(run, static_argnames="train")
    y, after = run(params, stats, jnp.ones((2, 4, 4, 2), jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32")}


@quick_jit
def noise_with_gradient(x, eps, direction):
    y, backward = jax.vjp(layers.texture_noise, x, eps)
    return y, *backward(direction)


def test_texture_noise_by_hand():
    """Maximum 4: from -2 to 1 is kept; the standard deviation is that of five numbers, ddof 1."""
    x = np.array([4.0, 1.0, -2.0, -3.0, 0.0], np.float32).reshape(1, 1, 5, 1)
    eps = np.array([1.0, 1.0, -1.0, 1.0, 1.0], np.float32).reshape(x.shape)
    std = np.sqrt(30 / 4)  # mean 0, sum of squares 16 + 1 + 4 + 9
    got = quick_jit(layers.texture_noise)(x, eps).ravel()
    np.testing.assert_allclose(got, [4, 1 + std, -2 + 2 * std, -3, 0], rtol=1e-6)


@pytest.mark.parametrize("rows", [16, 128])  # of 128 a CPU puts the channels apart
def test_texture_noise_matches_torch(rows):
    """Value and gradient against the float64 peer, in every sample and channel: 1e-5 of the largest."""
    torch = pytest.importorskip("torch")
    from benchmarks import torch_peer

    random = np.random.default_rng(0)
    x = random.standard_normal((3, rows, 16, 4), np.float32) * np.array([1, 0.01, 5, 1], np.float32)
    x[..., 3] -= 2  # one channel mostly below zero
    eps, direction = random.standard_normal((2, *x.shape), np.float32)
    tx, te = (torch.from_numpy(np.moveaxis(a, -1, 1).copy()).double().requires_grad_() for a in (x, eps))
    ty = torch_peer.texture_noise(tx, te)
    ty.backward(torch.from_numpy(np.moveaxis(direction, -1, 1).copy()).double())
    y, dx, deps = noise_with_gradient(x, eps, direction)
    for channel in range(4):
        assert_close(y[..., channel], ty.detach().numpy()[:, channel], 1e-5, "value")
        assert_close(dx[..., channel], tx.grad.numpy()[:, channel], 1e-5, "dx")
        assert_close(deps[..., channel], te.grad.numpy()[:, channel], 1e-5, "deps")
    assert (np.abs(np.asarray(y) - x) > 0).mean() > 0.3


@pytest.mark.parametrize("rows", [16, 128])
@pytest.mark.parametrize("value", [0.0, 0.5, -1.0, 0.1])
def test_texture_noise_of_a_constant_channel(value, rows):
    """No spread, no noise; the gradient is finite and, where the mean is exact, the identity's (torch's answer)."""
    x = np.full((1, rows, 16, 1), value, np.float32)
    eps, direction = np.random.default_rng(0).standard_normal((2, *x.shape), np.float32)
    y, dx, _ = noise_with_gradient(x, eps, direction)
    np.testing.assert_allclose(y, x, atol=1e-6)
    assert np.isfinite(dx).all()
    if value != 0.1:
        np.testing.assert_array_equal(dx, direction)


def make_conv(op, shape, **options):
    graph = nnx.graphdef(nnx.eval_shape(lambda: layers.Conv(op, shape, **options, rngs=nnx.Rngs(0))))
    return nnx.merge(graph, quick_jit(lambda: nnx.state(layers.Conv(op, shape, **options, rngs=nnx.Rngs(0))))())


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (stride2.upconv, (64, 4, 4, 32)),
        (stride2.downconv, (4, 4, 16, 128)),
        (conv3x3.conv3x3, (3, 3, 32, 256)),
    ],
)
def test_conv_initialisation(op, shape):
    """Weights N(0, 0.01); biases fill +-1/sqrt(fan in) evenly."""
    conv = make_conv(op, shape, bias=op is not stride2.upconv)
    kernel = np.asarray(conv.kernel[...], np.float64)
    assert kernel.shape == shape
    assert abs(kernel.mean()) < 4 * 0.01 / np.sqrt(kernel.size)
    assert abs(kernel.std() - 0.01) < 4 * 0.01 / np.sqrt(2 * kernel.size)
    if conv.bias is None:
        assert op is stride2.upconv
        return
    bias = np.asarray(conv.bias[...], np.float64)
    limit = 1 / np.sqrt(np.prod(shape[:3]))
    assert 0.95 * limit < np.abs(bias).max() <= limit
    assert abs(bias.std() / limit - 3**-0.5) < 4 * np.sqrt(1 / 15 / bias.size)  # its standard error: 1/sqrt(15 n)


@pytest.mark.parametrize("rows", [4, 128])
def test_conv_adds_its_bias(rows):
    """A zero image gives the bias, in the layer's dtype; parameters stay float32."""
    for dtype in (jnp.float32, jnp.bfloat16):
        conv = make_conv(conv3x3.conv3x3, (3, 3, 2, 5), bias=True, dtype=dtype)
        y = quick_jit(conv)(jnp.zeros((1, rows, 4, 2)))
        assert y.dtype == dtype
        assert {conv.kernel[...].dtype, conv.bias[...].dtype} == {jnp.dtype("float32")}
        np.testing.assert_array_equal(y, jnp.broadcast_to(conv.bias[...].astype(dtype), y.shape))
