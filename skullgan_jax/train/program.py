"""The training step as a program for the devices of this job."""

import dataclasses
import hashlib
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from skullgan_jax.command.progress import say
from skullgan_jax.machine import memory, programs
from skullgan_jax.model import checkpoint, draw
from skullgan_jax.nets.pair import compiler_options
from skullgan_jax.slices.size import SIZE
from skullgan_jax.train import relativistic, sharding, state
from skullgan_jax.train import step as published
from skullgan_jax.train.recipe import Relativistic


class Places(NamedTuple):
    """Where things live: a batch, what all devices have, and a TrainState of ShapeDtypeStructs with a sharding each."""

    by_image: jax.sharding.NamedSharding
    everywhere: jax.sharding.NamedSharding
    like: state.TrainState


def places(plan) -> Places:
    """For a plan's state and batches on all devices of the job."""
    mesh = sharding.mesh()
    shapes = jax.eval_shape(lambda: state.create(*plan.pair.init(0), recipe=plan.recipe))
    like = sharding.placed(shapes, mesh, shard_state=plan.config.shard_state)
    return Places(sharding.by_image(mesh), sharding.everywhere(mesh), like)


def make_train_step(pair, recipe, *, seed: int, steps_per_epoch: int, steps: int, floor, air):
    """The step of a recipe: `train_step(state, batch) -> (state, metrics)`."""
    if isinstance(recipe, Relativistic):
        return relativistic.make_train_step(pair, recipe, seed=seed, steps=steps, floor=floor, air=air)
    return published.make_train_step(pair, recipe, seed=seed, steps_per_epoch=steps_per_epoch)


class Compiled(NamedTuple):
    """`step(state, batch) -> (state, metrics)`, which takes the state for its own, and what it costs."""

    step: jax.stages.Compiled
    seconds: float  # of compiling
    bytes: int | None  # of a device in a step: what comes in and what is in between; None where nobody says

    @property
    def gigabytes(self) -> str:
        """E.g. "2.41 GB a device"."""
        return f"{self.bytes / 1e9:.2f} GB a device" if self.bytes is not None else "memory not known here"


def compiled(plan, at: Places) -> Compiled:
    """Compile the step, before the clock of the progress line starts; how long that may take, is said before."""
    started = time.monotonic()
    run = make_train_step(
        plan.pair,
        plan.recipe,
        seed=plan.config.seed,
        steps_per_epoch=plan.steps_per_epoch,
        steps=plan.total,
        floor=plan.data.calibration.floor,
        air=plan.air,
    )
    layout = sharding.of(at.like)
    run = jax.jit(
        sharding.gathered(run, at.everywhere.mesh) if plan.config.shard_state else run,
        in_shardings=(layout, at.by_image),
        out_shardings=(layout, at.everywhere),
        donate_argnums=0,
    )
    image = jax.ShapeDtypeStruct((plan.config.batch_size, SIZE, SIZE, 1), jnp.float32, sharding=at.by_image)
    lowered, options = run.lower(at.like, dict.fromkeys(plan.recipe.streams, image)), compiler_options()
    text = lowered.as_text()
    about = f"{jax.__version__} {jax.devices()[0].device_kind} {options} {text}"
    name = f"step-{hashlib.sha256(about.encode()).hexdigest()}"
    if (before := programs.took(name)) is not None:
        say(f"the step was compiled before, in {before:.0f} s")
    else:
        say(f"compiling the step{_about(text)}")
    done = lowered.compile(options)
    used = done.memory_analysis()
    memory.release_memory()
    seconds = time.monotonic() - started
    if before is None:
        programs.note(name, seconds)
    return Compiled(done, seconds, used and used.argument_size_in_bytes + used.temp_size_in_bytes)


def _about(text: str) -> str:
    """How long XLA may need for a program, on a CPU: it goes roughly by the operations.

    The published step has 12,686 lines at ngf 16, 8 to 9 s on two cores of a Xeon and more on others; at full size
    17,855, 15 s. LLVM, on all cores, has three quarters. Of other backends nothing is known.
    """
    if jax.default_backend() != "cpu":
        return ""
    lines = text.count("\n")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f", about {lines / 12_686 * (4 + 13 / cores):.0f} s"


def whole(at: Places, weights):
    """Weights with all of each array on each device, where they are divided: what is drawn is then all on each, too.

    One program collects them, and is waited for. The collectives of several that are under way at once may come in
    another order on each device, and then wait for each other for ever, as Gloo's do.
    """
    if all(x.sharding.is_fully_replicated for x in jax.tree.leaves(weights)):
        return weights
    return jax.block_until_ready(checkpoint.placing(at.everywhere)(weights))


def settled(plan, at: Places, now: state.TrainState) -> state.TrainState:
    """The state with the statistics that its model is used with, for judging, showing and saving.

    Those of an average are its own: no batch of training has run through its weights, and averages of the statistics
    of other weights are not theirs. They are a function of the weights, so a run that resumes has the same.
    """
    if not isinstance(now, state.AverageState):
        return now
    pair = dataclasses.replace(plan.pair, dtype="float32")  # the same for whatever the weights are trained with
    stats = draw.standing_statistics(pair, whole(at, now.g_params))
    placed = jax.tree.map(lambda x, like: checkpoint.placing(like.sharding)(x), stats, at.like.g_stats)
    return dataclasses.replace(now, g_stats=placed)
