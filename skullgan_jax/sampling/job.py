"""A sampling job: its shards over processes, going on where it was, selecting, and the output put together.

Samples are drawn into a store, in the order of their indices. Without a selection a store that was asked for is that
one; any other output is put together from the store `<output>.draws` once it holds enough. Process p of P draws the
shards p, p + P, p + 2 P, ...; none waits for another, and the one that finds the last shard there completes the output.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from concurrent import futures

import jax
import numpy as np

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError
from skullgan_jax.model import draw
from skullgan_jax.model.select import Selection, Where, in_words
from skullgan_jax.model.trained import Model
from skullgan_jax.nets.pair import resolve_dtype
from skullgan_jax.sampling import formats
from skullgan_jax.sampling.store import FORMAT, Store
from skullgan_jax.slices import radiology
from skullgan_jax.version import __version__

# What makes samples others: an output that has another of these is refused.
_IDENTITY = ("model_sha256", "seed", "start", "batch_norm", "batch", "dtype", "where", "unique")


@dataclasses.dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
      model: what the model is called.
      num: how many samples.
      start: index of the first.
      seed: of the stream.
      output: where to.
      form: of formats.NAMES.
      batch_norm: see Model.sampler.
      batch: samples per device at a time; None takes that of the store which is there, else the default.
      dtype: what convolutions compute in; auto takes that of the store which is there, else the default.
      where: a condition on measures, or None.
      unique: least differing pixels between any two samples, or None.
      max_draws: a selection gives up after that many.
      shard: samples per file.
      process: which of the processes this is, from 0.
      processes: how many share the job.
    """

    model: str
    num: int
    start: int
    seed: int
    output: str
    form: str
    batch_norm: str
    batch: int | None
    dtype: str
    where: Where | None
    unique: int | None
    max_draws: int
    shard: int
    process: int
    processes: int

    @property
    def selects(self) -> bool:
        return self.where is not None or self.unique is not None

    @property
    def draws(self) -> str:
        """Where the store of draws is."""
        return self.output if self.form == "zarr" and not self.selects else f"{self.output}.draws"


def run(trained: Model, job: Job) -> None:
    """Does what this process has to do of the job, and completes the output if nothing is missing then.

    Raises:
      InputError: one line on what the user can change.
    """
    about = describe(
        trained,
        where=job.where and job.where.text,
        **{k: getattr(job, k) for k in ("model", "seed", "start", "batch_norm", "batch", "dtype", "unique")},
    )
    there = _there(job)
    if there is not None:
        _check_same(job, there, about, job.output)
        if there["complete"] and there["num"] >= job.num and _undamaged(job):
            say(f"{job.output}: has {there['num']} samples already")
            return
        if job.form == "zarr" and there["num"] > job.num:
            say(f"{job.output}: is one of {there['num']} samples; they are completed")
            job = dataclasses.replace(job, num=there["num"])
    store = _open_draws(job, about)
    about |= {name: store.about[name] for name in ("batch", "dtype", "backend")}
    work = (_Selecting if job.selects else _Drawing)(job, store)
    if not work.enough():
        if about["batch_norm"] == "standing" and trained.standing is None:
            trained.compute_standing(verbose=True)
        sampler = trained.sampler(seed=job.seed, **{name: about[name] for name in ("batch_norm", "batch", "dtype")})
        with contextlib.closing(_drawn(sampler, store, job, work)) as shards:
            for shard, drawn in shards:
                work.add(shard, drawn)
                if work.enough():
                    break
    if missing := work.missing():
        say(
            f"process {job.process} of {job.processes} has done its part; {missing} shards of others are not there yet:"
            " if those do not run any more, give the same command again, with any number of processes"
        )
        return
    _complete(job, store, about, work)


def describe(
    trained: Model, *, model: str, seed: int, start: int = 0, batch_norm: str = "standing", batch: int | None = None,
    dtype: str = "auto", where: str | None = None, unique: int | None = None,
) -> dict:  # fmt: skip
    """What is written with samples, in every format."""
    return {
        "format": FORMAT,
        "use": "synthetic; research use only",
        "model": model,
        "model_sha256": trained.sha256,
        "seed": seed,
        "start": start,
        "batch_norm": batch_norm,
        "batch": batch or draw.default_batch(),
        "dtype": resolve_dtype(dtype),
        "where": where,
        "unique": unique,
        "units": "HU",
        "pixel_mm": trained.pixel_mm,
        "calibration": trained.calibration.to_dict(),
        "measures": radiology.DEFINITIONS,
        "backend": jax.default_backend(),
        "version": __version__,
    }


