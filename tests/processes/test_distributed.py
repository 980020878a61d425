"""Several processes train one pair: the same numbers, one end, one line for what goes wrong."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from skullgan_jax.errors import InputError, MachineError
from skullgan_jax.machine import places
from skullgan_jax.model import checkpoint
from skullgan_jax.processes import distributed, lock, watch
from tests.support import QUICK, ended


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def devices(num: int) -> dict:
    """The environment of a process with so many, which compiles as fast as quick_jit."""
    quick = " ".join(f"--{name}={str(value).lower()}" for name, value in QUICK.items())
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={num} {quick}", "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def start_job(start):
    """A function of a workdir, flags and devices of a process: two processes of one job."""
    running = []

    def go(workdir, *flags, num_devices=1, second=(), config="skull", code=None):
        address = f"127.0.0.1:{free_port()}"
        for process in (0, 1):
            place = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(process)}
            extra = second if process else ()
            env = place | devices(num_devices)
            running.append(start(workdir, "--distributed", *flags, *extra, config=config, env=env, code=code))
        return running[-2:]

    yield go
    for process in running:
        process.kill()


def wait_for(path, steps: int, processes, within: float = 120):
    """Return when so many steps are recorded, within so many seconds."""
    for _ in range(round(10 * within)):
        if path.exists() and sum("loss_d" in line for line in path.read_text().splitlines()) >= steps:
            return
        assert all(p.poll() is None for p in processes), [p.communicate() for p in processes]
        time.sleep(0.1)
    raise AssertionError(f"{path}: no {steps} steps in {within} s")


STEADY = ("--config.recipe.lr=3e-4", "--config.final_slices=0")


@pytest.fixture(scope="module")
def alone(start, tmp_path_factory):
    """The workdir and the words of one process with 4 devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    return workdir, ended(start(workdir, *STEADY, env=devices(4)), 0)


@pytest.mark.all
def test_processes_do_not_change_the_numbers(alone, start, start_job, records, tmp_path):
    """1 x 4 devices and 2 x 2 devices: losses within 1e-5 for 10 steps; stopped in one way, resumed in the other."""
    flags = (*STEADY, "--config.epochs=400")
    job = start_job(tmp_path / "job", *flags, num_devices=2)
    wait_for(tmp_path / "job" / "metrics.jsonl", 11, job)
    job[1].send_signal(signal.SIGTERM)
    said = [ended(process, 0) for process in job]
    assert "stopped by SIGTERM after step" in said[0]
    assert "2 processes" in said[0]
    assert "stopped" not in said[1]
    expected, found = ({r["step"]: r for r in records(w) if "loss_d" in r} for w in (alone[0], tmp_path / "job"))
    for step in range(1, 11):
        for name in ("loss_d", "loss_g"):
            np.testing.assert_allclose(found[step][name], expected[step][name], rtol=1e-5, err_msg=f"{step} {name}")
    assert np.std([expected[step]["loss_g"] for step in range(1, 11)]) > 1e-2
    stopped = max(found)
    epochs = stopped // 4 + 1
    resumed = start(tmp_path / "job", *STEADY, f"--config.epochs={epochs}", env=devices(1))
    assert f"at step {stopped}" in ended(resumed, 0)
    assert [r["step"] for r in records(tmp_path / "job") if "loss_d" in r] == [*range(1, 4 * epochs + 1)]


@pytest.mark.all
def test_divided_weights_do_not_change_the_numbers(alone, start, records, tmp_path):
    """A copy on each of 4 devices, or a quarter: the same losses within 1e-5, with no more memory a device."""
    said = ended(start(tmp_path / "run", *STEADY, "--config.shard_state=True", env=devices(4)), 0)
    whole, divided = ({r["step"]: r for r in records(w) if "loss_d" in r} for w in (alone[0], tmp_path / "run"))
    for step in range(1, 11):
        for name in ("loss_d", "loss_g"):
            np.testing.assert_allclose(divided[step][name], whole[step][name], rtol=1e-5, err_msg=f"{step} {name}")
    needed = [float(re.search(r"; ([0-9.]+) GB a device", words)[1]) for words in (said, alone[1])]
    assert needed[0] <= needed[1]


