"""What a run would be, with nothing written: its config, data, devices, memory and time."""

import pathlib
import statistics
import textwrap
import time

import jax

from skullgan_jax.command.progress import duration
from skullgan_jax.model import checkpoint
from skullgan_jax.processes import distributed
from skullgan_jax.train import program, resume, setup
from skullgan_jax.train.fields import flat

_STEPS = 5  # that are timed


def dry_run(config, workdir: str) -> None:
    """Print what `train` would do with the same arguments. All processes of a job call it; the first one prints.

    A few steps are done on a state that is thrown away.

    Raises:
      InputError: as `train` would.
    """
    plan = distributed.agree(lambda: setup.prepare(config), same=setup.identity)
    at = program.places(plan)
    now, start = resume.initial_state(plan, checkpoint.Checkpoints(workdir, create=False), workdir, at.like)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(at.like)) / 1e9
    compiled = program.compiled(plan, at)
    each = _seconds(plan, at, compiled.step, now)
    if not distributed.is_first():
        return
    data, steps = plan.data, plan.total - start
    of = data.calibration
    for name, told in (
        ("config", "  ".join(f"{field}={value}" for field, value in flat(config.to_dict()).items())),
        (
            "data",
            f"{len(data.images)} {data.name} images, pixels of {data.pixel_mm:g} mm, calibration {of.hu_min:g} to "
            f"{of.hu_max:g}, fingerprint {data.fingerprint}",
        ),
        ("devices", f"{setup.hardware()}, {plan.pair.dtype}"),
        (
            "memory",
            f"{compiled.gigabytes} in a step; {2 * size:.2f} GB on disk for two checkpoints in {pathlib.Path(workdir)}",
        ),
        (
            "time",
            f"{duration(compiled.seconds + steps * each)}: {compiled.seconds:.0f} s to compile, and steps {start + 1} "
            f"to {plan.total} of {each:.3g} s each, the median of {_STEPS} done here; pictures, checkpoints and the "
            f"{config.final_slices} final slices come on top",
        ),
    ):
        print(*textwrap.wrap(told, 120, initial_indent=f"{name:9}", subsequent_indent=" " * 9), sep="\n")


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
