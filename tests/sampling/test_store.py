"""Stores of samples: what others read, what is found damaged, and a bucket."""

import json
import pathlib
import threading
from concurrent import futures

import numpy as np
import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.model.draw import Samples
from skullgan_jax.sampling import rows
from skullgan_jax.sampling.store import FORMAT, Store
from skullgan_jax.slices import radiology
from tests import bucket

ABOUT = {"format": FORMAT, "model": "small", "pixel_mm": 0.46875, "calibration": {"hu_min": 0.0, "hu_max": 2500.0}}


def some(first, last):
    """Samples from a formula."""
    random = np.random.default_rng(first)
    hu = np.zeros((last - first, 128, 128), np.int16)
    hu[:, 10:30] = random.integers(300, 2000, (last - first, 20, 128))
    measures = {name: random.uniform(0, 9, last - first).astype(np.float32) for name in radiology.NAMES}
    return Samples(np.arange(first, last) + 100, hu, measures)


def fill(store, shards):
    for shard in shards:
        store.write(shard, some(*store.rows(shard)))


@pytest.fixture
def whole(tmp_path):
    """40 samples in shards of 16."""
    store = Store.create(tmp_path / "s.zarr", ABOUT, rows=40, shard=16)
    fill(store, range(3))
    return store


def refusal(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_holds(store, first, last):
    found = store.read(first, last)
    expected = Samples.concatenate([some(*store.rows(s)) for s in range(store.shards(last))])[first:last]
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_array_equal(found.hu, expected.hu)
    for name in radiology.NAMES:
        np.testing.assert_array_equal(found.measures[name], expected.measures[name])


def test_what_is_written_comes_back(whole):
    again = Store(whole.path)
    assert (len(again), again.shard, again.shards(33)) == (40, 16, 3)
    assert again.about == ABOUT | {"num": 40, "shard": 16, "complete": False}
    assert again.uncommitted(0, 3) == []
    assert all(again.finished(s) for s in range(3))
    assert_holds(again, 5, 38)


def test_others_read_it(whole):
    """zarr-python and xarray, with names, units and definitions."""
    zarr, xarray = pytest.importorskip("zarr"), pytest.importorskip("xarray")
    group = zarr.open_group(whole.path, mode="r")
    assert group.attrs["calibration"] == {"hu_min": 0.0, "hu_max": 2500.0}
    assert (group["hu"].dtype, group["hu"].shards, group["hu"].chunks) == (np.int16, (16, 128, 128), (16, 128, 128))
    np.testing.assert_array_equal(group["hu"][3:21], whole.read(3, 21).hu)
    with xarray.open_zarr(whole.path, consolidated=False) as dataset:
        assert dataset.hu.dims == ("sample", "row", "column")
        assert dataset.attrs["pixel_mm"] == 0.46875
        assert dataset.hu.dtype == np.int16
        assert "HU" in dataset.mean_hu.attrs["long_name"]
        np.testing.assert_array_equal(dataset.index, np.arange(100, 140))
        np.testing.assert_array_equal(dataset.sdr, whole.read(0, 40).measures["sdr"])


def test_it_grows(whole):
    """A last shard that was not full is to be drawn again; the others stay."""
    assert whole.complete(40, yields=1) == []
    assert Store(whole.path).about["complete"]
    again = Store(whole.path)
    again.grow(50)
    again = Store(whole.path)
    assert (len(again), again.about["complete"], again.about["num"]) == (50, False, 50)
    assert again.uncommitted(0, 4) == [2, 3]
    again.grow(30)  # never shrinks
    assert len(again) == 50
    fill(again, (2, 3))
    assert_holds(again, 0, 50)


def test_complete_is_what_was_read(whole):
    """Of all shards of the store as it is then, and of the attributes that are there."""
    other = Store(whole.path)
    other.grow(50)
    assert whole.complete(40) == [2, 3]
    assert (Store.attributes(whole.path)["num"], Store.attributes(whole.path)["complete"]) == (50, False)
    fill(other, (2, 3))
    overwrite(pathlib.Path(whole.path, "hu/c/1/0/0"))
    assert whole.complete(40) == [1]
    fill(whole, [1])
    assert whole.complete(50, kept=7) == []
    about = Store.attributes(whole.path)
    assert (about["num"], about["complete"], about["kept"]) == (50, True, 7)


def test_room_that_is_made_while_a_store_is_completed(whole, monkeypatch):
    """The attributes are no longer those that were read, so they are read again."""
    write, other = rows._write, Store(whole.path)

    def late(*args):
        monkeypatch.setattr(rows, "_write", write)
        other.grow(50)
        return write(*args)

    monkeypatch.setattr(rows, "_write", late)
    assert whole.complete(40) == [2, 3]
    assert (Store.attributes(whole.path)["num"], Store.attributes(whole.path)["complete"]) == (50, False)


def test_a_last_shard_that_another_job_has_filled_stays(whole):
    other = Store(whole.path)
    other.grow(50)
    fill(other, (2, 3))
    whole.write(2, some(*other.rows(2))[:8])  # as far as it knows
    assert_holds(Store(whole.path), 0, 50)


def test_more_room_than_is_asked_for(whole):
    """Another job was faster, and is larger."""
    Store(whole.path).grow(70)
    whole.grow(50)
    assert (len(whole), whole.about["num"]) == (70, 70)


def test_many_that_begin_at_once(tmp_path):
    """Threads here, processes there: all have the store of the first, and what is drawn into it stays."""
    for i in range(20):
        path, begin = tmp_path / f"{i}.zarr", threading.Barrier(4)

        def start(rows, path=path, begin=begin):
            begin.wait()
            Store.attributes(path)
            store = Store.create(path, ABOUT, rows=rows, shard=16)
            store.grow(rows)
            store.write(0, some(*store.rows(0)))
            return store

        with futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(start, (20, 40, 40, 60)))
        store = Store(path)
        assert (len(store), store.about["num"]) == (60, 60)
        assert_holds(store, 0, 16)
        assert store.uncommitted(0, 4) == [1, 2, 3]


