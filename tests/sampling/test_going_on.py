"""The same command again: more samples, damage, interruptions, several processes, other samples."""

import contextlib
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import skullgan_jax
from skullgan_jax import sample
from skullgan_jax.sampling.store import Store
from tests.sampling.folder import files

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["s.npy", "s.zarr"])
def test_more_are_added(command, hu, tmp_path, name):
    """Shards that are there stay as they are; the result is that of one go."""
    command(num=20, output=tmp_path / name)
    draws = tmp_path / (name if name == "s.zarr" else f"{name}.draws")
    first = draws / "hu" / "c" / "0" / "0" / "0"
    written = first.stat().st_mtime_ns
    status, lines = command(num=40, output=tmp_path / name)
    assert (status, lines[0]) == (0, f"{draws}: 1 of 3 shards are there already")
    assert lines[1].startswith("sampled 24/24, ")
    assert first.stat().st_mtime_ns == written
    (tmp_path / "once").mkdir()
    command(num=40, output=tmp_path / "once" / name)
    whole = files(tmp_path / "once")
    assert files(tmp_path, but="once/") == whole
    status, lines = command(num=30, output=tmp_path / name)
    assert (status, lines) == (0, [f"{tmp_path / name}: has 40 samples already"])
    assert files(tmp_path, but="once/") == whole


def test_damage_is_mended(command, hu, tmp_path):
    """A truncated shard, and a truncated output."""
    command(num=40, output=tmp_path / "s.npy")
    before = files(tmp_path)
    (tmp_path / "s.npy").write_bytes(before["s.npy"][:-1000])
    shard = tmp_path / "s.npy.draws" / "hu" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-50])
    status, lines = command(num=40, output=tmp_path / "s.npy")
    assert (status, lines[0]) == (0, f"{tmp_path}/s.npy.draws: 2 of 3 shards are there already")
    assert files(tmp_path) == before


def test_damage_in_a_complete_store_is_mended(command, hu, tmp_path):
    command(num=40, output=tmp_path / "s.zarr")
    before = files(tmp_path)
    shard = tmp_path / "s.zarr" / "hu" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-50])
    status, lines = command(num=40, output=f"{tmp_path}/s.zarr/")
    assert (status, lines[0]) == (0, f"{tmp_path}/s.zarr: 2 of 3 shards are there already")
    assert files(tmp_path) == before
    assert command(num=40, output=tmp_path / "s.zarr")[1] == [f"{tmp_path}/s.zarr: has 40 samples already"]


def test_fewer_than_a_copy_was_begun_for(command, measures, tmp_path):
    """A selection whose copy was interrupted is completed, as a store without one is."""
    flags = {"output": tmp_path / "s.zarr", "where": f"mean_hu<{float(np.median(measures['mean_hu']))}"}
    command(num=20, **flags)
    before = files(tmp_path)
    Store(tmp_path / "s.zarr")._put_about(complete=False)
    (tmp_path / "s.zarr" / "crc32" / "c" / "1").unlink()
    status, lines = command(num=10, **flags)
    assert (status, lines[0]) == (0, f"{tmp_path}/s.zarr: is one of 20 samples; they are completed")
    assert files(tmp_path) == before


def test_processes_share_a_job(command, hu, tmp_path):
    """The last one completes it; a dead one's part is done by any other."""
    flags = {"num": 60, "output": tmp_path / "s.npy", "processes": 3}
    assert command(**flags, process=1)[1][-1].startswith(
        "process 1 of 3 has done its part; 3 shards of others are not there yet"
    )
    assert not (tmp_path / "s.npy").exists()
    status, lines = command(**flags, process=2)
    assert status == 0
    assert not any(line.startswith("sampled") for line in lines)  # process 0 alone tells how far it is
    status, lines = command(num=60, output=tmp_path / "s.npy")
    assert lines[0] == f"{tmp_path}/s.npy.draws: 2 of 4 shards are there already"
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[:60])


