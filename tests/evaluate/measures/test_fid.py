"""FID: the refusals, and what torch-fidelity is asked."""

import sys
import types

import numpy as np
import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.evaluate.measures import fid


def test_too_few_slices_are_refused():
    with pytest.raises(InputError, match="2047 reals and 5000 fakes; below 2048 each"):
        fid.check(2047, 5000)


def test_without_torch_fidelity_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(InputError, match=r"pip install 'skullgan_jax\[fid\]'"):
        fid.check(2048, 2048)


def test_what_torch_fidelity_is_asked(monkeypatch):
    torch = pytest.importorskip("torch")
    asked = {}

    def calculate_metrics(**options):
        asked.update(options)
        return {"frechet_inception_distance": 49.0}

    module = types.SimpleNamespace(calculate_metrics=calculate_metrics, __version__="0.4.0")
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    real = np.broadcast_to(np.float32(1000), (2048, 128, 128))
    fake = np.broadcast_to(np.int16(2500), (3000, 128, 128))
    found = fid.fid(real, fake, "inception.pth")
    assert found["value"] == 49
    for word in ("n = 2048 real and 3000 fake", "0 to 2000 HU", "128 to 299", "repeated three times", "0.4.0"):
        assert word in found["protocol"]
    assert (asked["fid"], asked["cuda"], asked["cache"]) == (True, False, False)
    assert asked["feature_extractor_weights_path"] == "inception.pth"
    assert len(asked["input2"]) == 3000
    image = asked["input1"][0]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 128, 128))
    assert (int(image[0, 0, 0]), int(asked["input2"][5][2, 3, 4])) == (128, 255)


def test_weights_that_are_missing_are_one_line(monkeypatch):
    pytest.importorskip("torch")

    def calculate_metrics(**options):
        raise OSError("no such file\nat all")

    module = types.SimpleNamespace(calculate_metrics=calculate_metrics, __version__="0.4.0")
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    hu = np.broadcast_to(np.int16(0), (2048, 128, 128))
    with pytest.raises(InputError, match=r"no such file at all.*--fid_weights"):
        fid.fid(hu, hu)
