"""Checkpoints of a run, written by Orbax, asynchronously and whole: the latest and the best.

Two are kept in <workdir>/checkpoints: the latest, from which the run resumes exactly, and the best. The best is the one
with the lowest KID of those whose coverage is at least 0.9 of the run's highest so far; where one of them was judged by
SWD alone, as those of before were, it is the one with the lowest SWD. A new one is complete under its final name before
an old one goes, so a full disk or a kill costs at most the one being written. With each array its CRC-32 is kept, and
compared when it is read. For a workdir in a bucket the first process writes all of each array, and sends it when it is
written (see machine/places.py).
"""

import contextlib
import functools
import json
import logging
import os
import pathlib
import re
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import TYPE_CHECKING, TypeVar

import jax
import numpy as np

from skullgan_jax.errors import InputError, MachineError, Told, by_cause
from skullgan_jax.machine import files, places

if TYPE_CHECKING:
    import orbax.checkpoint as ocp  # a quarter of a second, which a model directory does without

T = TypeVar("T")
ELIGIBLE = 0.9  # of the highest coverage: what a checkpoint must have to be the best
_PIECE = 1 << 26  # bytes of an array that one core takes at a time
_LATE_SECONDS = 0.5  # in which reads beside one that fails come to their end, while nobody hears them
_LEFT = re.compile(r"\d+\.(removed|orbax-checkpoint-tmp.*)")  # what a killed writer left


class Damaged(InputError):
    """A checkpoint is not, or not all of, what was saved; names its file."""


