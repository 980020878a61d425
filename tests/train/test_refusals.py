"""What a run does not begin with: configs, data, workdirs and weights that do not fit, told in one line."""

import os

import jax
import numpy as np
import pytest

from tests.train.refused import SLICES, refusal

NAN, INFINITE = SLICES.astype(np.float32), SLICES.astype(np.float32)
NAN[3, 5, 5], INFINITE[2, 1, 1] = np.nan, np.inf


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no such file"),
        (b"HU 1 2 3", "is neither a .npy nor a .npz file"),
        (SLICES[:, :64], "has shape (16, 64, 128), expected (N, 128, 128) in HU"),
        (np.array([None] * 3), "holds Python objects, which are never unpickled"),
        (NAN, "NaN or infinite values in 1 of 16 slices, the first in slice 3"),
        (INFINITE, "NaN or infinite values in 1 of 16 slices, the first in slice 2"),
        (np.zeros_like(SLICES), "every value is 0"),
        (
            SLICES / np.float32(3000),
            "slices.npy: values from -0.333333 to 0.999667, the networks' [-1, 1] and not HU; map them",
        ),
        (SLICES // 20, "slices.npy: nothing above 200 HU (greatest 149), no bone; give slices in HU"),
        (SLICES[:3], "3 slices do not fill one batch of 4"),
        ("truncated", "is cut short"),
    ],
)
def test_bad_data(content, expected, tiny, tmp_path):
    path = tmp_path / "slices.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content == "truncated":
        np.save(path, SLICES)
        os.truncate(path, 1000)
    elif content is not None:
        path.write_bytes(content)
    line = refusal(tiny(**{"data.path": str(path)}), tmp_path / "run")
    assert expected in line
    assert not (tmp_path / "run").exists(), "nothing is made before the input is good"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batch_size": 1}, "--config.batch_size=1: must be 2 or more"),
        ({"batch_size": 17}, "16 slices do not fill one batch of 17"),
        ({"batch_size": 0}, "--config.batch_size=0: must be 2 or more"),
        ({"epochs": 0}, "--config.epochs=0: must be 1 or more"),
        ({"log_every": 0}, "--config.log_every=0: must be 1 or more"),
        ({"final_slices": -1}, "--config.final_slices=-1"),
        ({"seed": -1}, "--config.seed=-1"),
        ({"seed": 2**32}, "--config.seed=4294967296: must be 0 or more and below 2^32"),
        ({"data.num": 0}, "--config.data.num=0: must be 1 or more"),
        ({"data.name": "mri"}, "--config.data.name=mri: give skull or celeba"),
        ({"data.path": ""}, "--config.data.path is empty"),
        ({"model.nz": 0}, "nz"),
        ({"model.ngf": 10}, "ngf"),
        ({"model.ndf": 0}, "ndf"),
        ({"model.nc": 3}, "--config.model.nc=3: the data have one channel"),
        ({"model.dtype": "float16"}, "--config.model.dtype=float16: give auto, float32 or bfloat16"),
        ({"checkpoint": "/no/such/run"}, "--config.checkpoint=/no/such/run: holds no checkpoint"),
        ({"pretrained": "/no/such/run"}, "/no/such/run: no model here"),
    ],
)
def test_bad_config(changes, expected, tiny, tmp_path):
    assert expected in refusal(tiny(**changes), tmp_path / "run")


def test_batch_that_the_devices_do_not_divide(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    line = refusal(tiny(), tmp_path / "run")
    assert line == "--config.batch_size=4: must be 2 or more and divisible by the 3 devices; try 3"


@pytest.mark.parametrize("bad", ["file", "in a file", "/proc/run"])
def test_workdir_that_cannot_be_written(bad, tiny, tmp_path):
    (tmp_path / "file").touch()
    workdir = {"file": tmp_path / "file", "in a file": tmp_path / "file" / "run"}.get(bad, bad)
    assert refusal(tiny(), workdir).startswith(f"--workdir={workdir}: cannot be written (")


def test_changed_config_is_refused_with_its_keys(finished_copy, tiny, final_state):
    line = refusal(tiny(**{"recipe.patience": 5, "seed": 7, "epochs": 9, "log_every": 3}), finished_copy)
    assert "recipe.patience was 1000 now 5" in line
    assert "seed was 111 now 7" in line
    assert "epochs" not in line
    assert "log_every" not in line
    assert "another --workdir" in line
    line = refusal(tiny(**{"recipe.patience": 5, "checkpoint": str(finished_copy)}), finished_copy.parent / "new")
    assert line.startswith(f"{finished_copy}: the config changed since its checkpoint: recipe.patience was 1000 now 5")


def test_other_data_is_refused(finished_copy, tiny, tmp_path):
    """By content: the path is free to change."""
    np.save(tmp_path / "other.npy", SLICES)
    line = refusal(tiny(**{"data.path": str(tmp_path / "other.npy")}), finished_copy)
    assert "the data changed since its checkpoint" in line
    assert "another --workdir" in line


def test_pretrained_of_another_architecture(finished, tiny, tmp_path):
    line = refusal(tiny(pretrained=str(finished / "model"), **{"model.nz": 9, "model.ndf": 8}), tmp_path / "run")
    assert "another architecture (nc=1 nz=8 ngf=16 ndf=4) than this config's (nc=1 nz=9 ngf=16 ndf=8)" in line


def test_checkpoint_of_another_architecture(finished_copy, tiny):
    line = refusal(tiny(**{"model.nz": 9}), finished_copy)
    assert "model.nz was 8 now 9" in line
