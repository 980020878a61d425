"""All that a training step reads and writes: weights, statistics, Adam and schedules of the pair."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from skullgan_jax.nets import networks, rng


class Plateau(NamedTuple):
    """torch's ReduceLROnPlateau (mode min, relative threshold, no cooldown): three scalars."""

    lr: jax.Array
    best: jax.Array
    bad: jax.Array  # steps in a row without improvement

    @classmethod
    def create(cls, lr: float) -> "Plateau":
        return cls(jnp.float32(lr), jnp.float32(jnp.inf), jnp.int32(0))

    def update(self, loss, *, factor: float, patience: int, threshold: float = 1e-4, eps: float = 1e-8) -> "Plateau":
        """See one loss. optax.contrib.reduce_on_plateau fires one step earlier and has no eps."""
        better = loss < self.best * (1 - threshold)
        bad = jnp.where(better, 0, self.bad + 1)
        fire = bad > patience
        lower = self.lr * factor
        return Plateau(
            lr=jnp.where(fire & (self.lr - lower > eps), lower, self.lr),
            best=jnp.where(better, loss, self.best),
            bad=jnp.where(fire, 0, bad),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The pair after `step` steps; g_ is the generator's, d_ the discriminator's."""

    step: jax.Array
    g_params: dict
    g_stats: dict
    g_adam: optax.ScaleByAdamState
    g_plateau: Plateau
    d_params: dict
    d_stats: dict
    d_adam: optax.ScaleByAdamState
    d_plateau: Plateau


def resolve_dtype(name: str) -> str:
    """What convolutions compute in: of "auto" bfloat16 on GPUs and TPUs, float32 on CPUs."""
    return name if name != "auto" else "float32" if jax.default_backend() == "cpu" else "bfloat16"


@dataclasses.dataclass(frozen=True)
class Pair:
    """The structure of both networks: what runs the weights of a TrainState."""

    nc: int = 1
    nz: int = 200
    ngf: int = 256
    ndf: int = 64
    dtype: str = "float32"

    def generator(self, rngs: nnx.Rngs, folded: bool = False) -> networks.Generator:
        return networks.Generator(self.nc, self.nz, self.ngf, dtype=jnp.dtype(self.dtype), folded=folded, rngs=rngs)

    def discriminator(self, rngs: nnx.Rngs) -> networks.Discriminator:
        return networks.Discriminator(self.nc, self.ndf, dtype=jnp.dtype(self.dtype), rngs=rngs)

    def graphs(self) -> tuple[nnx.GraphDef, nnx.GraphDef]:
        return networks.structure(self.generator), networks.structure(self.discriminator)

    def init(self, seed: int):
        """(g_params, g_stats, d_params, d_stats) with the published initialisation. Jittable."""
        _, *g = networks.split(self.generator(nnx.Rngs(rng.stream(seed, "init generator"))))
        _, *d = networks.split(self.discriminator(nnx.Rngs(rng.stream(seed, "init discriminator"))))
        return (*g, *d)


def quick_to_compile(f, **options):
    """jax.jit for what runs once: on a CPU the random numbers of all layers take longer to optimise than to draw."""
    if jax.default_backend() == "cpu":
        options["compiler_options"] = {"xla_backend_optimization_level": 0}
    return jax.jit(f, **options)


def create(g_params, g_stats, d_params, d_stats, *, adam: optax.GradientTransformation, lr: float) -> TrainState:
    """Step 0 from given weights. Jittable."""
    return TrainState(
        step=jnp.int32(0),
        g_params=g_params,
        g_stats=g_stats,
        g_adam=adam.init(g_params),
        g_plateau=Plateau.create(lr),
        d_params=d_params,
        d_stats=d_stats,
        d_adam=adam.init(d_params),
        d_plateau=Plateau.create(lr),
    )
