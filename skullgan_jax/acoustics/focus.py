"""A flat array above the head, focused on a target: delays, focal fields, and what the skull does to the focus."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from skullgan_jax.acoustics.maps import Medium
from skullgan_jax.acoustics.solver import Field, Grid, simulate, tone_burst
from skullgan_jax.errors import InputError
from skullgan_jax.machine import programs

FREQUENCY, CYCLES, PRESSURE = 0.5e6, 5, 1e6  # Hz, of the burst, Pa: TUSNet's
_TEST_PRESSURE = 10.0  # Pa, of one cycle that a target sends to find the delays
_ROW, _FIRST, _PITCH, _ELEMENTS, _OF = 25, 15, 6, 80, 512  # TUSNet's array on its grid of 512
TISSUE = 1620.0  # m/s, by most models about 100 HU: what is slower is water, brain or scalp, and no bone


class Focus(NamedTuple):
    """What became of a focus; see `aberration`.

    Attributes:
      shift_mm: from where water has the focus to where the skull has it.
      peak: greatest pressure behind the bone, Pa.
      peak_in_water: the same in water alone.
      corrected_shift_mm, corrected_peak: with the delays that time reversal through this skull gives.
      field, field_in_water, corrected: the fields.
    """

    shift_mm: float
    peak: float
    peak_in_water: float
    corrected_shift_mm: float
    corrected_peak: float
    field: Field
    field_in_water: Field
    corrected: Field


def flat_array(size: int) -> np.ndarray:
    """TUSNet's transducer, 80 elements on one row, on a grid of size x size: (80, 2) int rows and columns.

    At 512: row 25, columns 15, 21, ... 489; 3.0 mm from the edge of a 60 mm square. Smaller grids merge elements.

    Raises:
      InputError: the size is below 64.
    """
    if size < 64:
        raise InputError(f"size {size}: the array needs 64 pixels or more")
    columns = (_FIRST + _PITCH * np.arange(_ELEMENTS)) * size // _OF
    return np.unique(np.stack([np.full_like(columns, _ROW * size // _OF), columns], 1), axis=0)


def targets(size: int) -> np.ndarray:
    """TUSNet's 56 targets, (56, 2): rows 7 to 14 and columns 5 to 11 of sixteenths of the grid, rows first."""
    each = np.arange(56)
    return np.stack([each % 8 + 7, each // 8 + 5], 1) * size // 16


def geometric_delays(grid: Grid, elements, target, speed: float = 1500.0) -> jax.Array:
    """Delays (K,) in seconds by which all elements arrive at the target at once in water."""
    path = jnp.hypot(*(jnp.asarray(elements) - jnp.asarray(target)).T) * grid.pixel_m / speed
    return path.max() - path


def reversed_delays(medium: Medium, grid: Grid, elements, target, frequency: float = FREQUENCY) -> jax.Array:
    """Delays (K,) in seconds by time reversal: the target sends one cycle, and what arrives last is sent first.

    As TUSNet: (max(argmax) - argmax) dt of the pressure at the elements.
    """
    burst = tone_burst(grid, frequency, 1, _TEST_PRESSURE, until=0.0)
    traces = simulate(medium, grid, jnp.atleast_2d(jnp.asarray(target)), burst, elements).traces
    arrived = jnp.argmax(traces, 0)
    return (arrived.max() - arrived) * grid.dt


def sonicate(medium: Medium, grid: Grid, elements, delays, *, frequency=FREQUENCY, pressure=PRESSURE) -> Field:
    """The field of an array that sends a burst of five cycles, each element with its delay.

    Args:
      medium: (rows, columns).
      grid: of that shape.
      elements: (K, 2).
      delays: (K,) seconds, known numbers.
      frequency: Hz.
      pressure: Pa.

    Raises:
      InputError: the grid has fewer than 3 pixels a wavelength; an element lies in bone, or outside.
    """
    check_elements(medium, elements)
    grid.check(frequency, float(np.min(medium.sound_speed)))
    return simulate(medium, grid, elements, tone_burst(grid, frequency, CYCLES, pressure, delays))


@programs.kept()
def aberration(
    medium: Medium, pixel_mm: float, target: tuple[int, int] | None = None, *, frequency: float = FREQUENCY
) -> Focus:
    """What a skull does to the focus of an array of TUSNet's geometry.

    Four simulations: in water and through the skull with the delays of water, the target's wave to the elements, and
    through the skull with the delays that follow.

    Args:
      medium: of one slice, (N, N), N at least 64.
      pixel_mm: edge of a pixel of these maps.
      target: row and column; the middle of the slice at 5/8 of its depth by default.
      frequency: Hz.

    Raises:
      InputError: the target lies outside or in bone; as `sonicate`.
    """
    size = medium.density.shape[-1]
    target = target or (size * 5 // 8, size // 2)
    if not (0 <= target[0] < size and 0 <= target[1] < size):
        raise InputError(f"target {target}: lies outside of the grid of {size} x {size}")
    if bone_of(medium)[target]:
        raise InputError(f"target {target}: lies in bone; give one below it")
    water = water_like(medium)
    grid = Grid.of(medium, pixel_mm * 1e-3, 2.0 * size * pixel_mm * 1e-3 / 1500)
    elements = flat_array(size)
    straight = np.asarray(geometric_delays(grid, elements, target))
    fields = [sonicate(each, grid, elements, straight, frequency=frequency) for each in (water, medium)]
    turned = np.asarray(reversed_delays(medium, grid, elements, target, frequency))
    fields.append(sonicate(medium, grid, elements, turned, frequency=frequency))
    open_to = behind_bone(medium, target[0])
    (home, *others), peaks = zip(*(peak(field.p_max, open_to) for field in fields), strict=True)
    shifts = [float(np.hypot(*np.subtract(at, home)) * pixel_mm) for at in others]
    return Focus(shifts[0], peaks[1], peaks[0], shifts[1], peaks[2], fields[1], fields[0], fields[2])


def water_like(medium: Medium) -> Medium:
    """Water alone on the same grid, without absorption."""
    return dataclasses.replace(
        medium,
        density=jnp.full_like(medium.density, 1000.0),
        sound_speed=jnp.full_like(medium.sound_speed, 1500.0),
        alpha_coeff=jnp.zeros_like(medium.alpha_coeff),
    )


def check_elements(medium: Medium, elements) -> None:
    """InputError where an element lies in bone or outside of the grid."""
    rows, columns = np.asarray(elements).T
    height, width = medium.density.shape[-2:]
    if rows.min() < 0 or columns.min() < 0 or rows.max() >= height or columns.max() >= width:
        raise InputError(f"elements of the array lie outside of the grid of {height} x {width}")
    inside = bone_of(medium)[..., rows, columns].any(tuple(range(medium.density.ndim - 2)))
    if inside.any():
        first = int(np.argmax(inside))
        raise InputError(
            f"{int(inside.sum())} elements of the array lie in bone, the first in row {rows[first]}, column "
            f"{columns[first]}: the apex of a segment is to lie below them"
        )


def bone_of(medium: Medium) -> np.ndarray:
    """Where sound is faster than in soft tissue, bool of the shape of the maps."""
    return np.asarray(medium.sound_speed) > TISSUE


def behind_bone(medium: Medium, row: int) -> np.ndarray:
    """(rows, columns) bool: where a focus is looked for, below the last bone above a row, and not in bone itself."""
    bone = bone_of(medium)
    rows = np.arange(bone.shape[0])
    last = np.flatnonzero(bone.any(1) & (rows < row)).max(initial=bone.shape[0] // 6)
    return ~bone & (rows[:, None] > last)


def peak(p_max, where: np.ndarray) -> tuple[tuple[int, int], float]:
    """Where among those pixels the greatest pressure is, and how much."""
    looked_at = np.where(where, np.asarray(p_max), -1.0)
    row, column = np.unravel_index(np.argmax(looked_at), looked_at.shape)
    return (int(row), int(column)), float(looked_at[row, column])
