"""Training with nothing but a bucket: what is there at the end, what others read meanwhile, and kills at any moment."""

import json

import numpy as np
import pytest

from skullgan_jax.errors import MachineError
from skullgan_jax.machine import places
from skullgan_jax.model import checkpoint
from skullgan_jax.model.load import load
from skullgan_jax.train.loop import train
from tests import bucket

URL = "gs://somebody/runs/skull"


def losses(text: str) -> list[tuple]:
    """Step, losses and judgement of the records of a metrics.jsonl."""
    rows = [json.loads(line) for line in text.splitlines()]
    return [(r["step"], r.get("loss_d"), r.get("loss_g"), r.get("kid"), r.get("swd")) for r in rows]


def test_a_run_in_a_bucket_is_that_in_a_folder(tiny, finished, final_state, tmp_path, monkeypatch):
    """Stopped by a bucket that fails while a checkpoint is sent, and gone on with: the same bits and model."""
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "initial_delay": "10ms"})
    broken = []
    with bucket.serving(lambda method, name: 503 if broken and "checkpoints/8" in name else None) as (address, objects):
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        broken.append(True)
        with pytest.raises(
            MachineError, match=r"gs://somebody/runs/skull/checkpoints: saving .*; the checkpoint of step 4"
        ):
            train(tiny(), URL)
        assert "runs/skull/lock.json" not in objects
        assert checkpoint.listed(URL).keys() == {4}
        assert load(URL).provenance["step"] == 4
        broken.clear()
        train(tiny(), URL)
        assert losses(objects["runs/skull/metrics.jsonl"].decode()) == losses((finished / "metrics.jsonl").read_text())
        for name in ("config.json", "curves.png", "progress.png", "slices.npy", "samples/00000012.png"):
            assert f"runs/skull/{name}" in objects
        assert any(name.startswith("runs/skull/tensorboard/events") for name in objects)
        there = load(finished).sha256
        assert load(URL).sha256 == load(f"{URL}/model").sha256 == load(f"{URL}/checkpoints/12").sha256 == there
        with places.opened(URL) as place:
            place.fetch("checkpoints/12")
            step, found = final_state(place.local)
    expected_step, expected = final_state(finished)
    assert (step, found.keys()) == (expected_step, expected.keys())
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
