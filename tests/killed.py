"""kill -9 at random moments of what writes an output, in a process of its own: what forks must have no threads.

    python -m tests.killed save|convert|to_torch|evaluate FOLDER KILLS

FOLDER holds what was computed before (see test_kills.py): here only the writing is the commands' own.
"""

import contextlib
import json
import os
import pathlib
import pickle
import random
import shutil
import signal
import sys
import time
import traceback

from skullgan_jax import convert
from skullgan_jax.evaluate import __main__ as evaluate
from skullgan_jax.evaluate import inputs, judge
from skullgan_jax.evaluate.report import figures
from skullgan_jax.model import directory, load, pytorch_pair, trained
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices.calibration import Calibration


def main(what: str, folder: pathlib.Path, kills: int) -> None:
    output = folder / what / "out"
    output.parent.mkdir()
    write = {"save": _save, "convert": _convert, "to_torch": _to_torch, "evaluate": _evaluate}[what](folder, output)
    again = what in ("save", "evaluate")
    # Beside the output and, where it is written again, in it.
    mine = [f"{name}/a" for name in ("out.old", "out.tmp", ".out.0123456789abcdef.partial", ".out.old")]
    mine += ["out.lock", *(["out/notes.txt", "out/figures.old/a", "out/figures/own.png"] if again else [])]
    write(0)  # so that no child has to import anything
    versions, took = [], 60.0
    for version in (0, 1):
        shutil.rmtree(output, ignore_errors=True)
        started = time.perf_counter()
        os.waitpid(_forked(write, version), 0)
        took = min(took, time.perf_counter() - started)
        versions.append(_files(output))
    assert versions[0] != versions[1]
    if not again:
        shutil.rmtree(output)
    for name in mine:
        path = output.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"mine: {name}")
    inside = {name.removeprefix("out/"): f"mine: {name}".encode() for name in mine if name.startswith("out/")}
    versions = [version | inside for version in versions]
    bystanders = _files(output.parent, leave_out="out")
    draw, counts = random.Random(0), {"nothing yet": 0, "the old": 0, "the new": 0, "left something": 0}
    for kill in range(kills):
        new, old = versions[kill % 2], versions[1 - kill % 2] if again else {}
        child = _forked(write, kill % 2)
        time.sleep(draw.uniform(0, 1.1 * took))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found, beside = _files(output), _files(output.parent, leave_out="out")
        assert found in (old, new), f"kill {kill}: neither what was there nor the new one, but {sorted(found)}"
        assert bystanders.items() <= beside.items(), f"kill {kill}: somebody else's files were touched"
        counts["the new" if found == new else "the old" if again else "nothing yet"] += 1
        counts["left something"] += bystanders != beside
        if again or not found:
            _, status = os.waitpid(_forked(write, kill % 2), 0)
            assert not status, f"kill {kill}: the next run did not end well"
            beside = _files(output.parent, leave_out="out")
            assert _files(output) == new, f"kill {kill}: the next run wrote something else"
            assert beside == bystanders, f"kill {kill}: the next run left {sorted(beside.keys() - bystanders.keys())}"
        if not again:
            shutil.rmtree(output)
            for name in beside.keys() - bystanders.keys():  # of one that was killed after it was done
                (output.parent / name).unlink()
    print(json.dumps(counts))
    assert counts["left something"] >= kills / 10, "too few were killed at work"


def _files(folder: pathlib.Path, leave_out: str = "") -> dict[str, bytes]:
    """Every file below a folder, by its name."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != leave_out)
    return {str(path.relative_to(folder)): _read(path) for path in paths}


def _read(path: pathlib.Path) -> bytes:
    """The bytes, but for the order in which safetensors puts what a file says of itself: another in each process."""
    data = path.read_bytes()
    if path.name != directory.STANDING:
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def _forked(write, version: int) -> int:
    child = os.fork()
    if not child:
        try:
            write(version)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def _models(folder: pathlib.Path) -> list[trained.Model]:
    """Two, by numpy alone: a backend of JAX would have threads."""
    about, networks, standing = directory.read(folder / "model")
    g, d = networks["generator"], networks["discriminator"]
    return [
        trained.Model(
            Pair(**{name: about[name] for name in ("nc", "nz", "ngf", "ndf")}),
            *(g["params"], g["stats"], d["params"], d["stats"]),
            calibration=Calibration(0, 2000 + version),
            pixel_mm=about["pixel_mm"],
            provenance={"version": version},
            batches_tracked=about["batches_tracked"],
            standing=standing,
        )
        for version in (0, 1)
    ]


def _save(folder, output):
    models = _models(folder)
    return lambda version: models[version].save(output)


def _convert(folder, output):
    models = _models(folder)

    def write(version):
        pytorch_pair.read = lambda **_: models[version]
        convert.run([f"--generator={folder}/netG.pth", f"--output={output}", "--hu_scale=signed"])

    return write


def _to_torch(folder, output):
    models = _models(folder)

    def write(version):
        load.load = lambda _: models[0]
        convert.run(["--model=model", f"--output={output}", f"--to={('torch', 'safetensors')[version]}"])

    return write


def _evaluate(folder, output):
    metrics, arrays, pictures = pickle.loads((folder / "judged.pickle").read_bytes())

    def draw(where, *_):
        for name, data in pictures.items():
            (where / name).write_bytes(data)
        return {pathlib.Path(name).stem: where / name for name in pictures}

    def write(version):
        figures.draw = draw
        inputs.open_set = lambda *_, **__: inputs.Slices("set", None, 0, 0.5, True)
        judge.evaluate = lambda *_, **__: (metrics | {"seed": version}, arrays)
        evaluate.run(["--real=a", "--fake=b", f"--output={output}"])

    return write


if __name__ == "__main__":
    with contextlib.redirect_stderr(sys.stdout):
        main(sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3]))
