"""Where a run starts, and whether it may go on from there."""

import dataclasses

import jax

from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError
from skullgan_jax.model import checkpoint
from skullgan_jax.model.load import load
from skullgan_jax.nets.pair import quick_to_compile
from skullgan_jax.train import sharding, state
from skullgan_jax.train.fields import flat

# What may differ when a run is resumed: how long it lasts, what is shown and kept, where files and weights lie.
_FREE = ("epochs", "data.path", "log_every", "sample_every", "checkpoint_every", "final_slices", "shard_state")
_START = ("pretrained", "checkpoint")  # where a run starts: of no account once it has a checkpoint of its own


def initial_state(plan, checkpoints, workdir, like):
    """The resume ladder: this workdir, else a given checkpoint, else given weights, else scratch.

    Returns:
      The state, with shapes and shardings of `like`, and its step.
    """
    config = plan.config
    if checkpoints.latest is not None:
        step = checkpoints.latest
        check_same(plan.meta, checkpoints.meta(step), workdir)
        say(f"resuming {workdir} at step {step}")
        return checkpoints.restore(step, like), step
    if config.checkpoint:
        return _continued(plan, like)
    if config.pretrained:
        return _pretrained(plan, like), 0
    say("starting from scratch")
    return scratch(plan, like), 0


def scratch(plan, like):
    """A state with the published initialisation, as `initial_state` gives it."""
    return quick_to_compile(lambda: _fresh(plan, *plan.pair.init(plan.config.seed)), out_shardings=sharding.of(like))()


def _continued(plan, like):
    where = plan.config.checkpoint
    if not checkpoint.exists(where):
        raise InputError(f"--config.checkpoint={where}: holds no checkpoint; give a training workdir")
    given = checkpoint.Checkpoints(where, create=False)
    step = given.latest
    check_same(plan.meta, given.meta(step), where)
    say(f"continuing from step {step} of {where}")
    restored = given.restore(step, like)
    given.close()
    return restored, step


def _pretrained(plan, like):
    where, pair = plan.config.pretrained, plan.pair
    given = load(where)
    if given.d_params is None:
        raise InputError(
            f"--config.pretrained={where}: has no discriminator to train on with; convert both: "
            "python -m skullgan_jax.convert --generator=netG.pth --discriminator=netD.pth --output=models/pair"
        )
    if dataclasses.replace(given.pair, dtype=pair.dtype) != pair:
        raise InputError(
            f"--config.pretrained={where}: another architecture ({_sizes(given.pair)}) than this "
            f"config's ({_sizes(pair)}); set --config.model to its sizes"
        )
    say(f"starting from the weights of {where}")
    weights = (given.g_params, given.g_stats, given.d_params, given.d_stats)
    return jax.jit(lambda *weights: _fresh(plan, *weights), out_shardings=sharding.of(like))(*weights)


def _fresh(plan, *weights):
    return state.create(*weights, adam=plan.recipe.adam, lr=plan.recipe.lr)


def _sizes(pair) -> str:
    return f"nc={pair.nc} nz={pair.nz} ngf={pair.ngf} ndf={pair.ndf}"


def check_same(meta: dict, saved: dict, where) -> None:
    """Refuse to resume with a changed config or on other data, naming every difference."""
    new, old = flat(meta["config"]), flat(saved["config"])
    different = [k for k in sorted(new.keys() | old.keys()) if k not in _FREE + _START and new.get(k) != old.get(k)]
    if different:
        listed = ", ".join(f"{k} was {old.get(k)!r} now {new.get(k)!r}" for k in different)
        raise InputError(
            f"{where}: the config changed since its checkpoint: {listed}; change it back or use another --workdir"
        )
    for name in ("data", "calibration"):
        if meta[name] != saved[name]:
            raise InputError(
                f"{where}: the data changed since its checkpoint: {name} was {saved[name]} now {meta[name]}; "
                "give the same data or use another --workdir"
            )
