"""Which slices are kept from training: those of prepare's other split, and phantoms without end."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from skullgan_jax.data import phantom
from skullgan_jax.data.open import open_data, open_held_out
from skullgan_jax.errors import InputError, MachineError
from skullgan_jax.machine import places
from tests import bucket


def data_of(path, **changed):
    return ConfigDict({"name": "skull", "path": str(path), "num": 3, "pixel_mm": 0.46875} | changed)


def test_phantoms_that_are_not_trained_on():
    found = open_held_out(data_of("phantom"), 2, 111)
    np.testing.assert_array_equal(found, phantom.segments(5, 111)[3:])
    assert not (found[:, None] == open_data(data_of("phantom"), 111).images).all((2, 3)).any()


def prepared(folder, splits):
    """Have there what `prepare` writes: two segments a split, of phantoms."""
    scans = {split: {"split": split, "windows": {"accepted": 2}} for split in splits}
    (folder / "summary.json").write_text(json.dumps({"pixel_mm": 0.5, "format": "npy", "scans": scans}))
    for i, split in enumerate(splits):
        np.save(folder / f"{split}.npy", phantom.segments(2, i))


@pytest.mark.parametrize("splits", [("train",), ("train", "held_out")])
def test_what_prepare_kept_apart(splits, tmp_path):
    prepared(tmp_path, splits)
    found = open_held_out(data_of(tmp_path), 9, 0)
    if splits == ("train",):
        assert found is None
    else:
        np.testing.assert_array_equal(found, phantom.segments(2, 1))


def test_what_prepare_wrote_to_a_bucket(own_home, tmp_path):
    folder = tmp_path / "skulls"
    folder.mkdir()
    prepared(folder, ("train", "held_out"))
    with bucket.serving(holding={f"skulls/{path.name}": path.read_bytes() for path in folder.iterdir()}) as objects:
        there, here = (open_data(data_of(path), 0) for path in ("gs://somebody/skulls", folder))
        np.testing.assert_array_equal(there.images, here.images)
        assert (there.fingerprint, there.pixel_mm) == (here.fingerprint, 0.5)
        np.testing.assert_array_equal(
            *(open_held_out(data_of(path), 9, 0) for path in ("gs://somebody/skulls", folder))
        )
        objects["skulls/summary.json"] = b"{"
        with pytest.raises(InputError, match=r"gs://somebody/skulls/summary\.json: damaged; prepare"):
            open_data(data_of("gs://somebody/skulls"), 0)


@pytest.mark.parametrize(("answer", "kind"), [(503, MachineError), (403, InputError)])
def test_a_bucket_that_gives_no_answer(answer, kind, monkeypatch):
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "initial_delay": "10ms"})
    with (
        bucket.serving(lambda *_: answer),
        pytest.raises(kind, match=r"^gs://somebody/skulls/summary\.json: cannot be"),
    ):
        open_data(data_of("gs://somebody/skulls"), 0)


def test_a_file_has_none(tmp_path):
    np.save(tmp_path / "slices.npy", phantom.segments(2))
    assert open_held_out(data_of(tmp_path / "slices.npy"), 9, 0) is None
    assert open_held_out(data_of(tmp_path, name="celeba"), 9, 0) is None
