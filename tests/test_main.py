"""The command line: help, refusals in one line, signals."""

import os
import pathlib
import platform
import signal
import subprocess
import sys
import time

import pytest

from tests.support import ended

ROOT = pathlib.Path(__file__).resolve().parents[1]


def command(*args, **environment):
    """The command with arguments, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "skullgan_jax.main", *args],
        cwd=ROOT,
        env=os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_help_shows_an_example_and_imports_neither_jax_nor_tensorflow():
    code = """
import sys
from skullgan_jax.main import run
try:
    run(["skullgan train", "--help"])
finally:
    heavy = {"jax", "tensorflow", "orbax", "flax", "matplotlib", "torch"} & set(sys.modules)
    print("imported:", sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "imported: []" in done.stdout
    assert "python -m skullgan_jax.main --config=configs/skull.py --workdir=runs/skull" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--workdir=run"], "--config is missing; see --help"),
        (["--config=configs/skull.py:demo"], "--workdir is missing; see --help"),
        ([], "--config is missing; see --help"),
        (["--config=configs/no.py", "--workdir=run"], "configs/no.py"),
        (["--config=LICENSE", "--workdir=run"], "LICENSE"),
        (
            ["--config=configs/skull.py:large", "--workdir=run"],
            "there is only configs/skull.py and configs/skull.py:demo",
        ),
        (["--config=configs/skull.py:demo", "--workdir=run", "--config.batchsize=3"], "batchsize"),
        (["--config=configs/skull.py:demo", "--workdir=run", "--config.recipe.foo=3"], "foo"),
        (["--config=configs/skull.py:demo", "--workdir=run", "--config.epochs=many"], "many"),
        (["--config=configs/skull.py:demo", "--workdir=run", "--verbos=3"], "verbos"),
        (["--config=configs/skull.py:demo", "--workdir=run", "slices.npy"], "'slices.npy' is no flag"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_2(args, expected, tmp_path):
    args = [a.replace("--workdir=run", f"--workdir={tmp_path}/run") for a in args]
    done = command(*args)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert expected in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_config_that_fails_names_its_error(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config(:\n")
    done = command(f"--config={tmp_path}/mine.py", f"--workdir={tmp_path}/run")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "mine.py" in done.stderr


def test_bad_input_is_one_line_and_exit_2(start, tmp_path):
    for flags, expected in (
        (["--config.data.path=/no/such.npy"], "error: /no/such.npy: no such file"),
        (["--config.batch_size=17"], "error: 16 slices do not fill one batch of 17"),
    ):
        process = start(tmp_path / "run", *flags)
        out, said = process.communicate(timeout=300)
        assert process.returncode == 2, said
        assert out == ""
        assert said.startswith(expected)
        assert said.count("\n") == 1


def test_nan_is_one_line_and_exit_2(start, tmp_path):
    said = ended(start(tmp_path / "run", "--config.recipe.lr=1e38"), 2)
    last = said.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}/run: not finite at step ")
    assert "no checkpoint was saved yet" in last
    assert "Traceback" not in said


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
