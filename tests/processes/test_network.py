"""Two hosts and a cable: network namespaces, a process of one job in each, and what becomes of it when that is cut."""

import os
import subprocess
import time

import numpy as np
import pytest

from tests.processes.test_distributed import STEADY, devices, wait_for
from tests.support import ended

ADDRESSES = ("10.213.7.1", "10.213.7.2")
# As on a host of its own: a name, and an address of that name, which Gloo asks for.
HOST = """
echo "$1" >/proc/sys/kernel/hostname && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"
"""
NOWHERE = "02:00:00:00:00:99"  # the hardware address of nobody


def ip(*words) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Hosts:
    """Two network namespaces joined by a pair of veth, which is all the network that each has."""

    def __init__(self, folder):
        self.names = [f"skullgan{os.getpid()}-{host}" for host in (0, 1)]
        self._hosts = folder / "hosts"
        self._hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{a} host{i}\n" for i, a in enumerate(ADDRESSES)))
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", self.names[0], "type", "veth", "peer", "cable", "netns", self.names[1])
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "cable", "up")
        subprocess.run([*self.by(0), "true"], check=True, capture_output=True)

    def by(self, host: int) -> list[str]:
        """The command that runs another on a host."""
        namespaces = ["ip", "netns", "exec", self.names[host], "unshare", "--uts", "--mount"]
        return [*namespaces, "sh", "-c", HOST, "sh", f"host{host}", str(self._hosts)]

    def cut(self, how: str) -> None:
        """`unplugged` from the first host, or `silent`: both send, and nothing arrives."""
        if how == "unplugged":
            ip("-n", self.names[0], "link", "set", "cable", "down")
        for name, other in zip(self.names, ADDRESSES[::-1], strict=True) if how == "silent" else ():
            ip("-n", name, "neigh", "replace", other, "lladdr", NOWHERE, "dev", "cable", "nud", "permanent")

    def mend(self) -> None:
        ip("-n", self.names[0], "link", "set", "cable", "up")
        for name, other in zip(self.names, ADDRESSES[::-1], strict=True):
            ip("-n", name, "neigh", "flush", "to", other, "nud", "permanent")

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory):
    """Two of them; the tests are skipped where this process may not make any."""
    made = None
    try:
        made = Hosts(tmp_path_factory.mktemp("hosts"))
    except (OSError, subprocess.CalledProcessError) as error:
        for host in (0, 1):
            subprocess.run(["ip", "netns", "del", f"skullgan{os.getpid()}-{host}"], capture_output=True, check=False)
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', error)}")
    yield made
    made.remove()


@pytest.fixture
def job(hosts, start):
    """A function of a workdir: the two processes of a job, one on each host."""
    running = []

    def go(workdir):
        for process in (0, 1):
            place = {"JAX_COORDINATOR_ADDRESS": "host0:8482", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(process)}
            flags = ("--distributed", *STEADY, "--config.epochs=8", "--config.checkpoint_every=2")
            running.append(start(workdir, *flags, env=place | devices(1), code=_ALIKE, by=hosts.by(process)))
        return running[-2:]

    yield go
    for process in running:
        process.kill()


_ALIKE = "from tests.processes import programs\nprograms.share()"


@pytest.fixture(scope="module")
def uncut():
    """Step, arrays and losses of the run, once it is there."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["unplugged", "silent"])
def test_a_cut_cable_ends_the_job_and_it_goes_on(how, hosts, job, uncut, final_state, records, tmp_path):
    """Within a minute, each with a line and 75; and then to the bits of a run that nothing happened to."""

    def found(workdir):
        return final_state(workdir), [(r["step"], r["loss_d"], r["loss_g"]) for r in records(workdir) if "loss_d" in r]

    if not uncut:
        for process in job(tmp_path / "uncut"):
            ended(process, 0, within=900)
        uncut["run"] = found(tmp_path / "uncut")
    processes = job(tmp_path / "run")
    wait_for(tmp_path / "run" / "metrics.jsonl", 10, processes, within=900)  # 8 of them are in a checkpoint
    hosts.cut(how)
    began = time.monotonic()
    try:
        said = [ended(process, 75).splitlines()[-1] for process in processes]
    finally:
        took = time.monotonic() - began
        hosts.mend()
    assert took < 60
    for line in said:
        assert line.startswith("error: ")
        assert line.endswith("so all of the job ends; the same command goes on from the last checkpoint")
    first, _ = (ended(process, 0, within=900) for process in job(tmp_path / "run"))
    assert f"resuming {tmp_path}/run at step 8" in first
    (step, state), losses = found(tmp_path / "run")
    (whole_step, whole), whole_losses = uncut["run"]
    assert (step, losses) == (whole_step, whole_losses)
    for name, array in whole.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name)