def test_a_sister_that_is_faster(whole, monkeypatch):
    """zarr.json is read as missing, and then all that she made is seen."""
    real = rows._files

    class Late:
        """As the files were when zarr.json was not there yet, the first time that it is read."""

        reads = 0

        def __init__(self, path):
            self._files = real(path)

        def __getattr__(self, name):
            return getattr(self._files, name)

        def read(self, name):
            Late.reads += 1
            return self._files.read("nothing" if Late.reads == 1 else name)

    monkeypatch.setattr(rows, "_files", Late)
    whole.complete(40)
    Late.reads = 0
    again = Store.create(whole.path, ABOUT | {"seed": 7}, rows=10, shard=8)
    assert (again.about["complete"], len(again), again.shard) == (True, 40, 16)
    assert_holds(again, 0, 40)


def test_growing_may_be_cut_short_anywhere(whole):
    """Killed between two arrays: the same again makes room in all."""
    whole._put_about(lambda about: {"num": 50, "complete": False})
    for name in ("hu", "index", "sdr"):
        whole._arrays[name].resize(exclusive_max=[50, *[None] * (name == "hu") * 2], expand_only=True).result()
    again = Store(whole.path)
    again.grow(50)
    assert again.uncommitted(0, 4) == [2, 3]
    fill(again, (2, 3))
    assert_holds(Store(whole.path), 0, 50)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def overwrite(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, overwrite, pathlib.Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["hu/c/1/0/0", "sdr/c/1", "crc32/c/1", "index/c/1"])
def test_damage_is_found_and_mended(whole, name, damage):
    """Whatever is missing or changed of a shard: it is not finished, and drawn again it is."""
    damage(pathlib.Path(whole.path, name))
    again = Store(whole.path)
    assert [s for s in range(3) if not again.finished(s)] == [1]
    assert refusal(again.read, 10, 20).startswith(f"{whole.path}: ")
    assert_holds(again, 0, 16)
    fill(again, [1])
    assert_holds(Store(whole.path), 0, 40)


