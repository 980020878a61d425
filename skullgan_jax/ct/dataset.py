"""Look at scans, cut them in parallel, split by subject, and put the data set together."""

import collections
import dataclasses
import hashlib
import hmac
import json
import math
import os
import pathlib
import secrets
import shutil
from concurrent import futures

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.ct import cut, find, pieces, publish, report, scans
from skullgan_jax.errors import InputError
from skullgan_jax.machine import extras
from skullgan_jax.machine.pool import new_processes

_PART = 40  # slices that one process cuts at a time
_opened = {}  # in a worker: the scan it cut last, as a compressed volume is read whole


def prepare(*, inputs, output: str, format: str, limits, spacing, by_folder, salt_file, held_out, seed, jobs) -> int:
    """Adds every scan of `inputs` to a data set; see skullgan_jax.prepare.

    Returns:
      how many files or scans were left out.

    Raises:
      InputError: nothing could be done.
    """
    lines = []

    def complain(line: str) -> None:
        lines.append(line)
        say(f"left out: {line}")

    extras.check("matplotlib", *(("tensorflow", "tensorflow_datasets") if format == "tfds" else ()))
    old = publish.summary(output)
    work, ignored = find.find(inputs, spacing=spacing, by_folder=by_folder, complain=complain)
    if not work:
        raise InputError(f"--input: no CT in {sum(ignored.values()) + len(lines)} files; give a folder of head CTs")
    beside = _beside(output)
    salt = _salt(salt_file or pathlib.Path(f"{beside}.salt"))

    def hashed(text: str) -> str:
        return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:16]

    made_with = {**dataclasses.asdict(limits), "salt": hashed("salt")[:8]}
    _check_same(output, old, made_with)
    # Pieces depend on how they were cut: another way, another folder.
    how = hashed(json.dumps(made_with))[:8]
    folder = pathlib.Path(f"{beside}.pieces", how)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from None
    with futures.ProcessPoolExecutor(jobs, new_processes()) as pool:
        try:
            repeated = _cut_all(pool, work, limits, folder, hashed, complain)
        except futures.process.BrokenProcessPool:
            raise InputError(
                "a process that cut was killed, as it is where memory runs out; give --jobs=1 and the same command "
                "again: what is cut is kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    found = {s: parts for s, parts in pieces.read(folder).items() if any(p.fates["cut"] for p in parts)}
    if lost := [s for s in (old or {}).get("scans", ()) if s not in found]:
        raise InputError(
            f"--output={output}: {len(lost)} of its scans are neither in --input nor in {folder}; "
            "give them too, or another folder"
        )
    if not any(not k["reason"] for parts in found.values() for p in parts for k in p.known):
        raise InputError("no segment was accepted from any scan; see the lines above")
    found = {s: [p.measured(limits.pixel_mm) for p in parts] for s, parts in found.items()}
    summary = _summary(found, held_out, seed, old) | {
        "format": format,
        "pixel_mm": limits.pixel_mm,
        "made_with": made_with,
        "measures": report.definitions(),
        "left_out": len(lines),
        "ignored_files": dict(ignored),
        "repeated_scans": repeated,
    }
    summary["warnings"] = report.warnings(summary, found)
    _put_together(output, old, found, summary)
    subjects = {t["subject"]: t["split"] for t in summary["scans"].values()}
    say(f"segments: {summary['windows']['accepted']}, scans: {len(found)}, subjects: {len(subjects)}; in {output}")
    say(f"slices: {_counts(summary['slices'])}; windows: {_counts(summary['windows'])}; left out: {len(lines)}")
    for line in summary["warnings"]:
        say(f"warning: {line}")
    return len(lines)


def _cut_all(pool, work, limits, folder, hashed, complain) -> int:
    """Cuts what is not cut yet; returns how many scans were given twice."""
    progress, to_cut, names, repeated = Progress("looked at", len(work), "scans"), [], {}, 0
    tasks = {pool.submit(_look, make, arguments, limits): (make, arguments) for make, arguments in work}
    for done, task in enumerate(futures.as_completed(tasks), 1):
        progress(done)
        if isinstance(task.result(), str):
            complain(task.result())
            continue
        name, series, content, subject, slices = task.result()
        scan, content = hashed(series or content), hashed(content)
        if scan in names:
            repeated += 1
            continue
        names[scan] = (name, content)
        parts = math.ceil(slices / _PART)
        for part in range(parts):
            path = folder / pieces.name(scan, content, part, parts)
            if not path.exists():
                to_cut.append((*tasks[task], limits, hashed(subject), path, part, parts))
    kept = len(names) - len({task[4].name[:16] for task in to_cut})
    if kept:
        say(f"cut before: {kept} of {len(names)} scans")
    progress, refused = Progress("cut", len(to_cut), "parts of scans"), set()
    tasks = {pool.submit(_cut_part, *task): task[4].name[:16] for task in to_cut}
    for done, task in enumerate(futures.as_completed(tasks), 1):
        progress(done)
        if task.result() and tasks[task] not in refused:
            refused.add(tasks[task])
            complain(task.result())
    for scan, (_, content) in names.items():
        if scan not in refused:
            pieces.forget_others(folder, scan, content)
    for scan, parts in pieces.read(folder).items():
        fates = sum((p.fates for p in parts), collections.Counter())
        if scan in names and not fates["cut"]:
            what = f"no vault in {sum(fates.values())} slices ({_counts(fates)})"
            complain(f"{names[scan][0]}: {what}; give a head CT")
    return repeated


def _look(make, arguments, limits):
    """In a worker: name, series, content, subject and the number of slices of a scan, or the line that refuses it."""
    try:
        scan = make(*arguments)
        return scan.name, scan.series, scan.content(), scan.subject, len(cut.choose(scan, limits))
    except InputError as error:
        return str(error)


def _cut_part(make, arguments, limits, subject: str, path: pathlib.Path, part: int, parts: int) -> str:
    """In a worker: cuts a part of a scan and writes it, or gives the line that refuses it."""
    try:
        if path.name[:16] not in _opened:
            _opened.clear()
            _opened[path.name[:16]] = make(*arguments)
        scan = _opened[path.name[:16]]
        scans.check_hu(scan)
        about = {
            "subject": subject,
            "kernel": scan.kernel,
            "kvp": scan.kvp,
            "source_slice_mm": scan.slice_mm,
            "source_pixel_mm": float(scan.pixel_mm.mean()),
            "notes": scan.notes,
        }
        pieces.write(path, about, cut.cut(scan, limits, part, parts))
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{scan.name}: what was cut cannot be written to {path.parent} ({error.strerror})"
    return ""


def _counts(counter) -> str:
    return ", ".join(f"{n} {what}" for what, n in collections.Counter(counter).most_common())


def _beside(output: str) -> pathlib.Path:
    """What begins the names of what is kept beside the output; of a bucket, in this folder."""
    return pathlib.Path(output.rsplit("/", 1)[1] if publish.is_remote(output) else output)


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


def _check_same(output: str, old: dict | None, made_with: dict) -> None:
    """Segments that were cut in two ways, or subjects hashed in two, do not go into one data set."""
    before = (old or {}).get("made_with", made_with)
    now = json.loads(json.dumps(made_with))
    differing = [f"{k} {before.get(k)} there, {now.get(k)} now" for k in now if before.get(k) != now.get(k)]
    if old is not None and ("made_with" not in old or differing):
        what = "; ".join(differing) or "an older version made it"
        raise InputError(f"--output={output}: was made with other options ({what}); give another folder or remove it")


def split(subjects: set[str], held_out: float, seed: int, before: dict[str, str]) -> dict[str, str]:
    """The split of each subject: round(held_out n) held out, one at least of two or more, by a hash of the seed.

    Who was in a split before stays in it, so that nobody is trained on who was held out.
    """
    out = {s: before[s] for s in subjects if s in before}
    new = sorted(subjects - set(out), key=lambda s: hashlib.sha256(f"{seed} {s}".encode()).digest())
    count = len(out) + len(new)
    wanted = min(count - 1, max(1, math.floor(held_out * count + 0.5))) if held_out else 0
    missing = max(0, wanted - list(out.values()).count("held_out"))
    return out | {s: "held_out" if i < missing else "train" for i, s in enumerate(new)}


def _summary(found: dict[str, list[pieces.Piece]], held_out: float, seed: int, old: dict | None) -> dict:
    """What summary.json says of slices, windows and scans."""
    subjects = {parts[0].about["subject"] for parts in found.values()}
    where = split(subjects, held_out, seed, old["before"] if old else {})
    fates, reasons, table = collections.Counter(), collections.Counter(), {}
    for scan, parts in sorted(found.items()):
        own = collections.Counter(k["reason"] or "accepted" for p in parts for k in p.known)
        fates.update(sum((p.fates for p in parts), collections.Counter()))
        reasons.update(own)
        hu_max = max(p.hu_max for p in parts)
        about = parts[0].about
        table[scan] = {
            **about,
            "content": parts[0].content,
            "split": where[about["subject"]],
            "hu_max": hu_max,
            "at_hu_max": sum(p.at_max for p in parts if p.hu_max == hu_max),
            "windows": dict(own),
        }
    version = "1.0.0"
    if old:
        number = int(old["version"].split(".")[1]) + (old["scans"] != table)
        version = f"1.{number}.0"
    return {"version": version, "slices": dict(fates), "windows": dict(reasons), "scans": table}


def _put_together(output: str, old: dict | None, found: dict[str, list[pieces.Piece]], summary: dict) -> None:
    folder = pathlib.Path(f"{_beside(output)}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    splits = {}
    for name in publish.SPLITS:
        chosen = {s: found[s] for s, t in summary["scans"].items() if t["split"] == name}
        if any("accepted" in summary["scans"][s]["windows"] for s in chosen):
            splits[name] = chosen
    try:
        folder.mkdir(parents=True)
        if summary["format"] == "npy":
            publish.write_arrays(folder, splits)
        else:
            publish.write_tfds(folder, splits, summary["version"])
        table = {name: [r for s, p in chosen.items() for r in publish.rows(p, s)] for name, chosen in splits.items()}
        (folder / "segments.json").write_text(json.dumps(table))
        report.write(folder / "report.html", summary, found)
        files = sorted([p.name for p in folder.iterdir()] + ["summary.json"])
        (folder / "summary.json").write_text(json.dumps({**summary, "files": files}, indent=1))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"--output={output}: cannot be written ({error.strerror or error})") from None
    publish.put(folder, output, old)
