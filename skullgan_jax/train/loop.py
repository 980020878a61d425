"""The training loop. It knows nothing of losses; the step knows nothing of it."""

import contextlib

import jax

from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError, by_cause
from skullgan_jax.machine import files, memory, places
from skullgan_jax.machine.programs import kept
from skullgan_jax.model import checkpoint
from skullgan_jax.processes import distributed, lock
from skullgan_jax.train import finish, judge, monitor, program, resume, setup, trace

# Bytes of a state that a CPU writes beside the next steps, which cannot take its memory over then: of pairs up to ngf
# 32. The published sizes have 2.4 GB, and a step needs 3 GB more.
BESIDE = 1 << 28


def train(config, workdir: str, *, profile: bool = False, stop=None) -> None:
    """Train the pair as `config` says, from where `workdir` stands to the end.

    All processes of a job call it (see processes/distributed.py); the first one writes and talks.

    Args:
      config: see configs/skull.py.
      workdir: folder of the run, or a URL such as gs://bucket/runs/skull; the same for all processes.
      profile: trace a few steps into workdir/profile, for TensorBoard and Perfetto.
      stop: has `is_set()`, e.g. a threading.Event: save and return when it is set.

    Raises:
      InputError: one line on what the user can change.
      MachineError: one line on what failed, e.g. for lack of space; the same again goes on.
    """
    plan = distributed.agree(lambda: setup.prepare(config), same=setup.identity)
    distributed.agree(lambda: resume.check(plan, workdir))
    with places.opened(workdir) as place, _owned(place), kept(), checkpoint.quiet_libraries():
        checkpoints = checkpoint.Checkpoints(place, known=resume.known(place))
        try:
            if distributed.is_first():
                place.bring("metrics.jsonl", "samples/")
            ended = _train(_Run(plan, place, checkpoints, profile), distributed.Stop(stop))
            checkpoints.close()
            if ended and distributed.is_first():
                finish.finish(config, place, checkpoints.best, checkpoints.judged(checkpoints.best))
            if distributed.is_first():
                place.sync()
        except monitor.NotFiniteError as error:
            raise InputError(
                f"{place}: not finite at {error}; {_kept(checkpoints)}; lower --config.recipe.lr or look at the data"
            ) from None
        except OSError as error:
            line = (
                f"{place}: cannot be written ({error.strerror or error}); {_kept(checkpoints)}; "
                "free some space and run the same command again"
            )
            raise by_cause(error, line) from error


def _train(run: "_Run", stop: distributed.Stop) -> bool:
    """The loop; whether it came to its end. A checkpoint at a step means that many steps and batches are done."""
    with stop, contextlib.closing(run):
        for step in range(run.start, run.total + 1):
            # 1. Evaluate.
            run.evaluate(step)
            # 2. Checkpoint.
            run.checkpoint(step)
            if stop.before(step):  # of the end, too: what is then to do takes its time
                run.leave(step, stop.asked)
                return False
            if step == run.total or run.nothing_better(step):
                break
            # 3. Next batch.
            batch = run.next_batch()
            # 4. Step.
            values = run.step(batch)
            # 5. Write.
            run.write(step + 1, values)
        run.flush()
    return True


