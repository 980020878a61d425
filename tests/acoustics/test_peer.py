"""The solver against k-wave-python 0.6.2, whose fields benchmarks/acoustics.py --write keeps here."""

import pathlib
import runpy

import jax
import numpy as np
import pytest

from skullgan_jax.acoustics.solver import Grid, simulate, tone_burst
from skullgan_jax.slices.size import PIXEL_MM

ROOT = pathlib.Path(__file__).parents[2]
CASE = runpy.run_path(str(ROOT / "benchmarks" / "acoustics.py"))


def _compare(name: str, skulls: list[int]) -> None:
    """Within 1 % of the peak is asked for; what is kept has 16 bits, and float32 is 1e-5 apart."""
    kept = np.load(CASE["FIXTURE"])
    medium = CASE["media"](kept["hu"], name == "absorbing")
    grid = Grid.of(medium, PIXEL_MM * 1e-3, CASE["SECONDS"])
    medium = jax.tree.map(lambda x: x[np.array(skulls)], medium)
    elements, delays = CASE["array"](128)
    signals = tone_burst(grid, CASE["FREQUENCY"], CASE["CYCLES"], 1e6, delays)
    ours = np.asarray(jax.vmap(lambda one: simulate(one, grid, elements, signals).p_max)(medium))
    for field, i in zip(ours, skulls, strict=True):
        peak = kept[f"{name}_peak"][i]
        theirs = kept[name][i] / 65535 * peak
        np.testing.assert_allclose(field, theirs, atol=1e-4 * peak)
        below = np.s_[60:]  # the bone
        assert np.argmax(field[below]) == np.argmax(kept[name][i][below])  # the focus, to the pixel


def test_one_skull():
    _compare("absorbing", [0])


@pytest.mark.all
@pytest.mark.parametrize("name", ["lossless", "absorbing"])
def test_five_skulls(name):
    _compare(name, [0, 1, 2, 3, 4])
