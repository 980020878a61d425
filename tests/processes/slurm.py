"""A Slurm of one node on this machine, for as long as a with block: munge, controller, node daemon, all its own."""

import contextlib
import getpass
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psutil

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "sinfo")
_PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"  # where distributions put the daemons, which is not on every PATH
_GPUS = 2  # counted, not there: what a job asks for can be granted without a device

_CONF = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
# A requeued job waits until its credential has expired: two minutes unless told, and 5 s at least.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
GresTypes=gpu
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=60
ReturnToService=2
FirstJobId={first}
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} Gres=gpu:{gpus}
PartitionName=all Nodes=localhost Default=YES PriorityTier=1 GraceTime=30 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=localhost PriorityTier=2 MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Those of the programs it takes that are not installed here."""
    return [name for name in PROGRAMS if not shutil.which(name, path=_PATH)]


class Slurm:
    """The commands of a running one-node Slurm.

    Attributes:
      folder: of its configuration, sockets, state and logs.
      environ: what a process needs in its environment to talk to it, and what a job gets.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        # No job of another Slurm or program: its own commands must not think themselves inside one.
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        self.environ = clean | {"PATH": _PATH, "SLURM_CONF": f"{folder}/slurm.conf"}

    def run(self, *command: str, env=(), **kwargs) -> str:
        """Output of a command; CalledProcessError, with what it said, if it fails."""
        environ = self.environ | dict(env)
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, **kwargs)
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr.strip())
        return done.stdout

    def submit(self, *arguments: str, **kwargs) -> int:
        """Id of the job that sbatch makes of these arguments."""
        return int(self.run("sbatch", "--parsable", *arguments, **kwargs))

    def job(self, number: int) -> dict[str, str]:
        """What the controller knows of a job: JobState, ExitCode, Restarts, Reason, ..."""
        shown = self.run("scontrol", "--oneliner", "show", "job", str(number))
        return dict(re.findall(r"(\S+?)=(\S*)", shown))

    def wait(self, number: int, *states: str, timeout: float = 60) -> dict[str, str]:
        """The job, once it is in one of these states; TimeoutError after that many seconds."""
        end = time.monotonic() + timeout
        while (job := self.job(number))["JobState"] not in states:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"job {number} is {job['JobState']} ({job.get('Reason')}), not {' or '.join(states)}"
                )
            time.sleep(0.1)
        return job


@contextlib.contextmanager
def slurm():
    """A running Slurm, on ports and in a folder of its own; afterwards no process and no file of it is left."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: the path of a socket has 108 bytes
    here = Slurm(folder)
    daemons = []
    try:
        folder.chmod(0o755)  # the socket of munge must be within everybody's reach
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        (folder / "plugstack.conf").touch()
        (folder / "gres.conf").write_text("NodeName=localhost Name=gpu File=/dev/null,/dev/zero\n")
        with contextlib.ExitStack() as bound:
            sockets = [bound.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
            ports = [s.getsockname()[1] for s in sockets]
        text = _CONF.format(
            folder=folder,
            ports=ports,
            user=getpass.getuser(),
            cpus=max(2, os.cpu_count()),
            gpus=_GPUS,
            # JAX takes its port from the job's number: two of these on one machine must not meet.
            first=1 + ports[0],
        )
        (folder / "slurm.conf").write_text(text)
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(64))
        files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "pid", "log", "seed")]
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
            ["slurmctld", "-D", "-c"],
            ["slurmd", "-D", "-N", "localhost"],
        ):
            with open(folder / f"{command[0]}.out", "wb") as out:
                daemons.append(
                    subprocess.Popen(command, env=here.environ, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
                )
            if command[0] == "munged":
                _until(lambda: (folder / "munge.socket").exists(), daemons, folder)
        _until(lambda: _idle(here), daemons, folder)
        yield here
    finally:
        _end(folder)
        for daemon in daemons:
            daemon.wait()
        shutil.rmtree(folder)


def _idle(here: Slurm) -> bool:
    try:
        return here.run("sinfo", "--noheader", "--format=%T").strip() == "idle"
    except subprocess.CalledProcessError:  # the controller does not answer yet
        return False


def _until(ready, daemons, folder, timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not ready():
        dead = [d.args[0] for d in daemons if d.poll() is not None]
        if dead or time.monotonic() > end:
            logs = "\n".join(f"{p.name}:\n{p.read_text()[-2000:]}" for p in sorted(folder.glob("*.[lo][ou][gt]")))
            raise RuntimeError(f"Slurm does not come up; ended: {dead or 'none'}\n{logs}")
        time.sleep(0.05)


def _end(folder: pathlib.Path) -> None:
    """Kill the daemons, and the jobs with their attendants, which are no children of theirs."""
    while found := [p for p in psutil.process_iter() if _belongs(p, folder)]:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(found, timeout=5)


def _belongs(process: psutil.Process, folder: pathlib.Path) -> bool:
    """A slurmstepd writes its title over its environment, but works in the folder of the log."""
    with contextlib.suppress(psutil.Error):
        if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get("SLURM_CONF") == f"{folder}/slurm.conf" or process.cwd() == str(folder)
    return False
