"""The solver against k-wave-python, values and speed: python benchmarks/acoustics.py --peer=PYTHON [--write]

Without --peer: what is missing of the power law of absorption, over steps in time and strength; and what the FFTs of
one of TUSNet's pairs, delays and field, move through memory.

PYTHON is that of an environment with k-wave-python 0.6.2, which does not go together with ours; its package downloads
binaries at import, which are not needed and not asked for here. In one run, on the same cores, one after the other:

- five phantom skulls of 128 x 128, a focused array of 20 elements, without and with absorption: the greatest pressure
  over time, and how far the two are apart, of the peak; --write keeps the peer's in tests/data/kwave.npz;
- milliseconds a step at 128 x 128 and 512 x 512, one field, and ours of eight fields at once;
- what TUSNet's 3,222 x 56 pairs of 6,951 steps would take at that rate.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from skullgan_jax import acoustics
from skullgan_jax.acoustics.solver import Grid, simulate, tone_burst
from skullgan_jax.data import phantom
from skullgan_jax.slices.size import PIXEL_MM

SKULLS, SEED, FREQUENCY, CYCLES, SECONDS = 5, 11, 0.5e6, 5, 45e-6
FIXTURE = pathlib.Path(__file__).parents[1] / "tests" / "data" / "kwave.npz"
PAIRS, STEPS = 3222 * 56, 6951
H100_BYTES = 3.35e12  # a second, of an H100 SXM by its data sheet


def media(hu: np.ndarray, absorbing: bool) -> acoustics.Medium:
    """The case's medium: k-Wave's density, TUSNet's attenuation, or none."""
    found = acoustics.medium(hu, "kwave", attenuation="tusnet")
    return found if absorbing else dataclasses.replace(found, alpha_power=None)


def array(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Elements on a row above the bone, (K, 2), and their delays for a focus at 60 % of the depth, seconds."""
    columns = np.arange(size * 15 // 128, size * 115 // 128, size * 5 // 128)
    elements = np.stack([np.full_like(columns, size * 4 // 128), columns], 1)
    path = np.hypot(elements[:, 0] - size * 0.6, elements[:, 1] - size / 2) * PIXEL_MM * 1e-3 * 128 / size / 1500
    return elements, path.max() - path


def run_peer(python: str, medium: acoustics.Medium, grid: Grid, elements, signals) -> tuple[np.ndarray, float]:
    """The greatest pressure by k-wave-python (float64), and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        case, out = pathlib.Path(folder, "case.npz"), pathlib.Path(folder, "out.npz")
        full = np.zeros((grid.steps, len(elements)))
        full[: len(signals)] = signals
        about = {"dx": grid.pixel_m, "dt": grid.dt, "steps": grid.steps, "y": medium.alpha_power, "pml": grid.pml[0]}
        np.savez(
            case,
            rho=medium.density,
            c=medium.sound_speed,
            alpha=medium.alpha_coeff,
            source=elements,
            signals=full,
            about=json.dumps(about),
        )
        subprocess.run([python, pathlib.Path(__file__).with_name("kwave_peer.py"), case, out], check=True)
        found = np.load(out)
        return found["p_max"], float(found["seconds"])


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--peer", help="the Python that has k-wave-python")
    flags.add_argument("--write", action="store_true", help="keep the peer's fields for the tests")
    flags.add_argument("--sizes", default="128,512")
    flags = flags.parse_args()
    if not flags.peer:
        absorption()
        return traffic()
    hu = phantom.segments(SKULLS, seed=SEED)
    kept = {"hu": hu}
    elements, delays = array(128)
    for name, absorbing in (("lossless", False), ("absorbing", True)):
        medium = media(hu, absorbing)
        grid = Grid.of(medium, PIXEL_MM * 1e-3, SECONDS)
        signals = tone_burst(grid, FREQUENCY, CYCLES, 1e6, delays)
        ours = np.asarray(jax.vmap(lambda one, g=grid, s=signals: simulate(one, g, elements, s).p_max)(medium))
        theirs = [
            run_peer(flags.peer, jax.tree.map(lambda x, i=i: x[i], medium), grid, elements, signals)[0]
            for i in range(SKULLS)
        ]
        apart = [np.abs(a - b).max() / b.max() for a, b in zip(ours, theirs, strict=True)]
        print(f"{name}: {grid.steps} steps, p_max at most {max(apart):.2e} of its peak apart", flush=True)
        # 16 bits of each field's peak: 1.5e-5 of it.
        kept[name] = np.stack([np.rint(p / p.max() * 65535).astype(np.uint16) for p in theirs])
        kept[f"{name}_peak"] = np.array([p.max() for p in theirs])
    if flags.write:
        np.savez_compressed(FIXTURE, **kept)
        print(f"wrote {FIXTURE.name}, {FIXTURE.stat().st_size / 1e3:.0f} kB")
    for size in map(int, flags.sizes.split(",")):
        speed(flags.peer, hu, size)


def absorption() -> None:
    """A plane wave in water, 0.5 MHz, over 70 mm at 0.46875 mm a pixel; float32."""
    pixel, sensors, full = PIXEL_MM * 1e-3, (50, 200), np.ones((256, 4), np.float32)
    for power in (1.5, 1.0):
        for strength in (1.0, 4.0):
            for cfl in (0.3, 0.1, 0.03):
                medium = acoustics.Medium(1000 * full, 1500 * full, strength * full, power, "water")
                grid = Grid.of(medium, pixel, 160e-6, cfl=cfl, pml=(20, 0))
                burst = np.repeat(tone_burst(grid, FREQUENCY, 3), 4, 1)
                rows = [(row, 0) for row in sensors]
                traces = simulate(medium, grid, [(20, column) for column in range(4)], burst, rows).traces
                near, far = np.abs(np.fft.rfft(np.asarray(traces, float), axis=0)).T
                frequency = np.fft.rfftfreq(grid.steps, grid.dt) / 1e6
                at = np.argmin(np.abs(frequency - FREQUENCY / 1e6))
                wanted = strength * frequency[at] ** power * (sensors[1] - sensors[0]) * pixel * 100
                off = 20 * np.log10(near[at] / far[at]) / wanted - 1
                print(f"y {power}, {strength:g} dB/(MHz^y cm), cfl {cfl}: {off:+.2%} of the power law", flush=True)


def traffic() -> None:
    """Bytes that the FFTs of a pair read and write, a pass over rows and one over columns each, and the least time."""
    hu = np.zeros((512, 512), np.float32)
    hu[60:100] = 2734.53
    medium, elements = acoustics.medium(hu, "tusnet"), acoustics.flat_array(512)
    grid = Grid.of(medium, 60e-3 / 512, 0.12 / 1493, pml=(14, 14), pml_alpha=5.0)
    sent = tone_burst(grid, FREQUENCY, 1, until=0.0), np.zeros((grid.steps, len(elements)), np.float32)
    places = (((320, 256),), elements), (elements, ())
    total = 0
    for signals, (source, sensors) in zip(sent, places, strict=True):
        run = jax.make_jaxpr(lambda m, a=source, s=signals, b=sensors: simulate(m, grid, a, s, b))(medium)
        for scan in _equations(run.jaxpr, "scan"):
            arrays = [v.aval for e in _equations(scan.params["jaxpr"].jaxpr, "fft") for v in (*e.invars, *e.outvars)]
            total += scan.params["length"] * 2 * sum(a.size * a.dtype.itemsize for a in arrays)
    pair = total / H100_BYTES
    print(f"{grid.steps} steps, twice: FFTs move {total / 1e9:.0f} GB a pair; at 3.35 TB/s {pair:.2f} s, "
          f"all {PAIRS:,} {pair * PAIRS / 3600:.0f} h")  # fmt: skip


def _equations(jaxpr, name: str):
    for equation in jaxpr.eqns:
        if equation.primitive.name == name:
            yield equation
        for value in equation.params.values():
            for each in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner, name)


