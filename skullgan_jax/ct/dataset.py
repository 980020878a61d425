"""Look at scans, cut them in parallel, split by subject, and put the data set together."""

import collections
import contextlib
import dataclasses
import hashlib
import hmac
import json
import math
import os
import pathlib
import secrets
from collections.abc import Callable
from concurrent import futures

from skullgan_jax.command.progress import Progress, say
from skullgan_jax.ct import cut, find, pieces, publish, report, scans, subjects
from skullgan_jax.errors import InputError, MachineError, by_cause
from skullgan_jax.machine import extras, files, lock
from skullgan_jax.machine.paths import is_remote
from skullgan_jax.machine.pool import new_processes

_PART = 40  # slices that one process cuts at a time
_RULES = 2  # by which scans are cut and named; it goes up with them, and what was cut by others is cut again
_TOLD = 3  # slices of a scan that cannot be read and get a line each
_opened = {}  # in a worker: the scan it cut last, as a compressed volume is read whole


def prepare(*, inputs, output: str, format: str, limits, spacing, by_folder, salt_file, held_out, seed, jobs) -> int:
    """Adds every scan of `inputs` to a data set; see skullgan_jax.prepare.

    Returns:
      how many files or scans were left out.

    Raises:
      InputError: nothing could be done.
    """
    extras.check("matplotlib", *(("tensorflow", "tensorflow_datasets") if format == "tfds" else ()))
    find.check(inputs)
    if format == "tfds" and not _is_utf8(output):
        raise InputError(f"--output={output}: TensorFlow writes to UTF-8 names alone; give another, or --format=npy")
    lines = []

    def complain(line: str) -> None:
        lines.append(line)
        say(f"left out: {line}")

    with contextlib.nullcontext() if is_remote(output) else lock.only_writer(output):
        old = publish.summary(output)
        beside = _beside(output)
        salt_file = salt_file or pathlib.Path(f"{beside}.salt")
        ours = {os.path.realpath(path) for path in (beside, f"{beside}.pieces", salt_file)}
        work, ignored = find.find(inputs, spacing=spacing, complain=complain, ours=ours)
        if not work:
            passed_over = f" ({_counts(ignored)})" if ignored else ""
            count = sum(ignored.values()) + len(lines)
            raise InputError(f"--input: no CT in {count} files{passed_over}; give a folder of head CTs")
        salt = _salt(salt_file)

        def hashed(text: str) -> str:
            return hmac.new(salt, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:16]

        cut_with = {**dataclasses.asdict(limits), "salt": hashed("salt")[:8], "rules": _RULES}
        made_with = {**cut_with, "subject_by": "folder" if by_folder else "id"}
        _check_same(output, old, made_with)
        # Pieces depend on how they were cut: another way, another folder.
        folder = pathlib.Path(f"{beside}.pieces", hashed(json.dumps(cut_with))[:8])
        seen, repeated = _cut_all(work, limits, folder, hashed, jobs, complain)
        found = _found(folder, seen)
        if not found:
            raise InputError("no segment was accepted from any scan; see the lines above")
        was = _was(output, old, made_with, folder, seen, found)
        found, where = _told_apart(output, old, found, seen, was, by_folder, held_out, seed)
        found = {s: [p.measured(limits.pixel_mm) for p in parts] for s, parts in found.items()}
        summary = _summary(found, where, old) | {
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
    count = len({t["subject"] for t in summary["scans"].values()})
    say(f"segments: {summary['windows']['accepted']}, scans: {len(found)}, subjects: {count}; in {output}")
    say(f"slices: {_counts(summary['slices'])}; windows: {_counts(summary['windows'])}; left out: {len(lines)}")
    for line in summary["warnings"]:
        say(f"warning: {line}")
    return len(lines)


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A scan that was looked at in this run.

    Attributes:
      make, arguments: the call that opens it.
      name: for messages.
      content: hash of what was read.
      told_by: hashed, see subjects.py.
      before: the hashes that named it in data sets of versions up to 0.1.
      slices: how many are to be cut.
    """

    make: Callable
    arguments: tuple
    name: str
    content: str
    told_by: frozenset[str]
    before: tuple[str, ...]
    slices: int


def _cut_all(work, limits, folder, hashed, jobs: int, complain) -> tuple[dict[str, _Seen], int]:
    """Cuts what is not cut yet; returns the scans by the hash that names each, and how many were given twice."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise by_cause(error, f"{folder}: cannot be made ({error.strerror})") from None
    with futures.ProcessPoolExecutor(jobs, new_processes()) as pool:
        try:
            seen, repeated = _look_at_all(pool, work, limits, hashed, complain)
            refused = _cut_rest(pool, seen, limits, folder, complain)
        except futures.process.BrokenProcessPool:
            raise InputError(
                "a process that cut was killed, as it is where memory runs out; give --jobs=1 and the same command "
                "again: what is cut is kept"
            ) from None
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for name, scan in seen.items():
        if name not in refused:
            pieces.forget_others(folder, name, scan.content)
    for name, parts in pieces.read(folder).items():
        if name not in seen or name in refused:
            continue
        fates = sum((p.fates for p in parts), collections.Counter())
        reasons = collections.Counter(k["reason"] for p in parts for k in p.known)
        if not fates["cut"]:
            complain(f"{seen[name].name}: no vault in {sum(fates.values())} slices ({_counts(fates)}); give a head CT")
        elif not reasons[""]:
            what = f"no window accepted in {_many(fates['cut'], 'slice')} ({_counts(reasons)})"
            complain(f"{seen[name].name}: {what}; give another scan of this head, or other limits")
    return seen, repeated


def _look_at_all(pool, work, limits, hashed, complain) -> tuple[dict[str, _Seen], int]:
    progress, seen, names, repeated = Progress("looked at", len(work), "scans"), {}, {}, 0
    tasks = [pool.submit(_look, make, arguments, limits) for make, arguments in work]
    # In order, as the first of two that are the same is the one that is cut.
    for done, (task, (make, arguments)) in enumerate(zip(tasks, work, strict=True), 1):
        progress(done)
        if isinstance(task.result(), str):
            complain(task.result())
            continue
        name, series, before, content, told_by, slices = task.result()
        told_by, content = subjects.hashed(told_by, hashed), hashed(content)
        if content in names:
            # Whoever it is said to be of, it is of one patient.
            twin = seen[names[content]]
            seen[names[content]] = dataclasses.replace(twin, told_by=twin.told_by | told_by)
            repeated += 1
            continue
        scan = hashed(series or content)
        if scan in seen:  # other files under one name: nothing says which of them is right
            scan = hashed(f"{series} {content}")
        names[content] = scan
        seen[scan] = _Seen(make, arguments, name, content, told_by, tuple(map(hashed, before)), slices)
    return seen, repeated


def _cut_rest(pool, seen: dict[str, _Seen], limits, folder, complain) -> set[str]:
    """Cuts what is not cut yet; returns the scans that cannot be."""
    # What could not be read then may be there now.
    gaps = {p.path for parts in pieces.read(folder).values() for p in parts if p.fates[cut.UNREAD]}
    to_cut = []
    for name, scan in seen.items():
        parts = math.ceil(scan.slices / _PART)
        for part in range(parts):
            path = folder / pieces.name(name, scan.content, part, parts)
            if not path.exists() or path in gaps:
                to_cut.append((name, (scan.make, scan.arguments, limits, sorted(scan.told_by), path, part, parts)))
    if kept := len(seen) - len({name for name, _ in to_cut}):
        say(f"cut before: {kept} of {len(seen)} scans")
    progress, refused, unread = Progress("cut", len(to_cut), "parts of scans"), set(), collections.defaultdict(list)
    tasks = {pool.submit(_cut_part, *task): name for name, task in to_cut}
    for done, task in enumerate(futures.as_completed(tasks), 1):
        progress(done)
        problem = task.result()
        if isinstance(problem, str) and tasks[task] not in refused:
            refused.add(tasks[task])
            complain(problem)
        elif not isinstance(problem, str):
            unread[tasks[task]] += problem
    for name, problems in unread.items():
        if name in refused:
            continue
        for line in problems[:_TOLD]:
            complain(line)
        if rest := len(problems[_TOLD:]):
            complain(f"{seen[name].name}: {_many(rest, 'more slice')} cannot be read")
    return refused


def _look(make, arguments, limits):
    """In a worker: what _Seen says of a scan, not hashed, or the line that refuses it."""
    try:
        scan = make(*arguments)
        slices = len(cut.choose(scan, limits))
        return scan.name, scan.series, scan.before, scan.content(), scan.told_by, slices
    except InputError as error:
        return str(error)


def _cut_part(
    make, arguments, limits, told_by: list[str], path: pathlib.Path, part: int, parts: int
) -> str | list[str]:
    """In a worker: cuts a part of a scan and writes it; a line for each slice left out, or the one that refuses it.

    Raises:
      MachineError: nothing can be written, e.g. for lack of space.
    """
    try:
        if path.name[:16] not in _opened:
            _opened.clear()
            _opened[path.name[:16]] = make(*arguments)
        scan = _opened[path.name[:16]]
        scans.check_hu(scan)
        about = {
            "told_by": told_by,
            "kernel": scan.kernel,
            "kvp": scan.kvp,
            "source_slice_mm": scan.slice_mm,
            "source_pixel_mm": float(scan.pixel_mm.mean()),
            "notes": scan.notes,
        }
        found = cut.cut(scan, limits, part, parts)
        pieces.write(path, about, found)
        return list(found.unread.values())
    except InputError as error:
        return str(error)
    except OSError as error:
        line = f"{scan.name}: what was cut cannot be written to {path.parent} ({error.strerror})"
        told = by_cause(error, line)
        if isinstance(told, MachineError):  # of no scan, and the others would fare no better
            raise told from None
        return line


def _found(folder: pathlib.Path, seen: dict[str, _Seen]) -> dict[str, list[pieces.Piece]]:
    """The scans of which segments were accepted, those of earlier runs, too."""
    contents = {scan.content[:8] for scan in seen.values()}
    return {
        name: parts
        for name, parts in pieces.read(folder).items()
        # What was seen now under another name, as of a folder that was moved, is not there twice.
        if (name in seen or parts[0].content not in contents) and any(not k["reason"] for p in parts for k in p.known)
    }


def _was(output: str, old: dict | None, made_with: dict, folder, seen, found) -> dict[str, list[dict]]:
    """What the data set that is there says of each scan.

    Raises:
      InputError: it holds scans that are not found any more.
    """
    by_name = {before: name for name, scan in seen.items() for before in scan.before}
    by_content = {parts[0].content: name for name, parts in found.items()}
    was, lost = collections.defaultdict(list), 0
    for name, about in ((old or {}).get("scans") or {}).items():
        now = name if name in found else by_name.get(name) or by_content.get(about.get("content"))
        if now in found:
            was[now].append(about)
        elif about.get("windows", {}).get("accepted"):
            lost += 1
    if lost and old["made_with"].get("rules") != made_with["rules"]:
        raise InputError(
            f"--output={output}: an earlier version made it, which cut by other rules, and {lost} of its scans are not "
            "in --input; give them all, or another folder"
        )
    if lost:
        raise InputError(
            f"--output={output}: {lost} of its scans are neither in --input nor in {folder}; "
            "give them too, or another folder"
        )
    return was


def _told_apart(output, old, found, seen, was, by_folder: bool, held_out: float, seed: int):
    """The scans with their subjects, and the split of each subject.

    Raises:
      InputError: what is known now makes one patient of two that are in different splits.
    """
    told_by = {}
    for name, parts in found.items():
        now = seen[name].told_by if name in seen else ()
        told_by[name] = frozenset(parts[0].about["told_by"]).union(now, *(w.get("told_by", ()) for w in was[name]))
    subject_of = subjects.tell_apart(told_by, {n: {w["subject"] for w in was[n]} for n in found}, by_folder)
    before = collections.defaultdict(set)
    for name, subject in subject_of.items():
        before[subject] |= {w["split"] for w in was[name]}
    if torn := [s for s, splits in before.items() if len(splits) > 1]:
        raise InputError(
            f"--output={output}: {_many(len(torn), 'patient')} would be in both splits: what is known now makes one of "
            "what were several subjects; give another folder, or remove it, and all is split anew"
        )
    where = split(set(subject_of.values()), held_out, seed, {s: splits.pop() for s, splits in before.items() if splits})
    marked = {
        name: [
            dataclasses.replace(p, about={"subject": subject_of[name], **p.about, "told_by": sorted(told_by[name])})
            for p in parts
        ]
        for name, parts in found.items()
    }
    return marked, where


def _counts(counter) -> str:
    return ", ".join(f"{n} {what}" for what, n in collections.Counter(counter).most_common())


def _is_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _beside(output: str) -> pathlib.Path:
    """What begins the names of what is kept beside the output; of a bucket, in this folder."""
    return pathlib.Path(output.rsplit("/", 1)[1] if is_remote(output) else output)


def _salt(path: pathlib.Path) -> bytes:
    try:
        if not path.exists():
            _write_salt(path)
        salt = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--salt={path}: cannot be read or made ({error})") from None
    if len(salt) < 16:
        raise InputError(f"--salt={path}: shorter than 16 characters; remove it, and a new one is made")
    return salt.encode()


def _write_salt(path: pathlib.Path) -> None:
    """Whole, for this user alone, and never in the place of another's that came in between."""
    with files.beside(path) as partial:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32) + "\n")
        files.flush(partial)
        files.place_new(partial, path)


