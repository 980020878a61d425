"""One job at a time in a workdir."""

import fcntl
import json
import os
import pathlib
import socket
import time
import uuid

from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError

_NAME = "lock.json"


class Lock:
    """The workdir is this process's until `release`, or until the process ends, however it does.

    The system's lock on a file, which network filesystems know, too; the file says whose it is.

    Raises:
      InputError: another job has it; or nothing can be written there.
    """

    def __init__(self, workdir: pathlib.Path):
        self.nonce = uuid.uuid4().hex
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            self._file = open(workdir / _NAME, "a+")  # noqa: SIM115  held until release
        except OSError as error:
            raise InputError(
                f"--workdir={workdir}: cannot be written ({error.strerror}); give another folder"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"--workdir={workdir}: in use by {_holder(workdir)}; wait for it, stop it or give another folder"
            ) from None
        except OSError as error:
            say(f"{workdir}: this filesystem has no locks ({error.strerror}); see to it that no other job uses it")
        about = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID", ""),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "nonce": self.nonce,
        }
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(about) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def release(self) -> None:
        """Let another job have it."""
        self._file.close()


def check_shared(workdir: pathlib.Path, nonce: str) -> None:
    """Raise InputError unless this process sees in the workdir what the one that locked it wrote there."""
    try:
        found = json.loads((workdir / _NAME).read_text()).get("nonce")
    except (OSError, ValueError):
        found = None
    if found != nonce:
        raise InputError(
            f"--workdir={workdir}: is not the folder that process 0 sees; give one that all hosts of the job share"
        )


def _holder(workdir: pathlib.Path) -> str:
    try:
        about = json.loads((workdir / _NAME).read_text())
        job = f", Slurm job {about['job']}" if about["job"] else ""
        return f"process {int(about['process'])} on {about['host']}{job} since {about['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another job"
