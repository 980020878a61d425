"""The training loop. It knows nothing of losses; the step knows nothing of it."""

import dataclasses
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.data.batches import batches, num_steps_per_epoch
from skullgan_jax.data.open import open_data
from skullgan_jax.errors import InputError
from skullgan_jax.machine import files, memory
from skullgan_jax.model import checkpoint, draw
from skullgan_jax.model.load import load
from skullgan_jax.nets import rng
from skullgan_jax.nets.pair import Pair, resolve_dtype
from skullgan_jax.processes import distributed, lock
from skullgan_jax.sampling import formats, job
from skullgan_jax.slices import pictures
from skullgan_jax.slices.size import SIZE
from skullgan_jax.train import monitor, resume, sharding, state
from skullgan_jax.train import swd as metrics
from skullgan_jax.train.step import Recipe, make_train_step
from skullgan_jax.version import __version__

_BLOCK = 256  # final slices that are drawn before they are written


def train(config, workdir: str, *, profile: bool = False, stop=None) -> None:
    """Train the pair as `config` says, from where `workdir` stands to the end.

    All processes of a job call it (see processes/distributed.py); the first one writes and talks.

    Args:
      config: see configs/skull.py.
      workdir: folder of the run, the same for all processes.
      profile: trace a few steps into workdir/profile, for TensorBoard and Perfetto.
      stop: has `is_set()`, e.g. a threading.Event: save and return when it is set.

    Raises:
      InputError: one line on what the user can change.
    """
    workdir = pathlib.Path(workdir)
    pair, recipe, data, meta = distributed.agree(lambda: _prepare(config), same=lambda found: _identity(found[3]))
    own = distributed.agree(lambda: lock.Lock(workdir) if distributed.is_first() else None)
    nonce = distributed.from_first("lock", own and own.nonce)
    distributed.agree(lambda: lock.check_shared(workdir, nonce))
    _cache_compiled(workdir)
    try:
        _train(config, workdir, pair, recipe, data, meta, profile, stop)
    finally:
        if own:
            own.release()


def _prepare(config):
    """What can be wrong with a config and its data, before anything is made: (pair, recipe, data, meta)."""
    num = jax.device_count()
    pair, recipe = _pair(config), Recipe(**config.recipe)
    if config.batch_size < 2 or config.batch_size % num:
        raise InputError(
            f"--config.batch_size={config.batch_size}: must be 2 or more and divisible by the "
            f"{num} devices{_of_processes()}; try {max(2, num * round(config.batch_size / num), num)}"
        )
    at_least_1 = ("epochs", "data.num", "log_every", "sample_every", "checkpoint_every", "judge_slices")
    values = resume.flat(config.to_dict())
    for name, least in (*((name, 1) for name in at_least_1), ("seed", 0), ("final_slices", 0)):
        if values[name] < least:
            raise InputError(f"--config.{name}={values[name]}: must be {least} or more")
    data = open_data(config.data, config.seed)
    num_steps_per_epoch(len(data.images), config.batch_size)
    meta = {
        "config": config.to_dict(),
        "pair": dataclasses.asdict(pair),
        "data": {"name": data.name, "num": len(data.images), "fingerprint": data.fingerprint},
        "calibration": data.calibration.to_dict(),
        "pixel_mm": data.pixel_mm,
        "version": __version__,
    }
    return pair, recipe, data, meta


def _identity(meta: dict) -> dict:
    """What the processes of a job must have in common; where their copies of the data lie may differ."""
    about = resume.flat({k: meta[k] for k in ("config", "data", "calibration", "version")})
    versions = {"jax": jax.__version__, "devices of a process": jax.local_device_count()}
    return {k: v for k, v in about.items() if k != "config.data.path"} | versions


