"""All that a training step reads and writes: weights, statistics, Adam and schedules of the pair."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from skullgan_jax.train.recipe import Recipe, Relativistic


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
    """The pair after `step` steps, as far as all recipes have it; g_ is the generator's, d_ the discriminator's.

    g_params with g_stats is the model: what is judged, shown, exported and sampled, whatever else a recipe trains with.
    """

    MOVED: ClassVar = ("g_params", "d_params")  # the weights that gradients are taken by

    step: jax.Array
    g_params: dict
    g_stats: dict
    g_adam: optax.ScaleByAdamState
    d_params: dict
    d_stats: dict
    d_adam: optax.ScaleByAdamState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlateauState(TrainState):
    """Of the published recipe."""

    g_plateau: Plateau
    d_plateau: Plateau


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AverageState(TrainState):
    """Of the relativistic recipe: g_params is an average of `g_iterate`, the weights that move.

    g_stats are no part of the training: they are computed of g_params where those are used (see program.settled).
    """

    MOVED: ClassVar = ("g_iterate", "d_params")

    g_iterate: dict


def create(g_params, g_stats, d_params, d_stats, *, recipe: Recipe | Relativistic) -> TrainState:
    """Step 0 of a recipe from given weights. Jittable."""
    nets = {
        "step": jnp.int32(0),
        "g_params": g_params,
        "g_stats": g_stats,
        "g_adam": recipe.adam.init(g_params),
        "d_params": d_params,
        "d_stats": d_stats,
        "d_adam": recipe.adam.init(d_params),
    }
    if isinstance(recipe, Relativistic):
        return AverageState(**nets, g_iterate=g_params)
    return PlateauState(**nets, g_plateau=Plateau.create(recipe.lr), d_plateau=Plateau.create(recipe.lr))