def speed(peer: str, hu: np.ndarray, size: int) -> None:
    """Milliseconds a step: a warm program of ours, the least of three; the peer's own run, its set-up included."""
    steps = 1000 if size == 128 else 100
    elements, delays = array(size)
    for name, absorbing in (("lossless", False), ("absorbing", True)):
        medium = media(np.asarray(acoustics.upsample(hu, size)), absorbing)
        pixel = PIXEL_MM * 1e-3 * 128 / size
        fastest = float(np.max(medium.sound_speed))
        grid = Grid((size, size), pixel, 0.3 * pixel / fastest, steps, fastest)
        signals = tone_burst(grid, FREQUENCY, CYCLES, 1e6, delays)
        one = jax.tree.map(lambda x: x[0], medium)
        eight = jax.tree.map(lambda x: x[np.arange(8) % SKULLS], medium)
        alone = least(lambda o=one, g=grid, s=signals, e=elements: simulate(o, g, e, s)) / steps
        together = jax.jit(jax.vmap(lambda m, g=grid, s=signals, e=elements: simulate(m, g, e, s).p_max))
        of_eight = least(lambda t=together, e=eight: t(e)) / steps / 8
        theirs = run_peer(peer, one, grid, elements, np.asarray(signals))[1] / steps
        pairs = PAIRS * 2 * STEPS * min(alone, of_eight) / 86400
        print(
            f"{size} {name}: ours {alone * 1e3:.2f} ms a step, {of_eight * 1e3:.2f} a field of eight; peer "
            f"{theirs * 1e3:.2f}; ratio {theirs / alone:.1f}"
            + (f"; a pair of TUSNet {2 * STEPS * alone:.0f} s, all {PAIRS:,} {pairs:.0f} days" if size == 512 else ""),
            flush=True,
        )


def least(run) -> float:
    """Seconds, the least of three after one that compiles."""
    jax.block_until_ready(run())
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
