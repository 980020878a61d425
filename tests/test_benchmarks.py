"""The benchmarks of the pair run, at sizes that say nothing; what they say is in docs/speed.md."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from skullgan_jax.data import phantom

ROOT = pathlib.Path(__file__).parents[1]
SMALL = ("--nz=8", "--ngf=16", "--ndf=4")


def printed(name: str, *flags: str) -> str:
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.all
def test_pair():
    """A line of each thing that is measured, ours beside PyTorch's where that is installed."""
    with_torch = importlib.util.find_spec("torch") is not None
    flags = ("--batches=2", "--batch=2", "--rounds=1", f"--torch={'tuned' if with_torch else 'none'}")
    lines = printed("pair", *SMALL, *flags).splitlines()
    for what in ("sample", "step"):
        (line,) = (line for line in lines if line.startswith(what))
        assert len(re.findall(r"\d+\.\d+", line)) == (4 if with_torch else 2), line


@pytest.mark.all
def test_layers():
    """Every form of the last layers, with both gradients."""
    lines = printed("layers", "--ngf=16", "--batch=1", "--repeats=1", "--only=G conv").splitlines()
    for form in ("xla", "matmul", "winograd", "apart"):
        assert sum(f" {form} " in line and len(re.findall(r"\d\.\d{4}", line)) == 3 for line in lines) == 4, form


@pytest.mark.all
def test_told(tmp_path):
    """Stripes of 4 pixels across the columns of bone are told by waves along rows alone, and are 32 waves a row."""
    slices = phantom.segments(120)
    real, fake = slices[:60], slices[60:].astype(np.int16)
    fake[..., ::4] += np.where(fake[..., ::4] > 0, 200, 0).astype(np.int16)
    np.save(tmp_path / "real.npy", real)
    np.save(tmp_path / "fake.npy", fake)
    lines = printed("told", f"--real={tmp_path}/real.npy", f"--fake={tmp_path}/fake.npy").splitlines()
    told = {line.strip().rsplit(maxsplit=2)[0]: int(line.split()[-2]) for line in lines if line.endswith("%")}
    assert told["waves of 4 pixels along rows"] > 95
    assert told["waves of 4 pixels down columns"] < 75
    waves, decibel = (line.split()[1:] for line in lines[-2:])
    assert max(zip(map(float, decibel), waves, strict=True))[1] == "32"
