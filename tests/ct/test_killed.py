"""`prepare` killed at random moments; slow, as each moment is a run."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.ct import heads

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.all
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_random_moments_nothing_is_lost(tmp_path, seed):
    for i in range(6):
        volume = heads.head(shape=(3, 400, 400))[:, ::2, ::2]
        heads.write_dicom(tmp_path / "heads" / f"h{i}", volume, patient=f"h{i}", PixelSpacing=[1, 1])
    killer = [sys.executable, ROOT / "tests" / "ct" / "killer.py", tmp_path, "25", str(seed)]
    ended = subprocess.run(killer, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert " as before, " in ended.stdout