@pytest.mark.all
@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_lost_process_ends_the_job(victim, start_job, tmp_path):
    """Within a minute, with one line of another process, exit 75."""
    job = start_job(tmp_path / "run", "--config.epochs=4000", "--config.checkpoint_every=4000")
    wait_for(tmp_path / "run" / "metrics.jsonl", 2, job)
    os.kill(job[victim].pid, signal.SIGKILL)
    began = time.monotonic()
    line = ended(job[1 - victim], 75).splitlines()[-1]
    assert time.monotonic() - began < 60
    assert line.startswith("error: ")
    assert "process" in line
    assert line.endswith("so all of the job ends; the same command goes on from the last checkpoint")


@pytest.mark.all
def test_processes_that_differ_are_refused(start_job, tmp_path):
    job = start_job(tmp_path / "run", second=("--config.recipe.b1=0.25",))
    line = ended(job[0], 2).splitlines()[-1]
    ended(job[1], 2)
    host = socket.gethostname()
    assert line == (
        f"error: the processes of this job differ: config.recipe.b1 is 0.5 on {host} (process 0) and 0.25 on {host} "
        "(process 1); give all the same software, config and data"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.all
def test_input_of_one_process_is_refused_by_all(start_job, tmp_path):
    job = start_job(tmp_path / "run", second=("--config.data.path=nowhere.npy",))
    line = ended(job[0], 2).splitlines()[-1]
    assert line.startswith(f"error: process 1 on {socket.gethostname()}: ")
    assert "nowhere.npy" in line
    ended(job[1], 2)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("names", "values", "expected"),
    [
        ("ADDRESS", "somewhere:1", "JAX_COORDINATOR_ADDRESS without JAX_NUM_PROCESSES and JAX_PROCESS_ID"),
        ("ADDRESS NUM ID", "somewhere 2 0", "JAX_COORDINATOR_ADDRESS=somewhere"),
        ("ADDRESS NUM ID", "somewhere:1 2 2", "give 0 to 1"),
        ("ADDRESS NUM ID", "somewhere:1 two 0", "JAX_NUM_PROCESSES=two"),
    ],
)
def test_places_that_cannot_be(names, values, expected, monkeypatch):
    full = {"ADDRESS": "JAX_COORDINATOR_ADDRESS", "NUM": "JAX_NUM_PROCESSES", "ID": "JAX_PROCESS_ID"}
    for name in full.values():
        monkeypatch.delenv(name, raising=False)
    for name, value in zip(names.split(), values.split(), strict=True):
        monkeypatch.setenv(full[name], value)
    with pytest.raises(InputError) as caught:
        distributed._meet()
    assert expected in str(caught.value)


