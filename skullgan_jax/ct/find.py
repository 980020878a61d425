"""The scans in files and folders."""

import collections
import os
import pathlib

from skullgan_jax.ct import dicom, scans
from skullgan_jax.errors import InputError

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".7z", ".rar")


def _files(inputs, complain) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """(input, file) of every file, in order."""
    found = []
    for root in inputs:
        if not root.exists():
            raise InputError(f"--input={root}: no such file or folder; check the path")
        if root.is_file():
            found.append((root.parent, root))
            continue
        for folder, folders, names in os.walk(
            root, onerror=lambda e: complain(f"{e.filename}: cannot be read ({e.strerror}); allow reading it")
        ):
            folders.sort()
            paths = (pathlib.Path(folder, n) for n in sorted(names) if not n.startswith("."))
            found += [(root, p) for p in paths if p.is_file() or not p.exists()]  # a pipe would hang
    return found


def find(inputs, *, spacing, by_folder: bool, complain):
    """Everything that could be cut, as calls that open it.

    Args:
      inputs: paths of files and folders.
      spacing: mm, of .npy volumes, or None.
      by_folder: whether the folder tells subjects apart, not PatientID.
      complain: called with one line for each file or series that cannot be used.

    Returns:
      a list of (function, arguments) that make a Scan, and a Counter of files that no one expects to be cut.
    """
    opened, headers, ignored, refused = [], {}, collections.Counter(), collections.Counter()
    for root, path in _files(inputs, complain):
        name = path.name.lower()
        subject = f"folder {path.parent}" if by_folder or path.parent != root else f"file {path}"
        if name.endswith((".nii", ".nii.gz")):
            opened.append((scans.nifti, (path, subject)))
        elif name.endswith(".npy"):
            opened.append((scans.npy, (path, subject, spacing)))
        elif name.endswith(_ARCHIVES):
            complain(f"{path}: an archive; unpack it and give the folder")
        else:
            try:
                headers[str(path)] = dicom.header(path)
            except dicom.NoImage as what:
                ignored[str(what)] += 1
            except dicom.NotDicom as error:
                with path.open("rb") as file:
                    binary = b"\0" in file.read(4096)
                if name.endswith((".dcm", ".ima")) or path in inputs or binary:
                    complain(str(error))
                else:
                    ignored["notes and others"] += 1
            except InputError as error:
                reason = str(error).removeprefix(f"{path}: ")
                refused[path.parent, reason] += 1
    for (folder, reason), count in refused.items():
        complain(f"{folder}: {count} file{'s' * (count > 1)}: {reason}")
    for paths in dicom.group(headers):
        folder = f"folder {pathlib.Path(paths[0]).parent}" if by_folder else None
        opened.append((dicom.stack, ({p: headers[p] for p in paths}, folder)))
    return opened, ignored
