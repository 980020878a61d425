"""One job at a time in a workdir in a bucket."""

import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.machine import places
from skullgan_jax.processes import lock
from tests import bucket


@pytest.fixture
def place(monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 0.8)
    with bucket.serving() as objects, places.Bucket("gs://somebody/run") as place:
        place.objects = objects
        yield place


def elsewhere(place) -> dict:
    """As if the process that has the lease were on another machine; what it says."""
    said = json.loads(place.objects["run/lock.json"])
    said |= {"of": ["another machine", "pid:[1]", "1", "1"], "host": "node7", "process": 12}
    return said


def test_a_lease_is_renewed_and_names_its_holder(place):
    first = lock.take(place)
    lock.check_shared(place, first.nonce)
    with pytest.raises(InputError, match=f"gs://somebody/run: in use by process .* on {socket.gethostname()} since"):
        lock.take(place)
    first._said = elsewhere(place)  # with the next renewal
    first.renew()
    began = time.monotonic()
    with pytest.raises(InputError, match="in use by process 12 on node7"):
        lock.take(place)
    assert time.monotonic() - began < 0.8  # it was seen to be renewed
    time.sleep(1)
    first.renew()
    first.release()
    second = lock.take(place)
    with pytest.raises(InputError, match="is not the folder that process 0 sees"):
        lock.check_shared(place, first.nonce)
    second.release()
    assert not place.objects


def test_a_lease_of_another_machine_expires(place):
    """Who had it finds that out before it says that anything is there."""
    first = lock.take(place)
    first._over.set()  # it hangs, and renews no more
    first._said = elsewhere(place)
    first.renew()
    taken = []

    def wait(url="gs://somebody/run"):
        with places.Bucket(url) as other:
            try:
                taken.append(lock.take(other))
            except InputError as error:
                taken.append(error)

    began = time.monotonic()
    waiting = [threading.Thread(target=wait) for _ in range(3)]
    [thread.start() for thread in waiting]
    [thread.join() for thread in waiting]
    assert time.monotonic() - began >= 0.8
    assert sorted(type(each).__name__ for each in taken) == ["InputError", "InputError", "Lease"]  # one of them has it
    place.guard = first.renew
    (place.local / "checkpoints/1").mkdir(parents=True)
    (place.local / "checkpoints/1/x").write_text("x")
    place.put("checkpoints/1", lambda: None)
    with pytest.raises(InputError, match="in use by"):
        place.wait()
    assert place.folders("checkpoints") == []
    next(each for each in taken if isinstance(each, lock.Lease)).release()


def test_a_process_that_was_killed_here_blocks_nobody(place, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_SECONDS", 60.0)
    code = (
        "import os\nfrom skullgan_jax.machine import places\nfrom skullgan_jax.processes import lock\n"
        "lock.take(places.at('gs://somebody/run'))\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == -9
    assert "run/lock.json" in place.objects
    began = time.monotonic()
    lock.take(place).release()
    assert time.monotonic() - began < 5