def _there(job: Job) -> dict | None:
    """What the output that is there says it is; None where nothing is."""
    if job.form == "zarr":
        return Store(job.output).about if Store.exists(job.output) else None
    return formats.about(job.output)


def _undamaged(job: Job) -> bool:
    """Whether a complete output is still as it was written; of what is no store, the size was compared."""
    if job.form != "zarr":
        return True
    store = Store(job.output)
    return all(store.finished(shard) for shard in range(store.shards(len(store))))


def _check_same(job: Job, there: dict, about: dict, path: str) -> None:
    """Refuses an output of other samples, naming both."""
    left_open = {"batch": job.batch is None and job.batch_norm != "batch", "dtype": job.dtype == "auto"}
    different = []
    for name in _IDENTITY:
        if there.get(name) != about[name] and not left_open.get(name):
            was, now = (f"{a.get('model')} ({str(a.get(name))[:12]})" if name == "model_sha256" else a.get(name)
                        for a in (there, about))  # fmt: skip
            different.append(f"{name.removesuffix('_sha256')} was {was} now {now}")
    if different:
        raise InputError(f"{path}: holds other samples: {', '.join(different)}; give another --output or remove it")


def _open_draws(job: Job, about: dict) -> Store:
    """The store that is drawn into, with room for all."""
    about = {**about, "unique": None}
    if job.draws != job.output:
        about["purpose"] = f"draws for {job.output.rsplit('/', 1)[-1]}"
    rows = job.max_draws if job.selects else job.num
    if not Store.exists(job.draws):
        return Store.create(job.draws, about, rows=rows, shard=job.shard)
    store = Store(job.draws)
    _check_same(job, store.about, about, job.draws)
    store.grow(rows)
    return store


def _drawn(sampler: draw.Sampler, store: Store, job: Job, work) -> Iterator[tuple[int, draw.Samples]]:
    """Draws the shards of this process that are not there yet; a shard is written while the next one is drawn."""
    todo, ahead = itertools.tee(work.todo())
    ranges = ((job.start + first, job.start + last) for first, last in map(store.rows, ahead))
    writing = None
    with futures.ThreadPoolExecutor(1) as writer:
        try:
            for drawn in sampler.ranges(ranges, work.progress):
                shard = next(todo)
                if writing is not None:
                    writing.result()
                kept = drawn
                if job.where is not None:  # what does not fit is kept as zeros, which take no room
                    fits = job.where.fits(drawn.measures)[:, None, None]
                    kept = dataclasses.replace(drawn, hu=np.where(fits, drawn.hu, np.int16(0)))
                writing = writer.submit(store.write, shard, kept)
                yield shard, drawn
        finally:
            if writing is not None:
                writing.result()


class _Drawing:
    """Without a selection: which shards are this process's is known, and all of them are wanted."""

    def __init__(self, job: Job, store: Store):
        self._job, self._store = job, store
        own = range(job.process, store.shards(job.num), job.processes)
        self._todo = [shard for shard in own if not store.finished(shard)]
        if len(self._todo) < len(own):
            say(f"{job.draws}: {len(own) - len(self._todo)} of {len(own)} shards are there already")
        left = sum(last - first for first, last in map(store.rows, self._todo))
        self._progress = Progress("sampled", left, "slices") if job.process == 0 else None

    def todo(self) -> Iterator[int]:
        return iter(self._todo)

    def progress(self, done: int) -> None:
        if self._progress:
            self._progress(done)

    def add(self, shard: int, drawn: draw.Samples) -> None:
        pass

    def enough(self) -> bool:
        return not self._todo

    def missing(self) -> int:
        """Shards that are not there, once this process has done its part."""
        return len(self._store.uncommitted(0, self._store.shards(self._job.num)))

    def chosen(self) -> tuple[np.ndarray, dict]:
        return np.arange(self._job.num), {}


