"""Focal fields of many slices and targets, as rows of a store: what sampling/run.py draws, sound in place of slices.

Row i is slice i // T with target i % T of T targets.
"""

import csv
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from skullgan_jax.acoustics import focus, maps
from skullgan_jax.acoustics.formats import check_same
from skullgan_jax.acoustics.inputs import Slices
from skullgan_jax.acoustics.solver import Grid, simulate, tone_burst
from skullgan_jax.command.progress import Progress
from skullgan_jax.data.fingerprint import Fingerprint
from skullgan_jax.errors import InputError
from skullgan_jax.sampling.rows import Column, Rows
from skullgan_jax.version import __version__

_BLOCK = 64  # slices that are looked at together before anything is simulated
_CFL, _PML, _PML_ALPHA = 0.3, 14, 5.0  # TUSNet's
NUMBERS = ("slice", "target", "focus", "peak", "peak_in_water", "shift_mm")


class FieldStore(Rows):
    """A store of fields that is there; see rows.Rows.

    Of N fields: `field` (N, size, size) float32, the greatest pressure in Pa; `delays` (N, K) s; `slice` and `target`,
    row and column, of each; `focus`, row and column of the greatest pressure behind the bone; `peak` there,
    `peak_in_water` without a skull, Pa; `shift_mm` between the two.
    """

    FORMAT = "fields 1"
    NAMES = ("field", "delays", *NUMBERS)
    OF, DONE, UNIT = "fields", "simulated", "fields"

    def numbers(self, first: int, last: int) -> dict[str, np.ndarray]:
        """Rows first to last - 1 of what is small, as they are on disk."""
        reading = {name: self._arrays[name][first:last].read() for name in NUMBERS}
        return {name: future.result() for name, future in reading.items()}

    @classmethod
    def columns(cls, about: dict) -> dict[str, Column]:
        """The arrays of a store with these attributes, by name."""
        place = Column("int32", -1, (2,), ("row_and_column",))
        number = Column("float32", "NaN")
        return {
            "field": Column("float32", "NaN", (about["size"],) * 2, ("row", "column"), 1, {"units": "Pa"}),
            "delays": Column("float32", "NaN", (about["elements"],), ("element",), about={"units": "s"}),
            "slice": Column("int32", -1),
            "target": place,
            "focus": place,
            "peak": dataclasses.replace(number, about={"units": "Pa"}),
            "peak_in_water": dataclasses.replace(number, about={"units": "Pa"}),
            "shift_mm": dataclasses.replace(number, about={"units": "mm"}),
        }