def test_a_shard_of_zeros_is_there(tmp_path):
    """Zarr stores no chunk that holds the fill value alone."""
    store = Store.create(tmp_path / "s.zarr", ABOUT, rows=16, shard=16)
    nothing = {name: np.full(16, np.nan, np.float32) for name in radiology.NAMES}
    assert store.uncommitted(0, 1) == [0]
    store.write(0, Samples(np.arange(16), np.zeros((16, 128, 128), np.int16), nothing))
    assert not [p for p in (tmp_path / "s.zarr" / "hu" / "c").rglob("*") if p.is_file()]
    assert store.finished(0)


def test_the_same_twice_is_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        fill(Store.create(tmp_path / name, ABOUT, rows=40, shard=16), (range(3) if name == "a" else (2, 0, 1)))
    files = {name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
             for name in "ab"}  # fmt: skip
    assert files["a"] == files["b"]
    assert len(files["a"]) == 1 + (3 + len(radiology.NAMES)) * 4


def test_something_else(tmp_path):
    (tmp_path / "file.zarr").write_text("x")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.tex").write_text("x")
    (tmp_path / "other.zarr").mkdir()
    (tmp_path / "other.zarr" / "zarr.json").write_text(json.dumps({"zarr_format": 3, "attributes": {}}))
    assert "is there, and no store of samples" in refusal(Store.attributes, tmp_path / "thesis")
    assert "is no store of samples, or damaged" in refusal(Store.attributes, tmp_path / "other.zarr")
    assert "cannot be opened" in refusal(Store.attributes, tmp_path / "file.zarr")
    assert "no store of samples is here" in refusal(Store, tmp_path / "nothing")
    assert Store.attributes(tmp_path / "nothing") is None


def test_shards_that_nothing_says_whose_they_are(whole):
    """They are never taken for those of another seed; a store that was only just begun is begun again."""
    pathlib.Path(whole.path, "zarr.json").unlink()
    assert "is there, and no store of samples" in refusal(Store.attributes, whole.path)
    begun = Store.create(f"{whole.path}.2", ABOUT, rows=40, shard=16)
    pathlib.Path(begun.path, "sdr", "zarr.json").unlink()  # killed before it had made all arrays
    assert Store.create(begun.path, ABOUT, rows=40, shard=16).uncommitted(0, 3) == [0, 1, 2]
    pathlib.Path(begun.path, "zarr.json").unlink()
    assert Store.attributes(begun.path) is None
    assert Store.create(begun.path, ABOUT, rows=40, shard=16).uncommitted(0, 3) == [0, 1, 2]


def test_why_it_failed_is_told_for_long_names(tmp_path):
    """The system gives its reason last."""
    folder = tmp_path / ("x" * 120)
    folder.write_text("a file")
    assert "Not a directory" in refusal(lambda: Store.create(folder / "s.zarr", ABOUT, rows=40, shard=16))


def test_a_bucket(monkeypatch):
    """gs:// through the JSON API; one without rights is refused at once."""
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    with bucket.serving() as objects:
        store = Store.create("gs://somebody/skulls.zarr", ABOUT, rows=20, shard=16)
        fill(store, range(2))
        store.grow(40)
        assert store.uncommitted(0, 3) == [1, 2]
        fill(store, (1, 2))
        assert store.complete(40) == []
        again = Store("gs://somebody/skulls.zarr/")
        assert again.about["complete"]
        assert_holds(again, 0, 40)
        assert {name.split("/")[0] for name in objects} == {"skulls.zarr"}
        line = refusal(lambda: Store.create(f"gs://{bucket.FORBIDDEN}/s.zarr", ABOUT, rows=20, shard=16))
        assert "cannot be written (PERMISSION_DENIED" in line
        assert "you may not write to this bucket" in line
