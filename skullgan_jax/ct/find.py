"""The scans in files and folders."""

import collections
import functools
import json
import os
import pathlib
from collections.abc import Collection, Iterator

from skullgan_jax.ct import dicom, pieces, scans, subjects
from skullgan_jax.errors import InputError

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")
_ARCHIVE = "an archive; unpack it and give the folder"
_MANY, _FEW = 5, 3  # folders of one reason that get a line each, and of how many where there are more


def check(inputs) -> None:
    """Raises InputError where one is not there."""
    for root in inputs:
        if not root.exists():
            raise InputError(f"--input={root}: no such file or folder; check the path")


def _files(inputs, ours: Collection[str], complain) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """(input, file) of every file once, in order; links are followed.

    Hidden ones are passed over, and so is what `prepare` itself wrote: `ours`, and other data sets.
    """
    folders_seen, seen = set(), set()
    # The outermost first, so that a folder means the same whether or not one in it is given, too.
    for root in sorted(inputs, key=lambda p: len(pathlib.Path(os.path.realpath(p)).parts)):
        if root.is_file():
            if (real := os.path.realpath(root.parent), root.name) not in seen:
                seen.add((real, root.name))
                yield root.parent, root
            continue
        for folder, folders, names in os.walk(
            root,
            onerror=lambda e: complain(f"{e.filename}: cannot be read ({e.strerror}); allow reading it"),
            followlinks=True,
        ):
            real = os.path.realpath(folder)
            if real in folders_seen or real in ours or _is_data_set(real, names):
                folders.clear()  # a loop of links, or a second way to a folder
                continue
            folders_seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = pathlib.Path(folder, name)
                if name.startswith(".") or os.path.join(real, name) in ours or (real, name) in seen:
                    continue
                if pieces.NAME.fullmatch(name):
                    continue
                if path.is_file() or not path.exists():  # a pipe would hang
                    seen.add((real, name))
                    yield root, path


def _is_data_set(folder: str, names: Collection[str]) -> bool:
    try:
        return "summary.json" in names and "made_with" in json.loads(pathlib.Path(folder, "summary.json").read_text())
    except (OSError, ValueError, TypeError):
        return False


def find(inputs, *, spacing, complain, ours: Collection[str] = ()):
    """Everything that could be cut, as calls that open it.

    Args:
      inputs: paths of files and folders that are there.
      spacing: mm, of .npy volumes, or None.
      complain: called with one line for each file or series that cannot be used.
      ours: real paths of files and folders that are no input.

    Returns:
      a list of (function, arguments) that make a Scan, and a Counter of files that no one expects to be cut.
    """
    opened, headers, where, ignored = [], {}, {}, collections.Counter()
    refused = collections.defaultdict(list)
    places = functools.cache(subjects.places)
    for root, path in _files(inputs, ours, complain):
        name = path.name.lower()
        told_by = places(root, path.parent)
        if not told_by[0].startswith("of "):
            told_by = (f"file {os.path.realpath(path.parent)}/{path.name}", *told_by)
        if name.endswith((".nii", ".nii.gz")):
            opened.append((scans.nifti, (path, told_by)))
        elif name.endswith(".npy"):
            opened.append((scans.npy, (path, told_by, spacing)))
        elif name.endswith(_ARCHIVES):
            refused[path.parent, _ARCHIVE].append(path)
        else:
            try:
                headers[str(path)] = dicom.header(path)
                where[str(path)] = root
            except dicom.NoImage as what:
                ignored[str(what)] += 1
            except dicom.NotDicom as error:
                if name.endswith((".dcm", ".ima")) or path in inputs or _is_binary(path):
                    refused[path.parent, str(error).removeprefix(f"{path}: ")].append(path)
                else:
                    ignored["notes and others"] += 1
            except InputError as error:
                refused[path.parent, str(error).removeprefix(f"{path}: ")].append(path)
    for line in _summed_up(refused):
        complain(line)
    for found in dicom.group(headers):
        if dicom.is_survey(found):
            ignored["localisers"] += len(found)
        elif dicom.is_reformatted(found):
            ignored["reformatted in other directions"] += len(found)
        else:
            told_by = {word for p in found for word in places(where[p], pathlib.Path(p).parent)}
            opened.append((dicom.stack, (found, tuple(sorted(told_by)))))
    return opened, ignored


def _summed_up(refused: dict[tuple[pathlib.Path, str], list[pathlib.Path]]) -> Iterator[str]:
    """A line per folder and reason, and one for all folders beyond the first few that have the same."""
    by_reason = collections.defaultdict(list)
    for (folder, reason), paths in refused.items():
        by_reason[reason].append((folder, paths))
    for reason, places in by_reason.items():
        few = places if len(places) <= _MANY else places[:_FEW]
        for folder, paths in few:
            one = paths[0] if reason.startswith((dicom.NO_DICOM, _ARCHIVE)) else f"{folder}: 1 file"
            yield f"{one if len(paths) == 1 else f'{folder}: {len(paths)} files'}: {reason}"
        if rest := places[len(few) :]:
            yield f"{sum(len(paths) for _, paths in rest)} files in {len(rest)} more folders: {reason}"


def _is_binary(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"\0" in file.read(4096)
    except OSError:
        return True
