"""Which slices are kept from training: those of prepare's other split, and phantoms without end."""

import json

import numpy as np
import pytest
from ml_collections import ConfigDict

from skullgan_jax.data import phantom
from skullgan_jax.data.open import open_data, open_held_out


def data_of(path, **changed):
    return ConfigDict({"name": "skull", "path": str(path), "num": 3, "pixel_mm": 0.46875} | changed)


def test_phantoms_that_are_not_trained_on():
    found = open_held_out(data_of("phantom"), 2, 111)
    np.testing.assert_array_equal(found, phantom.segments(5, 111)[3:])
    assert not (found[:, None] == open_data(data_of("phantom"), 111).images).all((2, 3)).any()


@pytest.mark.parametrize("splits", [("train",), ("train", "held_out")])
def test_what_prepare_kept_apart(splits, tmp_path):
    scans = {split: {"split": split, "windows": {"accepted": 2}} for split in splits}
    (tmp_path / "summary.json").write_text(json.dumps({"pixel_mm": 0.5, "format": "npy", "scans": scans}))
    for i, split in enumerate(splits):
        np.save(tmp_path / f"{split}.npy", np.full((2, 128, 128), i, np.int16))
    found = open_held_out(data_of(tmp_path), 9, 0)
    assert found is None if splits == ("train",) else found.shape == (2, 128, 128) and (found == 1).all()


def test_a_file_has_none(tmp_path):
    np.save(tmp_path / "slices.npy", phantom.segments(2))
    assert open_held_out(data_of(tmp_path / "slices.npy"), 9, 0) is None
    assert open_held_out(data_of(tmp_path, name="celeba"), 9, 0) is None
