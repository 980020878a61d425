"""What was cut so far, on disk: one file per part of a scan, written whole or not at all.

`<scan>.<content>.<part>of<parts>.npz`: the accepted windows, a few of the rejected ones, and what is known of all. The
name says what it is of, so that a later run, or one after an interruption, need not cut it again.
"""

import collections
import dataclasses
import io
import json
import pathlib
import re
import zipfile

import numpy as np

from skullgan_jax.ct.cut import Cut
from skullgan_jax.errors import InputError
from skullgan_jax.machine import files

MEASURES = ("sdr", "column_mm", "mean_hu")  # as samples have them, see slices/radiology.py
NAME = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{8})\.(\d+)of(\d+)\.npz")
_SHOWN = 12  # rejected windows that are kept, per reason and part


@dataclasses.dataclass(frozen=True)
class Piece:
    """One part of one scan.

    Attributes:
      path: where it lies.
      about: facts of the scan: told_by (hashed, see subjects.py), kernel, kvp, source_slice_mm, source_pixel_mm, notes.
      known: of each window what is known of it, see cut.Cut; MEASURES, too, of what is accepted, once `measured`.
      fates: slices by what became of them.
      histogram, hu_max, at_max: see cut.Cut.
      shown: indices into `known` of the rejected windows that were kept.
    """

    path: pathlib.Path
    about: dict
    known: list[dict]
    fates: collections.Counter
    histogram: np.ndarray
    hu_max: float
    at_max: int
    shown: list[int]

    @property
    def content(self) -> str:
        """8 hex digits of the hash of the files it was cut from."""
        return self.path.name.split(".")[1]

    def accepted(self) -> np.ndarray:
        """(N, 128, 128) int16 HU, in the order of `known`."""
        return _array(self.path, "accepted")

    def rejected(self) -> np.ndarray:
        """(len(shown), 128, 128) int16 HU."""
        return _array(self.path, "rejected")

    def measured(self, pixel_mm: float) -> "Piece":
        """The same, with the MEASURES of what is accepted."""
        from skullgan_jax.slices import radiology  # JAX, which the processes that cut need not import

        found = radiology.measured(self.accepted(), pixel_mm)
        numbers = zip(*(found[name].tolist() for name in MEASURES), strict=True)
        known = [k if k["reason"] else k | dict(zip(MEASURES, next(numbers), strict=True)) for k in self.known]
        return dataclasses.replace(self, known=known)


def name(scan: str, content: str, part: int, parts: int) -> str:
    """Of the file; scan and content are hashes."""
    return f"{scan}.{content[:8]}.{part}of{parts}.npz"


def write(path: pathlib.Path, about: dict, found: Cut) -> None:
    """Writes what came of a part of a scan.

    Raises:
      OSError: it cannot be written.
    """
    accepted = np.array([not k["reason"] for k in found.known], bool)
    shown, seen = [], collections.Counter()
    for i, k in enumerate(found.known):
        if k["reason"] and seen[k["reason"]] < _SHOWN:
            seen[k["reason"]] += 1
            shown.append(i)
    facts = {
        "about": about,
        "known": found.known,
        "fates": found.fates,
        "histogram": found.histogram.tolist(),
        "hu_max": found.hu_max,
        "at_max": found.at_max,
        "shown": shown,
    }
    with files.whole(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            accepted=found.windows[accepted],
            rejected=found.windows[shown],
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
        )


def read(folder: pathlib.Path) -> dict[str, list[Piece]]:
    """The scans: each its parts in order, of every scan that is there as a whole.

    Raises:
      InputError: one of them cannot be read.
    """
    files = collections.defaultdict(dict)
    for path in sorted(folder.glob("*.npz")):
        if match := NAME.fullmatch(path.name):
            scan, content, part, parts = match.groups()
            files[scan, content, int(parts)][int(part)] = path
    whole = {}
    for (scan, _, parts), found in files.items():
        if len(found) == parts:
            whole[scan] = [_read(found[k]) for k in range(parts)]
    return whole


def forget_others(folder: pathlib.Path, scan: str, content: str) -> None:
    """Removes what was cut of an earlier state of a scan."""
    for path in folder.glob(f"{scan}.*.npz"):
        if not path.name.startswith(f"{scan}.{content[:8]}."):
            path.unlink()


def _read(path: pathlib.Path) -> Piece:
    facts = json.loads(_array(path, "facts").tobytes())
    return Piece(
        path,
        facts["about"],
        facts["known"],
        collections.Counter(facts["fates"]),
        np.array(facts["histogram"]),
        facts["hu_max"],
        facts["at_max"],
        facts["shown"],
    )


def _array(path: pathlib.Path, name: str) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            return np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged ({error}); remove it, and the scan is cut again") from None
