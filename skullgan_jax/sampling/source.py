"""Samples as what a job draws, see run.Source."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from skullgan_jax.model.draw import Samples
from skullgan_jax.model.trained import Model
from skullgan_jax.sampling import formats, job
from skullgan_jax.sampling.store import Store


class SampleSource:
    """The samples of a model that are told by fields of job.Identity."""

    store, formats, left_open = Store, formats, ("batch", "dtype", "backend")

    def __init__(self, trained: Model, samples: job.Identity):
        self._trained, self._samples = trained, samples
        self.about = job.describe(trained, **vars(samples))
        self.draws = {**self.about, "unique": None}

    def check_same(self, there: dict, about: dict, path: str) -> None:
        """InputError where what is there says that it is of other samples."""
        job.check_same(self._samples, there, about, path)

    def drawn(
        self, store: Store, ranges: Iterator[tuple[int, int]], progress: Callable[[int], object]
    ) -> Iterator[Samples]:
        """The samples of each range of positions; as many at a time as the store's were."""
        if self.about["batch_norm"] == "standing" and self._trained.standing is None:
            self._trained.compute_standing(verbose=True)
        drawn_as = {name: store.about[name] for name in ("seed", "batch_norm", "dtype")}
        sampler = self._trained.sampler(**drawn_as, at_a_time=store.about["batch"])
        start = self._samples.start
        return sampler.ranges(((start + first, start + last) for first, last in ranges), progress)

    def kept(self, drawn: Samples) -> Samples:
        """What does not fit is kept as zeros, which take no room."""
        if self._samples.where is None:
            return drawn
        fits = self._samples.where.fits(drawn.measures)[:, None, None]
        return dataclasses.replace(drawn, hu=np.where(fits, drawn.hu, np.int16(0)))
