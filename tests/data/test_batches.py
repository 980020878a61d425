import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from skullgan_jax.data import fingerprint
from skullgan_jax.data.batches import batches, num_steps_per_epoch, order
from skullgan_jax.data.open import open_data
from skullgan_jax.errors import InputError
from skullgan_jax.slices.calibration import Calibration

NUM = 23
RANGE = Calibration(0, NUM - 1)
# Slice i holds the number i everywhere, so that a batch tells which slices it took.
IMAGES = np.broadcast_to(np.arange(NUM, dtype=np.int16)[:, None, None], (NUM, 128, 128))


def rows(images=IMAGES, **kwargs) -> dict[str, np.ndarray]:
    """The slices that each batch took: {"real", "blur"}: (steps, b)."""
    kwargs = dict(batch_size=4, seed=111, num_steps=20) | kwargs
    taken = [{k: RANGE.to_hu(v[:, 5, 7, 0]) for k, v in b.items()} for b in batches(images, RANGE, **kwargs)]
    return {k: np.rint([t[k] for t in taken]).astype(int) for k in ("real", "blur")}


def test_batches_are_float32_in_range():
    first = next(batches(IMAGES, RANGE, batch_size=4, seed=0, num_steps=3))
    assert sorted(first) == ["blur", "real"]
    for batch in first.values():
        assert batch.shape == (4, 128, 128, 1)
        assert batch.dtype == np.float32
        assert np.abs(batch).max() <= 1
        assert np.ptp(batch, axis=(1, 2, 3)).max() == 0


def test_an_epoch_takes_each_slice_at_most_once_and_drops_another_rest_each_time():
    taken = rows(num_steps=20)  # 5 steps of 4 in each of 4 epochs of 23
    rests = set()
    for stream in ("real", "blur"):
        for epoch in taken[stream].reshape(4, 20):
            assert len(set(epoch)) == 20
            rests.add(tuple(sorted(set(range(NUM)) - set(epoch))))
    assert len(rests) == 8
    assert not np.array_equal(taken["real"], taken["blur"])


def test_rows_follow_order():
    taken = rows(num_steps=12)
    for stream in ("real", "blur"):
        expected = np.concatenate([order(NUM, 111, stream, epoch)[:20] for epoch in range(3)])
        np.testing.assert_array_equal(taken[stream].ravel(), expected[:48])


@pytest.mark.parametrize("start", [1, 4, 5, 13, 19, 20])
def test_resume_is_exact(start):
    whole, tail = rows(), rows(start_step=start)
    for stream in ("real", "blur"):
        np.testing.assert_array_equal(tail[stream].reshape(-1, 4), whole[stream][start:])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_one_global_batch(count):
    whole = rows()
    parts = [rows(process_index=p, process_count=count) for p in range(count)]
    for stream in ("real", "blur"):
        np.testing.assert_array_equal(np.concatenate([p[stream] for p in parts], axis=1), whole[stream])


