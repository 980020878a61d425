"""The pair as one thing: its sizes, how its networks are made, what they compute in."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from skullgan_jax.nets import networks, rng
from skullgan_jax.nets.networks import Weights


def resolve_dtype(name: str) -> str:
    """What convolutions compute in: of "auto" bfloat16 on GPUs and TPUs, float32 on CPUs."""
    return name if name != "auto" else "float32" if jax.default_backend() == "cpu" else "bfloat16"


@dataclasses.dataclass(frozen=True)
class Pair:
    """The structure of both networks: what runs the weights of a TrainState.

    d_norm is what normalises in the discriminator: "batch", as published, or "none"; d_batch_std is how many
    numbers tell it how much the images of a batch differ. See networks.Discriminator.
    """

    nc: int = 1
    nz: int = 200
    ngf: int = 256
    ndf: int = 64
    dtype: str = "float32"
    d_norm: str = "batch"
    d_batch_std: int = 0

    def generator(self, rngs: nnx.Rngs, folded: bool = False) -> networks.Generator:
        return networks.Generator(self.nc, self.nz, self.ngf, dtype=jnp.dtype(self.dtype), folded=folded, rngs=rngs)

    def discriminator(self, rngs: nnx.Rngs) -> networks.Discriminator:
        kind = {"norm": self.d_norm, "batch_std": self.d_batch_std}
        return networks.Discriminator(self.nc, self.ndf, **kind, dtype=jnp.dtype(self.dtype), rngs=rngs)

    def graphs(self) -> tuple[nnx.GraphDef, nnx.GraphDef]:
        """The structures of both. Raises InputError where the architecture cannot have such sizes."""
        return _abstract(self)[0]

    def shapes(self) -> tuple[Weights, Weights, Weights, Weights]:
        """What `init` gives as ShapeDtypeStructs."""
        return jax.tree.map(lambda leaf: leaf, _abstract(self)[1])  # trees of one's own

    def init(self, seed: int) -> tuple[Weights, Weights, Weights, Weights]:
        """(g_params, g_stats, d_params, d_stats) with the published initialisation. Jittable.

        A discriminator without BatchNorm has He's.
        """
        _, g_params, g_stats = networks.split(self.generator(nnx.Rngs(rng.stream(seed, "init generator"))))
        _, d_params, d_stats = networks.split(self.discriminator(nnx.Rngs(rng.stream(seed, "init discriminator"))))
        return g_params, g_stats, d_params, d_stats


@functools.cache
def _abstract(pair: Pair) -> tuple[tuple, tuple]:
    """Structures and shapes, of which a start asks several times; they take a tenth of a second."""
    both = nnx.eval_shape(lambda: (pair.generator(nnx.Rngs(0)), pair.discriminator(nnx.Rngs(0))))
    (g_graph, *generator), (d_graph, *discriminator) = map(networks.split, both)
    return (g_graph, d_graph), (*generator, *discriminator)


@functools.cache
def compiler_options() -> dict[str, bool | str]:
    """For large programs of ours: the same bits from a CPU in nearly the same time, compiled in two thirds of it.

    XLA's CPU backend makes fused loops by MLIR, or, without these emitters, by LLVM alone; docs/speed.md has the times.
    """
    options: dict[str, bool | str] = {"xla_cpu_use_fusion_emitters": False}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0).lower().compile(options)
    except jax.errors.JaxRuntimeError:  # no such option: they come and go
        return {}
    return options


def quick_to_compile(f: Callable, **options: Any) -> jax.stages.Wrapped:
    """jax.jit for what runs once: on a CPU the random numbers of all layers take longer to optimise than to draw."""
    if jax.default_backend() == "cpu":
        options["compiler_options"] = {"xla_backend_optimization_level": 0}
    return jax.jit(f, **options)
