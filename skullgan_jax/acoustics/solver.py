"""Sound in two dimensions: the k-space pseudospectral method on a staggered grid.

First-order equations of linear acoustics in heterogeneous media with power-law absorption,

  du/dt = -grad p / rho0,   drho/dt = -rho0 div u,
  p = c0^2 (rho - tau (-lap)^(y / 2 - 1) drho/dt - eta (-lap)^((y - 1) / 2) rho),

with spatial gradients by FFT, the k-space operator kappa = sinc(c_ref k dt / 2) that makes steps in time exact in a
homogeneous medium, velocities half a pixel and half a step beside pressures, and a split-field perfectly matched layer
(PML) about the grid. Tabei, Mast, Waag 2002 (J. Acoust. Soc. Am. 111:53) for the method; Treeby and Cox 2010
(J. Acoust. Soc. Am. 127:2741) for absorption, tau = -2 alpha0 c^(y - 1), eta = 2 alpha0 c^y tan(pi y / 2).

Everything is float32, differentiable and goes through jit and vmap: `simulate` compiles once per grid.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from skullgan_jax.acoustics.maps import Medium
from skullgan_jax.errors import InputError

_POINTS = 3  # per wavelength, at least; 2 are the end of what a grid can hold


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where and when the field is computed.

    Attributes:
      shape: (rows, columns) of the grid, without the PML.
      pixel_m: edge of a pixel.
      dt: step in time, s.
      steps: how many there are.
      speed_ref: c of the k-space operator, the greatest of the medium, m/s.
      pml: pixels of the PML at each end of the rows and of the columns, outside of the grid; 0 makes it periodic there.
      pml_alpha: its absorption, nepers a pixel at its outer edge.
    """

    shape: tuple[int, int]
    pixel_m: float
    dt: float
    steps: int
    speed_ref: float
    pml: tuple[int, int] = (20, 20)
    pml_alpha: float = 2.0

    @property
    def padded(self) -> tuple[int, int]:
        """The shape with the PML."""
        (rows, columns), (above, beside) = self.shape, self.pml
        return rows + 2 * above, columns + 2 * beside

    @property
    def inside(self) -> tuple[slice, slice]:
        """Where the grid lies in it."""
        (rows, columns), (above, beside) = self.shape, self.pml
        return slice(above, above + rows), slice(beside, beside + columns)

    @classmethod
    def of(cls, medium: Medium, pixel_m: float, seconds: float, *, cfl: float = 0.3, **more) -> "Grid":
        """A grid for a medium, (..., rows, columns): dt = cfl pixel_m / (greatest c), as many steps as `seconds` take.

        Raises:
          InputError: the step is above the stability limit.
        """
        fastest = float(np.max(medium.sound_speed))
        dt = cfl * pixel_m / fastest
        rows, columns = medium.density.shape[-2:]
        return cls((rows, columns), pixel_m, dt, math.ceil(seconds / dt) + 1, fastest, **more)

    def __post_init__(self) -> None:
        limit = self.pixel_m / (math.sqrt(2) * self.speed_ref)
        if not 0 < self.dt <= limit:
            raise InputError(f"a time step of {self.dt:.3g} s is unstable here; give one of at most {limit:.4g} s")

    def check(self, frequency: float, slowest: float) -> None:
        """Refuse a frequency, Hz, whose waves the grid does not hold at the least speed, m/s.

        Raises:
          InputError: fewer than 3 pixels a wavelength.
        """
        points = slowest / frequency / self.pixel_m
        if points < _POINTS:
            size = math.ceil(max(self.shape) * 6 / points)
            raise InputError(
                f"{points:.1f} pixels a wavelength at {frequency / 1e6:g} MHz, below {_POINTS}; "
                f"a grid of {size} x {size} has 6"
            )


class Field(NamedTuple):
    """What came of a simulation; pressures in Pa, float32.

    Attributes:
      p_max: (rows, columns) the greatest pressure at any time.
      p_final: (rows, columns) that of the last step.
      traces: (steps, sensors) that at the sensors.
    """

    p_max: jax.Array
    p_final: jax.Array
    traces: jax.Array


def tone_burst(grid: Grid, frequency: float, cycles: int, amplitude=1.0, delays=0.0, *, until=None) -> jax.Array:
    """A sine under a Gaussian window that is 3 standard deviations wide on each side, as k-Wave's.

    Args:
      grid: for its times.
      frequency: Hz.
      cycles: how many in the window.
      amplitude: Pa.
      delays: seconds, one for each element, (K,) or a number; differentiable.
      until: the greatest delay there can be, seconds; by default that of `delays`, which then is a known number.

    Returns:
      (n, K) Pa, or (n, 1), float32, until all bursts have ended or the grid's time has.
    """
    delays, length = jnp.atleast_1d(jnp.asarray(delays, jnp.float32)), cycles / frequency
    last = float(np.max(delays)) if until is None else until
    t = jnp.arange(min(grid.steps, math.ceil((last + length) / grid.dt) + 1))[:, None] * grid.dt - delays
    window = jnp.exp(-0.5 * (6 * t / length - 3) ** 2)
    inside = (t >= 0) & (t <= length)
    return jnp.where(inside, amplitude * jnp.sin(2 * jnp.pi * frequency * t) * window, 0.0)