class Checkpoints:
    """The checkpoints of one workdir; a step is how many steps were done when it was saved.

    Args:
      workdir: of the run: a path, a URL, or the place where it lies.
      create: to write, too, by all processes of a job together; else it only reads, each process for itself.
      known: what `listed` gave the first of several processes: one directory may look different to each of them.
    """

    def __init__(
        self,
        workdir: str | os.PathLike | places.Place,
        *,
        create: bool = True,
        known: Mapping[int, Mapping[str, float]] | None = None,
    ):
        self.place = places.at(workdir)
        self.folder = _folder(self.place)
        if create and jax.process_index() == 0:
            self.place.clean("checkpoints", _LEFT)
        self._known = dict(listed(self.place) if known is None else known)
        self._create, self._writer, self._saving = create, None, {}

    @property
    def steps(self) -> list[int]:
        """What is there, the latest first."""
        return sorted(self._known, reverse=True)

    @property
    def latest(self) -> int | None:
        return max(self._known, default=None)

    @property
    def best(self) -> int | None:
        """The step that the rule above chooses, else the latest."""
        judged = {step: found for step, found in self._known.items() if "swd" in found}
        if not judged:
            return self.latest
        if not all("kid" in found for found in judged.values()):
            return min(judged, key=lambda step: judged[step]["swd"])
        least = ELIGIBLE * self._best_coverage()
        eligible = [step for step, found in judged.items() if found["coverage"] >= least]
        return min(eligible or judged, key=lambda step: judged[step]["kid"])

    def _best_coverage(self) -> float:
        """Of all checkpoints of the run so far, those that were not kept, too."""
        return max((found["best_coverage"] for found in self._known.values() if "best_coverage" in found), default=0.0)

    def judged(self, step: int) -> dict[str, float]:
        """What a checkpoint was judged by, {"swd": ...} and more; nothing of one that was not."""
        return {name: value for name, value in self._known[step].items() if name != "best_coverage"}

    def save(self, state, meta: dict, *, judged: Mapping[str, float] | None) -> None:
        """Start saving state (a pytree of arrays with a `step`); returns once the arrays may be overwritten.

        Args:
          state: a TrainState.
          meta: JSON: what a model needs besides its weights.
          judged: swd, kid and coverage, by which the best is chosen, and what else is to be kept of them; None for a
            checkpoint that cannot become the best.

        Raises:
          MachineError: this or the previous save failed, e.g. for lack of space.
          InputError: nothing may be written there.
        """
        import orbax.checkpoint as ocp

        step = int(state.step)
        try:
            self._settle()
            numbers = dict(judged or {})
            if best := max(self._best_coverage(), numbers.get("coverage", 0.0)):
                numbers["best_coverage"] = best
            together = self.place.mounted  # each process writes what it has
            if not together:
                state = jax.device_get(whole(state))  # Orbax would ask the others for their part of a jax.Array
            signed = _signed(meta | {"judged": numbers}, _sums(state))
            if together or jax.process_index() == 0:
                if self._writer is None:
                    self._writer = _writer(self.folder, together)
                self._writer.save(
                    self.folder / str(step),
                    args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(signed)),
                )
                self.place.put(_name(step), self._written)
        except Exception as e:
            raise self._failed(e) from e
        self._saving = {step: numbers}

    def wait(self) -> None:
        """Return when nothing is being written. Raises as `save` does."""
        try:
            self._settle()
        except Exception as e:
            raise self._failed(e) from e

    def _settle(self) -> None:
        """Have what was being saved under its final name, and then of the others only the best."""
        if self._writer is not None:
            self._written()
            self.place.wait()
        if not self._saving:
            return
        self._known |= self._saving
        self._saving = {}
        if jax.process_index() == 0:
            files.flush(self.folder, inside=False)
        for step in set(self._known) - {self.latest, self.best}:
            del self._known[step]
            if jax.process_index() == 0:
                self.place.remove(_name(step))

    def _written(self) -> None:
        self._writer.wait_until_finished()
        self._writer.check_for_errors()

    def there(self, step: int) -> bool:
        """Whether a checkpoint is there by now, or still."""
        return self.place.exists(_name(step))

    def _failed(self, error) -> Told:
        self._saving = {}
        reason = " ".join(str(error).split())[:200]
        good = "no checkpoint is there yet" if self.latest is None else f"the checkpoint of step {self.latest} is good"
        line = (
            f"{self.folder}: saving a checkpoint failed ({reason}); {good}: "
            "free some space and run the same command again"
        )
        return by_cause(error, line, otherwise=MachineError)

    def meta(self, step: int) -> dict:
        """What was saved with the state. Raises Damaged."""
        return _read(self.place, step)[0]

    def write_meta(self, step: int, meta: dict) -> None:
        """Put another in its place, where this writes. Raises OSError, Damaged."""
        if not self._create or jax.process_index() != 0:
            return
        _, sums, judged = _read(self.place, step)
        written = _meta_of(self.folder / str(step))
        files.write_text(written, json.dumps(_signed(meta | {"judged": judged}, sums)))
        self.place.update(_name(step), written.relative_to(self.folder / str(step)).as_posix())

    def restore(self, step: int, like):
        """The state saved at a step, as arrays with the shapes, dtypes and shardings of `like`. Raises Damaged."""
        return self.restore_parts(step, like, partial=False)

    def restore_parts(self, step: int, like, *, partial: bool = True):
        """Some fields of the state, by name, e.g. the weights without Adam's moments. Raises Damaged."""
        import orbax.checkpoint as ocp

        _, sums, _ = _read(self.place, step)
        folder = self.place.fetch(_name(step)).absolute()
        arguments = jax.tree.map(lambda x: ocp.ArrayRestoreArgs(sharding=x.sharding, dtype=x.dtype), like)
        wanted = ocp.args.PyTreeRestore(item=like, restore_args=arguments, partial_restore=partial)
        alone = _alone()
        handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
        with quiet_libraries(), contextlib.closing(ocp.Checkpointer(handler, multiprocessing_options=alone)) as reader:
            try:
                found = reader.restore(folder / "state", args=wanted)
            except (jax.errors.JaxRuntimeError, MemoryError):
                raise
            except Exception as error:  # whatever a damaged file runs into
                time.sleep(_LATE_SECONDS)
                raise Damaged(_where(folder / "state", error)) from None
        if sums is not None:
            now = _sums(found)
            wrong = [name for name, value in now.items() if sums.get(name) != value]
            if wrong:
                more = f" and {len(wrong) - 1} more" if wrong[1:] else ""
                raise Damaged(f"{folder}/state: damaged ({wrong[0]}{more} not as saved, by its checksum)")
        return found

    def set_aside(self, step: int) -> pathlib.Path | None:
        """Count a checkpoint no more; where this writes, have it under another name, which is returned."""
        del self._known[step]
        if not self._create:
            return None
        if jax.process_index() == 0:
            self.place.rename(_name(step), f"{_name(step)}.damaged")
        return self.folder / f"{step}.damaged"

    def close(self) -> None:
        if self._writer is not None:
            self._settle()
            self._writer.close()


