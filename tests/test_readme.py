"""README's commands and Python as a newcomer gives them, from top to bottom, where a small run lies at runs/demo.

What needs something that is not here is read by its command, and not run.
"""

import importlib
import os
import re
import shlex
import shutil
import tomllib

import h5py
import numpy as np
import pytest
from absl.testing import flagsaver

from skullgan_jax.data import phantom
from skullgan_jax.machine import memory
from tests.conftest import ROOT

NEEDS = {
    "make ": "a fresh environment",
    "pip ": "a network",
    "source ": "a shell",
    "skullgan train ": "somebody's slices, and hours",
    "hospital/": "a hospital's scans",
    "gs://": "a bucket",
    "runs/skull": "a run on somebody's slices",
    "netG_SkullGAN.pth": "the released files",
}
# For a model of 12 steps that draws no skulls, and in seconds.
SMALLER = {
    "--num=1000": "--num=20",
    "sdr>0.6 and thickness_mm>4": "area_mm2>=0",
    "--unique": "--unique=1 --shard=16",
    "unique=True": "unique=1",
    "segments(1000": "segments(60",
}
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


def blocks():
    """(language, text) of README's, in order."""
    return FENCED.findall((ROOT / "README.md").read_text())


def commands():
    """Those of the shell's blocks, a list of words each."""
    lines = "\n".join(text for language, text in blocks() if language == "bash").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [part for line in words if line for part in parted(line)]


def parted(words):
    """The commands that && joins."""
    at = words.index("&&") if "&&" in words else len(words)
    return [words[:at], *(parted(words[at + 1 :]) if at < len(words) else [])]


def needs(words) -> str | None:
    line = " ".join(words)
    return next((what for part, what in NEEDS.items() if part in f"{line} "), None)


def module(command):
    """That of a skullgan command."""
    name = {"train": "main", "evaluate": "evaluate.__main__", "acoustics": "acoustics.__main__"}.get(command, command)
    return importlib.import_module(f"skullgan_jax.{name}")


def give(words):
    """A skullgan command, in this process; returns its exit status."""
    try:
        module(words[1]).run(words[1:] if words[1] == "train" else words[2:])
    except SystemExit as ended:
        return ended.code or 0
    return 0


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """Where a newcomer stands after `make demo`."""
    shutil.copytree(finished, tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "keep_memory", lambda: None)
    return tmp_path


def follow(*names):
    """README from top to bottom: its Python, and of what can be run here the commands of these names."""
    given = []
    for language, text in blocks():
        for readme, here in SMALLER.items():
            text = text.replace(readme, here)
        if language == "python":
            exec(text, {})
        for line in text.splitlines() if language == "bash" else []:
            words = shlex.split(line, comments=True)
            if words and not needs(words) and words[1] in names:
                assert give(words) == 0, line
                given.append(words[1])
    return given


def test_the_first_steps_work_from_top_to_bottom(folder, capsys):
    assert follow("sample", "acoustics", "convert") == ["sample"] * 4 + ["acoustics"] * 2 + ["convert"]
    assert np.load("skulls.npy").shape == (16, 128, 128)
    assert len(np.load("dense.npy")) == 16
    assert os.path.exists("skulls.zarr/zarr.json")
    assert np.load("held_out.npy").dtype == np.int16
    with h5py.File("medium.h5") as file:
        assert file["density"].shape == (16, 512, 512)
    assert sorted(os.listdir("for_torch")) == ["netD.pth", "netG.pth"]
    assert "(64, 128, 128)" in capsys.readouterr().out


@pytest.mark.all
def test_the_demo_is_judged(folder):
    np.save("runs/demo/slices.npy", phantom.segments(60, seed=2))  # the small run left four, of nothing yet
    assert follow("evaluate") == ["evaluate"]
    assert os.path.exists("report/report.html")
    assert os.path.exists("report/model_card.md")


def test_each_command_takes_the_flags_that_it_is_given(tmp_path, monkeypatch):
    """Those too that cannot be run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "keep_memory", lambda: None)
    trained = []
    for begin in ("loop.train", "dry_run.dry_run"):
        monkeypatch.setattr(f"skullgan_jax.train.{begin}", lambda *given, **_: trained.append(given))
    for words in commands():
        if words[0] != "skullgan":
            continue
        command = module(words[1])
        if words[1] == "train":
            monkeypatch.setattr("sys.argv", words[1:])  # where the flags of a config are looked for
            with flagsaver.flagsaver():
                assert give(words) == 0, words
        else:
            command._flags().parse_args(words[2:])
    assert [(config.data.path, workdir) for config, workdir in trained] == 2 * [("slices.npy", "runs/skull")]


def test_what_is_no_command_of_ours_is_known():
    """Targets of make, extras of the package, and nothing else."""
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in commands():
        if words[0] == "make":
            assert set(words[1:]) <= set(targets)
        elif words[:2] == ["pip", "install"]:
            for extra in re.findall(r"\[(.*)\]", words[-1]):
                assert set(extra.split(",")) <= set(extras)
        elif words[0] == "jupyter":
            assert (ROOT / words[-1]).is_dir()
        else:
            assert words[0] == "skullgan" or words == ["source", ".venv/bin/activate"], words