def test_taken_port(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of JAX_COORDINATOR_ADDRESS cannot be had"):
            distributed._check_free(port)


@pytest.mark.all
def test_unreachable_coordinator(start, tmp_path):
    """A line within a minute."""
    place = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    code = "from skullgan_jax.processes import distributed\ndistributed.MEET_SECONDS = 3"  # as it is, 50
    line = ended(start(tmp_path / "run", "--distributed", code=code, env=place), 75).splitlines()[-1]
    address = place["JAX_COORDINATOR_ADDRESS"]
    assert line == (
        f"error: --distributed: {address} was not reached within 3 s; is process 0 running there, and the port open?"
    )
    assert distributed.MEET_SECONDS < 60


def test_one_job_in_a_workdir(tmp_path):
    first = lock.Lock(tmp_path)
    lock.check_shared(places.at(tmp_path), first.nonce)
    with pytest.raises(InputError) as caught:
        lock.Lock(tmp_path)
    assert f"in use by process {os.getpid()} on {socket.gethostname()}" in str(caught.value)
    first.release()
    second = lock.Lock(tmp_path)
    with pytest.raises(InputError, match="is not the folder that process 0 sees"):
        lock.check_shared(places.at(tmp_path), first.nonce)
    assert json.loads((tmp_path / "lock.json").read_text())["nonce"] == second.nonce
    second.release()


def of(host, refused=None, **same):
    return {"host": host, "refused": refused, "same": same}


@pytest.mark.parametrize(
    ("gathered", "expected"),
    [
        ([of("a", lr=1), of("b", lr=1)], None),
        ([of("a"), of("b", "x.npy: no such file")], "process 1 on b: x.npy: no such file"),
        ([of("a", "x.npy: no such file"), of("b", "x.npy: no such file")], "x.npy: no such file"),
        (
            [of("a", lr=1, seed=3), of("a", lr=1, seed=3), of("b", lr=2, seed=3)],
            "the processes of this job differ: lr is 1 on a (process 0) and 2 on b (process 2); "
            "give all the same software, config and data",
        ),
        (
            [of("a", **dict.fromkeys("klmnop", 1)), of("b", k=1)],
            "the processes of this job differ: l is 1 on a (process 0) and None on b (process 1), "
            "m is 1 on a (process 0) and None on b (process 1), n is 1 on a (process 0) and None on b (process 1) "
            "and 2 more; give all the same software, config and data",
        ),
    ],
)
def test_what_stands_against_going_on(gathered, expected):
    assert distributed._disagreement(gathered) == expected


def test_alone_nothing_is_compared():
    assert distributed.agree(lambda: 7, same=lambda _: pytest.fail("asked")) == 7
    assert distributed.from_first("seven", 7) == 7
    assert distributed.is_first()


class Store:
    """The key-value store of a job, in this process."""

    def __init__(self):
        self.values = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.values, f"ALREADY_EXISTS: {key}"
        self.values[key] = value

    def blocking_key_value_get(self, key, _):
        return self.values[key]

    def wait_at_barrier(self, *_):
        pass

    def key_value_dir_get(self, prefix):
        return [(k, v) for k, v in self.values.items() if k.startswith(prefix)]


@pytest.fixture
def left(monkeypatch):
    """A store of two processes of which this is the first, and how it is left."""
    store, codes = Store(), []
    for name, value in (("client", store), ("process_id", 0), ("num_processes", 2)):
        monkeypatch.setattr(watch.global_state, name, value)
    monkeypatch.setattr(watch, "LOST_SECONDS", 0.2)
    monkeypatch.setattr(watch, "_BEAT_SECONDS", 0.02)
    beating = watch.Watch()

    def leave(code):
        codes.append(code)
        beating.stop()

    monkeypatch.setattr(watch.os, "_exit", leave)
    return store, beating, codes


def test_a_process_that_counts_no_more_is_lost(left, capfd):
    store, beating, codes = left
    store.values["alive/1"] = "3 there"
    beating._beat()
    assert codes == [75]
    line = capfd.readouterr().err
    assert line.startswith("error: process 1 on there gave no sign of life for 0.2 s, so all of the job ends; ")
    assert line.endswith("the same command goes on from the last checkpoint\n")


def test_why_another_process_failed_is_told(left, capfd):
    store, beating, codes = left
    store.values["failed/1"] = json.dumps([1, 2, "x.npy: no such file"])
    beating._beat()
    assert codes == [2]
    assert capfd.readouterr().err == "error: process 1: x.npy: no such file\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("bad"), 2, "bad"),
        (MachineError("stale"), 75, "stale"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            jax.errors.JaxRuntimeError("INTERNAL: Gloo all-reduce failed: Connection reset by peer"),
            *(75, "the processes of this job lost each other (INTERNAL: Gloo all-reduce failed: Connection reset by "
              "peer); the same command goes on from the last checkpoint"),
        ),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 1, "JaxRuntimeError: RESOURCE_EX"),
        (ZeroDivisionError("a mistake"), 1, "ZeroDivisionError: a mistake"),
    ],
)  # fmt: skip
def test_what_a_job_ends_with(error, code, said, monkeypatch):
    class Ended(BaseException):
        pass

    def leave(line, status):
        raise Ended(str(line), status)

    monkeypatch.setattr(distributed, "_meet", lambda: None)
    monkeypatch.setattr(distributed.time, "sleep", lambda _: None)
    monkeypatch.setattr(watch.Watch, "start", lambda self: None)
    monkeypatch.setattr(watch, "leave", leave)
    with pytest.raises(Ended) as ended, distributed.job():
        raise error
    line, status = ended.value.args
    assert status == code
    assert line.startswith(said)


def test_one_job_may_ask_the_first_process_again(monkeypatch):
    """As a second run in one job does."""
    monkeypatch.setattr(distributed.global_state, "client", Store())
    assert [distributed.from_first("lock", value) for value in ("one", None, [3])] == ["one", None, [3]]
    assert distributed.gather(5) == [5]
    assert distributed.agree(lambda: 7, same=lambda value: {"seven": value}) == 7