def listed(workdir: str | os.PathLike | places.Place) -> dict[int, dict[str, float]]:
    """Step -> what it was judged by, of the checkpoints that are there; nothing where that cannot be read."""
    found = {}
    with places.opened(workdir) as place:
        for name in place.folders("checkpoints"):
            if name.isdigit():
                try:
                    found[int(name)] = _read(place, int(name))[2]
                except Damaged:
                    found[int(name)] = {}
    return found


def exists(workdir: str | os.PathLike | places.Place) -> bool:
    """Whether a workdir holds a checkpoint."""
    with places.opened(workdir) as place:
        return any(name.isdigit() for name in place.folders("checkpoints"))


def split(path: str | os.PathLike | places.Place) -> tuple[str, int] | None:
    """The workdir and the step of the path or URL of a checkpoint, e.g. runs/skull/checkpoints/1000."""
    found = re.fullmatch(r"(.*?)(?:^|(?<=/))checkpoints/+(\d+)/*", str(path))
    return (found[1] or ".", int(found[2])) if found else None


def read(
    workdir: str | os.PathLike | places.Place, read: Callable[[Checkpoints, int], T], step: int | None = None
) -> T:
    """What `read(checkpoints, step)` makes of a checkpoint: of a given step, else of the best.

    Raises:
      InputError: it is damaged, with the others that are there.
    """
    while True:
        checkpoints = Checkpoints(workdir, create=False)
        at = step
        try:
            if step is None:
                for at in checkpoints.steps:
                    checkpoints.meta(at)  # of a damaged one nobody knows whether it is the best
                at = checkpoints.best
            assert at is not None  # as there is a checkpoint
            return read(checkpoints, at)
        except Damaged as error:
            told = str(error)
            if at is not None and not checkpoints.there(at):  # who trains here has a newer or a better one: look again
                if step is None:
                    continue
                told = f"{checkpoints.folder / str(at)}: was removed meanwhile, by the training that runs there"
                checkpoints = Checkpoints(workdir, create=False)
            others = [f"{checkpoints.folder / str(other)}" for other in checkpoints.steps if other != at]
            offered = f"give {' or '.join(others)} in its place" if others else "there is no other checkpoint"
            raise InputError(f"{told}; {offered}") from None
        except (KeyError, TypeError) as error:
            raise InputError(f"{_meta_of(checkpoints.folder / str(at))}: not of a run ({error!r})") from None


def _folder(place: places.Place) -> pathlib.Path:
    return place.local.absolute() / "checkpoints"


def _name(step: int) -> str:
    return f"checkpoints/{step}"


def _meta_of(folder: pathlib.Path) -> pathlib.Path:
    return folder / "meta" / "metadata"


def _read(place: places.Place, step: int) -> tuple[dict, dict[str, int] | None, dict[str, float]]:
    """(meta, checksums of the arrays, what it was judged by) of a checkpoint. Raises Damaged.

    Those of before had no checksums, and were judged by swd alone.
    """
    folder = place.fetch(_name(step), "met*").absolute()
    path = _meta_of(folder)
    meta = _json(path)
    if "checksums" not in meta:
        if meta.keys() & {"judged", "swd"}:  # which those of before had in a file of their own
            raise Damaged(f"{path}: damaged (its checksums are not there)")
        judged = folder / "metrics" / "metrics"
        return meta, None, _swd(_json(judged) if judged.exists() else {})
    sums = meta.pop("checksums")
    if not isinstance(sums, dict) or _signed(meta, sums.get("arrays"))["checksums"] != sums:
        raise Damaged(f"{path}: damaged (not as saved, by its checksum)")
    found = meta.pop("judged") if "judged" in meta else _swd({"swd": meta.pop("swd")})
    return meta, sums["arrays"], found


