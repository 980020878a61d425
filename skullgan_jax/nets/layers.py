"""The layers of the pair with torch's semantics. Shapes are B H W C."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from skullgan_jax.nets.layout import apart, by_layout, together

BN_EPS = 1e-5
BN_MOMENTUM = 0.1  # torch's convention: the weight of the new batch


def _normal(std: float, mean: float = 0.0):
    def init(key, shape):
        return mean + std * jax.random.normal(key, shape, jnp.float32)

    return init


class Conv(nnx.Module):
    """A linear layer `op(x, kernel) + bias` with the published initialisation.

    Weights are N(0, 0.01) and biases uniform(+-1/sqrt(fan_in)), torch's default, which the original leaves in place.
    Parameters are float32; the computation runs in `dtype`.

    Args:
      op: `upconv`, `downconv` or `conv3x3`, or another linear operation.
      shape: shape of the kernel.
      bias: whether there is one; its size is the kernel's last axis.
      he: weights N(0, 2 / (1.04 fan_in)) and biases 0 in place of the published, which keeps the variance of what
        comes in where a LeakyReLU of 0.2 follows (He et al., arXiv 1502.01852) and no BatchNorm does; of H W Cin Cout.
    """

    def __init__(self, op, shape, *, bias: bool = False, he: bool = False, dtype=jnp.float32, rngs: nnx.Rngs):
        self.op, self.dtype = op, dtype
        std = (2 / (1.04 * shape[0] * shape[1] * shape[2])) ** 0.5 if he else 0.01
        self.kernel = nnx.Param(_normal(std)(rngs.params(), shape))
        # Kernels with a bias are H W Cin Cout.
        limit = 0.0 if he else (shape[0] * shape[1] * shape[2]) ** -0.5
        self.bias = nnx.data(
            nnx.Param(jax.random.uniform(rngs.params(), shape[-1:], jnp.float32, -limit, limit)) if bias else None
        )

    def __call__(self, x):
        y = self.op(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        if self.bias is None:
            return y
        bias = self.bias[...].astype(self.dtype)
        return by_layout(lambda y: together(apart(y) + bias[:, None, None, None]), lambda y: y + bias, y)


class BatchNorm(nnx.Module):
    """torch's BatchNorm2d over B H W: eps 1e-5, momentum 0.1, the running variance unbiased.

    flax's keeps a biased running variance. Statistics, scale and shift are float32 whatever the dtype of x.
    Under jit the batch is the global one, on any number of devices. Of several batches in one x, whose images take
    turns, each has statistics of its own, and the running ones move by one after the other.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(_normal(0.01, mean=1.0)(rngs.params(), (channels,)))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(channels, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(channels, jnp.float32))

    def __call__(self, x, train: bool, batches: int = 1):
        x32, axes = x.astype(jnp.float32), (0, 1, 2)
        if batches > 1:
            x32, axes = x32.reshape(-1, batches, *x.shape[1:]), (0, 2, 3)
        if train:
            mean = jnp.mean(x32, axes, keepdims=True)
            var = jnp.mean(jnp.square(x32 - mean), axes, keepdims=True)
            n = x.size // batches // x.shape[-1]
            for seen, variance in zip(*(lax.stop_gradient(v).reshape(batches, -1) for v in (mean, var)), strict=True):
                self.mean[...] += BN_MOMENTUM * (seen - self.mean[...])
                self.var[...] += BN_MOMENTUM * (variance * (n / (n - 1)) - self.var[...])
        else:
            mean, var = self.mean[...], self.var[...]
        scale = self.scale[...] * lax.rsqrt(var + BN_EPS)
        return ((x32 - mean) * scale + self.bias[...]).reshape(x.shape).astype(x.dtype)


def texture_noise(x, eps):
    """The generator's texture noise: x + where(keep, x, 0) * eps * std(x), per sample and channel over H W.

    keep selects -max(x)/2 <= x <= max(x)/4; std has ddof 1; gradients flow through x and std, not through the mask.
    Computed in float32.

    Args:
      x: (B, H, W, C).
      eps: N(0, 1) of the same shape.
    """
    return by_layout(
        lambda x, eps: together(_noisy((2, 3), apart(x), apart(eps))), lambda x, eps: _noisy((1, 2), x, eps), x, eps
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _noisy(axes, x, eps):
    return _noisy_forward(axes, x, eps)[0]


def _noisy_forward(axes, x, eps):
    x32 = x.astype(jnp.float32)
    peak, mean = jnp.max(x32, axes, keepdims=True), jnp.mean(x32, axes, keepdims=True)
    std = jnp.sqrt(jnp.sum(jnp.square(x32 - mean), axes, keepdims=True) / _degrees(axes, x))
    y = x32 + jnp.where(_kept(x32, peak), x32, 0.0) * eps * std
    return y.astype(x.dtype), (x, eps, peak, mean, std)


def _noisy_backward(axes, saved, dy):
    """From x, eps and numbers of each channel: to keep more of what noise is made of takes longer than to make it."""
    x, eps, peak, mean, std = saved
    x32, dy32 = x.astype(jnp.float32), dy.astype(jnp.float32)
    kept = _kept(x32, peak)
    noise = jnp.where(kept, dy32 * eps, 0.0)  # times x, of it the gradient in std, times std that in x
    # The gradient of a square root is infinite at 0; torch's std gives 0 to a constant channel.
    share = jnp.sum(noise * x32, axes, keepdims=True) / (_degrees(axes, x) * jnp.where(std > 0, std, jnp.inf))
    dx = dy32 + noise * std + (x32 - mean) * share
    deps = jnp.where(kept, dy32 * x32 * std, 0.0)
    return dx.astype(x.dtype), deps.astype(eps.dtype)


def _degrees(axes, x):
    return x.shape[axes[0]] * x.shape[axes[1]] - 1  # ddof 1


def _kept(x, peak):
    return (x >= -peak / 2) & (x <= peak / 4)


_noisy.defvjp(_noisy_forward, _noisy_backward)