@pytest.mark.parametrize("batch_size", [1, 23])
def test_smallest_and_largest_batch(batch_size):
    taken = rows(batch_size=batch_size, num_steps=46 // batch_size)
    for epoch in taken["real"].reshape(2, NUM):
        np.testing.assert_array_equal(sorted(epoch), range(NUM))


def test_batches_larger_than_a_call_gathers():
    images = np.arange(300, dtype=np.int16)[:, None, None].repeat(128, 1).repeat(128, 2)
    first = next(batches(images, Calibration(0, 299), batch_size=150, seed=0, num_steps=2))
    expected = Calibration(0, 299).to_unit(order(300, 0, "real", 0)[:150])
    np.testing.assert_array_equal(first["real"][:, 0, 0, 0], expected)


@pytest.mark.parametrize("dtype", [">i2", "u1", "f2", ">f4", "f8"])
def test_memory_maps_of_any_dtype(tmp_path, dtype):
    np.save(tmp_path / "hu.npy", np.asfortranarray(IMAGES.astype(dtype)))
    np.testing.assert_array_equal(rows(np.load(tmp_path / "hu.npy", mmap_mode="r"))["real"], rows()["real"])


def test_order_is_a_fixed_function_of_its_arguments():
    # Recorded: if this changes, runs can no longer be resumed exactly.
    np.testing.assert_array_equal(order(10, 111, "real", 0), [3, 7, 4, 1, 9, 2, 5, 0, 6, 8])
    for others in ((10, 112, "real", 0), (10, 111, "blur", 0), (10, 111, "real", 1)):
        assert not np.array_equal(order(*others), order(10, 111, "real", 0))
        np.testing.assert_array_equal(sorted(order(*others)), range(10))


def test_order_is_uniform():
    first = np.array([order(6, seed, "real", 0)[0] for seed in range(3000)])
    counts = np.bincount(first, minlength=6)
    chi2 = ((counts - 500) ** 2 / 500).sum()
    assert chi2 < 20.5  # the 0.1 % point for 5 degrees of freedom


def test_steps_per_epoch():
    assert [num_steps_per_epoch(n, 16) for n in (16, 31, 32, 2000)] == [1, 1, 2, 125]
    with pytest.raises(InputError, match=r"^7 slices do not fill one batch of 16: lower config.batch_size$"):
        num_steps_per_epoch(7, 16)
    with pytest.raises(InputError, match=r"^config.batch_size is 0: give 1 or more$"):
        num_steps_per_epoch(7, 0)


def test_bad_batches_are_refused_before_the_first():
    with pytest.raises(InputError, match="23 slices do not fill one batch of 24"):
        batches(IMAGES, RANGE, batch_size=24, seed=0, num_steps=1)
    with pytest.raises(InputError, match="batch_size 4 does not divide over 3 processes"):
        batches(IMAGES, RANGE, batch_size=4, seed=0, num_steps=1, process_count=3)


def test_an_abandoned_iterator_lets_the_process_end():
    code = """
import sys
import numpy as np
from skullgan_jax.data.batches import batches
from skullgan_jax.slices.calibration import Calibration
assert "tensorflow" not in sys.modules
images = np.zeros((64, 128, 128), np.int16)
iterator = batches(images, Calibration(0, 1), batch_size=16, seed=0, num_steps=10**9)
assert next(iterator)["real"].max() == -1
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def config(**kwargs):
    return ml_collections.ConfigDict(dict(name="skull", path="", num=6, pixel_mm=0.46875) | kwargs)


def test_open_data_skull(tmp_path):
    np.save(tmp_path / "hu.npy", IMAGES)
    dataset = open_data(config(path=str(tmp_path / "hu.npy")), seed=0)
    assert dataset.images.shape == (NUM, 128, 128)
    assert dataset.calibration == RANGE
    assert (dataset.name, dataset.pixel_mm) == ("skull", 0.46875)


def test_open_data_phantom():
    one, again, other = (open_data(config(path="phantom"), seed=seed) for seed in (0, 0, 1))
    assert one.images.shape == (6, 128, 128)
    assert one.images.dtype == np.int16
    assert one.name == "phantom"
    assert one.calibration == Calibration(one.images.min(), one.images.max())
    assert one.fingerprint == again.fingerprint != other.fingerprint


def test_fingerprint_is_of_the_content(tmp_path):
    def found(array, save=np.save) -> str:
        path = tmp_path / ("hu.npy" if save is np.save else "hu.npz")
        save(path, array)
        return open_data(config(path=str(path)), seed=0).fingerprint

    base = found(IMAGES)
    assert len(base) == 32
    same = [IMAGES.astype(">i2"), np.asfortranarray(IMAGES), IMAGES[..., None]]
    assert {found(a) for a in same} | {found(IMAGES, np.savez)} == {base}
    changed = IMAGES.copy()
    changed[9, 64, 64] += 1
    others = [changed, IMAGES[:-1], IMAGES[::-1], IMAGES.astype("i4")]
    assert len({base, *map(found, others)}) == 5


def test_fingerprint_is_of_every_value():
    """One bit of one value, in any slice of many."""
    rng = np.random.default_rng(1)
    hu = rng.integers(-1000, 3000, (300, 128, 128)).astype(np.int16)
    base, seen = fingerprint.of(hu), set()
    for i in (0, 1, 127, 255, 256, 299):
        place, bit = (i, *rng.integers(0, 128, 2)), np.int16(1 << rng.integers(0, 15))
        hu[place] ^= bit
        seen.add(fingerprint.of(hu))
        hu[place] ^= bit
    seen |= {fingerprint.of(hu[:, ::-1]), fingerprint.of(hu[..., ::-1]), fingerprint.of(np.roll(hu, 1, axis=2))}
    assert len(seen | {base}) == 10
    assert fingerprint.known(base, hu, Calibration(0, 1))


def test_fingerprints_of_before_are_known():
    """16 hex digits, as 0.1.0 wrote them."""
    hu = np.arange(3 * 128 * 128).astype(np.int16).reshape(3, 128, 128)
    of = Calibration(hu.min(), hu.max())
    assert fingerprint.known("2d8c0dc12f9a35c3", hu, of)
    assert not fingerprint.known("2d8c0dc12f9a35c3", hu + np.int16(1), Calibration(of.hu_min + 1, of.hu_max + 1))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "--config.data.path is empty: give a .npy/.npz of (N, 128, 128) HU, or the word phantom"),
        ({"name": "skulls"}, "--config.data.name is 'skulls': give skull or celeba"),
    ],
)
def test_open_data_refuses(fields, line):
    with pytest.raises(InputError) as caught:
        open_data(config(**fields), seed=0)
    assert str(caught.value) == line


def test_open_data_names_the_file_with_a_nan(tmp_path):
    hu = IMAGES.astype("f4")
    hu[3, 0, 0] = np.nan
    np.save(tmp_path / "hu.npy", hu)
    with pytest.raises(InputError, match=r"hu\.npy: 1 NaN or infinite values in 1 of 23 slices, the first in slice 3"):
        open_data(config(path=str(tmp_path / "hu.npy")), seed=0)
