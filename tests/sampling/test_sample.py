"""The command's flags: what it refuses before anything is drawn, and what it says of itself."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"num": 0}, "--num=0: give 1 or more"),
        ({"num": "x"}, "argument --num: invalid int value: 'x'; see python -m skullgan_jax.sample --help"),
        ({"model": "nothing"}, "nothing: no model here (model.json is missing); give a model directory"),
        ({"output": "s.txt"}, "--output=s.txt: ends in none of .npy, .zarr, .nii, .nii.gz, .png; give --format="),
        ({"output": "s", "format": "npy"}, "--output=s: --format=npy needs a name that ends in .npy"),
        ({"output": "s.png", "num": 500}, "--num=500: a sheet holds 400 at most; give fewer, or another format"),
        ({"output": "gs://b/s.npy"}, "--output=gs://b/s.npy: a bucket takes --format=zarr"),
        ({"where": "sdr~1"}, '--where="sdr~1": invalid syntax; compare sdr, '),
        ({"unique": 0}, "--unique=0: give 1 or more"),
        ({"batch": 0}, "--batch=0: give 1 or more"),
        ({"seed": -1}, "--seed=-1: give 0 or more"),
        ({"start": 1 << 32}, "indices end at 2^32 - 1"),
        ({"num": 1 << 33}, "--start=0 --num=8589934592: indices end at 2^32 - 1"),
        ({"output": ".", "format": "dicom"}, "--output=.: give the name of a file or folder to be made"),
        ({"process": 2}, "--process and --processes belong together; give both"),
        ({"process": 2, "processes": 2}, "--process=2 --processes=2: give 0 to 1 of 1 or more"),
        ({"batch_norm": "none"}, "argument --batch_norm: invalid choice: 'none'"),
    ],
)
def test_wrong_flags(command, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    status, lines = command(**{"num": 5, "output": "s.npy"} | flags)
    assert (status, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"error: {said}") or said in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_as_users_type_it():
    code = "import sys; sys.argv[1:] = ['sample', '--help']\nfrom skullgan_jax.cli import main\ntry: main()\n"
    code += "finally: assert not {'jax', 'numpy', 'tensorflow'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (
        "python -m skullgan_jax.sample --model=models/skullgan --num=1000 --seed=0 --output=skulls.npy" in done.stdout
    )
