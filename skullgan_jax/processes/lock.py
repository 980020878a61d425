"""One job at a time in a workdir."""

import fcntl
import json
import pathlib
import uuid

from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError, by_cause
from skullgan_jax.machine.lock import holder, write_holder

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
            line = f"--workdir={workdir}: cannot be written ({error.strerror}); give another folder"
            raise by_cause(error, line) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"--workdir={workdir}: in use by {holder(workdir / _NAME)}; wait for it, stop it or give another folder"
            ) from None
        except OSError as error:
            say(f"{workdir}: this filesystem has no locks ({error.strerror}); see to it that no other job uses it")
        write_holder(self._file, nonce=self.nonce)

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
