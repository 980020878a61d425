"""Find scans, cut them in parallel, split by subject, write arrays."""

import collections
import hashlib
import hmac
import json
import math
import multiprocessing
import os
import pathlib
import secrets
import shutil
from concurrent import futures

import numpy as np

from skullgan_jax.ct import cut, dicom, scans
from skullgan_jax.errors import InputError
from skullgan_jax.progress import Progress, say

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
            found += [(root, pathlib.Path(folder, n)) for n in sorted(names) if not n.startswith(".")]
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
                if name.endswith((".dcm", ".ima")) or path in inputs or b"\0" in path.read_bytes()[:4096]:
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


def _cut_one(make, arguments, limits):
    """In a worker: the scan's own facts, its segments and what is known of them, or the line that refuses it."""
    try:
        scan = make(*arguments)
        scans.check_hu(scan)
        segments, known, fates = cut.cut(scan, limits)
        if not fates["cut"]:
            raise InputError(
                f"{scan.name}: no vault in {sum(fates.values())} slices ({_counts(fates)}); give a head CT"
            )
    except InputError as error:
        return str(error)
    accepted = np.array([not k["reason"] for k in known])
    about = {
        "identity": scan.identity,
        "subject": scan.subject,
        "kernel": scan.kernel,
        "kvp": scan.kvp,
        "source_slice_mm": scan.slice_mm,
        "source_pixel_mm": float(scan.pixel_mm.mean()),
        "notes": scan.notes,
    }
    return about, segments[accepted], known, fates


def _counts(counter) -> str:
    return ", ".join(f"{n} {what}" for what, n in counter.most_common())


def _salt(path: pathlib.Path) -> bytes:
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32) + "\n")
        salt = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--salt={path}: cannot be read or made ({error})") from None
    if len(salt) < 16:
        raise InputError(f"--salt={path}: shorter than 16 characters; remove it, and a new one is made")
    return salt.encode()


def split(subjects, held_out: float, seed: int) -> set[str]:
    """The subjects that are held out: round(held_out n) of them, one at least of two or more; by a hash of the seed."""
    ranked = sorted(set(subjects), key=lambda s: hashlib.sha256(f"{seed} {s}".encode()).digest())
    if not held_out or len(ranked) < 2:
        return set()
    return set(ranked[: min(len(ranked) - 1, max(1, math.floor(held_out * len(ranked) + 0.5)))])


def prepare(*, inputs, output, limits, spacing, by_folder, salt_file, held_out, seed, jobs) -> int:
    """Cuts every scan of `inputs` into a new folder; see skullgan_jax.prepare.

    Returns:
      how many files or scans were left out.

    Raises:
      InputError: nothing could be done.
    """
    lines = []

    def complain(line: str) -> None:
        lines.append(line)
        say(f"left out: {line}")

    work, ignored = find(inputs, spacing=spacing, by_folder=by_folder, complain=complain)
    if not work:
        raise InputError(f"--input: no CT in {sum(ignored.values()) + len(lines)} files; give a folder of head CTs")
    salt = _salt(salt_file)

    def hashed(text: str) -> str:
        return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:16]

    segments, rows, scans_table = {}, {}, {}
    fates, reasons, progress = collections.Counter(), collections.Counter(), Progress("cut", len(work), "scans")
    with futures.ProcessPoolExecutor(min(jobs, len(work)), multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(_cut_one, make, arguments, limits) for make, arguments in work]
        for done, task in enumerate(futures.as_completed(tasks), 1):
            result = task.result()
            progress(done)
            if isinstance(result, str):
                complain(result)
                continue
            about, accepted, known, slices = result
            scan, subject = hashed(about.pop("identity")), hashed(about.pop("subject"))
            if scan in segments:
                continue  # the same scan twice
            fates.update(slices)
            reasons.update(k["reason"] or "accepted" for k in known)
            segments[scan] = accepted
            rows[scan] = [{"scan": scan, "subject": subject, **about, **k} for k in known if not k["reason"]]
            scans_table[scan] = {"subject": subject, **about, "accepted": len(accepted), "windows": len(known)}
    if not any(map(len, segments.values())):
        raise InputError("no segment was accepted from any scan; see the lines above")
    _write(
        output,
        segments,
        rows,
        scans_table,
        split((t["subject"] for t in scans_table.values()), held_out, seed),
        {
            "pixel_mm": limits.pixel_mm,
            "slices": dict(fates),
            "windows": dict(reasons),
            "left_out": len(lines),
            "ignored_files": dict(ignored),
        },
    )
    subjects = len({t["subject"] for t in scans_table.values()})
    say(f"{reasons['accepted']} segments of {len(segments)} scans, {subjects} subjects: {output}")
    say(f"slices: {_counts(fates)}; windows: {_counts(reasons)}; left out: {len(lines)}")
    if subjects < 2:
        say("only one subject: nothing is held out, and a network will learn one skull")
    return len(lines)


def _write(output, segments, rows, scans_table, held, summary) -> None:
    """Writes beside the output, then renames."""
    beside = output.with_name(output.name + ".tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        table = {}
        for name, wanted in (("train", False), ("held_out", True)):
            chosen = [s for s in sorted(segments) if (scans_table[s]["subject"] in held) == wanted and len(segments[s])]
            if chosen:
                np.save(beside / f"{name}.npy", np.concatenate([segments[s] for s in chosen]))
                table[name] = [row for s in chosen for row in rows[s]]
        (beside / "segments.json").write_text(json.dumps(table))
        (beside / "summary.json").write_text(json.dumps({**summary, "scans": scans_table}, indent=1))
        beside.rename(output)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        raise InputError(f"--output={output}: cannot be written ({error.strerror or error})") from None
