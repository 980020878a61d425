"""python tests/ct/killer.py FOLDER MOMENTS SEED: kill `prepare` so often, each time while it adds a head to a data set.

FOLDER/heads has the heads. Processes are forked from this one, which has imported everything, so that they work from
their first moment on. What is there must then be what was there before, byte for byte, or the new data set, whole; what
others keep beside it and in it must stay.
"""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from concurrent import futures

import matplotlib.figure  # noqa: F401
import numpy as np
from numpy.lib.format import open_memmap

from skullgan_jax import prepare
from skullgan_jax.ct import dataset, pieces, report  # noqa: F401

BYSTANDERS = {"skulls.old/mine": b"1", "skulls.tmp/mine": b"2", ".skulls.mine.partial": b"3", ".skulls.mark": b"4"}
NOTES = {"skulls/notes.txt": b"5", "skulls/more/notes.txt": b"6", "skulls/skulls.old": b"7"}


def measured(self, pixel_mm):
    """JAX does not like to be forked."""
    return dataclasses.replace(self, known=[{**k, **dict.fromkeys(pieces.MEASURES, 0.5)} for k in self.known])


def started(folder: pathlib.Path) -> int:
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        flags = ["--format=npy", "--angles=2", "--jobs=1", f"--salt={folder / 'salt'}"]
        prepare.run([f"--input={folder / 'in'}", f"--output={folder / 'skulls'}", *flags])
    except SystemExit as ended:
        os._exit(ended.code)
    finally:
        os._exit(99)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def check_whole(folder: pathlib.Path, scans: int):
    summary = json.loads((folder / "summary.json").read_text())
    rows = json.loads((folder / "segments.json").read_text())
    assert len(summary["scans"]) == scans, (len(summary["scans"]), scans)
    assert set(summary["files"]) <= {p.name for p in folder.iterdir()}
    assert sum(map(len, rows.values())) == summary["windows"]["accepted"]
    for split, known in rows.items():
        assert len(open_memmap(folder / f"{split}.npy", "r")) == len(known)
        assert np.load(folder / f"{split}.npy").any((1, 2)).all()
    assert (folder / "report.html").read_text().endswith("</html>\n")


def main(folder: pathlib.Path, moments: int, seed: int):
    pieces.Piece.measured, report._figure = measured, lambda figure, alt: ""
    futures.ProcessPoolExecutor = lambda jobs, context: futures.ThreadPoolExecutor(1)
    draw, heads, output = random.Random(seed), sorted((folder / "heads").iterdir()), folder / "skulls"
    (folder / "in").mkdir()
    for name, content in BYSTANDERS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)

    def give(count: int):
        for i, head in enumerate(heads):
            link = folder / "in" / head.name
            if i < count and not link.exists():
                link.symlink_to(head)
            elif i >= count:
                link.unlink(missing_ok=True)

    def ended(child: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def begin():
        give(2)
        assert ended(started(folder)) == 0
        for name, content in NOTES.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    begin()
    outcomes, scans, seconds = [], 2, 1.0
    for moment in range(moments):
        if scans == len(heads):  # from the start again, to have something to add
            os.rename(output, folder / f"done{moment}")
            shutil.rmtree(folder / "skulls.pieces")
            begin()
            scans = 2
        before = files(output)
        give(scans + 1)
        start = time.monotonic()
        child = started(folder)
        if moment % 10:
            time.sleep(draw.uniform(0, 1.05 * seconds))
            os.kill(child, signal.SIGKILL)
            status = ended(child)
        else:  # what the killed ones left is in nobody's way
            assert ended(child) == 0
            status, seconds = 0, time.monotonic() - start
            left = {p.name for p in folder.iterdir()} - {p.split("/")[0] for p in (*BYSTANDERS, *NOTES)}
            assert {n for n in left if not n.startswith("done")} == {"heads", "in", "salt", "skulls.pieces"}, left
            assert not list((folder / "skulls.pieces").rglob(".*"))
        now = files(output)
        if now != before:
            check_whole(output, scans + 1)
            scans += 1
        assert status or now != before
        for name, content in {**BYSTANDERS, **NOTES}.items():
            assert (folder / name).read_bytes() == content, name
        outcomes.append("new" if now != before else "old")
    print(f"{outcomes.count('old')} as before, {outcomes.count('new')} new, {seconds:.2f} s each")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