def test_slurm_says_which_process(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert command(num=20, output=tmp_path / "s.zarr")[1][-1].startswith("process 1 of 2 has done its part; 1 shards")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert command(num=20, output=tmp_path / "s.zarr")[1][-1] == f"wrote 20 samples to {tmp_path}/s.zarr"


@pytest.fixture(scope="module")
def both(small_model, tmp_path_factory):
    """A folder with samples of each kind."""
    folder = tmp_path_factory.mktemp("both")
    for name in ("s.npy", "s.zarr"):
        sample.run([f"--model={small_model}", "--num=5", "--seed=3", "--shard=16", f"--output={folder / name}"])
    return folder


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 4}, "seed was 3 now 4"),
        ({"start": 5}, "start was 0 now 5"),
        ({"batch_norm": "running"}, "batch_norm was standing now running"),
        ({"batch": 4}, "batch was 16 now 4"),
        ({"dtype": "bfloat16"}, "dtype was float32 now bfloat16"),
        ({"where": "sdr<1"}, "where was None now sdr<1"),
        ({"unique": 7}, "unique was None now 7"),
    ],
)
def test_other_samples_are_refused(command, both, changed, said):
    before = files(both)
    for name in ("s.npy", "s.zarr"):
        status, lines = command(**{"num": 9, "output": both / name} | changed)
        assert (status, lines) == (
            2,
            [f"error: {both / name}: holds other samples: {said}; give another --output or remove it"],
        )
    assert files(both) == before


def test_another_model_is_refused(command, small_model, tmp_path):
    command(num=5, output=tmp_path / "s.zarr")
    other = skullgan_jax.load(small_model)
    other.g_params["conv4"]["kernel"] = -other.g_params["conv4"]["kernel"]
    other.save(tmp_path / "other")
    status, lines = command(num=9, output=tmp_path / "s.zarr", model=tmp_path / "other")
    hashes = [skullgan_jax.load(path).sha256[:12] for path in (small_model, tmp_path / "other")]
    assert status == 2
    assert f"model was model ({hashes[0]}) now other ({hashes[1]})" in lines[0]


@contextlib.contextmanager
def room_for(size):
    """The kernel writes no file of this process beyond that size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room(command, hu, tmp_path):
    """The kernel refuses to write on: one line, exit 2, and with room the same command ends as if nothing had been."""
    lines = []
    for size in (100_000, 600_000):
        with room_for(size):
            status, said = command(num=20, output=tmp_path / "s.npy")
        lines.append((status, said[-1]))
    assert lines[0][0] == lines[1][0] == 2, lines
    assert lines[0][1].startswith(f"error: {tmp_path}/s.npy.draws: cannot be written (")
    assert lines[1][1].startswith(f"error: --output={tmp_path}/s.npy: cannot be written (File too large)")
    assert command(num=20, output=tmp_path / "s.npy")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[:20])
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


@pytest.mark.parametrize("name", ["s.npy", "s.zarr"])
def test_interrupted_it_goes_on(command, tmp_path, monkeypatch, name):
    """Ctrl-C while a shard is written: the bytes are those of one go."""
    write, written = Store.write, []

    def interrupted(store, shard, samples):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        write(store, shard, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", interrupted)
        status, lines = command(num=64, output=tmp_path / "one" / name)
    assert status == 130
    assert lines[-1] == "error: interrupted; give the same command again, and it goes on where it was"
    assert command(num=64, output=tmp_path / "one" / name)[1][0].endswith(": 2 of 4 shards are there already")
    command(num=64, output=tmp_path / "whole" / name)
    assert files(tmp_path / "one") == files(tmp_path / "whole")


def _start(model, output, num, compiled, processes):
    """The processes of a job."""
    command = [
        sys.executable,
        "-m",
        "skullgan_jax.sample",
        f"--model={model}",
        f"--num={num}",
        "--shard=16",
        "--seed=3",
    ]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",  # set, the process does not start itself again
    }
    return [
        subprocess.Popen(
            [*command, f"--output={output}", f"--process={process}", f"--processes={processes}"],
            env=environment,
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        for process in range(processes)
    ]


@pytest.mark.parametrize("kills", [pytest.param(1, marks=pytest.mark.all), pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment(kills, command, small_model, compiled, tmp_path):
    """Both processes are killed soon after a shard was written, again and again: the bytes are those of one go."""
    chance, num, output = random.Random(0), 300 + 120 * kills, tmp_path / "killed.zarr"

    def shards():
        return len(list(output.glob("hu/c/*/0/0")))

    for _ in range(kills):
        before, running = shards(), _start(small_model, output, num, compiled, 2)
        deadline = time.monotonic() + 120
        while shards() == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.15))  # a few shards long
        chance.shuffle(running)
        for process in running:
            assert process.poll() is None  # there is work left
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert not Store(output).about["complete"]
    for process in _start(small_model, output, num, compiled, 2):
        assert process.wait(timeout=300) == 0
    assert command(num=num, output=tmp_path / "whole.zarr")[0] == 0
    for path in (output, tmp_path / "whole.zarr"):
        assert Store(path).about["complete"]
    assert files(output) == files(tmp_path / "whole.zarr")