def _cache_compiled(workdir: pathlib.Path) -> None:
    """Keep compiled programs in the workdir, so that a run that resumes need not wait for them."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled" / memory.kind()))
        compilation_cache.reset_cache()  # JAX looks for the folder when it first compiles


def _train(config, workdir, pair, recipe, data, meta, profile, stop) -> None:
    devices = jax.devices()
    steps_per_epoch = num_steps_per_epoch(len(data.images), config.batch_size)
    total = config.epochs * steps_per_epoch
    mesh = sharding.mesh()
    everywhere, by_image = sharding.everywhere(mesh), sharding.by_image(mesh)
    shapes = jax.eval_shape(lambda: state.create(*pair.init(0), adam=recipe.adam, lr=recipe.lr))
    like = sharding.placed(shapes, mesh, shard_state=config.shard_state)
    layout = sharding.of(like)
    checkpoints = checkpoint.Checkpoints(workdir)
    now, start = resume.initial_state(config, pair, recipe, meta, checkpoints, workdir, like)
    step_fn = make_train_step(pair, recipe, seed=config.seed, steps_per_epoch=steps_per_epoch)
    step_fn = jax.jit(
        sharding.gathered(step_fn, mesh) if config.shard_state else step_fn,
        in_shardings=(layout, by_image),
        out_shardings=(layout, everywhere),
        donate_argnums=0,
    )
    grid_fn, judge_fn = _grid_and_judge(config, pair, data)
    say(
        f"{len(data.images)} {data.name} images, calibration {data.calibration.hu_min:g} to "
        f"{data.calibration.hu_max:g} -> [-1, 1]; {_hardware()}, {pair.dtype}; "
        f"{steps_per_epoch} steps per epoch of batch {config.batch_size}, {total} in all"
    )
    if start < total:
        if distributed.is_first():
            files.write_json(workdir / "config.json", meta["config"])
        step_fn = _compile(step_fn, now, config.batch_size, by_image)
    stream = batches(
        data.images,
        data.calibration,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start,
        num_steps=total,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    watch = (monitor.Monitor if distributed.is_first() else monitor.Silent)(
        workdir,
        start_step=start,
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        batch_size=config.batch_size,
        log_every=config.log_every,
    )
    stop = distributed.Stop(stop)
    tracer = monitor.Tracer(workdir / "profile", start) if profile and distributed.is_first() else None

    def save(step, judged: bool):
        watch.flush()  # a NaN among the steps so far stops the run before it is saved
        swd = float(judge_fn(now.g_params, now.g_stats)) if judged else None
        if judged:
            watch.judged(step, swd)
        memory.release_memory()
        checkpoints.save(now, meta, swd=swd)
        if devices[0].platform == "cpu":
            # What is being written is a copy of the state, 2.4 GB; no step beside it, which needs 3 GB itself.
            checkpoints.wait()
            memory.release_memory()

    with stop:
        try:
            in_flight = []
            for step in range(start, total + 1):
                epoch, at_epoch = step // steps_per_epoch, step % steps_per_epoch == 0
                # 1. Evaluate and 2. checkpoint: a checkpoint at a step means that many steps and batches are done.
                if at_epoch and (epoch % config.sample_every == 0 or step == total):
                    watch.picture(step, grid_fn(now.g_params, now.g_stats), data.calibration)
                due = at_epoch and step > start and epoch % config.checkpoint_every == 0
                if due or (step == total and step > start):
                    save(step, judged=True)
                if step == total:
                    break
                if stop.before(step):
                    if step > start and not due:
                        save(step, judged=False)
                    checkpoints.wait()
                    watch.flush()
                    saved = ", saved" if step > start else ""
                    say(f"stopped by {stop.asked} after step {step}{saved}; run the same command again to go on")
                    return
                # 3. Next batch.
                batch = jax.make_array_from_process_local_data(by_image, next(stream))
                # 4. Step. Two are queued at most, so that the host neither waits for a step nor runs away from it.
                now, values = step_fn(now, batch)
                in_flight.append(values["loss_g"])
                if tracer:
                    tracer(step + 1, values["loss_g"])
                if len(in_flight) > 2:
                    in_flight.pop(0).block_until_ready()
                # 5. Write.
                watch.step(step + 1, values)
            checkpoints.wait()
            watch.flush()
        except monitor.NotFiniteError as error:
            raise InputError(
                f"{workdir}: not finite at {error}; {_kept(checkpoints)}; lower --config.recipe.lr or look at the data"
            ) from None
        except OSError as error:
            raise _cannot_write(workdir, error, checkpoints) from error
        finally:
            stream.close()
            watch.close()
            if tracer:
                tracer.close()
    if not distributed.is_first():
        checkpoints.close()
        return
    try:
        _finish(config, workdir, checkpoints)
    except OSError as error:
        raise _cannot_write(workdir, error, checkpoints) from error


def _kept(checkpoints) -> str:
    """What is left of a run that fails; raises if it was a checkpoint that failed."""
    checkpoints.wait()
    good = checkpoints.latest
    return f"the last good checkpoint is step {good}" if good is not None else "no checkpoint was saved yet"


def _cannot_write(workdir, error: OSError, checkpoints) -> InputError:
    return InputError(
        f"{workdir}: cannot be written ({error.strerror or error}); {_kept(checkpoints)}; "
        "free some space and run the same command again"
    )


def _pair(config) -> Pair:
    fields = config.model.to_dict()
    fields["dtype"] = resolve_dtype(fields["dtype"])
    if fields["dtype"] not in ("float32", "bfloat16"):
        raise InputError(f"--config.model.dtype={fields['dtype']}: give auto, float32 or bfloat16")
    if fields["nc"] != 1:
        raise InputError(f"--config.model.nc={fields['nc']}: the data have one channel; give 1")
    pair = Pair(**fields)
    pair.graphs()  # refuses sizes that the architecture cannot have
    return pair


def _compile(step_fn, now, batch_size: int, by_image):
    """Compile before the clock of the progress line starts, and say how long that took and what a step needs."""
    started = time.monotonic()
    image = jax.ShapeDtypeStruct((batch_size, SIZE, SIZE, 1), jnp.float32, sharding=by_image)
    compiled = step_fn.lower(now, {"real": image, "blur": image}).compile()
    used = compiled.memory_analysis()
    needed = ""
    if used is not None:
        needed = f"; {(used.argument_size_in_bytes + used.temp_size_in_bytes) / 1e9:.2f} GB a device"
    say(f"compiled the step in {time.monotonic() - started:.0f} s{needed}")
    memory.release_memory()
    return compiled


def _hardware() -> str:
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}{_of_processes()}"


def _of_processes() -> str:
    return f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""


def _grid_and_judge(config, pair, data):
    """Two functions of the generator's weights: a grid of samples from fixed latents, and the checkpoint metric."""
    generate = draw.generator(pair)
    num = -(-min(config.judge_slices, len(data.images)) // draw.BATCH) * draw.BATCH
    chosen = np.linspace(0, len(data.images) - 1, num).astype(int)
    reals = data.calibration.to_unit(np.stack([data.images[i] for i in chosen]))
    swd = jax.jit(metrics.swd)

    def drawn(params, stats, stream, start):
        indices = start + jnp.arange(draw.BATCH)
        return generate(params, stats, rng.stream(config.seed, stream), indices)

    def grid(params, stats):
        return drawn(params, stats, "grid", 0)

    def judge(params, stats):
        fakes = [drawn(params, stats, "judge", i)[..., 0] for i in range(0, num, draw.BATCH)]
        return swd(rng.stream(config.seed, "swd"), reals, jnp.concatenate(fakes))

    return grid, judge


def _finish(config, workdir, checkpoints) -> None:
    """Curve, progress picture, exported model and sample slices of the best checkpoint."""
    pictures.curves(workdir / "curves.png", monitor.read_records(workdir / "metrics.jsonl"))
    pictures.progress(workdir / "progress.png", sorted((workdir / "samples").glob("[0-9]*.png")))
    best = checkpoints.best
    checkpoints.close()
    trained = load(workdir)
    trained.compute_standing(verbose=True)
    trained.save(workdir / "model")
    say(f"exported the best checkpoint by swd (step {best}) to {workdir / 'model'}")
    if not config.final_slices:
        return
    drawn = trained.sampler(seed=config.seed).ranges(
        ((i, min(i + _BLOCK, config.final_slices)) for i in range(0, config.final_slices, _BLOCK)),
        Progress("sampled", config.final_slices, "slices"),
    )
    about = job.describe(trained, model=workdir.name, seed=config.seed) | {"num": config.final_slices}
    formats.write("npy", str(workdir / "slices.npy"), drawn, about)
    say(f"wrote {workdir / 'slices.npy'}; look at {workdir / 'slices.png'}, progress.png and curves.png beside it")
