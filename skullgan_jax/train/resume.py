"""Where a run starts, and whether it may go on from there."""

import contextlib
import dataclasses
import math
import time

import jax
import numpy as np

from skullgan_jax.command.progress import say
from skullgan_jax.data import fingerprint
from skullgan_jax.errors import InputError
from skullgan_jax.machine import places
from skullgan_jax.model import checkpoint
from skullgan_jax.model.load import is_there, load
from skullgan_jax.nets.pair import quick_to_compile
from skullgan_jax.processes import distributed
from skullgan_jax.train import ranges, relativistic, sharding, state
from skullgan_jax.train.fields import flat
from skullgan_jax.train.recipe import Relativistic

# What may differ when a run is resumed: how long it lasts, what is shown and kept, where files and weights lie.
_FREE = (
    "epochs",
    "data.path",
    "log_every",
    "sample_every",
    "checkpoint_every",
    "final_slices",
    "patience",
    "shard_state",
)
# Where a run starts: of no account once it has a checkpoint of its own.
_START = ("pretrained", "checkpoint", "skip_damaged")
_SEEN_SECONDS = 60  # after which a network filesystem shows all hosts the same


def check(plan, workdir) -> None:
    """Refuse, before anything is made, a start that is not there.

    Raises:
      InputError: the weights or the checkpoint to start from are missing, or nothing is left to be done.
    """
    config, where = plan.config, plan.config.checkpoint
    if not distributed.is_first() or checkpoint.exists(workdir):
        return  # what the others see may be old
    if where:
        steps = checkpoint.listed(where)
        if not steps:
            raise InputError(f"--config.checkpoint={where}: holds no checkpoint; give a training workdir")
        with contextlib.suppress(checkpoint.Damaged), places.opened(where) as place:  # told when it is read
            check_same(plan, checkpoint.Checkpoints(place, create=False).meta(max(steps)), where)
        if max(steps) >= plan.total:
            raise InputError(
                f"--config.checkpoint={where}: has done {max(steps)} steps, all of the {plan.total} of this run; give "
                f"more than --config.epochs={config.epochs}"
            )
    elif config.pretrained and not is_there(config.pretrained):
        raise InputError(
            f"--config.pretrained={config.pretrained}: no model here; give a model directory or a training workdir, or "
            "the word starter"
        )


def known(where) -> dict[int, dict[str, float]]:
    """The checkpoints of a workdir, by what the first process of a job sees."""
    return dict(distributed.from_first("checkpoints", list(checkpoint.listed(where).items())))


def initial_state(plan, checkpoints, workdir, like):
    """The resume ladder: this workdir, else a given checkpoint, else given weights, else scratch.

    What has changed since, and may, is said and put on record in the plan's meta.

    Returns:
      The state, with shapes and shardings of `like`, and its step.
    """
    config = plan.config
    if checkpoints.latest is not None:
        found, step = _newest(plan, checkpoints, workdir, like)
        say(f"resuming {workdir} at step {step}")
        return found, step
    if config.checkpoint:
        with places.opened(config.checkpoint) as place:
            given = checkpoint.Checkpoints(place, create=False, known=known(place))
            found, step = _newest(plan, given, place, like)
        say(f"continuing from step {step} of {config.checkpoint}")
        return found, step
    if config.pretrained:
        return _pretrained(plan, like), 0
    say("starting from scratch")
    return scratch(plan, like), 0


def scratch(plan, like):
    """A state with the weights that its pair and recipe begin with, as `initial_state` gives it."""
    seed = plan.config.seed

    def begin():
        g_params, *others = plan.pair.init(seed)
        if isinstance(plan.recipe, Relativistic):
            g_params = relativistic.with_open_tail(g_params, seed)
        return _fresh(plan, g_params, *others)

    return quick_to_compile(begin, out_shardings=sharding.of(like))()


def _newest(plan, checkpoints, where, like):
    """The state of the newest checkpoint that is good, and its step; past a damaged one only if that is asked for."""
    damaged = {}
    for step in checkpoints.steps:
        try:
            saved = _on_all(lambda step=step: _meta(checkpoints, step))
            changes = check_same(plan, saved, where)
            found = _on_all(lambda step=step: checkpoints.restore(step, like))
            break
        except checkpoint.Damaged as error:
            damaged[step] = error
    else:
        raise InputError(f"{damaged[max(damaged)]}; no good checkpoint is there: start anew in another --workdir")
    if damaged and not plan.config.get("skip_damaged", False):
        raise InputError(
            f"{damaged[max(damaged)]}; the checkpoint of step {step} is good: to go on from it give "
            "--config.skip_damaged=True"
        )
    for bad, error in damaged.items():
        aside = checkpoints.set_aside(bad)
        say(f"{error}; going on from step {step}" + (f"; the damaged one is {aside} now" if aside else ""))
    record = list(saved.get("changes", ()))
    if changes:
        told = ", ".join(f"{field} is {new}, not {old}" for field, (old, new) in changes.items())
        say(f"{where}: from step {step} on {told}")
        record.append({"step": step} | {field: [_for_json(old), new] for field, (old, new) in changes.items()})
    if record:
        plan.meta["changes"] = record
    if "recipe.lr" in changes:
        found = _with_rate(found, *changes["recipe.lr"])
    if "data.pixel_mm" in changes:  # which a model takes of the checkpoint, and no step of training does
        for each in checkpoints.steps:
            with contextlib.suppress(checkpoint.Damaged):
                about = checkpoints.meta(each)
                about["config"]["data"]["pixel_mm"] = plan.config.data.pixel_mm
                checkpoints.write_meta(each, about | {"pixel_mm": plan.meta["pixel_mm"], "changes": record})
    return found, step


