"""The command line: help, refusals in one line, signals."""

import atexit
import json
import pathlib
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
from absl.testing import flagsaver

from skullgan_jax import main
from skullgan_jax.command.flags import refusing
from skullgan_jax.errors import InputError
from skullgan_jax.train import fields
from skullgan_jax.train.dry_run import dry_run
from tests.support import ended

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def typed(monkeypatch, capsys):
    """A function of arguments: the exit status, and what the command says on stdout and stderr before it starts."""
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")  # set, the process does not start itself again
    monkeypatch.chdir(ROOT)
    # What a command that ends may do to its process.
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(atexit, "register", lambda _: None)

    def call(*args, program="skullgan_jax/main.py", run=main.run):
        monkeypatch.setattr(sys, "argv", [program, *args])  # where the config's flags are looked for
        with flagsaver.flagsaver(), warnings.catch_warnings():
            try:
                run([program, *args])
                code = 0
            except SystemExit as ended:
                code = ended.code
        return code, *capsys.readouterr()

    return call


def parse(argv):
    """The command up to where it would begin."""
    with refusing():
        main._parse(argv)


def test_help_imports_neither_jax_nor_tensorflow_and_exits_0():
    code = """
import sys
from skullgan_jax.main import run
run(["skullgan train", "--help"])
heavy = {"jax", "tensorflow", "orbax", "flax", "matplotlib", "torch", "numpy"} & set(sys.modules)
print("imported:", sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "imported: []" in done.stdout


@pytest.mark.parametrize(
    ("program", "usage"),
    [
        ("/usr/bin/skullgan train", "usage: skullgan train --config"),
        ("/somewhere/skullgan_jax/main.py", "usage: python -m skullgan_jax.main --config"),
        ("/somewhere/skullgan_jax/__main__.py train", "usage: python -m skullgan_jax train --config"),
    ],
)
@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help_names_the_command_and_its_flags(program, usage, flag, typed):
    code, said, complained = typed(flag, program=program)
    assert (code, complained) == (0, "")
    assert said.startswith(usage)
    assert f"{usage.removeprefix('usage: ')}=configs/skull.py --workdir=runs/skull" in said
    for name in ("config", "workdir", "distributed", "profile", "dry_run"):
        assert re.search(rf"^  --{name} +\w.*\.$", said, re.MULTILINE), name
    assert max(map(len, said.splitlines())) <= 120


@pytest.mark.parametrize(
    ("name", "epochs", "lr"),
    [
        ("skull.py", 1000, 3e-4),
        ("skull.py:demo", 20, 1e-3),
        ("celeba.py", 10, 3e-4),
        ("small_data.py", 1000, 2e-4),
        ("small_data.py:demo", 200, 5e-4),
    ],
)
def test_help_shows_every_field_with_its_meaning_and_default(name, epochs, lr, typed):
    code, said, _ = typed(f"--config=configs/{name}", "--help")
    assert code == 0
    shown = dict(re.findall(r"^  --config\.(\S+) +((?:.|\n {3,})+)$", said, re.MULTILINE))
    known = fields.of(f"configs/{name}")
    assert shown.keys() == known.keys()
    for field, text in shown.items():
        meaning, _, default = " ".join(text.split()).rpartition(" (default ")
        assert len(meaning) > 10, field
        assert default == f"{known[field] if known[field] != '' else 'none'})", field
    assert (known["epochs"], known["recipe.lr"]) == (epochs, lr)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--workdir=run"], "--config is missing; see --help"),
        (["--config=configs/skull.py:demo"], "--workdir is missing; see --help"),
        ([], "--config is missing; see --help"),
        (["--config=configs/no.py", "--workdir=run"], "configs/no.py"),
        (["--config=configs/no.py", "--help"], "configs/no.py"),
        (["--config=LICENSE", "--workdir=run"], "LICENSE"),
        (
            ["--config=configs/skull.py:large", "--workdir=run"],
            "error: --config=configs/skull.py:large: there is only configs/skull.py and configs/skull.py:demo\n",
        ),
        (["--config.batchsize=3"], "--config has no field batchsize; did you mean batch_size?"),
        (["--config.recipe.lrr=1"], "--config has no field recipe.lrr; did you mean recipe.lr?"),
        (["--config.lr=1"], "--config has no field lr; did you mean recipe.lr?"),
        (["--config.recipe.foo=3"], "--config has no field recipe.foo; see --help"),
        (["--config.no-such=1"], "--config has no field no-such; see --help"),
        (["--noconfig.shard"], "--config has no field shard; did you mean shard_state?"),
        (["--config.recipe=3"], "--config.recipe is not one field; give those you mean, e.g. --config.recipe."),
        (["--config.epochs=many"], "--config.epochs=many: give a whole number"),
        (["--config.recipe.lr", "low"], "--config.recipe.lr=low: give a number"),
        (["--config.shard_state=maybe"], "--config.shard_state=maybe: give True or False"),
        (["--config=configs/skull.py:demo", "--workdir=run", "--verbos=3"], "verbos"),
        (["--config=configs/skull.py:demo", "--workdir=run", "slices.npy"], "'slices.npy' is no flag"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_2(args, expected, typed, tmp_path):
    if args and args[0].startswith(("--config.", "--noconfig.")):
        args = ["--config=configs/skull.py:demo", "--workdir=run", *args]
    args = [a.replace("--workdir=run", f"--workdir={tmp_path}/run") for a in args]
    code, said, complained = typed(*args, run=main.run if "--help" in args else parse)
    assert (code, said) == (2, "")
    assert complained.startswith("error: ")
    assert complained.count("\n") == 1, complained
    assert expected in complained
    assert not (tmp_path / "run").exists()


def test_a_config_that_fails_names_its_error(typed, tmp_path):
    (tmp_path / "mine.py").write_text("def get_config(:\n")
    code, _, complained = typed(f"--config={tmp_path}/mine.py", f"--workdir={tmp_path}/run", run=parse)
    assert (code, complained.count("\n")) == (2, 1), complained
    assert "mine.py" in complained


def test_a_field_that_a_file_of_flags_has_wrong(typed, tmp_path):
    (tmp_path / "flags").write_text("--config=configs/skull.py:demo\n--config.nosuch=1\n")
    code, _, complained = typed(f"--flagfile={tmp_path}/flags", f"--workdir={tmp_path}/run", run=parse)
    assert (code, complained.count("\n")) == (2, 1), complained
    assert "nosuch" in complained


def test_bad_input_is_one_line_and_exit_2(start, tmp_path):
    process = start(tmp_path / "run", "--config.data.path=/no/such.npy")
    out, said = process.communicate(timeout=300)
    assert process.returncode == 2, said
    assert out == ""
    assert said.startswith("error: /no/such.npy: no such file")
    assert said.count("\n") == 1


def test_a_dry_run_tells_what_it_would_be_and_writes_nothing(tiny, finished, tmp_path, monkeypatch, capsys):
    """In a new workdir, and in one that a run goes on in."""
    monkeypatch.chdir(tmp_path)
    dry_run(tiny(), tmp_path / "run")
    said = capsys.readouterr()
    assert list(tmp_path.iterdir()) == []
    about = json.loads((finished / "model" / "model.json").read_text())["provenance"]["data"]
    assert "starting from scratch" in said.err
    told = re.sub(r"\s+", " ", said.out)
    for part in (
        "config batch_size=4 ",
        " recipe.lr=0.001 ",
        " data 16 phantom images, pixels of 0.46875 mm, calibration ",
        f", fingerprint {about['fingerprint']} ",
        " devices 1 x cpu, float32 ",
        " GB a device in a step; ",
        " s to compile, and 12 of 12 steps of ",
    ):
        assert part in told, part
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*")}
    dry_run(tiny(epochs=5), finished)
    said = capsys.readouterr()
    assert f"resuming {finished} at step 12" in said.err
    assert " s to compile, and 8 of 20 steps of " in re.sub(r"\s+", " ", said.out)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*")} == before
    with pytest.raises(InputError, match="the config changed since its checkpoint: seed was 111 now 5"):
        dry_run(tiny(seed=5), finished)


def test_the_command_hands_on_what_is_asked(typed, monkeypatch, tmp_path):
    """To `train`, or with --dry_run to what only looks."""
    calls = []
    for module, name in (("loop", "train"), ("dry_run", "dry_run")):

        def note(config, workdir, name=name, **flags):
            calls.append((name, config.epochs, workdir, flags))

        monkeypatch.setattr(f"skullgan_jax.train.{module}.{name}", note)
    given = ("--config=configs/skull.py:demo", f"--workdir={tmp_path}", "--config.epochs=7")

    def run(argv):
        main._parse(argv)
        main._main(argv)

    for extra in ((), ("--profile",), ("--dry_run",)):
        assert typed(*given, *extra, run=run) == (0, "", "")
    asked = 7, str(tmp_path)
    assert calls == [
        ("train", *asked, {"profile": False}),
        ("train", *asked, {"profile": True}),
        ("dry_run", *asked, {}),
    ]


@pytest.mark.all
def test_nan_is_one_line_and_exit_2(start, tmp_path):
    code = """
