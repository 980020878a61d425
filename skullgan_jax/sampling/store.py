"""A store of samples: rows (see rows.py) of slices, their indices and their measures.

Of N samples: `hu` (N, 128, 128) int16, `index` (N,) of the seed's stream, the measures of radiology.NAMES (N,) float32.
Attributes say what the samples are.
"""

import numpy as np

from skullgan_jax.model.draw import Samples
from skullgan_jax.sampling.rows import Column, Rows
from skullgan_jax.slices import radiology
from skullgan_jax.slices.size import SIZE

FORMAT = 2  # 1: before images of few channels had forms of their own on a CPU, which round otherwise
_CHUNK = 16  # samples that are compressed together


class Store(Rows):
    """A store of samples that is there; see rows.Rows."""

    FORMAT, EARLIER, NAMES = FORMAT, (1,), ("hu", "index", *radiology.NAMES)
    OF, DONE, UNIT = "samples", "sampled", "slices"

    @classmethod
    def columns(cls, about: dict) -> dict[str, Column]:
        measures = {name: Column("float32", "NaN", about={"long_name": radiology.DEFINITIONS[name]})
                    for name in radiology.NAMES}  # fmt: skip
        hu = Column("int16", 0, (SIZE, SIZE), ("row", "column"), together=_CHUNK)
        return {"hu": hu, "index": Column("int64", -1), **measures}

    def write(self, shard: int, samples: Samples) -> None:
        """Writes a shard, all its rows; see Rows.write."""
        super().write(shard, {"hu": samples.hu, "index": samples.index, **samples.measures})

    def read(self, first: int, last: int) -> Samples:
        """The samples at positions first to last - 1, checked; see Rows.read."""
        return _samples(super().read(first, last))

    def take(self, positions: np.ndarray) -> Samples:
        """The samples at ascending positions, checked; see Rows.take."""
        return _samples(super().take(positions))


def _samples(values: dict[str, np.ndarray]) -> Samples:
    return Samples(values.pop("index"), values.pop("hu"), values)
