"""What can be wrong with a run before anything is made, and what it is."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from skullgan_jax.data.batches import batches, num_steps_per_epoch
from skullgan_jax.data.open import Dataset, open_data
from skullgan_jax.errors import InputError
from skullgan_jax.nets.pair import Pair, resolve_dtype
from skullgan_jax.slices.bone import never_bone
from skullgan_jax.train import ranges
from skullgan_jax.train import recipe as recipes
from skullgan_jax.train.fields import flat
from skullgan_jax.train.recipe import Recipe, Relativistic
from skullgan_jax.version import __version__

_MOST_STEPS = 1 << 31  # what the state counts in


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run that nothing stands against.

    Attributes:
      config: see configs/skull.py.
      pair: the networks.
      recipe: the numbers of the step.
      data: the slices.
      air: (128, 128) bool, where no slice has bone, if the recipe asks for that.
      meta: JSON, what a checkpoint has besides the state.
    """

    config: ConfigDict
    pair: Pair
    recipe: Recipe | Relativistic
    data: Dataset
    air: np.ndarray | None
    meta: dict

    @property
    def steps_per_epoch(self) -> int:
        return num_steps_per_epoch(len(self.data.images), self.config.batch_size)

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.config.epochs * self.steps_per_epoch

    def batches(self, start: int) -> Iterator[dict[str, np.ndarray]]:
        """What this process has of the batches from a step on."""
        return batches(
            self.data.images,
            self.data.calibration,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start_step=start,
            num_steps=self.total,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            streams=self.recipe.streams,
        )


def prepare(config) -> Plan:
    """The plan of a config, before anything is made.

    Raises:
      InputError: what is wrong with it or its data.
    """
    ranges.check(flat(config.to_dict()))
    num = jax.device_count()
    pair, recipe = make_pair(config), recipes.of(config.recipe)
    if config.batch_size % num:
        raise InputError(
            f"--config.batch_size={config.batch_size}: must be 2 or more and divisible by the "
            f"{num} devices{_of_processes()}; try {max(2, num * round(config.batch_size / num), num)}"
        )
    data = open_data(config.data, config.seed)
    if data.name == "skull":
        try:
            data.calibration.check_hu()
        except InputError as error:
            raise InputError(f"{config.data.path}: {error}") from None
    air = None
    if recipe.floor and data.name != "celeba":
        data = dataclasses.replace(data, calibration=data.calibration.floored(data.images, recipe.floor))
        if recipe.air:
            air = never_bone(data.images, data.calibration.hu_min, mirrored=recipe.mirror > 0)
    steps = num_steps_per_epoch(len(data.images), config.batch_size)  # refuses data that fill no batch
    if config.epochs * steps >= _MOST_STEPS:
        raise InputError(
            f"--config.epochs={config.epochs}: of {steps} steps each; give at most {(_MOST_STEPS - 1) // steps}"
        )
    meta = {
        "config": config.to_dict(),
        "pair": dataclasses.asdict(pair),
        "data": {"name": data.name, "num": len(data.images), "fingerprint": data.fingerprint},
        "calibration": data.calibration.to_dict(),
        "pixel_mm": data.pixel_mm,
        "version": __version__,
    }
    return Plan(config, pair, recipe, data, air, meta)


def make_pair(config) -> Pair:
    """The networks of a config. Raises InputError."""
    fields = config.model.to_dict()
    fields["dtype"] = resolve_dtype(fields["dtype"])
    pair = Pair(**fields, **recipes.discriminator(config.recipe))
    pair.graphs()  # refuses sizes that the architecture cannot have
    return pair


def identity(plan: Plan) -> dict:
    """What the processes of a job must have in common; where their copies of the data lie may differ."""
    about = flat({k: plan.meta[k] for k in ("config", "data", "calibration", "version")})
    versions = {"jax": jax.__version__, "devices of a process": jax.local_device_count()}
    return {k: v for k, v in about.items() if k != "config.data.path"} | versions


def hardware() -> str:
    """What the job runs on, e.g. "8 x NVIDIA H100 of 2 processes"."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}{_of_processes()}"


def _of_processes() -> str:
    return f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