@functools.partial(jax.jit, static_argnums=1)
def simulate(medium: Medium, grid: Grid, source, signals, sensors=()) -> Field:
    """The field of point sources, or of an array of them, in a medium.

    Args:
      medium: maps (rows, columns); for many slices or targets at once, jax.vmap.
      grid: of the same shape.
      source: (K, 2) int, row and column of each element.
      signals: (n, K) Pa that the elements add in the first n steps, as k-Wave's additive pressure source: a full row of
        elements sends a plane wave of this pressure to each side.
      sensors: (S, 2) int, where traces are kept.

    Returns:
      the field, see Field; traces[i] is the pressure at the end of step i.
    """
    to_k, to_x, k = _transforms(grid)
    density, speed, alpha = (_padded(x, grid) for x in (medium.density, medium.sound_speed, medium.alpha_coeff))
    lightness = 1 / jnp.stack([_halfway(density, axis) for axis in (0, 1)])  # where the velocities are
    gradient, divergence, correction = _operators(grid, k)
    pml_u, pml_rho = (jnp.stack(list(_pml(grid, shift))) for shift in (0.5, 0.0))
    stretch = _state_equation(medium.alpha_power, speed, alpha, k, to_k, to_x)
    at, read = (tuple((jnp.asarray(x, int).reshape(-1, 2) + jnp.asarray(grid.pml)).T) for x in (source, sensors))
    gain = grid.dt / (grid.pixel_m * speed[at])  # for each half of the split density; p then has 2 c dt / dx of it

    @functools.partial(jax.checkpoint, prevent_cse=False)  # a gradient keeps the state of each step, and no more
    def step(state, signal):
        u, rho, p, greatest = state
        u = pml_u * (pml_u * u - grid.dt * lightness * to_x(gradient * to_k(p)))
        flux = density * to_x(divergence * to_k(u))  # rho0 times the two parts of div u
        rho = pml_rho * (pml_rho * rho - grid.dt * flux)
        if signal is not None:
            rho = rho + to_x(correction * to_k(jnp.zeros_like(p).at[at].add(gain * signal)))
        p = stretch(rho.sum(0), flux.sum(0))
        return (u, rho, p, jnp.maximum(greatest, p[grid.inside])), p[read]

    zero = jnp.zeros_like(density)
    state = (jnp.stack([zero, zero]), jnp.stack([zero, zero]), zero, zero[grid.inside])
    state, driven = jax.lax.scan(step, state, signals)
    state, free = jax.lax.scan(step, state, None, length=grid.steps - len(signals))
    return Field(state[3], state[2][grid.inside], jnp.concatenate([driven, free]))


def _padded(values, grid: Grid) -> jax.Array:
    return jnp.pad(jnp.asarray(values, jnp.float32), [(layer, layer) for layer in grid.pml], mode="edge")


def _halfway(values: jax.Array, axis: int) -> jax.Array:
    """Half a pixel further along an axis; the last stays."""
    last = jax.lax.slice_in_dim(values, values.shape[axis] - 1, None, axis=axis)
    return (values + jnp.concatenate([jax.lax.slice_in_dim(values, 1, None, axis=axis), last], axis)) / 2


def _transforms(grid: Grid):
    """To wavenumbers, back, and the wavenumbers (rows, columns) in rad/m, of real fields with their PML."""
    k = [2 * np.pi * f(n, grid.pixel_m) for f, n in zip((np.fft.fftfreq, np.fft.rfftfreq), grid.padded, strict=True)]
    return jnp.fft.rfft2, functools.partial(jnp.fft.irfft2, s=grid.padded), np.meshgrid(*k, indexing="ij")


def _operators(grid: Grid, k):
    """Gradient, each part half a pixel on; divergence, half a pixel back; and what a source is multiplied with."""
    phase = grid.speed_ref * np.hypot(*k) * grid.dt / 2
    kappa = np.sinc(phase / np.pi)
    ahead = np.stack([1j * each * kappa * np.exp(1j * each * grid.pixel_m / 2) for each in k])
    back = np.stack([1j * each * kappa * np.exp(-1j * each * grid.pixel_m / 2) for each in k])
    return jnp.asarray(ahead, jnp.complex64), jnp.asarray(back, jnp.complex64), jnp.asarray(np.cos(phase), jnp.float32)


def _pml(grid: Grid, shift: float):
    """exp(-alpha dt / 2) along rows and along columns, alpha rising with the 4th power of the depth into the layer."""
    for axis, (n, layer) in enumerate(zip(grid.shape, grid.pml, strict=True)):
        x = np.arange(n + 2 * layer) + shift
        depth = np.maximum(np.maximum(layer - x, x - (n + layer - 1)), 0) / max(layer, 1)
        alpha = grid.pml_alpha * grid.speed_ref / grid.pixel_m * depth**4
        factor = np.expand_dims(np.exp(-alpha * grid.dt / 2 * (layer > 0)), 1 - axis)
        yield jnp.asarray(np.broadcast_to(factor, grid.padded), jnp.float32)


def _state_equation(power: float | None, speed, alpha, k, to_k, to_x):
    """(density, rho0 div u) -> pressure, with absorption and the dispersion that goes with it.

    For y = 1 the dispersion of the fractional Laplacian, tan(pi / 2), has no limit: there is none then.
    """
    if power is None:
        return lambda rho, flux: speed**2 * rho
    k = np.hypot(*k)
    with np.errstate(divide="ignore"):
        loss = np.where(k > 0, k ** (power - 2), 0)
    neper = alpha * (100 / (20 * math.log10(math.e)) * (1e-6 / (2 * math.pi)) ** power)  # (rad/s)^-y m^-1
    tau = -2 * neper * speed ** (power - 1)
    if power == 1:
        alone = jnp.asarray(loss, jnp.float32)
        return lambda rho, flux: speed**2 * (rho + tau * to_x(alone * to_k(flux)))
    eta = 2 * neper * speed**power * math.tan(math.pi * power / 2)
    both = jnp.asarray(np.stack([loss, k ** (power - 1)]), jnp.float32)

    def pressure(rho, flux):
        lost, slowed = to_x(both * to_k(jnp.stack([flux, rho])))
        return speed**2 * (rho + tau * lost - eta * slowed)

    return pressure