class FieldSource:
    """The fields of TUSNet's array through slices, see run.Source.

    Args:
      slices: in HU.
      law: arguments of maps.medium but the HU.
      size: pixels of the grid along each edge.
      targets: (T, 2) rows and columns on that grid.
      delays: "reversed" takes delays by time reversal through each slice, "water" those of water.
      formats: what writes fields that are not to be a store.

    Raises:
      InputError: as maps.medium; the grid is too coarse; a slice has bone in a target or an element, or is not HU.
    """

    left_open = ("backend",)
    store = FieldStore

    def __init__(self, slices: Slices, law: dict, size: int, targets: np.ndarray, delays: str, formats=None):
        self.formats = formats
        self._slices, self.law, self._size, self._targets = slices, law, size, targets
        self._elements, self._reversed = focus.flat_array(size), delays == "reversed"
        self._water: dict[int, np.ndarray] = {}  # target -> field without a skull
        first = slices.read(0, 1)
        self._pixel_m = slices.pixel_mm * first.shape[-1] / size * 1e-3
        water = self._medium(np.zeros((1, 1, 1), np.float32))
        print_of, greatest = self._looked_through()
        hu_max = max(law["hu_max"] or 0.0, greatest)
        fastest = float(np.max(self._medium(np.full((1, 1, 1), hu_max, np.float32)).sound_speed))
        slowest = float(np.min(water.sound_speed))
        dt = _CFL * self._pixel_m / fastest
        steps = math.floor(2 * size * self._pixel_m / slowest / dt) + 1
        self._grid = Grid((size, size), self._pixel_m, dt, steps, fastest, (_PML, _PML), _PML_ALPHA)
        self._grid.check(focus.FREQUENCY, slowest)
        self.about = self.draws = {
            "format": FieldStore.FORMAT,
            "use": "synthetic or research data; not for treatment",
            "medium": water.model,
            "hu_max": water.hu_max,
            "alpha_power": water.alpha_power,
            "size": size,
            "pixel_mm": self._pixel_m * 1e3,
            "dt": dt,
            "steps": steps,
            "speed_ref": fastest,
            "elements": len(self._elements),
            "targets": targets.tolist(),
            "delays": delays,
            "frequency": focus.FREQUENCY,
            "cycles": focus.CYCLES,
            "pressure": focus.PRESSURE,
            "input": slices.name,
            "samples": {**slices.about, **({} if "model_sha256" in slices.about else {"fingerprint": print_of})},
            "backend": jax.default_backend(),
            "version": __version__,
        }

    def check_same(self, there: dict, about: dict, path: str) -> None:
        """InputError where what is there says that it is of other fields."""
        check_same(there, about, path, of="fields", free=(*self.left_open, "input"))

    def kept(self, drawn: dict) -> dict:
        """All of it."""
        return drawn

    def drawn(
        self, store: FieldStore, ranges: Iterator[tuple[int, int]], progress: Callable[[int], object]
    ) -> Iterator[dict[str, np.ndarray]]:
        """The fields of each range of rows, by name of array."""
        devices = jax.local_devices()
        at_once = len(devices) * (1 if jax.default_backend() == "cpu" else 16)
        program, done = _program(self._grid, _hashable(self._elements), self._reversed, tuple(devices)), 0
        for first, last in ranges:
            parts = []
            for start in range(first, last, at_once):
                rows = np.arange(start, min(start + at_once, last))
                padded = np.pad(rows, (0, at_once - len(rows)), mode="edge")
                number, which = np.divmod(padded, len(self._targets))
                low, high = int(number[0]), int(number[-1]) + 1
                medium = self._mapped(np.asarray(self._slices.read(low, high), np.float32))
                each = jax.tree.map(lambda x, at=number - low: x[at], medium)
                field, delays = (np.asarray(x) for x in program(each, jnp.asarray(self._targets[which])))
                found = [self._row(medium, int(n) - low, int(t), field[i])
                         for i, (n, t) in enumerate(zip(number[: len(rows)], which, strict=False))]  # fmt: skip
                columns = {name: np.stack([row[name] for row in found]) for name in found[0]}
                known = {"slice": number.astype(np.int32), "target": self._targets[which].astype(np.int32)}
                known |= {"field": field, "delays": delays}
                parts.append(columns | {name: values[: len(rows)] for name, values in known.items()})
                done += len(rows)
                progress(done)
            yield {name: np.concatenate([part[name] for part in parts]) for name in store.NAMES}

    def _row(self, medium: maps.Medium, number: int, which: int, field: np.ndarray) -> dict:
        """The numbers of one field: where its focus is, and what it is against water."""
        one = jax.tree.map(lambda x: x[number], medium)
        open_to = focus.behind_bone(one, int(self._targets[which][0]))
        at, peak = focus.peak(field, open_to)
        home, peak_in_water = focus.peak(self._in_water(which, medium), open_to)
        shift = np.hypot(*np.subtract(at, home)) * self._pixel_m * 1e3
        numbers = {"peak": peak, "peak_in_water": peak_in_water, "shift_mm": shift}
        return {"focus": np.array(at, np.int32), **{name: np.float32(value) for name, value in numbers.items()}}

    def _in_water(self, which: int, medium: maps.Medium) -> np.ndarray:
        """The field of a target without a skull, with water's delays."""
        if which not in self._water:
            one = focus.water_like(jax.tree.map(lambda x: x[0], medium))
            straight = focus.geometric_delays(self._grid, self._elements, self._targets[which])
            self._water[which] = np.asarray(_field(one, self._grid, jnp.asarray(self._elements), straight))
        return self._water[which]

    def _medium(self, hu) -> maps.Medium:
        return maps.medium(hu, **self.law)

    @functools.cached_property
    def _mapped(self) -> Callable:
        """Jitted: slices (n, H, W) in HU to their medium on the grid."""
        return jax.jit(lambda hu: self._medium(maps.upsample(hu, self._size)))

    def _looked_through(self) -> tuple[str, float]:
        """A fingerprint of all slices and their greatest HU; refuses what cannot be simulated."""
        progress = Progress("looked through", self._slices.num, "slices")
        fingerprint, greatest = Fingerprint(), 0.0
        for first in range(0, self._slices.num, _BLOCK):
            hu = np.asarray(self._slices.read(first, min(first + _BLOCK, self._slices.num)))
            fingerprint.update(hu)
            greatest = max(greatest, float(hu.max()))
            try:
                maps.check_hu(hu)
            except InputError as error:
                raise InputError(f"slices {first} to {first + len(hu) - 1} of {self._slices.name}: {error}") from None
            self._check_places(hu, first)
            progress(first + len(hu))
        return fingerprint.hexdigest(), greatest

    def _check_places(self, hu: np.ndarray, number: int) -> None:
        """InputError where an element or a target lies in bone, by the slices' own pixels."""
        places = np.concatenate([self._elements, self._targets])
        rows, columns = (places * hu.shape[-1] // self._size).T
        fast = focus.bone_of(self._medium(np.asarray(hu[:, rows, columns], np.float32)))
        if fast.any():
            which, place = np.argwhere(fast)[0]
            what = "element of the array" if place < len(self._elements) else "target"
            raise InputError(
                f"slice {number + which} of {self._slices.name}: the {what} in row {places[place][0]}, column "
                f"{places[place][1]} of {self._size} lies in bone; leave that slice out, or give other --targets"
            )


def _hashable(places: np.ndarray) -> tuple:
    return tuple(map(tuple, places.tolist()))


def _field(medium: maps.Medium, grid: Grid, elements, delays) -> jax.Array:
    """The greatest pressure; delays of any length that a trace has."""
    sent = tone_burst(grid, focus.FREQUENCY, focus.CYCLES, focus.PRESSURE, delays, until=grid.steps * grid.dt)
    return simulate(medium, grid, elements, sent).p_max


@functools.cache
def _program(grid: Grid, elements: tuple, by_reversal: bool, devices: tuple) -> Callable:
    """Jitted (media (n, ...), targets (n, 2)) -> p_max (n, rows, columns), delays (n, K), the n over all devices."""
    array = jnp.asarray(elements)
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
    by_device = PartitionSpec("data")

    def one(medium, target):
        if by_reversal:
            delays = focus.reversed_delays(medium, grid, array, target)
        else:
            delays = focus.geometric_delays(grid, array, target)
        return _field(medium, grid, array, delays), delays

    some = jax.shard_map(jax.vmap(one), mesh=mesh, in_specs=by_device, out_specs=by_device, check_vma=False)
    placed = NamedSharding(mesh, by_device)
    run = jax.jit(some)
    return lambda media, targets: run(*jax.device_put((media, targets), placed))


_TABLE = (
    "slice",
    "target_row",
    "target_column",
    "focus_row",
    "focus_column",
    "peak_pa",
    "peak_in_water_pa",
    "shift_mm",
)


def write_table(path, blocks: Iterable[dict[str, np.ndarray]]) -> None:
    """Writes the numbers of fields, NUMBERS by name, as a .csv; the file is written as told. Raises OSError."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(_TABLE)
        for block in blocks:
            for number, target, at, peak, water, shift in zip(*(block[name] for name in NUMBERS), strict=True):
                rows.writerow([number, *target, *at, f"{peak:.6g}", f"{water:.6g}", f"{shift:.3f}"])
