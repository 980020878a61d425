"""The benchmarks of the pair run, at sizes that say nothing; what they say is in docs/speed.md."""

import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

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
