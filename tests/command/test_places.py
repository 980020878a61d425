"""Places that a command stumbles over, and streams that nobody reads: one line, or no word and the work done."""

import os
import pathlib
import subprocess
import sys

import pytest

from skullgan_jax.data.arrays import open_slices
from skullgan_jax.errors import InputError
from skullgan_jax.machine import devices
from skullgan_jax.model import pytorch_pair
from skullgan_jax.model.load import load
from tests.conftest import ROOT, TINY

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# A user whom the system does not know, as containers have them; Python asks pwd.
NOBODY = """
import pwd, sys
def unknown(_):
    raise KeyError
pwd.getpwuid = unknown
import importlib
from skullgan_jax.command.flags import typed
module = importlib.import_module(f"skullgan_jax.{sys.argv.pop(1)}")
typed(lambda: module.run())
"""
PLATFORM = ": no such device here, or JAX has no support for it; unset it, or give cpu"
TRAIN = ["--config=configs/skull.py:demo", "--workdir=run", *(f"--config.{k}={v}" for k, v in TINY.items())]


@pytest.fixture
def typed(tmp_path):
    """A function of a module and its flags: exit status and stderr of the command in an empty folder."""

    def run(module, *flags, code=None, env=(), folder=tmp_path, **streams):
        words = ["-c", code, module] if code else ["-m", f"skullgan_jax.{module}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | dict(env)
        environment = {k: v for k, v in environment.items() if v is not None}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        done = subprocess.run([sys.executable, *words, *flags], cwd=folder, env=environment, timeout=300, **streams)
        return done.returncode, (done.stderr or b"").decode()

    return run


@pytest.mark.parametrize(
    ("module", "flags", "env", "line"),
    [
        (
            "sample",
            ["--model=m", "--num=1", b"--output=a\xff"],
            {},
            "--output=a\\xff: this name is not in UTF-8; rename it",
        ),
        (
            "main",
            ["--config=configs/skull.py", b"--workdir=a\xff"],
            {},
            "--workdir=a\\xff: this name is not in UTF-8; rename",
        ),
        (
            "convert",
            ["--model=\u00e4", "--output=o"],
            ASCII,
            "--model=\\xc3\\xa4: this name is not in UTF-8; the locale is ",
        ),
    ],
)
def test_a_name_that_libraries_would_not_find(module, flags, env, line, typed):
    status, said = typed(module, *flags, env=env)
    assert (status, said.count("\n")) == (2, 1), said
    assert said.startswith(f"error: {line}")


@pytest.mark.all
def test_names_of_scans_may_be_anything(typed):
    status, said = typed("prepare", b"--input=a\xff", "--output=o")
    assert (status, said) == (2, "error: --input=a\\udcff: no such file or folder; check the path\n")


@pytest.mark.skipif(sys.version_info[:2] == (3, 13), reason="there a missing attribute of a module is a SystemError")
def test_a_folder_that_is_gone(typed, tmp_path):
    (tmp_path / "here").mkdir()
    gone = repr(str(tmp_path / "here"))
    code = f"import os\nos.chdir({gone})\nos.rmdir({gone})\n{NOBODY}"
    status, said = typed("convert", code=code)
    assert (status, said.count("\n")) == (2, 1), said
    assert said.startswith("error: the folder of this process is not there any more")


def test_nobodys_home():
    with pytest.raises(InputError, match=r"^~nobody-at-all/x.npy: nobody knows where ~nobody-at-all is"):
        open_slices("~nobody-at-all/x.npy")


def test_a_link_that_leads_nowhere(tmp_path):
    (tmp_path / "x.npy").symlink_to("/no/where.npy")
    with pytest.raises(InputError, match=r"x.npy: is a link to /no/where.npy, which is not there"):
        open_slices(tmp_path / "x.npy")


def test_devices_are_blamed_only_where_they_are_missing(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert devices.missing() == ""

    def none():
        raise AssertionError

    monkeypatch.setattr("jax.devices", none)
    assert devices.missing() == "JAX_PLATFORMS=cpu" + PLATFORM
    monkeypatch.delenv("JAX_PLATFORMS")
    assert devices.missing() == ""


@pytest.mark.all
@pytest.mark.parametrize("platform", ["cuda", "tpu", "nonsense"])
@pytest.mark.parametrize("module", ["main", "sample"])
def test_a_platform_that_is_not_here(module, platform, small_model, typed):
    if pathlib.Path("/dev/nvidia0").exists() or pathlib.Path("/dev/accel0").exists():
        pytest.skip("it may be here")
    flags = TRAIN if module == "main" else [f"--model={small_model}", "--num=1", "--output=s.npy"]
    status, said = typed(module, *flags, env={"JAX_PLATFORMS": platform})
    assert (status, said) == (2, f"error: JAX_PLATFORMS={platform}{PLATFORM}\n")


@pytest.mark.all
@pytest.mark.parametrize(
    ("module", "flags", "line"),
    [
        ("main", ["--config=configs/celeba.py", "--workdir=run"], "/nonexistent/tensorflow_datasets holds no CelebA"),
        ("evaluate.__main__", ["--real=~/a.npy", "--fake=~/b.npy", "--output=rep"], "/nonexistent/a.npy: no such file"),
        ("prepare", ["--input=no", "--output=o"], "--input=no: no such file or folder"),
    ],
)
def test_nobody_without_a_home(module, flags, line, typed):
    status, said = typed(module, *flags, code=NOBODY, env={"HOME": None, "TFDS_DATA_DIR": None})
    assert (status, said.count("\n")) == (2, 1), said
    assert said.startswith(f"error: {line}")


@pytest.fixture
def nobody_reads():
    """A pipe whose other end is closed, as of `| true`."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize(
    "where", ["nobody", pytest.param("full", marks=pytest.mark.all), pytest.param("closed", marks=pytest.mark.all)]
)
def test_what_is_told_does_not_decide(where, small_model, nobody_reads, typed, tmp_path):
    """A table on stdout and lines on stderr that go nowhere: the model is there all the same."""
    pytorch_pair.write(load(small_model), tmp_path / "st", "safetensors")
    flags = ["--generator=st/netG.safetensors", "--output=new", "--hu_scale=unit", "-v"]
    if where == "closed":
        command = [sys.executable, "-m", "skullgan_jax.convert", *flags]
        done = subprocess.run(
            ["bash", "-c", '"$@" >&- 2>&-', "bash", *command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        status = done.returncode
    else:
        with open("/dev/full", "w") as full:
            stream = nobody_reads if where == "nobody" else full
            status, _ = typed("convert", *flags, stdout=stream, stderr=stream)
    # Of a disk that is full, stdout was to be kept.
    assert status == (75 if where == "full" else 0)
    assert (tmp_path / "new" / "model.json").is_file()


def test_help_that_nobody_reads(nobody_reads, typed):
    assert typed("sample", "--help", stdout=nobody_reads) == (0, "")


@pytest.mark.slow
def test_a_training_goes_on_when_nobody_listens(typed, compiled, nobody_reads, tmp_path):
    status, _ = typed(
        "main", *TRAIN, stdout=nobody_reads, stderr=nobody_reads, env={"JAX_COMPILATION_CACHE_DIR": compiled}
    )
    assert status == 0
    assert (tmp_path / "run" / "slices.npy").is_file()
