"""SIGINT and SIGTERM at any moment of any command: one line, the status of a shell, nothing half-written."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import ROOT, TINY
from tests.ct import heads
from tests.support import QUICK

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GOES_ON = "; give the same command again, and it goes on where it was"
# What each says after what happened, what it writes, and how it is called there.
COMMANDS = {
    "train": (GOES_ON, "run/slices.npy", ["--config=configs/skull.py:demo", "--workdir=run"]),
    "prepare": (GOES_ON, "skulls/train.npy", ["--input=in", "--output=skulls", "--format=npy", "--jobs=2"]),
    "convert": ("", "pth/netG.pth", ["--model=model", "--output=pth", "--to=torch"]),
    "sample": (GOES_ON, "s.npy", ["--model=model", "--num=24", "--batch=4", "--output=s.npy"]),
    "evaluate": ("; nothing was written", "rep/report.html", ["--real=real.npy", "--fake=fake.npy", "--output=rep"]),
}
MODULES = {"train": "main"}
BESIDE = (".partial", ".old", ".mark", ".lock")
SAME = ("convert", "sample")  # the same bytes whenever they are written
COMMANDS["train"][2].extend(f"--config.{name}={value}" for name, value in TINY.items())

pytestmark = pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="asks Linux who takes a signal")


@pytest.fixture(scope="module")
def inputs(small_model, tmp_path_factory):
    """A folder with what the commands read, `compiled` programs among it."""
    from skullgan_jax.data.phantom import segments

    folder = tmp_path_factory.mktemp("inputs")
    shutil.copytree(small_model, folder / "model")
    for name, seed in (("real", 0), ("fake", 1)):
        np.save(folder / f"{name}.npy", segments(24, seed))
    for patient in ("one", "two"):
        heads.write_dicom(folder / "in" / patient, heads.head(shape=(4, 400, 400)), patient=patient)
    return folder


@pytest.fixture
def begin(inputs, compiled, tmp_path):
    """A function of a command: it as a process in a folder of its own, from the moment that it takes signals."""
    for path in inputs.iterdir():
        (tmp_path / path.name).symlink_to(path)
    started = []

    def popen(name, *, script=False, wait=True):
        words = ["-m", "skullgan_jax", name] if script else ["-m", f"skullgan_jax.{MODULES.get(name, name)}"]
        process = subprocess.Popen(
            # What starts the tests may ignore them, as nohup does.
            ["env", "--default-signal=INT,TERM", sys.executable, *words, *COMMANDS[name][2]],
            cwd=tmp_path,
            env=os.environ
            | {
                "PYTHONPATH": str(ROOT),
                "JAX_COMPILATION_CACHE_DIR": compiled,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
                "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
                "XLA_FLAGS": " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items()),
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        while wait and not _takes_signals(process.pid):
            time.sleep(0.002)
        return process

    yield popen
    for process in started:
        process.kill()


def _takes_signals(pid: int) -> bool:
    """Whether SIGTERM is caught or held, which Python does of itself not do."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    masks = re.findall(r"^Sig(?:Blk|Cgt):\s*(\w+)", status, re.M)
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks) or "zombie" in status


def check_end(name, process, number, folder, *, to_all=False) -> bool:
    """Send a signal, and hold the process to its end; whether it was not done before."""
    if to_all:  # as Ctrl-C in a terminal
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    lines = said.splitlines()
    assert "Traceback" not in said, said
    if process.returncode:
        word = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
        assert process.returncode == 128 + number, said
        assert lines[-1] in (f"error: {word}", f"error: {word}{COMMANDS[name][0]}")  # the first before it is known
        assert said.count("error: ") == 1, said
    elif name == "train" and lines[-1].startswith("stopped"):
        assert re.fullmatch(rf"stopped by {number.name} after step \d+(, saved)?; run the same .*", lines[-1]), said
    else:
        assert "error" not in said, said
        return False
    # What the processes of prepare have beside, goes when they end or when it is cut again.
    assert [p for p in folder.rglob(".*") if p.suffix in BESIDE and "skulls.pieces" not in p.parts] == []
    return True


def check_again(name, begin, folder, expected: bytes | None = None):
    """The same command comes to its end, with the same output, and leaves nothing beside it."""
    _, said = begin(name, wait=False).communicate(timeout=120)
    assert "Traceback" not in said, said
    output = folder / COMMANDS[name][1]
    assert expected in (None, output.read_bytes()), said
    assert [p for p in folder.rglob(".*") if p.suffix in BESIDE] == []


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(("name", "script"), [("convert", False), ("train", True)])
def test_in_the_first_moments(name, script, number, begin, tmp_path):
    """While it imports, and before it starts itself again: the signal is kept until it can be told."""
    for seconds in (0, 0.1):
        process = begin(name, script=script)
        time.sleep(seconds)
        assert check_end(name, process, number, tmp_path)
    assert not (tmp_path / COMMANDS[name][1]).exists()


@pytest.mark.all
@pytest.mark.parametrize(
    ("name", "told", "number"),
    [
        ("train", "starting from scratch", signal.SIGINT),  # it compiles
        pytest.param("train", "exported the best", signal.SIGTERM, marks=pytest.mark.slow),  # the last stage
        ("prepare", "looked at 2/2", signal.SIGINT),  # its processes cut
        pytest.param("evaluate", "radiology: ", signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_in_the_middle(name, told, number, begin, tmp_path, finished):
    if told.startswith("exported"):
        shutil.copytree(finished, tmp_path / "run")
    process = begin(name)
    while not (line := process.stderr.readline()).startswith(told):
        assert line, "it ended"
    assert check_end(name, process, number, tmp_path, to_all=True)
    check_again(name, begin, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", COMMANDS)
def test_at_ten_moments(name, number, begin, inputs, tmp_path):
    """Spread over the time that it takes undisturbed; each time the same command ends well afterwards."""
    keep = {path.name for path in inputs.iterdir()}
    check_again(name, begin, tmp_path)  # it compiles
    _clear(tmp_path, keep)
    began = time.monotonic()
    check_again(name, begin, tmp_path)
    seconds, hit = time.monotonic() - began, 0
    expected = (tmp_path / COMMANDS[name][1]).read_bytes() if name in SAME else None
    for moment in range(10):
        for _ in range(4):
            _clear(tmp_path, keep)
            process = begin(name, script=moment % 2 == 1)
            time.sleep((moment + 0.5) / 10 * seconds)
            in_time = check_end(name, process, number, tmp_path, to_all=moment % 3 == 2)
            check_again(name, begin, tmp_path, expected)
            if in_time:
                break
            seconds *= 0.8  # the machine has less else to do than when it was undisturbed
        hit += in_time
    assert hit >= 8


def _clear(folder, keep):
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