class _Selecting:
    """With a selection: on and on until as many are kept as are wanted.

    Shards are gone through in their order, whoever drew them, so that what is kept does not depend on who did.
    """

    def __init__(self, job: Job, store: Store):
        self._job, self._store, self._selection = job, store, Selection(job.where, job.unique)
        self._last = store.shards(job.max_draws)
        self._next = 0  # all shards before were gone through
        self._frontier = 0  # none was drawn from there on
        self._drawn = self._counted = self._own = self._own_fitting = 0
        self._advance()
        self._progress = Progress("kept", job.num, "slices", len(self._selection)) if job.process == 0 else None

    def todo(self) -> Iterator[int]:
        for shard in range(self._job.process, self._last, self._job.processes):
            if shard >= self._next and not self._store.finished(shard):
                yield shard

    def progress(self, drawn: int) -> None:
        self._drawn = drawn
        if self._progress and len(self._selection) < self._job.num:  # between shards by the yield so far
            kept = len(self._selection) + int((drawn - self._counted) * self._yield())
            self._progress(min(kept, self._job.num - 1))

    def add(self, shard: int, drawn: draw.Samples) -> None:
        self._frontier = max(self._frontier, shard + self._job.processes)
        self._own += len(drawn)
        self._own_fitting += len(drawn) if self._job.where is None else int(self._job.where.fits(drawn.measures).sum())
        self._advance(shard, drawn)
        self._counted = self._drawn
        if self._progress and len(self._selection) >= self._job.num:
            self._progress(self._job.num)

    def _advance(self, shard: int = -1, drawn: draw.Samples | None = None) -> None:
        """Goes through the shards that are there, up to a gap; one just drawn may not be on disk yet."""
        while self._next < self._last and len(self._selection) < self._job.num:
            if self._next == shard:
                self._selection.add(drawn)
            elif not self._store.uncommitted(self._next, self._next + 1):
                try:
                    self._selection.add(self._store.read(*self._store.rows(self._next)))
                except InputError:
                    return  # damaged: a gap, to be drawn again
            else:
                return
            self._next += 1

    def _yield(self) -> float:
        """The share that is kept; as long as the first shard is not there, what fits of this process's draws."""
        if self._selection.draws:
            return len(self._selection) / self._selection.draws
        return self._own_fitting / self._own if self._own else 1.0

    def enough(self) -> bool:
        """Whether as many are kept, or will be by the yield so far once others have filled the gap that is theirs."""
        kept, frontier = len(self._selection), min(self._frontier, self._last)
        if kept >= self._job.num or frontier <= self._next:
            return kept >= self._job.num
        beyond = frontier - self._next - len(self._store.uncommitted(self._next, frontier))
        return kept + beyond * self._store.shard * self._yield() >= self._job.num

    def missing(self) -> int:
        """Shards that are not there, once this process has done its part.

        Raises:
          InputError: all that may be drawn were, and too few are kept.
        """
        self._advance()
        if len(self._selection) >= self._job.num:
            return 0
        if self._next == self._last:
            counts = self._selection.counts(self._selection.draws)
            raise InputError(
                f"--num={self._job.num}: {self._in_words(counts)}; ask for less, or give --max_draws above "
                f"{self._job.max_draws}; the draws so far are kept in {self._job.draws}"
            )
        return max(1, len(self._store.uncommitted(self._next, min(self._frontier, self._last))))

    def chosen(self) -> tuple[np.ndarray, dict]:
        positions = self._selection.first(self._job.num)
        counts = self._selection.counts(int(positions[-1]) + 1)
        say(f"kept {self._in_words(counts)}")
        return positions, counts

    def _in_words(self, counts: dict) -> str:
        return in_words(counts, self._job.where and self._job.where.text, self._job.unique)


def _complete(job: Job, store: Store, about: dict, work) -> None:
    """Puts the output together from the draws, all of which are there."""
    positions, counts = work.chosen()
    known = {"num": job.num, **counts}
    if job.draws == job.output:
        store.complete()
    elif job.form == "zarr":
        _write_store(job, store, about, positions, known)
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


def _write_store(job: Job, draws: Store, about: dict, positions: np.ndarray, known: dict) -> None:
    """The chosen ones as a store of their own; shards that are there already stay."""
    if not Store.exists(job.output):
        Store.create(job.output, about, rows=job.num, shard=job.shard)
    output = Store(job.output)
    output.grow(job.num)
    progress = Progress(f"copied to {job.output}", job.num, "slices")
    for shard, part in enumerate(_parts(positions, output.shard)):
        if not output.finished(shard):
            output.write(shard, draws.take(part))
        progress(output.rows(shard)[1])
    output.complete(**known)


def _parts(positions: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (positions[i : i + size] for i in range(0, len(positions), size))
