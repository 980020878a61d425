"""A bucket as a place: what is there is whole, for whoever looks, and one that fails is told in a line."""

import json
import re

import numpy as np
import pytest

from skullgan_jax.data.arrays import open_slices
from skullgan_jax.errors import InputError, MachineError
from skullgan_jax.machine import places
from tests import bucket

URL = "gs://somebody/run"


@pytest.fixture
def served(monkeypatch, own_home):
    """The objects of a bucket, and a dict: (method, end of a name) -> how such requests fail from now on."""
    faults = {}

    def fault(method, name):
        return next((how for (which, end), how in faults.items() if which == method and name.endswith(end)), None)

    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 2, "initial_delay": "10ms"})
    with bucket.serving(fault) as objects:
        yield objects, faults


def put(place, text: str) -> None:
    """Sends c/1, a folder of two files."""
    for name in ("one", "in/two"):
        path = place.local / "c/1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    place.put("c/1", lambda: None)
    place.wait()


def seen() -> set[str]:
    """What a reader finds in the files of c/1."""
    with places.Bucket(URL) as reader:
        if "1" not in reader.folders("c"):
            return set()
        assert reader.exists("c/1")
        folder = reader.fetch("c/1")
        return {(folder / name).read_text() for name in ("one", "in/two")}


def test_a_folder_is_whole_or_not_there(served):
    """Whichever object a writer comes no further than, a reader finds all of the old one or of the new; or nothing."""
    objects, _ = served
    found = []
    for writes in range(7):
        with places.Bucket(URL) as place:
            put(place, "old")
            write, left = place.write, iter(range(writes))

            def until(name, value, write=write, left=left):
                if next(left, None) is None:
                    raise MachineError("stopped")
                write(name, value)

            place.write = until
            try:
                put(place, "new")
            except MachineError:
                assert writes < 5
        found.append(seen())
    assert found == [{"old"}] * 3 + [{"new"}] * 4  # two files, their list, and then two that are of no use any more
    with places.Bucket(URL) as place:
        place.clean("c", re.compile("nothing"))
        assert len(objects) == 3
        assert seen() == {"new"}
        place.rename("c/1", "c/1.damaged")
        assert (seen(), place.exists("c/1.damaged")) == (set(), True)
        place.remove("c/1.damaged")
    assert not objects


def test_what_changed_is_sent_and_what_says_of_it_comes_last(served, monkeypatch):
    objects, _ = served
    with places.Bucket(URL) as place:
        (place.local / "model").mkdir()
        for name in ("model/model.json", "model/weights", "metrics.jsonl", ".hidden"):
            (place.local / name).write_text(name)
        place.sync()
        assert {name: value.decode() for name, value in objects.items()} == {
            f"run/{name}": name for name in ("model/model.json", "model/weights", "metrics.jsonl")
        }
        written, write = [], place.write
        monkeypatch.setattr(place, "write", lambda name, value: (written.append((name, value)), write(name, value)))
        place.sync()
        assert written == []
        for name in ("model.json", "weights"):
            (place.local / "model" / name).write_text("changed")
        place.sync()
        gone, *_, last = written
        assert (gone, last) == (("model/model.json", b""), ("model/model.json", b"changed"))
    assert not list(place.local.parents[1].glob(f".*{place.local.parent.name}*"))
    with places.Bucket(URL) as place:
        place.bring("model/", "metrics.jsonl", "nothing", "no/")
        assert sorted(p.name for p in place.local.rglob("*") if p.is_file()) == [
            "metrics.jsonl",
            "model.json",
            "weights",
        ]
        monkeypatch.setattr(place, "write", None)
        place.sync()  # has nothing to send


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        (403, InputError, "gs://somebody/run/x: cannot be written (PERMISSION_DENIED: as the test wants it"),
        (404, InputError, "gs://somebody/run/x: cannot be written (NOT_FOUND: as the test wants it"),
        (429, MachineError, "gs://somebody/run/x: cannot be written ("),
        (503, MachineError, "gs://somebody/run/x: cannot be written ("),
        ("cut", MachineError, "gs://somebody/run/x: cannot be written ("),
    ],
)
def test_a_bucket_that_fails(fault, kind, told, served):
    objects, faults = served
    with places.Bucket(URL) as place:
        faults["POST", "/x"] = fault
        with pytest.raises(kind) as caught:
            place.write("x", b"1")
        assert str(caught.value).startswith(told)
        assert "\n" not in str(caught.value)
        faults["POST", "/x"] = 0.2  # seconds late
        assert place.write("x", b"2")
    assert objects == {"run/x": b"2"}


@pytest.mark.usefixtures("served")
def test_slices_in_a_bucket_are_fetched_once(tmp_path):
    expected = np.arange(2 * 128 * 128, dtype=np.int16).reshape(2, 128, 128)
    np.save(tmp_path / "x.npy", expected)
    url = "gs://somebody/data/x.npy"
    with places.Bucket("gs://somebody/data") as place:
        place.write("x.npy", (tmp_path / "x.npy").read_bytes())
        np.testing.assert_array_equal(open_slices(url), expected)
        (copy,) = (tmp_path / ".cache/skullgan_jax").iterdir()
        began = copy.stat().st_ino
        open_slices(url)
        assert copy.stat().st_ino == began
        np.save(tmp_path / "x.npy", expected + 1)
        place.write("x.npy", (tmp_path / "x.npy").read_bytes())
        np.testing.assert_array_equal(open_slices(url), expected + 1)
    with pytest.raises(InputError, match=r"gs://somebody/data/y\.npy: no such file"):
        open_slices("gs://somebody/data/y.npy")


@pytest.mark.parametrize("url", ["ftp://somebody/run", "gs://", "gs:///run", "gs://B/run"])
def test_urls_that_are_none(url):
    with pytest.raises(InputError):
        places.at(url)


@pytest.mark.parametrize("name", ["../../../out", "/tmp/out"])
def test_a_list_of_files_leads_nowhere_else(name, served):
    """What lies in a bucket may be anybody's."""
    with places.Bucket(URL) as place:
        put(place, "old")
        place.write("c/1.json", json.dumps({"folder": "c", "files": [name]}).encode())
        place.write(f"c/{name}", b"bad")
        with places.Bucket(URL) as reader, pytest.raises(InputError, match="leads out of its folder"):
            reader.fetch("c/1")