def _check_same(output: str, old: dict | None, made_with: dict) -> None:
    """Segments that were cut in two ways, or subjects hashed in two, do not go into one data set."""
    before = (old or {}).get("made_with", made_with)
    now = json.loads(json.dumps(made_with))
    # Versions up to 0.1 did not say the last two; what they told apart otherwise shows later.
    asked = [k for k in now if k in before or k not in ("rules", "subject_by")]
    differing = [f"{k} {before.get(k)} there, {now[k]} now" for k in asked if k != "rules" and before.get(k) != now[k]]
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


def _summary(found: dict[str, list[pieces.Piece]], where: dict[str, str], old: dict | None) -> dict:
    """What summary.json says of slices, windows and scans."""
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
    splits = {}
    for name in publish.SPLITS:
        if chosen := {s: found[s] for s, t in summary["scans"].items() if t["split"] == name}:
            splits[name] = chosen
    try:
        with publish.replacing(output, old) as folder:
            folder.mkdir()
            if summary["format"] == "npy":
                publish.write_arrays(folder, splits)
            else:
                publish.write_tfds(folder, splits, summary["version"])
            table = {
                name: [r for s, p in chosen.items() for r in publish.rows(p, s)] for name, chosen in splits.items()
            }
            (folder / "segments.json").write_text(json.dumps(table), encoding="utf-8")
            report.write(folder / "report.html", summary, found)
            names = sorted([p.name for p in folder.iterdir()] + ["summary.json"])
            text = json.dumps({**summary, "files": names}, indent=1)
            (folder / "summary.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise by_cause(error, f"--output={output}: cannot be written ({error.strerror or error})") from None
