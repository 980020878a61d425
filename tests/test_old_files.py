"""What 0.1.0 wrote before its modules moved into rooms is read as ever: a model, a run's workdir, a store of samples.

tests/data/before_rooms.tar.xz has all three, of a pair with coarse weights, and the slices of the run.
"""

import threading

import numpy as np

import skullgan_jax
from skullgan_jax import sample
from skullgan_jax.model import checkpoint
from skullgan_jax.sampling.store import Store
from skullgan_jax.train import loop

SHA256 = "6a38179a7cb8d835256967b77f3c5b6db1e8c80984cede67651f81c8f598d26d"  # as it was said then


def test_model(old, compiled):
    model = skullgan_jax.load(old / "model")
    assert model.sha256 == SHA256
    assert model.batches_tracked == {"generator": [3] * 5, "discriminator": [9] * 4}
    np.testing.assert_array_equal(model.standing["norm1"]["var"], np.float32(1.125) * model.g_stats["norm1"]["var"])


def test_store(old, compiled, capsys):
    """The same command grows it: what is there is kept as it is, and is what is drawn today."""
    before = Store(str(old / "skulls.zarr")).read(0, 6)
    flags = [f"--model={old}/model", "--num=7", f"--output={old}/skulls.zarr"]
    sample.run(flags)
    grown = Store(str(old / "skulls.zarr"))
    assert (len(grown), grown.about["complete"], grown.about["model_sha256"]) == (7, True, SHA256)
    np.testing.assert_array_equal(grown.read(0, 4).hu, before.hu[:4])  # a shard that is whole is not drawn again
    drawn = skullgan_jax.load(old / "model").sample(7)
    np.testing.assert_array_equal(grown.read(6, 7).hu, drawn[6:])
    # Another machine may round otherwise, and where it does so at the edge of the texture's mask, a pixel shows it.
    assert np.mean(abs(drawn[:6].astype(int) - before.hu) <= 1) > 0.999


def test_workdir(old, tiny, capsys):
    """It is a model, and the run goes on from it."""
    config = tiny(**{"data.path": str(old / "slices.npy")})
    asked = threading.Event()
    asked.set()
    loop.train(config, str(old / "run"), stop=asked)
    said = capsys.readouterr().err
    assert f"resuming {old}/run at step 4" in said
    assert "stopped by request after step 4" in said
    points = checkpoint.Checkpoints(old / "run", create=False)
    assert (points.latest, points.best) == (4, 4)
    points.close()
    found, model = skullgan_jax.load(old / "run"), skullgan_jax.load(old / "model")
    assert found.provenance["step"] == 4
    np.testing.assert_array_equal(found.g_params["main1"]["kernel"], model.g_params["main1"]["kernel"])
