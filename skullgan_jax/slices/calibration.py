"""The one map between Hounsfield units (HU) and the networks' range [-1, 1]."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from skullgan_jax.errors import InputError
from skullgan_jax.slices.chunks import chunks

if TYPE_CHECKING:
    import jax

Array = TypeVar("Array", "np.ndarray", "jax.Array")

BONE_HU = 200.0  # the least of bone
_HU = -(1 << 15), (1 << 15) - 1  # of int16, as CT is stored


@dataclasses.dataclass(frozen=True)
class Calibration:
    """The HU that the networks see as -1 and as +1; stored with every model and every output.

    Both directions take numpy or jax arrays of any shape and real dtype and return float32. Nothing is
    clipped: HU outside the range land outside [-1, 1], and come back.

    Attributes:
      hu_min: of -1.
      hu_max: of +1.
      hu_floor: what the networks draw below these HU, is hu_min; None: nothing is. Where slices of bone are cut out,
        nothing lies between bone and air, which a generator, being smooth, has to pass through.

    Raises:
      InputError: the ends are not finite, or not in order, or the floor is not between them.
    """

    hu_min: float
    hu_max: float
    hu_floor: float | None = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            object.__setattr__(self, name, None if value is None else float(value))  # numpy scalars are not JSON
        if not (math.isfinite(self.hu_min) and math.isfinite(self.hu_max) and self.hu_min < self.hu_max):
            raise InputError(f"calibration {self.hu_min} to {self.hu_max} HU: need finite hu_min < hu_max")
        if self.hu_floor is not None and not self.hu_min < self.hu_floor <= self.hu_max:
            raise InputError(
                f"calibration {self.hu_min} to {self.hu_max} HU: hu_floor {self.hu_floor} must be above hu_min, and "
                "hu_max at most"
            )

    def to_unit(self, hu: Array) -> Array:
        """Gives x = 2 (hu - hu_min) / (hu_max - hu_min) - 1, float32."""
        x = hu.astype(np.float32)  # a copy, so numpy can work in place below; jax rebinds
        x -= self.hu_min
        x /= (self.hu_max - self.hu_min) / 2  # divided, not multiplied: hu_max comes out as exactly 1
        x -= 1
        return x

    @property
    def floor(self) -> float | None:
        """hu_floor on the scale of the networks."""
        return None if self.hu_floor is None else float(self.to_unit(np.float32(self.hu_floor)))

    def to_hu(self, x: Array) -> Array:
        """Gives hu = (x / 2 + 1 / 2) (hu_max - hu_min) + hu_min, float32: the inverse of `to_unit`, but for a floor."""
        hu = x.astype(np.float32)
        hu /= 2
        hu += 0.5
        hu *= self.hu_max - self.hu_min
        hu += self.hu_min
        if self.hu_floor is None:
            return hu
        return hu.__array_namespace__().where(hu < self.hu_floor, np.float32(self.hu_min), hu)

    def floored(self, images: np.ndarray, share: float) -> "Calibration":
        """The same with a floor: the HU that only a `share` of those pixels is below, which are above hu_min.

        Args:
          images: (N, ...) HU that the calibration is of; read in chunks, so a memory map of any size will do.
          share: in [0, 1); a few pixels may lie lower, as of air in bone.
        """
        num, most, least = 0, int(share * images.size), np.empty(0, images.dtype)
        for chunk in chunks(images):
            bone = chunk[chunk > self.hu_min]
            num += len(bone)
            least = np.concatenate([least, bone])
            if len(least) > most + 1:  # of all so far, as many as there can be
                least = np.partition(least, most)[: most + 1]
        return dataclasses.replace(self, hu_floor=np.sort(least)[int(share * num)])

    def __str__(self) -> str:
        """E.g. "0 to 1797 (0 below 213)"."""
        floor = "" if self.hu_floor is None else f" ({self.hu_min:g} below {self.hu_floor:g})"
        return f"{self.hu_min:g} to {self.hu_max:g}{floor}"

    def to_dict(self) -> dict[str, float]:
        """{"hu_min": ..., "hu_max": ...}, and "hu_floor" where there is one, ready for JSON."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, float]) -> "Calibration":
        """The inverse of `to_dict`; other keys are ignored.

        Raises:
          InputError: a key is missing or is not a number.
        """
        try:
            return cls(values["hu_min"], values["hu_max"], values.get("hu_floor"))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InputError(f"calibration {values!r}: need numbers hu_min and hu_max") from None

    @classmethod
    def of(cls, images: np.ndarray, *, also: Callable[[np.ndarray], object] = lambda _: None) -> "Calibration":
        """The range of a whole array, as published (min and max over every slice).

        Args:
          images: (N, ...) HU, real dtype, N >= 1; read in chunks, so a memory map of any size will do.
          also: sees each chunk, in order, while it is in memory.

        Raises:
          InputError: a value is NaN or infinite, or all values are equal.
        """
        lows, highs, bad_values, bad_slices, start = [], [], 0, [], 0
        for chunk in chunks(images):
            also(chunk)
            low, high = chunk.min(), chunk.max()
            lows.append(float(low))
            highs.append(float(high))
            if not (np.isfinite(low) and np.isfinite(high)):  # min and max pass a NaN on
                bad = ~np.isfinite(chunk.reshape(len(chunk), -1))
                bad_values += int(bad.sum())
                bad_slices += (start + np.flatnonzero(bad.any(axis=1))).tolist()
            start += len(chunk)
        if bad_slices:
            raise InputError(
                f"{bad_values} NaN or infinite values in {len(bad_slices)} of {len(images)} slices, "
                f"the first in slice {bad_slices[0]}: replace them (air is -1000 HU) or drop those slices"
            )
        if min(lows) == max(highs):
            raise InputError(f"every value is {lows[0]:g}: there is nothing to scale to [-1, 1], give other slices")
        return cls(min(lows), max(highs))

    def check_hu(self) -> None:
        """Refuse the range of what can be no HU of bone.

        Raises:
          InputError: it is that of normalised images, goes beyond what CT is stored in, or ends below bone.
        """
        if self.hu_max <= 1.001 and self.hu_min >= -1.001:
            raise InputError(
                f"values from {self.hu_min:g} to {self.hu_max:g}, the networks' [-1, 1] and not HU; map them back by "
                "the calibration of the model: hu = (x / 2 + 1 / 2) (hu_max - hu_min) + hu_min"
            )
        if self.hu_min < _HU[0] or self.hu_max > _HU[1]:
            raise InputError(
                f"values from {self.hu_min:g} to {self.hu_max:g}, beyond the {_HU[0]} to {_HU[1]} HU that there are; "
                "give slices in HU"
            )
        if self.hu_max <= BONE_HU:
            raise InputError(f"nothing above {BONE_HU:g} HU (greatest {self.hu_max:g}), no bone; give slices in HU")
