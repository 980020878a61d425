"""Checkpoints of a run, by Orbax: the latest and the best, written asynchronously and atomically.

Two are kept in <workdir>/checkpoints: the latest, from which the run resumes exactly, and the one with the lowest
`swd`. A new one is complete under its final name before an old one goes, so a full disk or a kill costs at most the one
being written.
"""

import contextlib
import functools
import logging
import os
import pathlib
import sys

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from skullgan_jax import errors


class Checkpoints:
    """The checkpoints of one workdir; a step is how many steps were done when it was saved."""

    def __init__(self, workdir: str | os.PathLike, *, create: bool = True):
        self.folder = pathlib.Path(workdir).absolute() / "checkpoints"
        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(1),
                checkpoint_managers.BestN(
                    get_metric_fn=_swd, reverse=True, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        with quiet_libraries():  # Orbax warns that it will only read
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=ocp.CheckpointManagerOptions(
                    create=create,
                    read_only=not create,
                    cleanup_tmp_directories=create,
                    preservation_policy=keep,
                    best_fn=_swd,
                    best_mode="min",
                    keep_checkpoints_without_metrics=False,
                    multiprocessing_options=ocp.options.MultiprocessingOptions() if create else _alone(),
                ),
                item_names=("state", "meta"),
            )

    def save(self, state, meta: dict, *, swd: float | None) -> None:
        """Start saving state (a pytree of arrays with a `step`); returns once the arrays may be overwritten.

        Args:
          state: a TrainState.
          meta: JSON: what a model needs besides its weights.
          swd: the metric; None for a checkpoint that cannot become the best.

        Raises:
          InputError: this or the previous save failed, e.g. for lack of space.
        """
        step = int(state.step)
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)),
                metrics=None if swd is None else {"swd": swd},
            )
        except Exception as e:
            raise self._failed(e) from e

    def wait(self) -> None:
        """Return when nothing is being written. Raises InputError as `save` does."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except Exception as e:
            raise self._failed(e) from e

    def _failed(self, error) -> errors.InputError:
        self._manager.reload()
        reason = " ".join(str(error).split())[:200]
        good = "no checkpoint is there yet" if self.latest is None else f"the checkpoint of step {self.latest} is good"
        return errors.InputError(
            f"{self.folder}: saving a checkpoint failed ({reason}); {good}: "
            "free some space and run the same command again"
        )

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step with the lowest swd, else the latest."""
        best = self._manager.best_step()
        return self.latest if best is None else best

    def meta(self, step: int) -> dict:
        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

    def restore(self, step: int, like):
        """The state saved at a step, as arrays with the shapes, dtypes and shardings of `like`."""
        return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))).state

    def restore_parts(self, step: int, like: dict) -> dict:
        """Some fields of the state, by name, e.g. the weights without Adam's moments."""
        arguments = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), like)
        item = ocp.args.PyTreeRestore(item=like, restore_args=arguments, partial_restore=True)
        return self._manager.restore(step, args=ocp.args.Composite(state=item)).state

    def close(self) -> None:
        self._manager.close()


@contextlib.contextmanager
def quiet_libraries():
    """What goes wrong with checkpoints is told by exceptions alone.

    Libraries log it, too, and TensorStore prints that its other writes find nobody waiting; for as long as this lasts
    they are not heard.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels, hook = [logger.level for logger in loggers], sys.unraisablehook
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    sys.unraisablehook = functools.partial(_unraisable, hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _unraisable(others, event) -> None:
    if not (event.exc_type is RuntimeError and str(event.exc_value) == "Event loop is closed"):
        others(event)


def _alone() -> ocp.options.MultiprocessingOptions:
    """Of a job of several processes any may read what lies there, without waiting for the others."""
    mine = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"reader_{mine}"
    )


def _swd(metrics: dict) -> float:
    return metrics["swd"]


def exists(workdir: str | os.PathLike) -> bool:
    """Whether a workdir holds a complete checkpoint."""
    folder = pathlib.Path(workdir) / "checkpoints"
    return folder.is_dir() and any(p.name.isdigit() for p in folder.iterdir())