import numpy as np
from skullgan_jax.train import setup
real = setup.batches
setup.batches = lambda *a, **k: ({name: np.nan * x for name, x in batch.items()} for batch in real(*a, **k))
"""
    said = ended(start(tmp_path / "run", code=code), 2)
    last = said.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/run: not finite at step ")
    assert "no checkpoint was saved yet" in last
    assert "Traceback" not in said


@pytest.mark.all
def test_sigterm_saves_and_exits_0(start, tmp_path):
    """Started as a user does: the process first starts itself again with another malloc, under the same id."""
    process = start(tmp_path / "run", "--config.epochs=100000", env={"GLIBC_TUNABLES": None})
    try:
        log = tmp_path / "run" / "metrics.jsonl"
        deadline = time.monotonic() + 300
        while not (log.exists() and log.read_text().count("\n") >= 6):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        if sys.platform == "linux":
            environment = pathlib.Path(f"/proc/{process.pid}/environ").read_bytes()
            assert b"GLIBC_TUNABLES=glibc.malloc." in environment or platform.libc_ver()[0] != "glibc"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, said
    last = said.splitlines()[-1]
    assert last.startswith("stopped by SIGTERM after step ")
    assert last.endswith(", saved; run the same command again to go on")
    step = int(last.split("after step ")[1].split(",")[0])
    kept = [int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert max(kept) == step
