"""The numbers of the two adversarial steps, apart from them, so that a config and --help need no JAX."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar


def _number(default, meaning: str):
    return dataclasses.field(default=default, metadata={"meaning": meaning})


@dataclasses.dataclass(frozen=True)
class _Adam:
    lr: float = _number(3e-4, "learning rate of both nets, to begin with")
    b1: float = _number(0.5, "of Adam: decay of the mean of gradients")
    b2: float = _number(0.999, "of Adam: decay of the mean of their squares")
    eps: float = _number(1e-8, "of Adam: added to the root of that")

    @property
    def adam(self):
        """What turns gradients into directions: an optax.GradientTransformation."""
        import optax

        return optax.scale_by_adam(self.b1, self.b2, self.eps)


@dataclasses.dataclass(frozen=True)
class Recipe(_Adam):
    """The published numbers. Epochs count from 0, as the original's loop variable does."""

    streams: ClassVar[tuple[str, ...]] = ("real", "blur")  # of a batch, see data/batches.py
    floor: ClassVar[float] = 0.0  # samples have none, see Relativistic
    remedy: ClassVar[str] = "a run with --config=configs/small_data.py may not"  # collapse

    g_factor: float = _number(0.5, "the generator's rate times this where its loss gets no better")
    d_factor: float = _number(0.8, "the discriminator's rate times this where its loss gets no better")
    patience: int = _number(1000, "steps without a better loss before that")
    real_target: float = _number(0.9, "what the discriminator is to say of a real slice (label smoothing)")
    gate_epoch: int = _number(10, "up to this epoch both nets step always, from then on only")
    gate_loss: float = _number(0.9, "where their loss is above this")
    blur_epoch: int = _number(15, "after this epoch blurred reals enter the fake batch")


@dataclasses.dataclass(frozen=True)
class Relativistic(_Adam):
    """Numbers for a few hundred to a few thousand slices, see relativistic.py and docs/training.md.

    The generator is the published one. A share is one of the steps of the whole run, so schedules stretch with it.
    """

    streams: ClassVar[tuple[str, ...]] = ("real",)

    lr: float = _number(2e-4, "learning rate of both nets, to begin with")
    b1: float = _number(0.0, "of Adam: decay of the mean of gradients")
    b2: float = _number(0.99, "of Adam: decay of the mean of their squares")
    lr_end: float = _number(0.1, "the rate falls along a cosine to this share of it at the end")
    gamma: float = _number(2.0, "weight of the gradient penalties R1 and R2, to begin with")
    gamma_end: float = _number(0.2, "what that falls to in a line")
    gamma_until: float = _number(0.5, "by this share of the run")
    batch_std: int = _number(0, "tell the discriminator by so many numbers how much a batch differs; 8 for many heads")
    mirror: float = _number(0.5, "how likely a real slice is mirrored left to right")
    shift: int = _number(4, "slices are moved by up to so many pixels each way before the discriminator")
    shift_share: float = _number(0.5, "how likely that is; below 0.8, so that the generator need not learn it")
    grain: float = _number(0.002, "standard deviation of the noise on what the discriminator sees, of [-1, 1]")
    air: float = _number(0.05, "weight of what the generator draws where no slice has bone; needs a floor; 0: none")
    average_images: float = _number(5000.0, "the kept generator's weights are averaged over this half-life of images")
    average_share: float = _number(0.05, "or over this share of the images so far, if that is less")
    floor: float = _number(1e-4, "share of bone that may lie below the HU under which samples are air; 0: none")

    @property
    def remedy(self) -> str:
        """What to do about a collapse, if there is something."""
        return "" if self.batch_std else "a run with --config.recipe.batch_std=8 may not"


def of(fields: Mapping) -> Recipe | Relativistic:
    """The numbers in a config's `recipe`, which knows its own by its fields: none of before has one that names it."""
    return kind(fields)(**fields)


def kind(fields) -> type[Recipe] | type[Relativistic]:
    """Whose fields these are, by one that the other has not."""
    return Relativistic if "gamma" in fields else Recipe


def discriminator(fields: Mapping) -> dict:
    """What kind of discriminator a config's `recipe` trains: fields of nets.pair.Pair."""
    if kind(fields) is Recipe:
        return {}
    return {"d_norm": "none", "d_batch_std": fields.get("batch_std", 0)}  # runs of before do not say
