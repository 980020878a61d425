"""What is opened, and what is refused in one line."""

import json

import numpy as np
import pytest

from skullgan_jax.data import phantom
from skullgan_jax.errors import InputError
from skullgan_jax.evaluate import inputs
from skullgan_jax.model.draw import Samples
from skullgan_jax.sampling.store import FORMAT, Store
from skullgan_jax.slices import radiology


@pytest.fixture(scope="module")
def hu():
    return phantom.segments(12, 1)


def opened(path, **options):
    return inputs.open_set(str(path), **{"split": "held_out", "most": None} | options)


def test_arrays_with_and_without_a_description(tmp_path, hu):
    np.save(tmp_path / "a.npy", hu)
    found = opened(tmp_path / "a.npy")
    assert (found.pixel_mm, found.stated, found.subjects, found.total) == (0.46875, False, None, 12)
    np.testing.assert_array_equal(found.hu, hu)
    assert opened(tmp_path / "a.npy", pixel_mm=0.5).pixel_mm == 0.5
    (tmp_path / "a.json").write_text('{"pixel_mm": 0.4}')
    found = opened(tmp_path / "a.npy", pixel_mm=0.5)
    assert (found.pixel_mm, found.stated) == (0.4, True)
    (tmp_path / "a.json").write_text('{"pixel_mm": "wide"}')
    with pytest.raises(InputError, match=r"a.json: damaged"):
        opened(tmp_path / "a.npy")


def test_at_most_so_many_evenly_spread(tmp_path, hu):
    np.savez(tmp_path / "a.npz", hu=hu)
    found = opened(tmp_path / "a.npz", most=4)
    np.testing.assert_array_equal(found.hu, hu[[0, 3, 7, 11]])
    assert found.total == 12


def test_a_prepared_set_gives_its_split_and_subjects(tmp_path, hu):
    np.save(tmp_path / "held_out.npy", hu)
    np.save(tmp_path / "train.npy", hu[:5])
    scans = {str(i): {"split": s, "windows": {"accepted": 5}} for i, s in enumerate(("train", "held_out"))}
    (tmp_path / "summary.json").write_text(json.dumps({"pixel_mm": 0.5, "format": "npy", "scans": scans}))
    rows = {"held_out": [{"subject": f"s{i // 4}"} for i in range(12)], "train": [{"subject": "t"}] * 5}
    (tmp_path / "segments.json").write_text(json.dumps(rows))
    found = opened(tmp_path, most=3)
    assert (found.pixel_mm, found.subjects.tolist()) == (0.5, ["s0", "s1", "s2"])
    assert len(opened(tmp_path, split="train").hu) == 5


def test_a_sample_store(tmp_path, hu):
    """Whose samples are read as far as they are wanted, once all are there."""
    about = {"format": FORMAT, "pixel_mm": 0.5, "calibration": {"hu_min": 0, "hu_max": 2000}}
    store = Store.create(tmp_path / "skulls.zarr", about, rows=12, shard=8)
    measures = {name: np.zeros(12, np.float32) for name in radiology.NAMES}
    samples = Samples(np.arange(12), hu, measures)
    store.write(0, samples[:8])
    store.write(1, samples[8:])
    with pytest.raises(InputError, match="not all of its samples are there; give the sampling command again"):
        opened(store.path)
    store.complete(len(store))
    found = opened(store.path, most=4)
    assert (found.pixel_mm, found.stated, found.total) == (0.5, True, 12)
    np.testing.assert_array_equal(found.hu, hu[[0, 3, 7, 11]])
    (tmp_path / "skulls.zarr" / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    with pytest.raises(InputError, match="is no store of samples, or damaged"):
        opened(store.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.where(x > 2000, np.nan, x), "NaN or infinite values"),
        (lambda x: x / 1500 - 1, r"the networks' \[-1, 1\] and not HU"),
        (lambda x: x / 20, "nothing above 200 HU"),
        (lambda x: x[:, :64], "expected"),
        (lambda x: x * np.where(x > 2000, np.inf, 1), "NaN or infinite values"),
        (
            lambda x: np.where(x > 2000, 1e30, x),
            r"values from 0 to 1e\+30, beyond the -32768 to 32767 HU that there are",
        ),
        (lambda x: 0 * x, "every value is 0: there is nothing to scale"),
        (lambda x: 0 * x + 3000, "every value is 3000: there is nothing to scale"),
    ],
)
def test_what_is_no_hu_is_refused(tmp_path, hu, change, message):
    np.save(tmp_path / "a.npy", np.clip(change(hu.astype(np.float32)), -1, None))
    with pytest.raises(InputError, match=message) as refused:
        opened(tmp_path / "a.npy")
    assert "a.npy" in str(refused.value)


def test_different_pixels_are_refused_naming_both(hu):
    a = inputs.Slices("a.npy", hu, 12, 0.46875, True)
    b = inputs.Slices("b.npy", hu, 12, 0.5, False)
    with pytest.raises(InputError, match=r"a.npy has 0.46875 mm pixels and b.npy has 0.5 mm pixels \(assumed"):
        inputs.check_pair(a, b)
    inputs.check_pair(a, inputs.Slices("c.npy", hu, 12, 60 / 128, True))
