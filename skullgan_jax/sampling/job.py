"""A sampling job: what is asked for, and what says of samples which they are."""

import dataclasses
from typing import Self

import jax

from skullgan_jax.errors import InputError
from skullgan_jax.model import draw
from skullgan_jax.model.select import Where, give_up_after
from skullgan_jax.model.trained import Model
from skullgan_jax.nets.pair import resolve_dtype
from skullgan_jax.sampling.store import FORMAT
from skullgan_jax.slices import radiology
from skullgan_jax.version import __version__


@dataclasses.dataclass(frozen=True)
class Identity:
    """What makes samples the ones they are, beside the model's weights.

    Attributes:
      model: what the model is called.
      seed: of the stream.
      start: index of the first.
      batch_norm: see Model.sampler.
      batch: samples whose statistics are taken together, see Model.sampler; None is the default.
      dtype: what convolutions compute in; auto takes that of the store which is there, else the default.
      where: a condition on measures, or None.
      unique: least differing pixels between any two samples, or None.
    """

    model: str
    seed: int = 0
    start: int = 0
    batch_norm: str = "standing"
    batch: int | None = None
    dtype: str = "auto"
    where: Where | None = None
    unique: int | None = None


@dataclasses.dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
      samples: which ones; None where the rows are no samples, and there is no selection.
      num: how many.
      output: where to.
      form: of names.FORMATS.
      max_draws: a selection gives up after that many.
      shard: samples per file of a store.
      process: which of the processes this is, from 0.
      processes: how many share the job.
    """

    samples: Identity | None
    num: int
    output: str
    form: str
    max_draws: int = 0
    shard: int = 512
    process: int = 0
    processes: int = 1

    @property
    def selects(self) -> bool:
        asked = self.samples
        return asked is not None and (asked.where is not None or asked.unique is not None)

    def of_more(self, num: int) -> Self:
        """The same of more; a selection then gives up no sooner than one that was asked for these."""
        most = give_up_after(num, self.samples.start) if self.samples is not None and self.selects else 0
        return dataclasses.replace(self, num=num, max_draws=max(self.max_draws, most))

    @property
    def draws(self) -> str:
        """Where the store of draws is."""
        return self.output if self.form == "zarr" and not self.selects else f"{self.output}.draws"


def describe(trained: Model, **samples) -> dict:
    """What is written with samples, in every format; which ones they are is told by fields of Identity."""
    asked = Identity(**samples)
    return {
        "format": FORMAT,
        "use": "synthetic; research use only",
        **vars(asked),
        "model_sha256": trained.sha256,
        "batch": draw.batch_of(asked.batch_norm, asked.batch),
        "dtype": resolve_dtype(asked.dtype),
        "where": asked.where and asked.where.text,
        "units": "HU",
        "pixel_mm": trained.pixel_mm,
        "calibration": trained.calibration.to_dict(),
        "measures": radiology.DEFINITIONS,
        "backend": jax.default_backend(),
        "version": __version__,
    }


def check_same(asked: Identity, there: dict, about: dict, path: str) -> None:
    """Refuses an output of other samples, naming both."""
    # Samples that do not share statistics do not depend on the batch; those that are there may have been drawn in
    # batches of another size, by another backend, and then go on so.
    left_open = {"batch": asked.batch_norm != "batch", "dtype": asked.dtype == "auto"}
    different = []
    for name in ("model_sha256", *(field.name for field in dataclasses.fields(asked) if field.name != "model")):
        if there.get(name) != about[name] and not left_open.get(name):
            was, now = (f"{a.get('model')} ({str(a.get(name))[:12]})" if name == "model_sha256" else a.get(name)
                        for a in (there, about))  # fmt: skip
            different.append(f"{name.removesuffix('_sha256')} was {was} now {now}")
    if different:
        raise InputError(f"{path}: holds other samples: {', '.join(different)}; give another --output or remove it")
