"""Images are decoded once, whoever wants them at the same time."""

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
