"""Which shards of a job a process draws, and when that is enough."""

from collections.abc import Iterator

import numpy as np

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError
from skullgan_jax.model import draw
from skullgan_jax.model.select import Selection, in_words
from skullgan_jax.sampling.job import Job
from skullgan_jax.sampling.rows import Damaged, Rows
from skullgan_jax.sampling.store import Store


class Drawing:
    """Without a selection: which shards are this process's is known, and all of them are wanted."""

    def __init__(self, job: Job, store: Rows):
        self._job, self._store = job, store
        own = range(job.process, store.shards(job.num), job.processes)
        self._own = [shard for shard in own if not store.finished(shard)]
        if len(self._own) < len(own):
            say(f"{job.draws}: {len(own) - len(self._own)} of {len(own)} shards are there already")
        left = sum(last - first for first, last in map(store.rows, self._own))
        self._progress = Progress(store.DONE, left, store.UNIT) if job.process == 0 and left else None

    def todo(self) -> Iterator[int]:
        """Those of this process; then, if all of the others were written, the damaged ones among them."""
        yield from self._own
        if not self.missing():
            for shard in range(self._store.shards(self._job.num)):
                if shard % self._job.processes != self._job.process and not self._store.finished(shard):
                    say(f"{self._job.draws}: shard {shard} of another process is damaged; it is drawn again")
                    yield shard

    def progress(self, done: int) -> None:
        if self._progress and done <= self._progress.total:
            self._progress(done)

    def add(self, shard: int, drawn) -> None:
        pass

    def enough(self) -> bool:
        """Whether to stop before `todo` ends."""
        return False

    def missing(self) -> int:
        """Shards of others that are not there."""
        missing = self._store.uncommitted(0, self._store.shards(self._job.num)) if self._job.processes > 1 else []
        return sum(shard % self._job.processes != self._job.process for shard in missing)

    def chosen(self) -> tuple[np.ndarray, dict]:
        return np.arange(self._job.num), {}


class Selecting:
    """With a selection: on and on until as many are kept as are wanted, or all that may be drawn were.

    Shards are gone through in their order, whoever drew them, so that what is kept does not depend on who did. A
    process draws its own, and where these and those of others seem to do, or all of its own are drawn, what is missing
    of the others': another may be at it, or have died. So each goes on to the whole selection, whatever others do.
    """

    def __init__(self, job: Job, store: Store):
        self._job, self._store = job, store
        self._selection = Selection(job.samples.where, job.samples.unique)
        self._last = store.shards(job.max_draws)
        self._next = 0  # all shards before were gone through
        self._frontier = 0  # none of its own was drawn from there on
        self._taken: set[int] = set()  # by this process, to be drawn
        self._drawn = self._counted = self._own = self._own_fitting = 0
        self._advance()
        self._progress = Progress("kept", job.num, "slices", len(self._selection)) if job.process == 0 else None

    def todo(self) -> Iterator[int]:
        own = iter(range(self._job.process, self._last, self._job.processes))
        while True:
            self._advance()
            shard = self._gap(self._frontier) if self._promising() else None
            if shard is None:
                shard = next((s for s in own if self._is_fresh(s)), None)
            if shard is None:  # all that is its own was taken: whatever is missing, whoever is at it
                shard = self._gap(self._last)
            if shard is None or self.enough():
                return
            self._taken.add(shard)
            yield shard

    def _is_fresh(self, own: int) -> bool:
        return own >= self._next and own not in self._taken and not self._store.finished(own)

    def _gap(self, end: int) -> int | None:
        """A shard before `end` that is missing, or damaged and the next.

        Each process takes another of the first so many, and in turn all of them: one that is alone has the next soon.
        """
        end = min(max(end, self._next + 1), self._last)
        missing = {self._next, *self._store.uncommitted(self._next, end)} if self._next < end else set()
        free = sorted(missing - self._taken)
        some = free[: self._job.processes]
        return some[(self._job.process + len(self._taken)) % len(some)] if some else None

    def progress(self, drawn: int) -> None:
        self._drawn = drawn
        if self._progress and len(self._selection) < self._job.num:  # between shards by the yield so far
            kept = len(self._selection) + int((drawn - self._counted) * self._yield())
            self._progress(min(kept, self._job.num - 1))

    def add(self, shard: int, drawn: draw.Samples) -> None:
        if shard % self._job.processes == self._job.process:  # a gap that is filled moves it no further
            self._frontier = max(self._frontier, shard + self._job.processes)
        self._own += len(drawn)
        where = self._job.samples.where
        self._own_fitting += len(drawn) if where is None else int(where.fits(drawn.measures).sum())
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
        """The share that is kept: of the shards gone through, or by what fits of this process's draws, if that is more.

        Those gone through may be few, with none to be kept among them, and a gap behind them.
        """
        gone = self._selection.counts(self._selection.draws)
        distinct = gone["kept"] / gone["fitting"] if gone["fitting"] else 1.0
        own = distinct * self._own_fitting / self._own if self._own else 0.0
        return max(gone["kept"] / gone["draws"] if gone["draws"] else 0.0, own)

    def enough(self) -> bool:
        return len(self._selection) >= self._job.num

    def _promising(self) -> bool:
        """Whether as many will be kept, by the yield so far, once the gap is filled."""
        frontier = min(self._frontier, self._last)
        if frontier <= self._next:
            return False
        beyond = frontier - self._next - len(self._store.uncommitted(self._next, frontier))
        return len(self._selection) + beyond * self._store.shard * self._yield() >= self._job.num

    def missing(self) -> int:
        """0, once this process has done its part.

        Raises:
          InputError: all that may be drawn were, and too few are kept.
          Damaged: all that may be drawn were, and not all can be read.
        """
        self._advance()
        if self.enough():
            return 0
        if self._next == self._last:
            counts = self._selection.counts(self._selection.draws)
            seen = "" if counts["fitting"] or not self._selection.draws else f"; they have {self._selection.seen()}"
            raise InputError(
                f"--num={self._job.num}: {self._in_words(counts)}; ask for less, or give --max_draws above "
                f"{self._job.max_draws}; the draws so far are kept in {self._job.draws}{seen}"
            )
        first, last = self._store.rows(self._next)
        raise Damaged(f"{self._job.draws}: samples {first} to {last - 1} were drawn and cannot be read back")

    def chosen(self) -> tuple[np.ndarray, dict]:
        positions = self._selection.first(self._job.num)
        counts = self._selection.counts(int(positions[-1]) + 1)
        say(f"kept {self._in_words(counts)}")
        return positions, counts

    def _in_words(self, counts: dict) -> str:
        where, unique = self._job.samples.where, self._job.samples.unique
        return in_words(counts, where and where.text, unique)
