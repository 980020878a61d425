"""Which shards of a job a process draws, and when that is enough."""

from collections.abc import Iterator

import numpy as np

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError
from skullgan_jax.model import draw
from skullgan_jax.model.select import Selection, in_words
from skullgan_jax.sampling.job import Job
from skullgan_jax.sampling.store import Store


class Drawing:
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


class Selecting:
    """With a selection: on and on until as many are kept as are wanted.

    Shards are gone through in their order, whoever drew them, so that what is kept does not depend on who did.
    """

    def __init__(self, job: Job, store: Store):
        self._job, self._store = job, store
        self._selection = Selection(job.samples.where, job.samples.unique)
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
            seen = "" if counts["fitting"] or not self._selection.draws else f"; they have {self._selection.seen()}"
            raise InputError(
                f"--num={self._job.num}: {self._in_words(counts)}; ask for less, or give --max_draws above "
                f"{self._job.max_draws}; the draws so far are kept in {self._job.draws}{seen}"
            )
        return max(1, len(self._store.uncommitted(self._next, min(self._frontier, self._last))))

    def chosen(self) -> tuple[np.ndarray, dict]:
        positions = self._selection.first(self._job.num)
        counts = self._selection.counts(int(positions[-1]) + 1)
        say(f"kept {self._in_words(counts)}")
        return positions, counts

    def _in_words(self, counts: dict) -> str:
        where, unique = self._job.samples.where, self._job.samples.unique
        return in_words(counts, where and where.text, unique)
