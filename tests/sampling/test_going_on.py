"""The same command again: more samples, damage, interruptions, several processes, other samples."""

import contextlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import skullgan_jax
from skullgan_jax import sample
from skullgan_jax.machine import files as machine_files
from skullgan_jax.sampling import run
from skullgan_jax.sampling.store import Store
from tests import bucket
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


def _change_one(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("flags", "damaged"),
    [
        ({}, {"s.npy": _change_one, "s.csv": pathlib.Path.unlink, "s.png": _change_one}),
        ({"format": "dicom"}, {"s/000000/000000003.dcm": _change_one, "s/000000/000000004.dcm": pathlib.Path.unlink}),
    ],
)
def test_what_its_size_does_not_tell(command, tmp_path, flags, damaged):
    """A flipped bit, or something beside that is gone: none is there already."""
    output = tmp_path / ("s" if flags else "s.npy")
    command(num=20, output=output, **flags)
    before = files(tmp_path)
    for name, damage in damaged.items():
        damage(tmp_path / name)
        assert command(num=20, output=output, **flags)[1][-2] == f"wrote 20 samples to {output}"
        assert files(tmp_path) == before
    assert command(num=20, output=output, **flags)[1] == [f"{output}: has 20 samples already"]
    about = json.loads((tmp_path / "s.json").read_text())
    assert about.pop("files").keys() == {output.name, "s.csv", "s.png"}
    (tmp_path / "s.json").write_text(json.dumps(about))  # as earlier versions wrote it
    assert command(num=20, output=output, **flags)[1] == [f"{output}: has 20 samples already"]


def test_killed_between_the_names(command, tmp_path, monkeypatch):
    """The samples and what lies beside them come into place one after the other; wherever it ends, it goes on."""
    command(num=20, output=tmp_path / "whole" / "s.npy")
    put = machine_files._put
    for last in range(4):
        placed = []

        def killed(partial, final, aside, placed=placed, last=last):
            if len(placed) == last:
                raise KeyboardInterrupt
            if final.name.startswith("s."):  # a picture is written whole beside its own name, too
                placed.append(final)
            put(partial, final, aside)

        with monkeypatch.context() as patch:
            patch.setattr(machine_files, "_put", killed)
            assert command(num=20, output=tmp_path / "s.npy")[0] == 130
        assert len([p for p in tmp_path.iterdir() if p.is_file()]) == last
        assert command(num=20, output=tmp_path / "s.npy")[0] == 0
        assert files(tmp_path, but="whole/") == files(tmp_path / "whole")
        for path in tmp_path.glob("s.*[!s]"):
            path.unlink()


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
    Store(tmp_path / "s.zarr")._put_about(lambda about: {"complete": False})
    (tmp_path / "s.zarr" / "crc32" / "c" / "1").unlink()
    status, lines = command(num=10, **flags)
    assert (status, lines[0]) == (0, f"{tmp_path}/s.zarr: is one of 20 samples; they are completed")
    assert files(tmp_path) == before


@pytest.mark.parametrize("complete", [True, False])
def test_fewer_beside_a_copy_of_more(complete, command, measures, tmp_path, monkeypatch):
    """Nothing was there when it looked: the one of more is completed, or stays so, with what is known of that."""
    flags = {"output": tmp_path / "s.zarr", "where": f"mean_hu<{float(np.median(measures['mean_hu']))}"}
    command(num=20, **flags)
    before, there, looked = files(tmp_path), run._there, []
    if not complete:
        Store(tmp_path / "s.zarr")._put_about(lambda about: {"complete": False})
        (tmp_path / "s.zarr" / "crc32" / "c" / "1").unlink()
    for times in (1, 2):  # before it draws, and before it puts together
        looked.clear()
        monkeypatch.setattr(
            run, "_there", lambda *of, n=times: looked.append(of) or (there(*of) if looked[n:] else None)
        )
        assert command(num=10, **flags)[0] == 0
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


def test_a_damaged_shard_of_another_process_is_drawn_again(command, hu, tmp_path):
    """It is there, and not as it was written: no output is completed of it."""
    for name in ("s.zarr", "s.npy"):
        flags, draws = {"num": 60, "output": tmp_path / name, "processes": 2}, tmp_path / f"{name}.draws"
        command(**flags, process=0)
        draws = tmp_path / name if name == "s.zarr" else draws
        shard = draws / "hu" / "c" / "2" / "0" / "0"
        shard.write_bytes(shard.read_bytes()[:-50])
        status, lines = command(**flags, process=1)
        assert (status, lines[0]) == (0, f"{draws}: shard 2 of another process is damaged; it is drawn again")
        np.testing.assert_array_equal(Store(draws).read(0, 60).hu, hu[:60])
    assert Store(tmp_path / "s.zarr").about["complete"]


