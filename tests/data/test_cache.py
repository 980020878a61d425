"""Images are decoded once, whoever wants them at the same time."""

import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

import numpy as np
import pytest

from skullgan_jax.data import cache
from skullgan_jax.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 128, 128)).astype(np.uint8)


class Decoder:
    """Counts how often it is asked, and takes its time."""

    def __init__(self, error=None):
        self.calls, self.begun, self._error = 0, threading.Event(), error

    def __call__(self):
        self.calls += 1
        self.begun.set()
        for image in IMAGES:
            time.sleep(0.1)
            yield image
        if self._error:
            raise self._error


def cached(folder, decode):
    return cache.cached("some.npy", [folder], decode, num=3, dtype=np.uint8, what="some: decoded")


def test_one_decodes_and_the_others_wait_and_map_the_same_file(tmp_path, capfd):
    """A lock on a file is of who opened it: threads stand for the processes of a host."""
    decode = Decoder()
    with futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(cached, tmp_path, decode)
        assert decode.begun.wait(10)
        others = [pool.submit(cached, tmp_path, decode) for _ in range(2)]
        found = [one.result(timeout=30) for one in (first, *others)]
    assert decode.calls == 1
    for images in found:
        np.testing.assert_array_equal(images, IMAGES)
    assert [p.name for p in tmp_path.iterdir()] == ["some.npy"]
    waiting = f"{tmp_path}/some.npy: another process decodes into it; waiting for that"
    assert capfd.readouterr().err.count(waiting) == 2


def test_where_one_fails_the_next_decodes(tmp_path):
    fails, decode = Decoder(InputError("image 3 cannot be decoded")), Decoder()
    with futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(cached, tmp_path, fails)
        assert fails.begun.wait(10)
        second = pool.submit(cached, tmp_path, decode)
        with pytest.raises(InputError, match="image 3 cannot be decoded"):
            first.result(timeout=30)
        np.testing.assert_array_equal(second.result(timeout=30), IMAGES)
    assert (fails.calls, decode.calls) == (1, 1)
    assert [p.name for p in tmp_path.iterdir()] == ["some.npy"]


def test_a_filesystem_without_locks(tmp_path, monkeypatch):
    """Those of a host have one all the same, elsewhere."""
    flock = fcntl.flock

    def of(file, how):
        name = os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}")
        if name.startswith(str(tmp_path / "data")):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return flock(file, how)

    monkeypatch.setattr(fcntl, "flock", of)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    decode = Decoder()
    with futures.ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: cached(tmp_path / "data", decode), range(3)))
    assert decode.calls == 1
    for images in found:
        np.testing.assert_array_equal(images, IMAGES)
    assert [p.name for p in tmp_path.rglob("*")] == ["data", "some.npy"]


def test_another_host_that_was_faster(tmp_path):
    """What its processes have mapped stays where it is."""
    theirs = []

    def decode():
        yield from IMAGES
        np.save(tmp_path / "some.npy", IMAGES)
        theirs.append((tmp_path / "some.npy").stat().st_ino)

    np.testing.assert_array_equal(cached(tmp_path, decode), IMAGES)
    assert (tmp_path / "some.npy").stat().st_ino == theirs[0]
    assert [p.name for p in tmp_path.iterdir()] == ["some.npy"]


@pytest.mark.parametrize("there", [2, 4])
def test_not_as_many_as_there_should_be(there, tmp_path):
    """As of a folder of shards that was not copied to its end."""
    with pytest.raises(InputError, match=f"some.npy: {there} of 3 images are there"):
        cached(tmp_path, lambda: [IMAGES[0]] * there)
    assert list(tmp_path.iterdir()) == []


_PROCESS = """
import os, pathlib, sys, time
import numpy as np
from skullgan_jax.data import cache
folder = pathlib.Path(sys.argv[1])
def decode():
    (folder / f"begun.{os.getpid()}").touch()
    for i in range(40):
        time.sleep(0.01)
        yield np.full((128, 128), i, np.uint8)
images = cache.cached("some.npy", [folder / "cache"], decode, num=40, dtype=np.uint8, what="")
assert (images == np.arange(40)[:, None, None]).all()
print(os.stat(folder / "cache" / "some.npy").st_ino)
"""


@pytest.mark.all
def test_killed_while_it_decodes(tmp_path):
    """By kill -9, the one that is at it, five times: another begins anew, and all map one file."""
    chance = random.Random(0)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for _ in range(8)
    ]
    killed = set()
    for _ in range(5):
        while not (new := {p for p in processes if (tmp_path / f"begun.{p.pid}").exists()} - killed):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.3))
        (victim,) = new
        victim.send_signal(signal.SIGKILL)
        killed.add(victim)
        assert not (tmp_path / "cache" / "some.npy").exists()
    left = [process for process in processes if process not in killed]
    said = {process.communicate(timeout=60)[0] for process in left}
    assert [process.returncode for process in left] == [0] * 3
    assert len(said) == 1
    assert len(list(tmp_path.glob("begun.*"))) == 6
    assert [p.name for p in (tmp_path / "cache").iterdir()] == ["some.npy"]
