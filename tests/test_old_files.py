"""What 0.1.0 wrote before its modules moved into rooms is read as ever: a model, a run's workdir, a store of samples.

tests/data/before_rooms.tar.xz has all three, of a pair with coarse weights, and the slices of the run;
before_subjects.tar.xz a data set of prepare.
"""

import json
import shutil
import threading
from concurrent import futures

import numpy as np
import pytest

import skullgan_jax
from skullgan_jax import prepare, sample
from skullgan_jax.data import prepared
from skullgan_jax.model import checkpoint
from skullgan_jax.sampling.store import Store
from skullgan_jax.train import loop
from tests.ct import heads

SHA256 = "6a38179a7cb8d835256967b77f3c5b6db1e8c80984cede67651f81c8f598d26d"  # as it was said then


def test_model(old, compiled):
    model = skullgan_jax.load(old / "model")
    assert model.sha256 == SHA256
    assert model.batches_tracked == {"generator": [3] * 5, "discriminator": [9] * 4}
    np.testing.assert_array_equal(model.standing["norm1"]["var"], np.float32(1.125) * model.g_stats["norm1"]["var"])


def test_store(old, compiled, capsys):
    """It is what is drawn today, and complete for the command that made it; one for more is refused: it would mix."""
    store = Store(str(old / "skulls.zarr"))
    assert (len(store), store.about["complete"], store.about["model_sha256"]) == (6, True, SHA256)
    flags = [f"--model={old}/model", f"--output={old}/skulls.zarr"]
    sample.run([*flags, "--num=6"])
    assert "has 6 samples already" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        sample.run([*flags, "--num=7"])
    assert ended.value.code == 2
    assert "was begun by another version (format 1, now 2)" in capsys.readouterr().err
    drawn = skullgan_jax.load(old / "model").sample(6)
    # Another machine or version may round otherwise, and at the edge of the texture's mask pixels show it.
    assert np.mean(abs(drawn.astype(int) - store.read(0, 6).hu) <= 1) > 0.999


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


def test_data_set(old_skulls, tmp_path, monkeypatch, capfd):
    """It is read as ever, and grows where all its scans are given: they are cut anew, and stay in their splits."""
    monkeypatch.setattr(futures, "ProcessPoolExecutor", lambda jobs, context: futures.ThreadPoolExecutor(1))
    shutil.copytree(old_skulls, tmp_path / "old")
    output = tmp_path / "old" / "skulls"
    before = {split: {row["scan"] for row in prepared.read(output, split)[1]} for split in ("train", "held_out")}
    assert [len(names) for names in before.values()] == [2, 1]
    subjects = {s["subject"]: s["split"] for s in json.loads((output / "summary.json").read_text())["scans"].values()}

    flags = [f"--input={tmp_path / 'in'}", f"--output={output}", f"--salt={tmp_path / 'old' / 'salt'}"]

    def command(*more):
        with pytest.raises(SystemExit) as ended:
            prepare.run([*flags, "--format=npy", "--angles=4", "--jobs=1", *more])
        return ended.value.code, capfd.readouterr().err.splitlines()

    for i, name in enumerate(("one", "two", "three", "four")):
        volume = heads.head(tilt=5 * i, shape=(3, 400, 400))[:, ::2, ::2]
        about = {"SeriesInstanceUID": f"1.2.{i}"} | ({"PatientID": ""} if name == "three" else {})
        heads.write_dicom(tmp_path / "in" / name, volume, patient=name, PixelSpacing=[1, 1], **about)
    (tmp_path / "in" / "three").rename(tmp_path / "three")
    status, lines = command()
    assert status == 2
    assert "which cut by other rules, and 1 of its scans are not in --input; give them all, or another" in lines[-1]
    status, lines = command(f"--input={tmp_path / 'three'}")
    assert status == 0
    now = json.loads((output / "summary.json").read_text())
    assert (len(now["scans"]), now["version"]) == (4, "1.1.0")
    assert subjects.items() <= {s["subject"]: s["split"] for s in now["scans"].values()}.items()
