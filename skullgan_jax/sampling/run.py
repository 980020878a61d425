"""A sampling job, done: shards over processes, going on where it was, selecting, and the output put together.

Samples are drawn into a store, in the order of their indices. Without a selection a store that was asked for is that
one; any other output is put together from the store `<output>.draws` once it holds enough. Process p of P draws the
shards p, p + P, p + 2 P, ...; none waits for another to draw, and the one that finds all shards there, whole, completes
the output.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from concurrent import futures

import numpy as np

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError
from skullgan_jax.machine import programs
from skullgan_jax.machine.lock import in_turn
from skullgan_jax.model import draw
from skullgan_jax.model.trained import Model
from skullgan_jax.sampling import formats
from skullgan_jax.sampling.job import Job, check_same, describe
from skullgan_jax.sampling.shards import Drawing, Selecting
from skullgan_jax.sampling.store import Damaged, Store, attributes, is_remote

_TURNS = 3  # what was there, and at the end is not, is drawn again


@programs.kept()
def run(trained: Model, job: Job) -> None:
    """Does what this process has to do of the job, and completes the output if nothing is missing then.

    Raises:
      InputError: one line on what the user can change.
    """
    about = describe(trained, **vars(job.samples))
    there = _there(job)
    if there is not None:
        check_same(job, there, about, job.output)
        if there["complete"] and there["num"] >= job.num and _undamaged(job, there):
            say(f"{job.output}: has {there['num']} samples already")
            return
        if job.form == "zarr" and there["num"] > job.num:
            say(f"{job.output}: is one of {there['num']} samples; they are completed")
            job = dataclasses.replace(job, num=there["num"])
    store = _open_draws(job, about)
    about |= {name: store.about[name] for name in ("batch", "dtype", "backend")}
    for _ in range(_TURNS):
        work = (Selecting if job.selects else Drawing)(job, store)
        if not work.enough():
            _draw(trained, about, store, job, work)
        if missing := work.missing():
            say(
                f"process {job.process} of {job.processes} has done its part; {missing} shards of others are not there "
                "yet: if those do not run any more, give the same command again, with any number of processes"
            )
            return
        try:
            if _complete(job, there, store, about, work):
                return
        except Damaged as error:
            say(f"{error}: it is drawn again")
    raise InputError(
        f"{job.output}: samples were written and cannot be read back; see that the disk is sound, and give the same "
        "command again"
    )


def _draw(trained: Model, about: dict, store: Store, job: Job, work) -> None:
    """Draws what the work has to do."""
    todo = work.todo()
    first = next(todo, None)
    if first is None:
        return
    if about["batch_norm"] == "standing" and trained.standing is None:
        trained.compute_standing(verbose=True)
    drawn_as = {name: about[name] for name in ("seed", "batch_norm", "dtype")}
    sampler = trained.sampler(**drawn_as, at_a_time=about["batch"])
    with contextlib.closing(_drawn(sampler, store, job, work, itertools.chain([first], todo))) as shards:
        for shard, drawn in shards:
            work.add(shard, drawn)
            if work.enough():
                break


def _there(job: Job) -> dict | None:
    """What the output that is there says it is; None where nothing is."""
    if job.form == "zarr":
        return attributes(job.output)
    return formats.about(job.output)


def _undamaged(job: Job, there: dict) -> bool:
    """Whether a complete output is still as it was written."""
    if job.form != "zarr":
        return formats.undamaged(job.output, there)
    try:
        store = Store(job.output)
    except InputError:
        return False
    return all(store.finished(shard) for shard in range(store.shards(store.about["num"])))


def _open_draws(job: Job, about: dict) -> Store:
    """The store that is drawn into, with room for all."""
    about = {**about, "unique": None}
    if job.draws != job.output:
        about["purpose"] = f"draws for {job.output.rsplit('/', 1)[-1]}"
    rows = job.max_draws if job.selects else job.num
    store = Store.create(job.draws, about, rows=rows, shard=job.shard)
    check_same(job, store.about, about, job.draws)
    store.grow(rows)
    return store


def _drawn(
    sampler: draw.Sampler, store: Store, job: Job, work, todo: Iterator[int]
) -> Iterator[tuple[int, draw.Samples]]:
    """Draws these shards; a shard is written while the next one is drawn."""
    todo, ahead = itertools.tee(todo)
    start, where = job.samples.start, job.samples.where
    ranges = ((start + first, start + last) for first, last in map(store.rows, ahead))
    writing = None
    with futures.ThreadPoolExecutor(1) as writer:
        try:
            for drawn in sampler.ranges(ranges, work.progress):
                shard = next(todo)
                if writing is not None:
                    writing.result()
                kept = drawn
                if where is not None:  # what does not fit is kept as zeros, which take no room
                    fits = where.fits(drawn.measures)[:, None, None]
                    kept = dataclasses.replace(drawn, hu=np.where(fits, drawn.hu, np.int16(0)))
                writing = writer.submit(store.write, shard, kept)
                yield shard, drawn
        finally:
            if writing is not None:
                writing.result()


def _complete(job: Job, there: dict | None, store: Store, about: dict, work) -> bool:
    """Puts the output together from the draws, all of which were there; False if some of a store are not any more."""
    positions, counts = work.chosen()
    if job.draws == job.output:
        return _put_together(job, store, about, positions, counts)
    with _turn(job.output):
        now = _there(job)
        if now is not None and now != there and now["complete"] and now["num"] >= job.num:
            say(f"{job.output}: has {now['num']} samples already")
            return True
        return _put_together(job, store, about, positions, counts)


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
        raise InputError(f"--output={output}: cannot be written ({error.strerror or error})") from None


def _put_together(job: Job, store: Store, about: dict, positions: np.ndarray, counts: dict) -> bool:
    known = {"num": job.num, **counts}
    if job.form == "zarr":
        made = store if job.draws == job.output else _write_store(job, store, about, positions)
        if missing := made.complete(**counts):
            if made.about["num"] == job.num:
                return False
            say(
                f"{job.output}: another job has made room for {made.about['num']} samples; {len(missing)} shards are "
                "not there yet: if it does not run any more, give its command again"
            )
            return True
    else:
        blocks = (store.take(part) for part in _parts(positions, store.shard))
        try:
            formats.write(job.form, job.output, blocks, {**about, **known})
        except OSError as error:
            raise InputError(
                f"--output={job.output}: cannot be written ({error.strerror or error}); free some space and give the "
                f"same command again: the draws are kept in {job.draws}"
            ) from None
    say(f"wrote {job.num} samples to {job.output}")
    if job.draws != job.output:
        say(f"{job.draws} keeps the draws for a greater --num; remove it when no more are wanted")
    return True


def _write_store(job: Job, draws: Store, about: dict, positions: np.ndarray) -> Store:
    """The chosen ones as a store of their own; shards that are there already stay."""
    output = Store.create(job.output, about, rows=job.num, shard=job.shard)
    check_same(job, output.about, about, job.output)
    output.grow(job.num)
    progress = Progress(f"copied to {job.output}", job.num, "slices")
    for shard, part in enumerate(_parts(positions, output.shard)):
        if not output.finished(shard):
            output.write(shard, draws.take(part))
        progress(output.rows(shard)[1])
    return output


def _parts(positions: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (positions[i : i + size] for i in range(0, len(positions), size))
