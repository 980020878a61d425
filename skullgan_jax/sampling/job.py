"""A sampling job: what is asked for, and what says of samples which they are."""

import dataclasses

import jax

from skullgan_jax.errors import InputError
from skullgan_jax.model import draw
from skullgan_jax.model.select import Where
from skullgan_jax.model.trained import Model
from skullgan_jax.nets.pair import resolve_dtype
from skullgan_jax.sampling.store import FORMAT
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


def check_same(job: Job, there: dict, about: dict, path: str) -> None:
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
