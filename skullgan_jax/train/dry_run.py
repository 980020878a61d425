"""What a run would be, with nothing written: its config, data, devices, memory and time."""

import contextlib
import statistics
import textwrap
import time

import jax

from skullgan_jax.command.progress import duration
from skullgan_jax.machine import places
from skullgan_jax.machine.programs import kept
from skullgan_jax.model import checkpoint
from skullgan_jax.processes import distributed
from skullgan_jax.train import program, resume, setup
from skullgan_jax.train.fields import flat

_STEPS = 5  # that are timed


@kept()
def dry_run(config, workdir: str) -> None:
    """Print what `train` would do with the same arguments. All processes of a job call it; the first one prints.

    A few steps are done on a state that is thrown away.

    Raises:
      InputError: as `train` would.
    """
    plan = distributed.agree(lambda: setup.prepare(config), same=setup.identity)
    distributed.agree(lambda: resume.check(plan, workdir))
    at = program.places(plan)
    with places.opened(workdir) as place:
        known = resume.known(place)
        with contextlib.closing(checkpoint.Checkpoints(place, create=False, known=known)) as checkpoints:
            now, start = resume.initial_state(plan, checkpoints, place, at.like)
    compiled = program.compiled(plan, at)
    each = _seconds(plan, at, compiled.step, now)
    if not distributed.is_first():
        return
    data, scale = plan.data, plan.data.calibration
    state_gb = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(at.like)) / 1e9
    left = duration(compiled.seconds + (plan.total - start) * each)
    for name, told in {
        "config": "  ".join(f"{field}={value}" for field, value in flat(config.to_dict()).items()),
        "data": f"{len(data.images)} {data.name} images, pixels of {data.pixel_mm:g} mm, "
        f"calibration {scale}, fingerprint {data.fingerprint}",
        "devices": f"{setup.hardware()}, {plan.pair.dtype}",
        "memory": f"{compiled.gigabytes} in a step; {2 * state_gb:.2f} GB on disk for the two checkpoints of {workdir}",
        "time": f"{left}: {compiled.seconds:.0f} s to compile, and {plan.total - start} of {plan.total} steps of "
        f"{each:.3g} s each, the median of {_STEPS} done here; pictures, checkpoints and the {config.final_slices} "
        "final slices come on top",
    }.items():
        whole = {"break_long_words": False, "break_on_hyphens": False}  # paths stay as they can be copied
        print(textwrap.fill(told, 120, initial_indent=f"{name:9}", subsequent_indent=" " * 9, **whole))


def _seconds(plan, at: program.Places, step, now) -> float:
    """Of a step on the plan's own batches, in the middle of a few."""
    times, stream = [], plan.batches(0)
    for _ in range(1 + _STEPS):  # the first one warms up
        began = time.perf_counter()
        now, values = step(now, jax.make_array_from_process_local_data(at.by_image, next(stream)))
        jax.block_until_ready(values)
        times.append(time.perf_counter() - began)
    stream.close()
    return statistics.median(times[1:])
