"""The solver against theory; against k-wave-python see test_peer.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from skullgan_jax import acoustics
from skullgan_jax.acoustics.solver import Grid, simulate, tone_burst
from skullgan_jax.data import phantom
from skullgan_jax.errors import InputError

PIXEL = 0.46875e-3
MHZ = 0.5


def _medium(density, speed, alpha=0.0, power=None) -> acoustics.Medium:
    density, speed = (np.asarray(x, np.float32) for x in (density, speed))
    return acoustics.Medium(density, speed, np.full_like(speed, alpha), power, "made for a test")


def _plane(medium, grid, sensors, cycles=3) -> np.ndarray:
    """Traces (steps, sensors) of a plane wave that goes down the rows of a grid that is periodic along them."""
    burst = tone_burst(grid, MHZ * 1e6, cycles)
    columns = grid.shape[1]
    source = [(20, j) for j in range(columns)]
    signals = jnp.broadcast_to(burst, (len(burst), columns))
    return np.asarray(simulate(medium, grid, source, signals, [(row, 0) for row in sensors]).traces, float)


def test_a_point_source_arrives_when_it_should():
    """Of a trace and the Hankel function, the solution in two dimensions, the trace further away follows."""
    medium = _medium(np.full((100, 64), 1000), np.full((100, 64), 1500))
    grid = Grid.of(medium, PIXEL, 30e-6)
    field = simulate(medium, grid, [(12, 32)], tone_burst(grid, MHZ * 1e6, 3), [(32, 32), (82, 32)])
    near, far = np.asarray(field.traces, float).T
    long = 4 * grid.steps
    wavenumber = 2 * np.pi * np.fft.rfftfreq(long, grid.dt)[1:] / 1500
    passed = special.hankel2(0, wavenumber * 70 * PIXEL) / special.hankel2(0, wavenumber * 20 * PIXEL)
    predicted = np.fft.irfft(np.fft.rfft(near, long) * np.concatenate([[0], passed]), long)[: grid.steps]
    assert np.abs(predicted - far).max() < 2e-3 * np.abs(far).max()
    fine = 16
    product = np.fft.rfft(far, long) * np.conj(np.fft.rfft(predicted, long))
    lag = np.argmax(np.fft.irfft(product, fine * long))
    assert min(lag, fine * long - lag) / fine <= 0.25  # of a time step


def test_nothing_comes_back_from_the_edge():
    """A plane wave that meets the layer at both ends: below -60 dB."""
    medium = _medium(np.full((64, 4), 1000), np.full((64, 4), 1500))
    grid = Grid.of(medium, PIXEL, 60e-6, pml=(20, 0))
    trace = _plane(medium, grid, [40])
    arrived = int((20 * PIXEL / 1500 + 6e-6) / grid.dt) + 5  # and gone
    assert np.abs(trace[:arrived]).max() > 0.5
    assert np.abs(trace[arrived + 40 :]).max() < 1e-3 * np.abs(trace).max()


@pytest.mark.parametrize(("speed", "density"), [(2800.0, 1850.0), pytest.param(2000.0, 1400.0, marks=pytest.mark.all)])
def test_through_a_slab_of_bone(speed, density):
    """7.5 mm at normal incidence, at the pixels of a 512 grid: the three-layer formula, within 1 %."""
    pixel, rows, thick = PIXEL / 4, 512, 64
    water = _medium(np.full((rows, 2), 1000), np.full((rows, 2), 1500))
    bone = [np.full((rows, 2), x, np.float32) for x in (1000, 1500)]
    for values, inside in zip(bone, (density, speed), strict=True):
        values[200 : 200 + thick] = inside
    spectra = []
    for medium in (_medium(*bone), water):
        grid = Grid(medium.density.shape, pixel, 0.3 * pixel / speed, 6000, speed, pml=(40, 0))
        spectra.append(np.abs(np.fft.rfft(_plane(medium, grid, [400])[:, 0])))
    frequency = np.fft.rfftfreq(6000, grid.dt)
    band = (frequency > 0.35e6) & (frequency < 0.65e6)
    phase, ratio = 2 * np.pi * frequency[band] / speed * thick * pixel, speed * density / 1.5e6
    theory = 1 / np.sqrt(np.cos(phase) ** 2 + (ratio + 1 / ratio) ** 2 / 4 * np.sin(phase) ** 2)
    np.testing.assert_allclose(spectra[0][band] / spectra[1][band], theory, rtol=0.01)


@pytest.mark.parametrize("power", [1.5, 1.0])
def test_absorption_of_a_plane_wave(power):
    """1 dB/(MHz^y cm) over 56 mm, within 1 %; small steps, as the method is of first order in time there."""
    medium = _medium(np.full((200, 2), 1000), np.full((200, 2), 1500), 1.0, power)
    grid = Grid.of(medium, PIXEL, 60e-6, cfl=0.1, pml=(20, 0))
    near, far = np.abs(np.fft.rfft(_plane(medium, grid, [50, 170]), axis=0)).T
    frequency = np.fft.rfftfreq(grid.steps, grid.dt) / 1e6
    at = np.argmin(np.abs(frequency - MHZ))
    lost = 20 * np.log10(near[at] / far[at])
    np.testing.assert_allclose(lost, frequency[at] ** power * 120 * PIXEL * 100, rtol=0.01)


@pytest.mark.all
def test_energy_does_not_grow():
    """In 10,000 steps, in lossless skulls of random depth with no edge to leave by."""
    hu = phantom.segments(3, seed=5)[:, :64, :64]
    medium = acoustics.medium(hu, "kwave", attenuation="kplan")
    medium = _medium(medium.density, medium.sound_speed)
    grid = Grid(hu.shape[1:], PIXEL, 0.3 * PIXEL / 3000, 10_000, 3000.0, pml=(0, 0))
    sensors = np.stack(np.meshgrid(np.arange(0, 64, 4), np.arange(0, 64, 4)), -1).reshape(-1, 2)
    burst = tone_burst(grid, MHZ * 1e6, 3)
    traces = jax.vmap(lambda one: simulate(one, grid, [(32, 32)], burst, sensors).traces)(medium)
    energy = np.asarray(traces, float).reshape(3, 10, 1000, -1)
    energy = (energy**2).mean((2, 3))
    assert np.all(energy[:, 1:] < 1.1 * energy[:, 1:2])  # what is potential and what kinetic changes a little
    assert np.all(energy[:, -1] > 0.5 * energy[:, 1])  # nor is it lost


def _focus(delays, grid, medium, source):
    """The greatest pressure at one point."""
    signals = tone_burst(grid, MHZ * 1e6, 3, 1.0, delays, until=4e-6)
    return simulate(medium, grid, source, signals, [(40, 24)]).traces.max()


@pytest.mark.all
def test_the_gradient_of_the_focal_pressure():
    """With respect to the delays, through absorbing bone, against central differences."""
    hu = np.zeros((48, 48), np.float32)
    hu[14:22] = 900 + 300 * np.sin(np.arange(48) / 5)
    medium = acoustics.medium(hu, "kplan")
    grid = Grid.of(medium, PIXEL, 26e-6, pml=(10, 10))
    source = np.array([(6, 8), (6, 20), (6, 28), (6, 40)])
    delays = jnp.array([0.0, 1.3e-6, 1.1e-6, 0.4e-6])
    focus = jax.jit(_focus, static_argnums=1)
    got = jax.jit(jax.grad(_focus), static_argnums=1)(delays, grid, medium, source)
    step = 1e-8
    want = [
        float(
            focus(delays.at[i].add(step), grid, medium, source) - focus(delays.at[i].add(-step), grid, medium, source)
        )
        / (2 * step)
        for i in range(4)
    ]
    np.testing.assert_allclose(got, want, atol=1e-3 * np.abs(want).max())


@pytest.mark.all
def test_many_at_once_are_each_alone():
    hu = phantom.segments(2, seed=1)[:, :48, :48]
    medium = acoustics.medium(hu, "tusnet")
    grid = Grid.of(medium, PIXEL, 12e-6, pml=(10, 10))
    burst = tone_burst(grid, MHZ * 1e6, 2)
    together = jax.vmap(lambda one: simulate(one, grid, [(4, 24)], burst).p_max)(medium)
    for one, alone in zip(together, range(2), strict=True):
        single = jax.tree.map(lambda x, i=alone: x[i], medium)
        np.testing.assert_allclose(one, simulate(single, grid, [(4, 24)], burst).p_max, rtol=1e-5, atol=1e-6)


def test_a_tone_burst():
    """By hand at one time; a delay moves it; silence before and after."""
    grid = Grid((8, 8), PIXEL, 0.05e-6, 400, 1500.0)
    burst = np.asarray(tone_burst(grid, 0.5e6, 5, 2.0, np.array([0.0, 1e-6])))
    assert burst.shape == (221, 2)  # 10 us and the delay of 1 us
    # At 5.5 us the sine is -1, and 0.3 standard deviations are gone from the middle.
    np.testing.assert_allclose(burst[110, 0], -2 * np.exp(-0.5 * 0.3**2), rtol=1e-4)
    np.testing.assert_allclose(burst[130, 1], burst[110, 0], rtol=1e-4)
    assert not burst[:20, 1].any()
    assert not burst[202:, 0].any()


def test_refused():
    with pytest.raises(InputError, match=r"a time step of 2e-07 s is unstable here; give one of at most 1\.105e-07 s"):
        Grid((8, 8), PIXEL, 2e-7, 10, 3000.0)
    grid = Grid((128, 128), PIXEL, 1e-8, 10, 3000.0)
    grid.check(1e6, 1500.0)
    with pytest.raises(InputError, match=r"1\.6 pixels a wavelength at 2 MHz, below 3; a grid of 480 x 480 has 6"):
        grid.check(2e6, 1500.0)
