"""One job at a time in a workdir, or in another place."""

import contextlib
import fcntl
import json
import pathlib
import threading
import time
import uuid
from collections.abc import Iterator

from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError, Told, by_cause
from skullgan_jax.machine import lock, places
from skullgan_jax.machine.lock import holder, named, this_process, write_holder

LEASE_SECONDS = 60.0  # after which a lease that is not renewed is over
_NAME = "lock.json"
_BOOT = pathlib.Path("/proc/sys/kernel/random/boot_id")


def take(place: places.Place) -> "Lock | Lease":
    """The workdir is this process's until `release`. Raises InputError: another job has it."""
    return Lock(place.local) if place.mounted else Lease(place)


@contextlib.contextmanager
def only_writer(place: places.Place, flag: str = "--output") -> Iterator[None]:
    """machine.lock.only_writer of a place: in a bucket, by a lease."""
    if place.mounted:
        with lock.only_writer(place.local, flag):
            yield
        return
    lease = Lease(place, flag)
    try:
        yield
    finally:
        lease.release()


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


class Lease:
    """The same of a workdir in a bucket, which has no locks: an object that says whose it is, and is written anew.

    Each time it is written only where it is still as this process wrote it, so that of two jobs one has it. One that
    was not written for LEASE_SECONDS, by the clock of who waits for it, is over, and so is one whose process was on
    this machine and is no more. Before anything is said to be in the workdir the lease is renewed once more.

    Raises:
      InputError: another job has it; or nothing may be written there.
      MachineError: the bucket or the network failed.
    """

    def __init__(self, place: places.Bucket, flag: str = "--workdir"):
        self.nonce, self._flag = uuid.uuid4().hex, flag
        self._place, self._said = place, this_process() | {"nonce": self.nonce, "of": _this_run()}
        self._lost: Told | None = None
        self._writing, self._over = threading.Lock(), threading.Event()
        self._generation = self._taken()
        place.guard = self.renew
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _taken(self) -> bytes:
        seen, since = None, time.monotonic()
        while True:
            said, generation = self._place.read(_NAME)
            if said is not None and seen not in (None, generation):
                raise self._in_use(said)  # it is renewed
            if said is not None and not _is_gone(said) and time.monotonic() - since < LEASE_SECONDS:
                if _is_here(said):
                    raise self._in_use(said)
                if seen is None:
                    say(f"{self._place}: {named(said)} has it, or had; waiting {LEASE_SECONDS:.0f} s to see")
                seen = generation
                time.sleep(min(1.0, LEASE_SECONDS / 10))
            elif mine := self._place.write(_NAME, self._text(), if_equal=generation):
                return mine

    def _in_use(self, said: bytes) -> InputError:
        return InputError(
            f"{self._flag}={self._place}: in use by {named(said)}; wait for it, stop it or give another place"
        )

    def _text(self) -> bytes:
        return json.dumps(self._said).encode()

    def renew(self) -> None:
        """Raises InputError where another job has it by now, MachineError where nothing is known of that."""
        with self._writing:
            if self._lost is None:
                now = self._place.write(_NAME, self._text(), if_equal=self._generation)
                if now is None:
                    said, now = self._place.read(_NAME)  # a write whose answer was lost, it may be
                    if said != self._text():
                        self._lost = self._in_use(said or b"")
                self._generation = now
            if self._lost is not None:
                raise self._lost

    def _keep(self) -> None:
        while not self._over.wait(LEASE_SECONDS / 4):
            with contextlib.suppress(Told):  # told to who next says that something is there
                self.renew()

    def release(self) -> None:
        """Let another job have it."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Told):  # it is over soon
            if self._lost is None:
                self._place.write(_NAME, None, if_equal=self._generation)


def _this_run() -> list | None:
    """By what processes of this machine know each other, until it starts anew; None where that is not known."""
    try:
        return [_BOOT.read_text().strip(), str(pathlib.Path("/proc/self/ns/pid").readlink()), *_stat("self")]
    except OSError:
        return None


def _stat(process: str) -> list[str]:
    """Number and start of a process. Raises OSError: it is none, or not any more."""
    number, _, rest = pathlib.Path("/proc", process, "stat").read_text().partition(" ")
    words = rest.rpartition(") ")[2].split()
    if words[0] == "Z":
        raise OSError("a zombie")
    return [number, words[19]]


def _of(said: bytes) -> list | None:
    """What a lease says of its process, if that is, or was, of this machine."""
    try:
        told, mine = json.loads(said)["of"], _this_run()
        return told if told and mine and told[:2] == mine[:2] else None
    except (ValueError, KeyError, TypeError):
        return None


def _is_gone(said: bytes) -> bool:
    told = _of(said)
    return told is not None and not _is_here(said)


def _is_here(said: bytes) -> bool:
    """Whether the process that says so runs on this machine."""
    told = _of(said)
    try:
        return told is not None and _stat(told[2]) == told[2:]
    except OSError:
        return False


def check_shared(place: places.Place, nonce: str) -> None:
    """Raise InputError unless this process sees in the workdir what the one that locked it wrote there."""
    try:
        found = json.loads(place.read(_NAME)[0] or "{}").get("nonce")
    except (OSError, ValueError):
        found = None
    if found != nonce:
        raise InputError(
            f"--workdir={place}: is not the folder that process 0 sees; give one that all hosts of the job share"
        )