def _for_json(value):
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _meta(checkpoints, step: int) -> dict:
    until = time.monotonic() + _SEEN_SECONDS
    while not checkpoints.there(step) and not distributed.is_first() and time.monotonic() < until:
        time.sleep(1)
    return checkpoints.meta(step)


def _on_all(read):
    """What every process reads, or Damaged in all of them."""
    found, reason = None, None
    try:
        found = read()
    except checkpoint.Damaged as error:
        reason = str(error)
    if told := [reason for reason in distributed.gather(reason) if reason]:
        raise checkpoint.Damaged(told[0])
    return found


def _with_rate(now, old: float, new: float):
    """The state with both rates as they would be, had the run begun with another; where they are in it."""
    if not isinstance(now, state.PlateauState):
        return now

    def of(plateau):
        lr = plateau.lr * np.float32(new / old) if ranges.fits("recipe.lr", old) else np.float32(new)
        return plateau._replace(lr=jax.device_put(lr, plateau.lr.sharding))

    return dataclasses.replace(now, g_plateau=of(now.g_plateau), d_plateau=of(now.d_plateau))


def _pretrained(plan, like):
    where, pair, seed = plan.config.pretrained, plan.pair, plan.config.seed
    given = load(where)
    theirs = dataclasses.replace(given.pair, dtype=pair.dtype)
    # The relativistic recipe's discriminator is its own, and learns sooner than the generator does.
    anew = isinstance(plan.recipe, Relativistic) and (given.d_params is None or theirs != pair)
    if anew:
        theirs = dataclasses.replace(theirs, ndf=pair.ndf, d_norm=pair.d_norm, d_batch_std=pair.d_batch_std)
    elif given.d_params is None:
        raise InputError(
            f"--config.pretrained={where}: has no discriminator to train on with; convert both: "
            "python -m skullgan_jax.convert --generator=netG.pth --discriminator=netD.pth --output=models/pair"
        )
    elif theirs.d_norm != pair.d_norm:
        raise InputError(
            f"--config.pretrained={where}: its discriminator has no BatchNorm, and that of this recipe has; "
            "go on with --config=configs/small_data.py"
        )
    if theirs != pair:
        raise InputError(
            f"--config.pretrained={where}: another architecture ({_sizes(given.pair)}) than this "
            f"config's ({_sizes(pair)}); set --config.model to its sizes"
        )
    if anew:
        why = "it has none" if given.d_params is None else "its own is of another kind or width"
        say(f"starting from the generator of {where}, with a fresh discriminator ({why})")
    else:
        say(f"starting from the weights of {where}")

    def begin(g_params, g_stats, d_params, d_stats):
        return _fresh(plan, g_params, g_stats, *(pair.init(seed)[2:] if anew else (d_params, d_stats)))

    weights = (given.g_params, given.g_stats, *((None, None) if anew else (given.d_params, given.d_stats)))
    return jax.jit(begin, out_shardings=sharding.of(like))(*weights)


def _fresh(plan, *weights):
    return state.create(*weights, recipe=plan.recipe)


def _sizes(pair) -> str:
    return f"nc={pair.nc} nz={pair.nz} ngf={pair.ngf} ndf={pair.ndf}"


def check_same(plan, saved: dict, where) -> dict[str, list]:
    """Refuse to resume with a changed config or on other data, naming every difference.

    Args:
      plan: of this run.
      saved: what the checkpoint has besides its state.
      where: it lies.

    Returns:
      Field -> [what it was, what it is] of what may change, on record: a rate that is lowered, as after a NaN, and what
      was out of its range.
    """
    meta = plan.meta
    new, old = (ranges.LATER | flat(each["config"]) for each in (meta, saved))
    different = [k for k in sorted(new.keys() | old.keys()) if k not in _FREE + _START and new.get(k) != old.get(k)]
    changes = {k: [old[k], new[k]] for k in different if k in old and k in new and _may_change(k, old[k], new[k])}
    if refused := [k for k in different if k not in changes]:
        listed = ", ".join(f"{k} was {old.get(k)!r} now {new.get(k)!r}" for k in refused)
        raise InputError(
            f"{where}: the config changed since its checkpoint: {listed}; change it back or use another --workdir"
        )
    before, now = saved["data"], meta["data"]
    was = before["fingerprint"]
    if was != now["fingerprint"] and fingerprint.known(was, plan.data.images, plan.data.calibration):
        now = now | {"fingerprint": was}  # as it was computed then
    for name, one, other in (("data", before, now), ("calibration", saved["calibration"], meta["calibration"])):
        if one != other:
            raise InputError(
                f"{where}: the data changed since its checkpoint: {name} was {one} now {other}; "
                "give the same data or use another --workdir"
            )
    return changes


def _may_change(field: str, old, new) -> bool:
    return not ranges.fits(field, old) or (field == "recipe.lr" and new < old)