@pytest.mark.all
def test_processes_train_the_relativistic_recipe(start, start_job, records, tmp_path):
    """Two with a quarter of the weights on each of 4 devices, or one process with copies: the same losses."""
    flags = ("--config.recipe.lr=1e-5", "--config.final_slices=0")
    job = start_job(tmp_path / "job", *flags, "--config.shard_state=True", num_devices=2, config="small_data")
    alone = start(tmp_path / "alone", *flags, config="small_data", env=devices(4))
    for process in (*job, alone):
        ended(process, 0)
    found, expected = ([r for r in records(tmp_path / name) if "loss_d" in r] for name in ("job", "alone"))
    assert [r["step"] for r in found] == [*range(1, 13)]
    for one, other in zip(found, expected, strict=True):
        for name in ("loss_d", "loss_g", "r1"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, err_msg=f"{one['step']} {name}")
    assert np.std([r["loss_g"] for r in expected]) > 1e-2
    swd = [[r["swd"] for r in records(tmp_path / name) if "swd" in r] for name in ("job", "alone")]
    np.testing.assert_allclose(*swd, rtol=1e-3)


@pytest.mark.all
def test_one_job_trains_twice(start_job, tmp_path, records):
    """A run and, in the same processes, one more epoch of it: both start where the first process says."""
    code = """
from skullgan_jax.train import loop
train = loop.train
def twice(config, workdir, **flags):
    train(config, workdir, **flags)
    with config.unlocked():
        config.epochs = 4
    train(config, workdir, **flags)
loop.train = twice
"""
    job = start_job(tmp_path / "run", *STEADY, code=code)
    said = [ended(process, 0) for process in job]
    assert f"resuming {tmp_path}/run at step 12" in said[0]
    assert [r["step"] for r in records(tmp_path / "run") if "loss_d" in r] == [*range(1, 17)]


TWO_SAVE = """
import dataclasses, jax, numpy as np, sys
from skullgan_jax.processes import distributed
with distributed.job():
    from skullgan_jax.model import checkpoint
    from skullgan_jax.train import resume, sharding, state
    mesh = sharding.mesh()
    def filled(step, sharding):
        whole = np.arange(32, dtype=np.float32).reshape(8, 4) + step
        return jax.make_array_from_callback((8, 4), sharding, lambda at: whole[at])
    def made(step):
        copied, divided = sharding.everywhere(mesh), sharding.by_image(mesh)
        count = jax.make_array_from_callback((), copied, lambda at: np.int32(step))
        adam = state.optax.ScaleByAdamState(count, {"a": filled(2 * step, divided)}, {"a": filled(step, copied)})
        return state.TrainState(count, *[{"a": filled(step, divided)}] * 2, adam, *[{}] * 3)
    for _ in range(2):  # as two runs in one job
        checkpoints = checkpoint.Checkpoints(sys.argv[1], known=resume.known(sys.argv[1]))
        first = (checkpoints.latest or 0) + 1
        for step in range(first, first + 3):
            checkpoints.save(made(step), {"n": step}, judged={"swd": float(step)})
        checkpoints.close()
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), made(0))
        found = resume._on_all(lambda: checkpoints.restore(first + 2, like))
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(made(first + 2)), strict=True):
            assert [s.index for s in one.addressable_shards] == [s.index for s in other.addressable_shards]
            for a, b in zip(one.addressable_shards, other.addressable_shards, strict=True):
                np.testing.assert_array_equal(a.data, b.data)
        with open(sys.argv[2], "a") as steps:  # lines on stdout are torn by those of Gloo
            print(checkpoints.steps, file=steps)
"""


@pytest.mark.all
def test_two_processes_save_what_is_divided_over_them(tmp_path):
    """And read it; its checksums are those of the whole arrays, so that one process reads it, too."""
    place = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    kept = [tmp_path / "kept of 0", tmp_path / "kept of 1"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_SAVE, str(tmp_path / "run"), str(kept[process])],
            env=os.environ | place | devices(2) | {"JAX_PROCESS_ID": str(process)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in (0, 1)
    ]
    try:
        for process in running:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0, said
        assert [path.read_text().splitlines() for path in kept] == [["[3, 1]", "[6, 1]"]] * 2
    finally:
        for process in running:
            process.kill()
    alone = checkpoint.Checkpoints(tmp_path / "run", create=False)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = {"g_params": {"a": jax.ShapeDtypeStruct((8, 4), np.float32, sharding=here)}}
    found = alone.restore_parts(6, like)["g_params"]["a"]
    np.testing.assert_array_equal(found, np.arange(32).reshape(8, 4) + 6)
    assert (alone.meta(6), alone.best) == ({"n": 6}, 1)