def test_damage_while_the_output_is_put_together(command, hu, tmp_path, monkeypatch):
    """A shard that was found whole, and no longer is: it is drawn again; a disk that keeps nothing is given up."""
    take, left = Store.take, [1]

    def damaging(store, positions):
        if left[0]:
            left[0] -= 1
            _change_one(pathlib.Path(store.path, "hu", "c", "0", "0", "0"))
        return take(store, positions)

    monkeypatch.setattr(Store, "take", damaging)
    assert command(num=20, output=tmp_path / "s.npy")[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[:20])
    left[0] = 99
    status, lines = command(num=40, output=tmp_path / "s.npy")
    assert (status, lines[-1].partition("; ")[0]) == (
        *(75, f"error: {tmp_path}/s.npy: samples were written and cannot be read back"),
    )
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[:20])


def test_a_smaller_job_beside_a_larger_one(command, hu, tmp_path, monkeypatch):
    """The store is complete when all are there for which there is room."""
    write, other = Store.write, []

    def grown(store, shard, samples):
        if not other:
            other.append(Store(store.path))
            other[0].grow(60)
        write(store, shard, samples)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", grown)
        status, lines = command(num=20, output=tmp_path / "s.zarr")
    assert (status, lines[-1].partition("; ")[2][:33]) == (0, "3 shards are not there yet: if it")
    assert (other[0].about["num"], Store(tmp_path / "s.zarr").about["complete"]) == (60, False)
    assert command(num=60, output=tmp_path / "s.zarr")[0] == 0
    assert Store(tmp_path / "s.zarr").about["complete"]
    np.testing.assert_array_equal(Store(tmp_path / "s.zarr").read(0, 60).hu, hu[:60])


def test_another_seed_at_the_same_time_is_refused(command, tmp_path, monkeypatch):
    """Nothing was there when both looked."""
    command(num=20, output=tmp_path / "s.zarr", seed=4)
    monkeypatch.setattr(run, "_there", lambda source, job: None)
    status, lines = command(num=20, output=tmp_path / "s.zarr")
    assert (status, lines[0].partition(": holds")[2]) == (
        *(2, " other samples: seed was 4 now 3; give another --output or remove it"),
    )


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
        ({"batch_norm": "batch", "batch": 4}, "batch_norm was standing now batch, batch was 16 now 4"),
        ({"seed": 4}, "seed was 3 now 4"),
        ({"start": 5}, "start was 0 now 5"),
        ({"batch_norm": "running"}, "batch_norm was standing now running"),
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


def test_another_batch_is_the_same_samples(command, both):
    """The size of the batches in which they were drawn, which may be another backend's, is kept."""
    assert command(num=5, output=both / "s.zarr", batch=4)[1] == [f"{both}/s.zarr: has 5 samples already"]
    assert Store(both / "s.zarr").about["batch"] == 16


def test_another_model_is_refused(command, small_model, tmp_path):
    command(num=5, output=tmp_path / "s.zarr")
    other = skullgan_jax.load(small_model)
    other.g_params["conv4"]["kernel"] = -other.g_params["conv4"]["kernel"]
    other.save(tmp_path / "other")
    status, lines = command(num=9, output=tmp_path / "s.zarr", model=tmp_path / "other")
    hashes = [skullgan_jax.load(path).sha256[:12] for path in (small_model, tmp_path / "other")]
    assert status == 2
    assert f"model was model ({hashes[0]}) now other ({hashes[1]})" in lines[0]


def _of_an_earlier_version(store):
    """Says that it has the format of before."""
    path = store / "zarr.json"
    text = path.read_text()
    assert '"format": 2' in text
    path.write_text(text.replace('"format": 2', '"format": 1'))


def _refused(command, **flags):
    """That nothing is added, which would be of two formats: the path that is told."""
    status, (line,) = command(**flags)
    assert status == 2
    told, rest = line.split(": was begun by another version (format 1, now 2), whose samples round otherwise; ")
    assert rest == "complete it with that version, or give another --output"
    return told.removeprefix("error: ")


