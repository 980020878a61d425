"""The wheel as users install it: built from the sdist, in a fresh environment outside the clone; light, then whole.

Minutes and gigabytes: make test-wheel.
"""

import os
import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from skullgan_jax.machine.extras import LEFT_OUT
from tests.ct import heads
from tests.support import QUICK

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
# Four steps of the smallest pair.
TINY = {"epochs": 1, "batch_size": 4, "data.num": 16, "model.ngf": 16, "model.ndf": 4, "model.nz": 8}
TINY |= {"judge_slices": 4, "final_slices": 4, "sample_every": 1, "checkpoint_every": 1}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    _done(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    _done(sys.executable, "-m", "twine", "check", "--strict", *folder.iterdir())
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory):
    """A function of a command's words: it runs in a folder of its own, with what sampling needs installed."""
    folder = tmp_path_factory.mktemp("outside")
    _done(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    _done(python, "-m", "pip", "install", "-q", "--no-deps", wheel)
    where = _done(python, "-c", "import skullgan_jax; print(*skullgan_jax.__path__)", cwd=folder).stdout.strip()
    assert pathlib.Path(where).is_relative_to(folder)
    _done(python, "-m", "pip", "install", "-q", "-c", LOCK, "-r", f"{where}/light.txt")
    return Installed(folder, python)


@pytest.fixture(scope="module")
def whole(light, wheel):
    """The same, with the rest added: named by tests after those of `light`."""
    _done(light.python, "-m", "pip", "install", "-q", "-c", LOCK, wheel)
    return light


class Installed:
    """An environment, and a folder to run commands in."""

    def __init__(self, folder: pathlib.Path, python: pathlib.Path):
        self.folder, self.python = folder, python

    def __call__(self, *words, returncode=0) -> subprocess.CompletedProcess:
        return _done(self.python.with_name("skullgan"), *words, cwd=self.folder, returncode=returncode)


def _done(*words, returncode=0, cwd=None) -> subprocess.CompletedProcess:
    quick = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"XLA_FLAGS": quick}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == returncode, f"{words}\n{done.stdout}\n{done.stderr}"
    return done


def test_what_is_inside(wheel):
    with zipfile.ZipFile(wheel) as files:
        names = {name.removeprefix("skullgan_jax/") for name in files.namelist()}
        (metadata,) = (files.read(name).decode() for name in files.namelist() if name.endswith("/METADATA"))
    wanted = {f"configs/{name}.py" for name in ("skull", "celeba", "small_data")}
    wanted |= {"notebooks/train.ipynb", "notebooks/inference.ipynb"}
    wanted |= {f"model/starter/{path.name}" for path in (ROOT / "skullgan_jax" / "model" / "starter").iterdir()}
    assert wanted | {"evaluate/turing/turing.html", "light.txt", "py.typed"} <= names
    sources = {str(path.relative_to(ROOT / "skullgan_jax")) for path in (ROOT / "skullgan_jax").rglob("*.py")}
    assert sources <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "configs/__pycache__")) for name in names)
    about, _, text = metadata.partition("\n\n")
    assert "Author: The skullgan_jax developers" in about
    assert text.startswith("# skullgan_jax")


def test_light(light):
    light("convert", f"--generator={ROOT}/tests/data/pth/netG.pth", "--hu_scale=signed", "--output=published")
    light("sample", "--model=published", "--num=4", "--output=four.npy")
    code = (
        "import sys, numpy, skullgan_jax\n"
        "drawn = skullgan_jax.load('published').sample(4, seed=0)\n"
        "numpy.testing.assert_array_equal(drawn, numpy.load('four.npy'))\n"
        f"print(*{{'torch', *{LEFT_OUT}}} & sys.modules.keys())"
    )
    assert _done(light.python, "-c", code, cwd=light.folder).stdout.split() == []
    assert np.load(light.folder / "four.npy").shape == (4, 128, 128)
    light("sample", "--model=published", "--num=4", "--output=sheet.png")
    assert (light.folder / "sheet.png").read_bytes()[:4] == b"\x89PNG"
    for words in (
        ("train", "--config=configs/skull.py:demo", "--workdir=run"),
        ("prepare", "--input=four.npy", "--output=skulls"),
        ("evaluate", "--real=four.npy", "--fake=four.npy", "--output=report"),
    ):
        told = light(*words, returncode=2).stderr.splitlines()[-1]
        missing = told.removeprefix("error: ").partition(" ")[0]
        assert missing in LEFT_OUT
        assert told == f"error: {missing} is needed for this and not installed: pip install skullgan_jax brings it"


def test_whole(whole):
    tiny = [f"--config.{name}={value}" for name, value in TINY.items()]
    whole("train", "--config=configs/skull.py:demo", "--workdir=run", *tiny)
    whole("sample", "--model=run", "--num=4", "--output=drawn.npy")
    whole("convert", "--model=run", "--output=for_torch", "--to=torch")
    whole("convert", *(f"--{net}=for_torch/net{net[0].upper()}.pth" for net in ("generator", "discriminator")),
          "--hu_min=0", "--hu_max=2500", "--output=back")  # fmt: skip
    whole("convert", "--model=back", "--output=again", "--to=torch")
    for name in ("netG.pth", "netD.pth"):
        assert (whole.folder / "for_torch" / name).read_bytes() == (whole.folder / "again" / name).read_bytes()
    for name in ("one", "two"):
        heads.write_dicom(whole.folder / "in" / name, heads.head(shape=(4, 400, 400)), patient=name)
    whole("prepare", "--input=in", "--output=skulls", "--held_out=0.5")
    whole("evaluate", "--real=skulls", "--fake=drawn.npy", "--model=run", "--output=report")
    assert (whole.folder / "report" / "report.html").stat().st_size > 10_000
    whole("evaluate", "--real=skulls", "--fake=drawn.npy", "--turing", "--turing_num=4", "--output=reading")
    assert (whole.folder / "reading" / "turing.html").exists()
