"""Fields as TUSNet takes them (kbp-lab/TUSNet): a folder of files that torch.load reads, 256 pairs in each.

`inputs/` and `inputs_traced/` have one tensor (256, 512, 512): slices in HU with the array and the target drawn in, the
latter with lines from the array's ends to the target, too. `pfields/` has (fields, phases, norms): greatest pressures
(256, 512, 512) in Pa, delays (256, 80) in s and the maximum of each field (256,). TUSNet's own loader clips and scales
them.
"""

import json
import pathlib
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from skullgan_jax.acoustics import maps
from skullgan_jax.acoustics.fields import NUMBERS, write_table
from skullgan_jax.acoustics.inputs import Slices
from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError
from skullgan_jax.machine import files
from skullgan_jax.model import pytorch_file

SIZE = 512
_PAIRS = 256  # of a file; TUSNet's loader counts on it
_GREATEST = 2734.531494140625  # HU that mean array and target to TUSNet
_PARTS = ("inputs", "inputs_traced", "pfields")
_ABOUT, _TABLE = "fields.json", "fields.csv"


class Layout:
    """Writes fields of these slices; see sampling/formats.py for what its methods are.

    Args:
      slices: those that the fields are of.
      elements: (K, 2) of the array.
    """

    def __init__(self, slices: Slices, elements: np.ndarray):
        self._slices, self._elements = slices, elements

    def about(self, output: str) -> dict | None:
        """What fields that are there say they are; None where nothing is. InputError where something else is."""
        path = pathlib.Path(output)
        if not path.exists() and not path.is_symlink():
            return None
        try:
            found = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
            return found | {"complete": True, "num": int(found["num"])}
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"--output={output}: is there, and holds no fields; give another name or remove it"
            ) from None

    def undamaged(self, output: str, about: dict) -> bool:
        """Whether all files are there, in their sizes."""
        sizes = about.get("files", {})
        paths = {name: pathlib.Path(output, name) for name in sizes}
        return bool(sizes) and all(path.is_file() and path.stat().st_size == sizes[n] for n, path in paths.items())

    def write(self, form: str, output: str, blocks: Iterable[dict], about: dict) -> None:
        """Writes about["num"] fields. Raises OSError."""
        progress, done, sizes = Progress(f"written to {output}", about["num"], "fields"), 0, {}
        with files.whole(output, ours=(*_PARTS, _ABOUT, _TABLE)) as folder:
            for part in _PARTS:
                (folder / part).mkdir(parents=True)
            numbers = []
            for number, pairs in enumerate(_by(_PAIRS, blocks)):
                plain, traced = self._inputs(pairs)
                norms = pairs["field"].max((1, 2))
                values = (plain, traced, (pairs["field"], pairs["delays"], norms))
                for part, value in zip(_PARTS, values, strict=True):
                    name = f"{part}/{number:05d}.pt"
                    pytorch_file.write(folder / name, value)
                    sizes[name] = (folder / name).stat().st_size
                numbers.append({name: pairs[name] for name in NUMBERS})
                done += len(norms)
                progress(done)
            write_table(folder / _TABLE, numbers)
            files.write_json(folder / _ABOUT, {**about, "files": sizes})
        if done % _PAIRS:
            say(
                f"{output}: the last file has {done % _PAIRS} pairs; TUSNet's loader wants {_PAIRS}, leave it out there"
            )

    def _inputs(self, pairs: dict) -> tuple[np.ndarray, np.ndarray]:
        """The slices of these pairs with the array and the target, and the same with lines."""
        low, high = int(pairs["slice"][0]), int(pairs["slice"][-1]) + 1
        hu = np.asarray(_upsampled(np.asarray(self._slices.read(low, high), np.float32)))
        plain = hu[pairs["slice"] - low]
        traced = np.empty_like(plain)
        for i, (row, column) in enumerate(pairs["target"]):
            plain[i, row, column] = _GREATEST
            plain[i][tuple(self._elements.T)] += _GREATEST
            traced[i] = plain[i]
            for end in (self._elements[0], self._elements[-1]):
                rows, columns, weight = line(tuple(end), (row, column))
                traced[i, rows, columns] = _GREATEST / 4 * weight
            traced[i, row, column] = _GREATEST
        return plain, traced


@jax.jit
def _upsampled(hu):
    return maps.upsample(hu, SIZE)


def line(start: tuple[int, int], end: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An anti-aliased line: rows, columns and weights of the pixels nearer than one to it, in the box of its ends.

    A weight is 1 minus the distance, which is what scikit-image's line_aa has (A. Zingl's algorithm).
    """
    (r0, c0), (r1, c1) = start, end
    rows, columns = np.mgrid[min(r0, r1) : max(r0, r1) + 1, min(c0, c1) : max(c0, c1) + 1]
    away = np.abs((r1 - r0) * (columns - c0) - (c1 - c0) * (rows - r0)) / max(np.hypot(r1 - r0, c1 - c0), 1)
    near = away < 1
    return rows[near], columns[near], 1 - away[near]


def _by(num: int, blocks: Iterable[dict]) -> Iterator[dict]:
    """The same rows, so many at a time."""
    held: dict = {}
    for block in blocks:
        held = {k: np.concatenate([held[k], v]) for k, v in block.items()} if held else block
        while len(held["slice"]) >= num:
            yield {k: v[:num] for k, v in held.items()}
            held = {k: v[num:] for k, v in held.items()}
    if held and len(held["slice"]):
        yield held
