"""Who is who: which scans are of one patient, as far as headers and folders tell.

What tells is words of two parts, a kind and what it says, of which only a hash leaves the process that reads them:

  id X      PatientID, not empty
  study X   StudyInstanceUID
  frame X   FrameOfReferenceUID
  of X      a folder that is taken for one patient's: the first below --input, or one named sub-... as BIDS has them
  own X     the folder it lies in
  in X      a folder around that one
  file X    a volume that lies right in --input
"""

import collections
import os
import pathlib
import re
from collections.abc import Callable

_BIDS = re.compile(r"sub-[A-Za-z0-9]+")


def places(root: pathlib.Path, folder: pathlib.Path) -> tuple[str, ...]:
    """What the folder of a file tells, however the input that it was found in was typed."""
    own = os.path.realpath(folder)
    around = {str(p) for p in pathlib.Path(own).parents}
    typed = pathlib.Path(os.path.abspath(folder))
    above = [p for p in (typed, *typed.parents)]
    around |= {os.path.realpath(p) for p in above} - {own}
    named = [p for p in above if _BIDS.fullmatch(p.name)]
    below = typed.relative_to(os.path.abspath(root)).parts
    patient = named[-1] if named else pathlib.Path(os.path.abspath(root), below[0]) if below else None
    claimed = (f"of {os.path.realpath(patient)}",) if patient else ()
    return (*claimed, f"own {own}", *(f"in {p}" for p in sorted(around)))


def hashed(told_by, hash_of: Callable[[str], str]) -> frozenset[str]:
    """The same words with hashes: equal folders have equal ones, whatever they tell."""
    words = (word.split(" ", 1) for word in told_by)
    return frozenset(f"{kind} {hash_of(f'{_HASHED_AS.get(kind, kind)} {what}')}" for kind, what in words)


_HASHED_AS = {"of": "folder", "own": "folder", "in": "folder"}


def tell_apart(scans: dict[str, frozenset[str]], before: dict[str, set[str]], by_folder: bool) -> dict[str, str]:
    """The subject of each scan: scans that anything ties together are of one.

    In doubt two patients are taken for one, which keeps both on one side of a split. Studies, frames of reference and
    folders that hold several PatientIDs tie nothing together that has one.

    Args:
      scans: by name, what tells whose each is, hashed.
      before: by name, the subjects that a scan was of in the data set so far.
      by_folder: whether folders tell patients apart, not PatientID.

    Returns:
      by name of the scan, the subject: that of before, or a hash of what tells.
    """
    claimed = {w.split(" ")[1] for words in scans.values() for w in words if w.startswith("of ")}
    keys = {name: _keys(words, claimed, by_folder) for name, words in scans.items()}
    ids = {name: _those(words, "id") for name, words in scans.items()}
    holds = collections.defaultdict(set)
    for name, (_, ties) in keys.items():
        for tie in ties:
            holds[tie] |= ids[name]
    parent = {}

    def top(key):
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for name, (first, ties) in keys.items():
        mixed = {tie for tie in ties if len(holds[tie]) > 1} if ids[name] else set()
        for key in (*first, *(ties - mixed), *(f"was {s}" for s in before.get(name, ()))):
            parent[top(key)] = top(f"scan {name}")
    members = collections.defaultdict(list)
    for name in scans:
        members[top(f"scan {name}")].append(name)
    out = {}
    for names in members.values():
        known = {s for n in names for s in before.get(n, ())}
        told = [sorted(k.split(" ")[1] for n in names for k in keys[n][i]) for i in (0, 1)]
        subject = min(known) if known else (told[0] or told[1] or sorted(names))[0]
        out |= dict.fromkeys(names, subject)
    return out


def _those(words, kind: str) -> set[str]:
    return {w for w in words if w.startswith(f"{kind} ")}


def _keys(words: frozenset[str], claimed: set[str], by_folder: bool) -> tuple[set[str], set[str]]:
    """What ties a scan to others whatever they are, and what may be mistaken: an anonymiser's UID, a folder of many."""
    own, acquired = _those(words, "own"), _those(words, "study") | _those(words, "frame")
    around = {w.split(" ")[1] for w in own | _those(words, "in")}
    places = _those(words, "of") | {f"of {folder}" for folder in around & claimed}
    if by_folder:
        return places or own, acquired
    ids = _those(words, "id")
    if ids or acquired or places:
        return ids, acquired | places
    return set(), _those(words, "file") or own
