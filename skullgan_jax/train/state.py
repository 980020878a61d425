"""All that a training step reads and writes: weights, statistics, Adam and schedules of the pair."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


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
