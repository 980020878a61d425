"""The shipped launch/slurm.sbatch on a real Slurm of one node."""

import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from tests.conftest import ROOT, TINY
from tests.processes import slurm

pytestmark = [
    pytest.mark.slow,  # make test-slurm
    pytest.mark.skipif(bool(slurm.missing()), reason=f"no {', '.join(slurm.missing())} here"),
]

# Two tasks where the script says eight on each of two nodes; the script is as shipped.
SIZE = ("--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=2", "--cpus-per-task=1")
STEPS = 64

COMMAND = """
from tests.processes import programs
programs.share()
from skullgan_jax.main import run
run()
"""


@pytest.fixture(scope="module")
def cluster():
    with slurm.slurm() as running:
        yield running


@pytest.fixture(scope="module")
def sbatch(cluster):
    """A function of a command and variables: the number of the job that the shipped script makes of it."""

    def submit(*command, env=(), options=()):
        log = f"--output={cluster.folder}/%j.log"
        script = str(ROOT / "launch" / "slurm.sbatch")
        return cluster.submit(*SIZE, log, *options, script, *command, env=env, cwd=ROOT)

    return submit


@pytest.fixture(scope="module")
def training(compiled):
    """A function of a workdir: command and environment of a run of that many steps."""
    flags = TINY | {"epochs": STEPS // 4, "checkpoint_every": 1000, "sample_every": 1000, "final_slices": 0}
    environ = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_SHARE_BINARY_BETWEEN_HOSTS": "true",
        "XLA_FLAGS": "",  # one device in each process
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # set, the process does not start itself again
    }

    def make(workdir):
        given = [f"--config.{k}={v}" for k, v in flags.items()]
        config = f"--config={ROOT}/configs/skull.py:demo"
        return [sys.executable, "-c", COMMAND, "--distributed", config, f"--workdir={workdir}", *given], environ

    return make


def _log(cluster, job):
    return (cluster.folder / f"{job}.log").read_text()


def _until(reached, cluster, job, seconds=240):
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"{cluster.job(job)}\n{_log(cluster, job)}"
        time.sleep(0.05)


def _tasks(job):
    """The processes of a job by their number in it, as a user's command has them."""
    found = {}
    for process in psutil.process_iter():
        try:
            environ = process.environ()
            if environ.get("SLURM_JOB_ID") == str(job) and process.exe() == os.path.realpath(sys.executable):
                found[int(environ["SLURM_PROCID"])] = process
        except (psutil.Error, KeyError):
            continue
    return found


def test_preempted_twice_killed_once_it_ends_as_if_it_had_run_through(
    cluster, sbatch, training, tmp_path, records, final_state
):
    command, environ = training(tmp_path / "through")
    subprocess.run([ROOT / "launch" / "local.sh", "2", *command], env=os.environ | environ, cwd=ROOT, check=True)

    workdir = tmp_path / "scheduled"
    command, environ = training(workdir)

    def steps():
        path = workdir / "metrics.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def saved():
        return max((int(p.name) for p in workdir.glob("checkpoints/[0-9]*")), default=0)

    job = sbatch(*command, env=environ)
    _until(lambda: steps() >= 3, cluster, job)
    cluster.run("scontrol", "requeue", str(job))
    _until(lambda: cluster.job(job)["Restarts"] == "1", cluster, job)
    cluster.wait(job, "PENDING", "RUNNING")
    first = saved()
    assert 3 <= first < STEPS

    _until(lambda: steps() >= first + 3, cluster, job)
    cluster.run("scancel", "--signal=USR1", "--batch", str(job))  # what Slurm sends ahead of the time limit
    _until(lambda: cluster.job(job)["Restarts"] == "2", cluster, job)
    second = saved()
    assert first + 3 <= second < STEPS

    _until(lambda: steps() >= second + 3, cluster, job)
    _tasks(job)[1].kill()
    _until(lambda: cluster.job(job)["Restarts"] == "3", cluster, job)
    assert saved() == second
    ended = cluster.wait(job, "COMPLETED", "FAILED", timeout=240)
    assert ended["ExitCode"] == "0:0", _log(cluster, job)

    assert [r["step"] for r in records(workdir) if "loss_d" in r] == list(range(1, STEPS + 1))
    losses = [
        [(r["step"], r["loss_d"], r["loss_g"]) for r in records(run) if "loss_d" in r]
        for run in (tmp_path / "through", workdir)
    ]
    assert losses[0] == losses[1]
    (step, expected), (found_step, found) = final_state(tmp_path / "through"), final_state(workdir)
    assert step == found_step == STEPS
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_bad_input_ends_the_job_with_2_and_is_not_started_again(cluster, sbatch):
    job = sbatch("bash", "-c", "exit 2")
    ended = cluster.wait(job, "COMPLETED", "FAILED")
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "2:0", "0")


def test_where_the_machine_failed_the_job_is_started_again(cluster, sbatch):
    job = sbatch("bash", "-c", "exit $((SLURM_RESTART_COUNT ? 0 : 75))")
    _until(lambda: cluster.job(job)["Restarts"] == "1", cluster, job)
    ended = cluster.wait(job, "COMPLETED", "FAILED")
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1")


# Takes two seconds to save, and does not mind that Slurm sends SIGTERM more than once.
SAVES = """
import os, pathlib, signal, sys, time
mark = pathlib.Path(sys.argv[1], os.environ["SLURM_PROCID"])
def save(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(2)
    mark.with_suffix(".saved").touch()
    sys.exit()
signal.signal(signal.SIGTERM, save)
mark.with_suffix(".up").touch()
time.sleep(60)
"""


def test_a_cancelled_job_saves_and_stays_cancelled(cluster, sbatch, tmp_path):
    job = sbatch(sys.executable, "-c", SAVES, str(tmp_path))
    _until(lambda: len(list(tmp_path.glob("*.up"))) == 2, cluster, job)
    cluster.run("scancel", str(job))
    ended = cluster.wait(job, "CANCELLED", "COMPLETED", "FAILED", "PENDING")
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("CANCELLED", "0:0", "0")
    assert {p.name for p in tmp_path.glob("*.saved")} == {"0.saved", "1.saved"}


def test_a_job_preempted_with_grace_is_started_again_although_its_processes_exit_0(cluster, sbatch, tmp_path):
    script = (
        f"echo ${{SLURM_RESTART_COUNT:-0}} >>{tmp_path}/$SLURM_PROCID; [ -z $SLURM_RESTART_COUNT ] || exit 0; "
        "trap 'exit 0' TERM; sleep 60 & wait"
    )
    job = sbatch("bash", "-c", script)
    _until(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists(), cluster, job)
    urgent = ("--partition=urgent", "--exclusive", f"--output={cluster.folder}/urgent.log", "--wrap=true")
    other = cluster.submit(*urgent)
    cluster.wait(other, "COMPLETED")
    ended = cluster.wait(job, "COMPLETED")
    assert (ended["ExitCode"], ended["Restarts"]) == ("0:0", "1")
    assert [(tmp_path / p).read_text() for p in "01"] == ["0\n1\n"] * 2
