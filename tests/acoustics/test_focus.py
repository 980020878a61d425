"""The array, its targets, its delays, and what a skull does to its focus."""

import dataclasses

import numpy as np
import pytest

from skullgan_jax import acoustics
from skullgan_jax.acoustics import focus, pictures
from skullgan_jax.acoustics.solver import Field, Grid
from skullgan_jax.errors import InputError

SIZE, PIXEL_MM = 64, 60 / 64


def _skull() -> acoustics.Medium:
    """An arch of bone that is thicker on its left, on the coarsest grid that the array takes."""
    hu = np.zeros((SIZE, SIZE), np.float32)
    for column in range(SIZE):
        hu[12 : 16 + (4 if column < SIZE // 2 else 0), column] = 1200
    return acoustics.medium(hu, "kplan")


def test_the_published_array_and_targets():
    elements = focus.flat_array(512)
    assert elements.shape == (80, 2)
    assert set(elements[:, 0]) == {25}
    assert elements[[0, 1, -1], 1].tolist() == [15, 21, 489]
    where = focus.targets(512)
    assert where.shape == (56, 2)
    assert where[0].tolist() == [224, 160]
    assert where[9].tolist() == [256, 192]  # 32 (9 mod 8 + 7), 32 (9 div 8 + 5)
    assert where[-1].tolist() == [448, 352]
    with pytest.raises(InputError, match="size 32"):
        focus.flat_array(32)


def test_delays_of_water_by_hand():
    grid = Grid((SIZE, SIZE), 1e-3, 1e-7, 10, 1500.0)
    delays = focus.geometric_delays(grid, [(0, 0), (0, 30), (40, 0)], (40, 30))
    np.testing.assert_allclose(delays, [0, (50 - 40) * 1e-3 / 1500, (50 - 30) * 1e-3 / 1500], rtol=1e-5)


@pytest.mark.all
def test_time_reversal_in_water_gives_the_delays_of_water():
    """Within the step in time: the peak of a cycle arrives when geometry says."""
    water = acoustics.medium(np.zeros((SIZE, SIZE), np.int16), "kplan")
    grid = Grid.of(water, 0.5e-3, 45e-6, pml=(12, 12))
    elements = focus.flat_array(SIZE)
    found = focus.reversed_delays(water, grid, elements, (40, 30))
    np.testing.assert_allclose(found, focus.geometric_delays(grid, elements, (40, 30)), atol=1.5 * grid.dt)


@pytest.mark.all
def test_what_a_skull_does():
    """It weakens the focus and moves it; the delays that time reversal finds give back pressure."""
    found = focus.aberration(_skull(), PIXEL_MM, frequency=0.25e6)
    assert found.peak < 0.8 * found.peak_in_water
    assert found.corrected_peak > found.peak
    assert found.shift_mm > 0
    assert found.corrected_shift_mm <= found.shift_mm + PIXEL_MM


def test_a_picture():
    """The contour at -6 dB and the focus are behind the bone, although more pressure is in it."""
    medium = _skull()
    pressure = np.zeros((SIZE, SIZE), np.float32)
    pressure[13, 30] = 9e5
    pressure[38:43, 20:23] = 3e5
    pressure[40, 21] = 4e5
    figure = pictures.field(medium, pressure, pixel_mm=PIXEL_MM, target=(44, 30))
    marks = {line.get_label(): line.get_xydata()[0] for line in figure.axes[2].lines if len(line.get_xydata())}
    np.testing.assert_allclose(marks["focus; cyan line: -6 dB"], [21.5 * PIXEL_MM, 40.5 * PIXEL_MM])
    np.testing.assert_allclose(marks["target"], [30.5 * PIXEL_MM, 44.5 * PIXEL_MM])
    assert "peak behind the bone 400 kPa" in figure.get_suptitle()


@pytest.mark.parametrize("model", list(acoustics.MODELS))
def test_brain_is_no_bone(model):
    """Soft tissue has up to 80 HU; bone of 1500 HU is faster by every model."""
    hu = np.full((SIZE, SIZE), 80.0, np.float32)
    hu[10:14] = 1500
    found = focus.bone_of(acoustics.medium(hu, model, hu_max=2700, attenuation="kplan"))
    assert found.any(1).nonzero()[0].tolist() == [10, 11, 12, 13]


def test_bone_below_the_target_hides_nothing():
    """A speck in the last row, as nets draw them."""
    medium = _skull()
    speck = medium.sound_speed.at[-1, 5].set(2000.0)
    where = focus.behind_bone(dataclasses.replace(medium, sound_speed=speck), 40)
    assert not where[:20].any()
    assert where[20:].sum() == 44 * SIZE - 1
    assert focus.peak(np.arange(SIZE * SIZE).reshape(SIZE, SIZE), where) == ((63, 63), 4095.0)


@pytest.mark.parametrize(
    ("target", "line"), [((14, 20), r"target \(14, 20\): lies in bone"), ((64, 20), "lies outside of the grid of 64")]
)
def test_refused_targets(target, line):
    with pytest.raises(InputError, match=line):
        focus.aberration(_skull(), PIXEL_MM, target)


def test_refused_arrays_and_frequencies():
    medium = _skull()
    grid = Grid.of(medium, PIXEL_MM * 1e-3, 1e-6)
    delays = np.zeros(1)
    with pytest.raises(InputError, match="1 elements of the array lie in bone, the first in row 13, column 5"):
        focus.sonicate(medium, grid, [(13, 5)], delays)
    with pytest.raises(InputError, match="outside of the grid of 64 x 64"):
        focus.sonicate(medium, grid, [(3, 64)], delays)
    with pytest.raises(InputError, match=r"1\.6 pixels a wavelength at 1 MHz, below 3; a grid of 240 x 240 has 6"):
        focus.sonicate(medium, grid, [(3, 5)], delays, frequency=1e6)
    assert isinstance(focus.sonicate(medium, grid, [(3, 5)], delays), Field)
