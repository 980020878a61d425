"""A job of many rows, done: shards over processes, going on where it was, selecting, and the output put together.

Rows, as samples, are drawn into a store, in the order of their indices. Without a selection a store that was asked for
is that one; any other output is put together from the store `<output>.draws` once it holds enough. Process p of P draws
the shards p, p + P, p + 2 P, ...; none waits for another to draw, and the one that finds all shards there, whole,
completes the output.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Protocol

import numpy as np

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError, MachineError, by_cause
from skullgan_jax.machine import programs
from skullgan_jax.machine.lock import in_turn
from skullgan_jax.machine.paths import is_remote
from skullgan_jax.sampling.job import Job
from skullgan_jax.sampling.rows import Damaged, Rows
from skullgan_jax.sampling.shards import Drawing, Selecting

_TURNS = 3  # what was there, and at the end is not, is drawn again


class Source(Protocol):
    """What rows are made by, and what becomes of them.

    Attributes:
      about: what they are, for the attributes of a store and whatever else is written.
      draws: the same of what is drawn, before any selection.
      left_open: names in them of which those of a store that is there hold.
      store: the kind of store that has them.
      formats: what writes them, where that is no store: a module as sampling/formats.py.
    """

    about: dict
    draws: dict
    left_open: tuple[str, ...]
    store: type[Rows]
    formats: Any

    def check_same(self, there: dict, about: dict, path: str) -> None:
        """InputError where what is there says that it is of other rows."""

    def drawn(self, store: Rows, ranges: Iterator[tuple[int, int]], progress: Callable[[int], object]) -> Iterator:
        """The rows of each range [first, last), one after the other; read as far ahead as it likes.

        progress is called with the number of rows so far.
        """

    def kept(self, drawn):
        """What a store gets of rows that were drawn."""


@programs.kept()
def run(source: Source, job: Job) -> None:
    """Does what this process has to do of the job, and completes the output if nothing is missing then.

    Raises:
      InputError: one line on what the user can change.
      MachineError: one line on what failed; the same again goes on.
    """
    of, turns = source.store.OF, 0
    while turns < _TURNS:
        there = _there(source, job)
        if there is not None:
            source.check_same(there, source.about, job.output)
            if there["complete"] and there["num"] >= job.num and _undamaged(source, job, there):
                say(f"{job.output}: has {there['num']} {of} already")
                return
            if job.form == "zarr" and there["num"] > job.num:
                say(f"{job.output}: is one of {there['num']} {of}; they are completed")
                job, turns = job.of_more(there["num"]), 0
        store = _open_draws(source, job)
        work = (Selecting if job.selects else Drawing)(job, store)
        try:
            if not work.enough():
                _draw(source, store, work)
            if missing := work.missing():
                say(
                    f"process {job.process} of {job.processes} has done its part; {missing} shards of others are not "
                    "there yet: if those do not run any more, give the same command again, with any number of processes"
                )
                return
            if _complete(source, job, there, store, work):
                return
        except Damaged as error:
            say(f"{error}: it is drawn again")
        turns += 1
    raise MachineError(
        f"{job.output}: {of} were written and cannot be read back; see that the disk is sound, and give the same "
        "command again"
    )


def _draw(source: Source, store: Rows, work) -> None:
    """Draws what the work has to do."""
    todo = work.todo()
    first = next(todo, None)
    if first is None:
        return
    with contextlib.closing(_drawn(source, store, work, itertools.chain([first], todo))) as shards:
        for shard, drawn in shards:
            work.add(shard, drawn)
            if work.enough():
                break


def _there(source: Source, job: Job) -> dict | None:
    """What the output that is there says it is; None where nothing is."""
    if job.form == "zarr":
        return source.store.attributes(job.output)
    return source.formats.about(job.output)


def _undamaged(source: Source, job: Job, there: dict) -> bool:
    """Whether a complete output is still as it was written."""
    if job.form != "zarr":
        return source.formats.undamaged(job.output, there)
    try:
        store = source.store(job.output)
    except InputError:
        return False
    return not store.unfinished(store.about["num"])


def _open_draws(source: Source, job: Job) -> Rows:
    """The store that is drawn into, with room for all; InputError where rows of two formats would be in it."""
    about = source.draws
    if job.draws != job.output:
        about = {**about, "purpose": f"draws for {job.output.rsplit('/', 1)[-1]}"}
    rows = job.max_draws if job.selects else job.num
    store = source.store.create(job.draws, about, rows=rows, shard=job.shard)
    source.check_same(store.about, source.draws, job.draws)
    if store.about["format"] == store.FORMAT:
        store.grow(rows)
    elif not _has_all(store, job):
        raise _of_two_formats(store, store.FORMAT)
    return store


def _has_all(store: Rows, job: Job) -> bool:
    """Whether nothing is left to draw."""
    there = store.about["num"]
    if job.selects:
        return Selecting(dataclasses.replace(job, max_draws=min(job.max_draws, there)), store).enough()
    return job.num <= there and not store.unfinished(job.num)


def _of_two_formats(store: Rows, now: int | str) -> InputError:
    return InputError(
        f"{store.path}: was begun by another version (format {store.about['format']}, now {now}), whose {store.OF} "
        "round otherwise; complete it with that version, or give another --output"
    )


def _drawn(source: Source, store: Rows, work, todo: Iterator[int]) -> Iterator[tuple[int, Any]]:
    """Draws these shards; a shard is written while the next one is drawn."""
    todo, ahead = itertools.tee(todo)
    writing = None
    with futures.ThreadPoolExecutor(1) as writer:
        try:
            for drawn in source.drawn(store, map(store.rows, ahead), work.progress):
                shard = next(todo)
                if writing is not None:
                    writing.result()
                writing = writer.submit(store.write, shard, source.kept(drawn))
                yield shard, drawn
        finally:
            if writing is not None:
                writing.result()


def _complete(source: Source, job: Job, there: dict | None, store: Rows, work) -> bool:
    """Puts the output together from the draws, all of which were there.

    Returns:
      Whether that is done: not where some of a store are not there any more, or a selection is one of more by now.
    """
    positions, counts = work.chosen()
    if job.draws == job.output:
        return _put_together(source, job, store, positions, counts)
    with _turn(job.output):
        now = _there(source, job)
        if now is not None and now != there and now["complete"] and now["num"] >= job.num:
            say(f"{job.output}: has {now['num']} {store.OF} already")
            return True
        return _put_together(source, job, store, positions, counts)


@contextlib.contextmanager
def _turn(output: str) -> Iterator[None]:
    """Of processes that have all at the same time one puts it together on a disk, and the others wait for it."""
    if is_remote(output):
        yield
        return
    try:
        with in_turn(output, lambda: say(f"{output}: another process puts it together; waiting for it")):
            yield
    except OSError as error:
        raise by_cause(error, f"--output={output}: cannot be written ({error.strerror or error})") from None


def _put_together(source: Source, job: Job, store: Rows, positions: np.ndarray, counts: dict) -> bool:
    about = source.about | {name: store.about[name] for name in ("format", *source.left_open)}
    if job.form == "zarr":
        made = store if job.draws == job.output else _write_store(source, job, store, about, positions)
        missing = made.complete(job.num, **counts) if made is not None else []
        if made is None or (job.selects and made.about["num"] != job.num):
            return False
        if missing:
            if made.about["num"] == job.num:
                return False
            say(
                f"{job.output}: another job has made room for {made.about['num']} {store.OF}; {len(missing)} shards "
                "are not there yet: if it does not run any more, give its command again"
            )
            return True
    else:
        blocks = (store.take(part) for part in _parts(positions, store.shard))
        try:
            source.formats.write(job.form, job.output, blocks, {**about, "num": job.num, **counts})
        except OSError as error:
            line = (
                f"--output={job.output}: cannot be written ({error.strerror or error}); free some space and give the "
                f"same command again: the draws are kept in {job.draws}"
            )
            raise by_cause(error, line) from None
    say(f"wrote {job.num} {store.OF} to {job.output}")
    if job.draws != job.output:
        say(f"{job.draws} keeps the draws for more of them; remove it when no more are wanted")
    return True


def _write_store(source: Source, job: Job, draws: Rows, about: dict, positions: np.ndarray) -> Rows | None:
    """The chosen ones as a store of their own; shards that are there already stay. None if it is one of more."""
    output = source.store.create(job.output, about, rows=job.num, shard=job.shard)
    source.check_same(output.about, about, job.output)
    if output.about["format"] != about["format"]:  # the draws that it was begun from are gone
        raise _of_two_formats(output, about["format"])
    output.grow(job.num)
    if output.about["num"] > job.num:
        return None
    progress = Progress(f"copied to {job.output}", job.num, draws.UNIT)
    for shard, part in enumerate(_parts(positions, output.shard)):
        if not output.finished(shard):
            output.write(shard, draws.take(part))
        progress(output.rows(shard)[1])
    return output


def _parts(positions: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (positions[i : i + size] for i in range(0, len(positions), size))
