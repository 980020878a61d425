"""The published pair: Generator and Discriminator, and the pure functions that run them.

Shapes are B H W C at each stage. Weights are float32; `dtype` is what convolutions compute in (bfloat16 on GPUs and
TPUs); BatchNorm statistics, texture noise and logits are float32 always.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from skullgan_jax.errors import InputError
from skullgan_jax.nets.conv3x3 import conv3x3
from skullgan_jax.nets.forms import product
from skullgan_jax.nets.layers import BN_EPS, BatchNorm, Conv, texture_noise
from skullgan_jax.nets.layout import by_image
from skullgan_jax.nets.stride2 import downconv, upconv

Array: TypeAlias = jax.Array | np.ndarray
_LEAST_VARIANCE = 1e-6  # the gradient of a square root is infinite at 0
D_NORMS = ("batch", "none")  # what normalises in the discriminator
Weights: TypeAlias = dict[str, dict[str, Array]]  # a network's parameters, or its statistics: layer -> name -> float32


def _check(**sizes: tuple[int, int, str]) -> None:
    for name, (value, multiple, why) in sizes.items():
        if value < multiple or value % multiple:
            raise InputError(f"model.{name}={value}: must be a positive multiple of {multiple}{why}")


class Generator(nnx.Module):
    """Latent to image; 192,002,304 parameters at the defaults.

    Args:
      nc: channels of the image.
      nz: size of the latent.
      ngf: width; the last hidden layer has ngf/16 channels, so it must be a multiple of 16.
      dtype: what convolutions compute in.
      folded: whether main1 to main5 have a bias in place of their BatchNorm, for weights from `fold`.
      rngs: nnx.Rngs with a `params` stream (or a default one).
    """

    def __init__(
        self,
        nc: int = 1,
        nz: int = 200,
        ngf: int = 256,
        *,
        dtype: DTypeLike = jnp.float32,
        folded: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        _check(nc=(nc, 1, ""), nz=(nz, 1, ""), ngf=(ngf, 16, ", because conv3 has ngf/16 channels"))
        conv = functools.partial(Conv, dtype=dtype, rngs=rngs)
        widths = [16 * ngf >> i for i in range(6)]  # 16 ngf ... ngf/2
        self.main1 = conv(product, (nz, 4, 4, widths[0]), bias=folded)
        for i, (cin, cout) in enumerate(itertools.pairwise(widths)):
            setattr(self, f"main{i + 2}", conv(upconv, (cin, 4, 4, cout), bias=folded and i < 4))
        for i, channels in enumerate(widths[:5]):
            setattr(self, f"norm{i + 1}", _identity if folded else BatchNorm(channels, rngs=rngs))
        self.conv1 = conv(conv3x3, (3, 3, ngf // 2, ngf // 4), bias=True)
        self.conv2 = conv(conv3x3, (3, 3, ngf // 4, ngf // 8), bias=True)
        self.conv3 = conv(conv3x3, (3, 3, ngf // 8, ngf // 16), bias=True)
        self.conv4 = conv(conv3x3, (3, 3, ngf // 16, nc))

    def __call__(self, z: Array, noise: tuple[Array, Array], train: bool) -> jax.Array:
        """Latent z (B, nz) and a pair of noise arrays -> images (B, 128, 128, nc) in (-1, 1).

        noise is N(0, 1) of (B, 128, 128, ngf/2) and (B, 128, 128, ngf/8).

        With train, BatchNorm uses this batch and moves its running statistics.
        """
        x = nnx.relu(self.norm1(self.main1(z), train))  # B 4 4 16 ngf
        x = nnx.relu(self.norm2(self.main2(x), train))  # B 8 8 8 ngf
        x = nnx.relu(self.norm3(self.main3(x), train))  # B 16 16 4 ngf
        x = nnx.relu(self.norm4(self.main4(x), train))  # B 32 32 2 ngf
        x = nnx.relu(self.norm5(self.main5(x), train))  # B 64 64 ngf
        return by_image(self._texture, x, *noise)

    def _texture(self, x: jax.Array, noise0: Array, noise1: Array) -> jax.Array:
        """The layers at full resolution; none of them looks at another image."""
        x = texture_noise(self.main6(x), noise0)  # B 128 128 ngf/2
        x = self.conv2(self.conv1(x))  # B 128 128 ngf/8
        x = texture_noise(x, noise1)
        x = self.conv4(self.conv3(x))  # B 128 128 nc
        return jnp.tanh(x.astype(jnp.float32))


def _identity(x: jax.Array, train: bool, batches: int = 1) -> jax.Array:
    return x


def fold(params: Weights, stats: Weights) -> Weights:
    """A generator's weights with the BatchNorm of main1 to main5 folded in: the parameters of one that is `folded`.

    (W x - mean) s + b with s = scale / sqrt(var + eps) is (s W) x + (b - s mean); the same images within rounding.

    Args:
      params: the generator's, float32.
      stats: its BatchNorm statistics.
    """
    folded = {k: v for k, v in params.items() if not k.startswith("norm")}
    for i in range(1, 6):
        norm, seen = params[f"norm{i}"], stats[f"norm{i}"]
        scale = norm["scale"] * lax.rsqrt(seen["var"] + BN_EPS)
        folded[f"main{i}"] = {
            "kernel": params[f"main{i}"]["kernel"] * scale,
            "bias": norm["bias"] - seen["mean"] * scale,
        }
    return folded


class Discriminator(nnx.Module):
    """Image to logit; 11,164,353 parameters at the defaults.

    Args:
      nc: channels of the image.
      ndf: width, any positive number.
      norm: "batch", as published; "none" for the same convolutions without BatchNorm, which looks at the batch, and so
        leaves no gradient of one image to penalise.
      batch_std: numbers that it makes of an image, to be told how much the images of a batch differ: their standard
        deviations over the batch. It then ends in two layers, and the first of these is told. (Karras et al., arXiv
        1710.10196, have one such number, the mean over all channels and places.) 0: it ends in one layer, as published.
      dtype: what convolutions compute in.
      rngs: nnx.Rngs with a `params` stream (or a default one).
    """

    def __init__(
        self,
        nc: int = 1,
        ndf: int = 64,
        *,
        norm: str = "batch",
        batch_std: int = 0,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        _check(nc=(nc, 1, ""), ndf=(ndf, 1, ""))
        if norm not in D_NORMS:
            raise InputError(f"d_norm={norm!r}: give {' or '.join(D_NORMS)}")
        if batch_std < 0:
            raise InputError(f"d_batch_std={batch_std}: give 0 or more")
        conv = functools.partial(Conv, bias=True, he=norm == "none", dtype=dtype, rngs=rngs)
        widths = [nc, *(ndf << i for i in range(5))]
        for i, (cin, cout) in enumerate(itertools.pairwise(widths)):
            setattr(self, f"conv{i + 1}", conv(downconv, (4, 4, cin, cout)))
            if i:
                setattr(self, f"norm{i + 1}", BatchNorm(cout, rngs=rngs) if norm == "batch" else _identity)
        # A 4x4 convolution on a 4x4 image is one product; the fan-in of its bias counts all 16 places.
        self.conv6 = conv(_whole_image, (4, 4, widths[-1], 8 * ndf if batch_std else 1))
        self.batch_std = batch_std
        if batch_std:
            self.numbers = conv(_whole_image, (4, 4, widths[-1], batch_std), bias=False)
            self.std = conv(_whole_image, (1, 1, batch_std, 8 * ndf), bias=False)
            self.conv7 = conv(_whole_image, (1, 1, 8 * ndf, 1))

    def __call__(self, x: Array, train: bool, batches: int = 1) -> jax.Array:
        """Images x (B, 128, 128, nc) in [-1, 1] -> logits (B,) float32 of being real.

        Where x is several batches, whose images take turns, what looks at the batch treats each alone.
        """

        def leaky(x: jax.Array) -> jax.Array:
            return nnx.leaky_relu(x, 0.2)

        x = leaky(self.conv1(x))  # B 64 64 ndf
        x = leaky(self.norm2(self.conv2(x), train, batches))  # B 32 32 2 ndf
        x = leaky(self.norm3(self.conv3(x), train, batches))  # B 16 16 4 ndf
        x = leaky(self.norm4(self.conv4(x), train, batches))  # B 8 8 8 ndf
        x = leaky(self.norm5(self.conv5(x), train, batches))  # B 4 4 16 ndf
        y = self.conv6(x)  # B 1, or B 8 ndf
        if self.batch_std:
            told = self.std(_deviation(self.numbers(x), batches))  # batches 8 ndf
            y = self.conv7(leaky(y.reshape(-1, *told.shape) + told).reshape(y.shape))  # B 1
        return y.astype(jnp.float32)[:, 0]


def _deviation(numbers: jax.Array, batches: int) -> jax.Array:
    """The standard deviation of (B, C), several batches whose images take turns, over each: (batches, C) float32."""
    numbers = numbers.astype(jnp.float32).reshape(-1, batches, numbers.shape[1])
    return jnp.sqrt(jnp.var(numbers, 0) + _LEAST_VARIANCE)


def _whole_image(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return product(x.reshape(x.shape[0], -1), kernel.reshape(-1, kernel.shape[-1]))


def split(module: nnx.Module) -> tuple[nnx.GraphDef, Weights, Weights]:
    """A module's structure, its parameters and its BatchNorm statistics, the latter two as plain nested dicts."""
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat)
    params, stats = map(nnx.to_pure_dict, states)
    return graph, params, stats


def apply(
    graph: nnx.GraphDef, params: Weights, stats: Weights, *inputs: Any, **options: Any
) -> tuple[jax.Array, Weights]:
    """Run a module as a pure function of its inputs, with train and what else it takes as options.

    Returns:
      Its output and the BatchNorm statistics after it.
    """
    module = nnx.merge(graph, params, stats)
    output = module(*inputs, **options)
    return output, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def structure(make: Callable[[nnx.Rngs], nnx.Module]) -> nnx.GraphDef:
    """The structure of `make(rngs)` without allocating its weights."""
    return nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))


def parameter_count(params: Weights) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
