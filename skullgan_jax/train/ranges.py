"""What each field of the config may be, checked before anything is made."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from skullgan_jax.errors import InputError
from skullgan_jax.slices.size import SIZE
from skullgan_jax.train import recipe


@dataclasses.dataclass(frozen=True)
class _Number:
    """From `low`, which belongs to it unless `above`, to `high`, which belongs to it unless `below`."""

    low: float
    high: float
    above: bool = False
    below: bool = False
    whole: bool = False

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            return False
        # Not a number is in no order.
        return (value > self.low if self.above else value >= self.low) and (
            value < self.high if self.below else value <= self.high
        )

    def __str__(self) -> str:
        least = f"above {self.low:g}" if self.above else f"{self.low:g} or more"
        high = math.log2(self.high) if self.whole and self.high > 1 << 16 else 0
        most = f"2^{high:g}" if high else f"{self.high:g}"
        return f"must be {least} and {'below' if self.below else 'at most'} {most}"


@dataclasses.dataclass(frozen=True)
class _Any:
    """Of a type, and if they are named, one of some values."""

    of: type
    words: str
    values: tuple = ()

    def __contains__(self, value: Any) -> bool:
        return type(value) is self.of and (not self.values or value in self.values)

    def __str__(self) -> str:
        return self.words


def _whole(low: int, high: int = 1 << 31) -> _Number:
    return _Number(low, high, below=True, whole=True)


_SHARE = _Number(0, 1, above=True)
_TEXT, _SWITCH = _Any(str, "give text"), _Any(bool, "give True or False")
_RANGES = {
    "seed": _whole(0, 1 << 32),
    "epochs": _whole(1),
    "batch_size": _whole(2),
    "data.name": _Any(str, "give skull or celeba", ("skull", "celeba")),
    "data.path": _TEXT,
    "data.num": _whole(1),
    "data.pixel_mm": _Number(0, 100, above=True, below=True),
    "model.nc": _Any(int, "the data have one channel; give 1", (1,)),
    "model.nz": _Number(1, 65536, whole=True),
    "model.ngf": _Number(16, 4096, whole=True),
    "model.ndf": _Number(1, 4096, whole=True),
    "model.dtype": _Any(str, "give auto, float32 or bfloat16", ("auto", "float32", "bfloat16")),
    "recipe.lr": _SHARE,
    "recipe.b1": _Number(0, 1, below=True),
    "recipe.b2": _Number(0, 1, below=True),
    "recipe.eps": _SHARE,
    "recipe.g_factor": _SHARE,
    "recipe.d_factor": _SHARE,
    "recipe.patience": _whole(0),
    "recipe.real_target": _SHARE,
    "recipe.gate_epoch": _whole(0),
    "recipe.gate_loss": _Number(0, 100),
    "recipe.blur_epoch": _whole(0),
    "recipe.lr_end": _SHARE,
    "recipe.gamma": _Number(0, 1e6),
    "recipe.gamma_end": _Number(0, 1e6),
    "recipe.gamma_until": _SHARE,
    "recipe.batch_std": _Number(0, 4096, whole=True),
    "recipe.mirror": _Number(0, 1),
    "recipe.shift": _Number(0, SIZE // 2, whole=True),
    "recipe.shift_share": _Number(0, 1),
    "recipe.grain": _Number(0, 1),
    "recipe.air": _Number(0, 1e6),
    "recipe.average_images": _Number(0, 1e9, above=True),
    "recipe.average_share": _SHARE,
    "recipe.floor": _Number(0, 1, below=True),
    "pretrained": _TEXT,
    "checkpoint": _TEXT,
    "skip_damaged": _SWITCH,
    "shard_state": _SWITCH,
    "log_every": _whole(1),
    "sample_every": _whole(1),
    "checkpoint_every": _whole(1),
    "judge_slices": _whole(1),
    "final_slices": _whole(0),
    "patience": _whole(0),
}
LATER = {  # what configs of before mean by having none
    "patience": 0,
    "skip_damaged": False,
    "recipe.batch_std": 0,
    "recipe.air": 0.0,
}


def fits(field: str, value: Any) -> bool:
    """Whether a field may have this value."""
    return field not in _RANGES or value in _RANGES[field]


def check(values: Mapping[str, Any]) -> None:
    """Refuse what is out of its range.

    Args:
      values: of all fields, {"data.path": "phantom"}.

    Raises:
      InputError: naming the field, its value and what it may be; or a field that is missing, or one too many.
    """
    for field, value in values.items():
        if not fits(field, value):
            raise InputError(f"--config.{field}={value}: {_RANGES[field]}")
    ours = {f"recipe.{f.name}" for f in dataclasses.fields(recipe.kind({k.partition(".")[2] for k in values}))}
    known = {field for field in _RANGES if field in ours or not field.startswith("recipe.")}
    for field in known - LATER.keys() - values.keys():
        raise InputError(f"--config: has no field {field}; add it")
    for field in values.keys() - known:
        if field.startswith(("model.", "recipe.")):
            raise InputError(f"--config: has a field {field}, which is none of {field.partition('.')[0]}; take it out")