def test_nothing_is_added_to_samples_of_an_earlier_version(command, hu, tmp_path):
    """They are read, and complete as they are; a shard that is damaged, or more of them, would be of two formats."""
    path = tmp_path / "s.zarr"
    command(num=20, output=path)
    _of_an_earlier_version(path)
    before = files(tmp_path)
    assert command(num=20, output=path) == (0, [f"{path}: has 20 samples already"])
    for more in (25, 40):
        assert _refused(command, num=more, output=path) == str(path)
    assert files(tmp_path) == before
    np.testing.assert_array_equal(Store(path).read(0, 20).hu, hu[:20])
    _change_one(path / "hu" / "c" / "1" / "0" / "0")
    before = files(tmp_path)
    assert _refused(command, num=20, output=path) == str(path)
    assert files(tmp_path) == before


@pytest.mark.parametrize("flags", [{}, {"where": "mean_hu>0"}])
def test_draws_of_an_earlier_version_are_put_together(command, tmp_path, flags):
    """As often as they are wanted, and say of which format they are; more of them are not drawn."""
    path = tmp_path / "s.npy"
    command(num=20, output=path, **flags)
    _of_an_earlier_version(tmp_path / "s.npy.draws")
    image = path.read_bytes()
    path.unlink()
    assert command(num=20, output=path, **flags)[1][-2] == f"wrote 20 samples to {path}"
    assert path.read_bytes() == image
    assert json.loads((tmp_path / "s.json").read_text())["format"] == 1
    assert _refused(command, num=200, output=path, **flags) == f"{path}.draws"


def test_a_selection_of_an_earlier_version_without_its_draws(command, tmp_path):
    path, flags = tmp_path / "s.zarr", {"where": "mean_hu>0"}
    command(num=20, output=path, **flags)
    _of_an_earlier_version(path)
    shutil.rmtree(tmp_path / "s.zarr.draws")
    before = files(path)
    assert command(num=20, output=path, **flags) == (0, [f"{path}: has 20 samples already"])
    status, lines = command(num=40, output=path, **flags)
    assert (status, lines[-1].startswith(f"error: {path}: was begun by another version")) == (2, True)
    assert files(path) == before


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
    """The kernel refuses to write on: one line, exit 75, and with room the same command ends as if nothing had been."""
    lines = []
    for size in (100_000, 600_000):
        with room_for(size):
            status, said = command(num=20, output=tmp_path / "s.npy")
        lines.append((status, said[-1]))
    assert lines[0][0] == lines[1][0] == 75, lines
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


def _start(model, output, num, compiled, processes, *flags):
    """The processes of a job."""
    command = [
        sys.executable,
        "-m",
        "skullgan_jax.sample",
        f"--model={model}",
        f"--num={num}",
        "--shard=16",
        "--seed=3",
        *flags,
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
        deadline = time.monotonic() + 600
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


@pytest.mark.parametrize("kills", [pytest.param(1, marks=pytest.mark.all), pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "which", [pytest.param("where", marks=pytest.mark.slow), pytest.param("unique", marks=pytest.mark.slow), "both"]
)
def test_who_is_left_of_a_selection_completes_it(
    kills, which, command, measures, small_model, compiled, tmp_path, monkeypatch
):
    """Of three processes with nothing but a bucket in common one or two are killed; each other ends with all of it."""
    flags = {"where": f"mean_hu<{float(np.median(measures['mean_hu']))}", "unique": 300}
    flags = {name: value for name, value in flags.items() if which in (name, "both")}
    given = [f"--{name}={value}" for name, value in flags.items()]
    chance, num = random.Random(0), 0
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    with bucket.serving() as objects:
        for _ in range(kills):
            num += 150
            before = len(objects)
            running = _start(small_model, "gs://bucket/s.zarr", num, compiled, 3, *given)
            deadline = time.monotonic() + 600
            while len(objects) < before + 30:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 1))
            killed = chance.sample(running, chance.choice([1, 2]))
            for process in killed:
                process.send_signal(signal.SIGKILL)
            for process in running:
                if process not in killed:
                    assert process.wait(timeout=300) == 0
            store = Store("gs://bucket/s.zarr")
            assert (store.about["complete"], store.about["num"]) == (True, num)
        assert command(num=num, output=tmp_path / "whole.zarr", **flags)[0] == 0
        found, whole = store.read(0, num), Store(tmp_path / "whole.zarr").read(0, num)
        np.testing.assert_array_equal(found.index, whole.index)
        np.testing.assert_array_equal(found.hu, whole.hu)
        assert store.about["draws"] == Store(tmp_path / "whole.zarr").about["draws"]