def _swd(found: dict) -> dict[str, float]:
    return {"swd": found["swd"]} if found.get("swd") is not None else {}


def _json(path: pathlib.Path) -> dict:
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        if isinstance(value, dict):
            return value
        reason = "holds no fields"
    except FileNotFoundError:
        reason = "missing"
    except ValueError:  # of the JSON, or of UTF-8
        reason = "damaged" if path.stat().st_size else "empty"
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
    raise Damaged(f"{path}: {reason}")


def _signed(meta: dict, sums: dict[str, int] | None) -> dict:
    """Meta with the checksums of the arrays and of itself."""
    text = json.dumps([meta, sums], sort_keys=True)
    return meta | {"checksums": {"arrays": sums, "meta": zlib.crc32(text.encode())}}


def _sums(tree) -> dict[str, int]:
    """Name -> checksum of each array: the CRC-32 of those of its pieces, which all cores take part in."""
    leaves, _ = jax.tree.flatten_with_path(whole(tree))
    sums = {}
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, array in leaves:
            flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            pieces = [flat[i : i + _PIECE] for i in range(0, max(len(flat), 1), _PIECE)]
            sums[jax.tree_util.keystr(path, simple=True, separator="/")] = pool.map(zlib.crc32, pieces)
        return {name: zlib.crc32(np.array(list(found), "<u4")) for name, found in sums.items()}


def whole(tree):
    """The same with all of each array on this process, which collects those that are divided over several."""

    def of(array):
        if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
            return array
        everywhere = jax.sharding.NamedSharding(array.sharding.mesh, jax.sharding.PartitionSpec())
        # On all devices, not on the one that is read: collectives of two programs at once may wait for each other.
        return np.asarray(jax.block_until_ready(placing(everywhere)(array)))

    return jax.tree.map(of, tree)


@functools.cache
def placing(sharding: jax.sharding.Sharding) -> Callable:
    """Jitted: a tree of arrays to the same ones placed so, over processes, too; kept, so that a shape compiles once."""
    return jax.jit(lambda x: x, out_shardings=sharding)


def _writer(folder: pathlib.Path, together: bool) -> "ocp.AsyncCheckpointer":
    """Of all processes of a job, or of this one for itself."""
    import orbax.checkpoint as ocp

    def flush():  # before the new one gets its final name; Orbax calls it in one process
        for entry in folder.glob("*.orbax-checkpoint-tmp*"):
            files.flush(entry)

    options = ocp.options.AsyncOptions(post_finalization_callback=flush)
    processes = ocp.options.MultiprocessingOptions() if together else _alone()
    handler = ocp.CompositeCheckpointHandler(
        "state", "meta", composite_options=ocp.CompositeOptions(multiprocessing_options=processes)
    )
    return ocp.AsyncCheckpointer(handler, async_options=options, multiprocessing_options=processes)


def _alone() -> "ocp.options.MultiprocessingOptions":
    """Of a job of several processes any may read what lies there, without waiting for the others."""
    import orbax.checkpoint as ocp

    mine = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=mine, active_processes={mine}, barrier_sync_key_prefix=f"reader_{mine}"
    )


def _where(folder: pathlib.Path, error: BaseException | None) -> str:
    """The file that an error of reading names, or the folder, and the array, if it names one."""
    text = "_METADATA" if isinstance(error, json.JSONDecodeError) else ""
    path = folder / text
    while error is not None:
        text, error = f"{text} {error}", error.__cause__ or error.__context__
    if named := re.search(re.escape(f"{folder}/") + r"[\w.]+[\w./]*", text):
        path = pathlib.Path(named[0])
    array = re.search(r'"([\w.]+)/[\w.]*" in OCDBT', text)
    return f"{path}: damaged or not all there" + (f" ({array[1].replace('.', '/')})" if array else "")


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