class _Run:
    """What the parts of the loop work on: the state and its programs, the batches, checkpoints, and what is written."""

    def __init__(self, plan: setup.Plan, place: places.Place, checkpoints: checkpoint.Checkpoints, profile: bool):
        config, data, first = plan.config, plan.data, distributed.is_first()
        self.plan, self.total, self.checkpoints, self.at = plan, plan.total, checkpoints, program.places(plan)
        self.state, self.start = resume.initial_state(plan, checkpoints, place, self.at.like)
        self.grid_of, self.judge_of = judge.grid_and_judge(config, plan.pair, data)
        say(
            f"{len(data.images)} {data.name} images, calibration {data.calibration} -> [-1, 1]; "
            f"{setup.hardware()}, {plan.pair.dtype}; "
            f"{plan.steps_per_epoch} steps per epoch of batch {config.batch_size}, {self.total} in all"
        )
        if self.start < self.total:
            if first:
                files.write_json(place.local / "config.json", plan.meta["config"])
            compiled = program.compiled(plan, self.at)
            say(f"compiled the step in {compiled.seconds:.0f} s; {compiled.gigabytes}")
            self.step_of = compiled.step
        self.queued, self.settled = [], None
        self.batches = plan.batches(self.start)
        self.watch = (monitor.Monitor if first else monitor.Silent)(
            place.local,
            start_step=self.start,
            total_steps=self.total,
            steps_per_epoch=plan.steps_per_epoch,
            batch_size=config.batch_size,
            log_every=config.log_every,
            remedy=plan.recipe.remedy,
        )
        self.tracer = trace.Tracer(place.local / "profile", self.start) if profile and first else None

    def _due(self, step: int, epochs: int) -> bool:
        """Whether a step ends an epoch that is one of every so many, or the last."""
        epoch, into = divmod(step, self.plan.steps_per_epoch)
        return into == 0 and (epoch % epochs == 0 or step == self.total)

    def _settle(self, step: int) -> None:
        """Wait for the steps so far, and have in the state the statistics that the model is used with.

        What is asked for by the dozen behind a step could take the threads that it needs: see draw.standing_statistics.
        """
        jax.block_until_ready(self.state)
        if self.settled != step:
            self.state, self.settled = program.settled(self.plan, self.at, self.state), step

    @property
    def model(self) -> tuple:
        """The generator's weights and statistics as they are used, all on each device."""
        return program.whole(self.at, (self.state.g_params, self.state.g_stats))

    def evaluate(self, step: int) -> None:
        """Show samples of the same latents."""
        if self._due(step, self.plan.config.sample_every):
            self._picture(step)

    def _picture(self, step: int) -> None:
        self._settle(step)
        self.watch.picture(step, self.grid_of(*self.model), self.plan.data.calibration)

    def checkpoint(self, step: int) -> None:
        """Save, judged, what is not there yet."""
        if step > self.start and self._due(step, self.plan.config.checkpoint_every):
            self._save(step, judged=True)

    def _save(self, step: int, *, judged: bool) -> None:
        self.watch.check()  # a NaN among the steps so far stops the run before it is saved
        self._settle(step)
        numbers = None
        if judged:
            # Rounding may differ from process to process, and with it what each would call the best.
            numbers = distributed.from_first("judged", self.judge_of(*self.model))
            self.watch.judged(step, numbers)
            self.watch.flush()  # a bucket has it no later than the checkpoint
        memory.release_memory()
        self.checkpoints.save(self.state, self.plan.meta, judged=numbers)
        if jax.default_backend() == "cpu" and sum(x.nbytes for x in jax.tree.leaves(self.state)) > BESIDE:
            self.checkpoints.wait()
        memory.release_memory()

    def nothing_better(self, step: int) -> bool:
        """Whether the run ends here, as at its end, since no checkpoint has got better for `patience` epochs."""
        patience = self.plan.config.get("patience", 0)

        def stale() -> bool:
            best = self.checkpoints.best
            return best is not None and step - best >= patience * self.plan.steps_per_epoch

        if not patience or not self._due(step, self.plan.config.checkpoint_every) or not stale():
            return False
        self.checkpoints.wait()  # the one that is being written may be the best
        if not stale():
            return False
        say(
            f"no checkpoint since that of step {self.checkpoints.best} was better, for --config.patience={patience} "
            f"epochs: the run ends after step {step} of {self.total}; raise it to go on, or give 0"
        )
        if not self._due(step, self.plan.config.sample_every):
            self._picture(step)
        return True

    def leave(self, step: int, asked: str) -> None:
        """End before the end, with everything saved."""
        if step > self.start and not self._due(step, self.plan.config.checkpoint_every):
            self._save(step, judged=False)
        self.flush()
        saved = ", saved" if step > self.start else ""
        say(f"stopped by {asked} after step {step}{saved}; run the same command again to go on")

    def next_batch(self) -> dict:
        """The batch of the next step on the devices."""
        return jax.make_array_from_process_local_data(self.at.by_image, next(self.batches))

    def step(self, batch: dict) -> dict:
        """Queue a step and return its metrics. Two wait at most: the host neither waits for one nor runs away."""
        self.state, values = self.step_of(self.state, batch)
        self.queued.append(values["loss_g"])
        if len(self.queued) > 2:
            self.queued.pop(0).block_until_ready()
        return values

    def write(self, done: int, values: dict) -> None:
        """Hand on the metrics of the step that made `done` steps."""
        if self.tracer:
            self.tracer(done, values["loss_g"])
        self.watch.step(done, values)

    def flush(self) -> None:
        """Return when everything is written."""
        self.checkpoints.wait()
        self.watch.flush()

    def close(self) -> None:
        """Leave nothing running."""
        self.batches.close()
        self.watch.close()
        if self.tracer:
            self.tracer.close()


@contextlib.contextmanager
def _owned(place: places.Place):
    """The workdir is this job's, and one to all its processes."""
    own = distributed.agree(lambda: lock.take(place) if distributed.is_first() else None)
    try:
        nonce = distributed.from_first("lock", own and own.nonce)
        distributed.agree(lambda: lock.check_shared(place, nonce))
        yield
    finally:
        if own:
            own.release()


def _kept(checkpoints) -> str:
    """What is left of a run that fails; raises if it was a checkpoint that failed."""
    checkpoints.wait()
    good = checkpoints.latest
    return f"the last good checkpoint is step {good}" if good is not None else "no checkpoint was saved yet"
