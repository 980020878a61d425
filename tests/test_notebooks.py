"""The notebooks: stored clean, and run from top to bottom as users run them, with a smaller first cell."""

import ast
import base64
import csv
import io
import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from matplotlib import pyplot as plt

from tests.conftest import ROOT, TINY

NOTEBOOKS = ("train", "inference")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_is_stored_without_outputs_and_traces_of_a_run(name):
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    stored = json.loads(text)
    assert stored["metadata"] == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in stored["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert text == json.dumps(stored, indent=1, ensure_ascii=False) + "\n"


class Opened:
    """A notebook in a kernel that runs in `folder`.

    Attributes:
      updates: of each cell how often a display was drawn anew.
    """

    def __init__(self, name, folder):
        nbformat = pytest.importorskip("nbformat", reason="needs nbformat, of the extra notebooks")
        nbclient = pytest.importorskip("nbclient", reason="needs nbclient, of the extra notebooks")
        pytest.importorskip("ipykernel", reason="needs ipykernel, of the extra notebooks")
        self.notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        self.updates, self.failed = {}, nbclient.exceptions.CellExecutionError
        opened = self

        class Client(nbclient.NotebookClient):
            def process_message(self, msg, cell, cell_index):
                if msg["msg_type"] == "update_display_data":
                    opened.updates[cell.id] = opened.updates.get(cell.id, 0) + 1
                return super().process_message(msg, cell, cell_index)

        self._client = Client(self.notebook, timeout=300, resources={"metadata": {"path": str(folder)}})

    def kernel(self, env):
        return self._client.setup_kernel(env=env)

    def change(self, **values):
        """Edits the first cell, as a user would: every name must be there."""
        cell = self.cell("parameters")
        stored = {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
        assert values.keys() <= stored.keys()
        cell.source = "\n".join(f"{name} = {value!r}" for name, value in (stored | values).items())

    def cell(self, name):
        return next(cell for cell in self.notebook.cells if cell.id == name)

    def run(self, first=None, last=None):
        """The cells from one to another, by their names; what goes wrong in one is raised."""
        names = [cell.id for cell in self.notebook.cells]
        for at in range(names.index(first) if first else 0, names.index(last) + 1 if last else len(names)):
            self._client.execute_cell(self.notebook.cells[at], at)

    def interrupt(self):
        """What the stop button does."""
        os.kill(self._client.km.provisioner.pid, signal.SIGINT)

    def said(self, name):
        """What a cell printed and what its displays say, in their last state."""
        outputs = self.cell(name).outputs
        return "".join(o.text if o.output_type == "stream" else o.data.get("text/plain", "") for o in outputs)

    def pictures(self, name):
        """Those of a cell, (H, W, RGBA) float32 each."""
        found = [o.data["image/png"] for o in self.cell(name).outputs if "image/png" in o.get("data", {})]
        return [plt.imread(io.BytesIO(base64.b64decode(png))) for png in found]


@pytest.fixture
def kernel_env(compiled):
    """The environment of a kernel that shares the compiled programs of the tests."""
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONPATH": str(ROOT),
    }


@pytest.mark.all
def test_training_stops_goes_on_and_shows_what_it_made(tmp_path, kernel_env, records):
    tiny = {k: v for k, v in TINY.items() if k != "epochs"} | {"checkpoint_every": 1000, "sample_every": 1}
    opened, workdir, metrics = Opened("train", tmp_path), tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    with opened.kernel(kernel_env):
        opened.change(DATA="nowhere.npy", WORKDIR="run")
        with pytest.raises(opened.failed):
            opened.run(last="slices")
        (output,) = opened.cell("slices").outputs
        assert output.output_type == "stream"
        assert output.text.startswith("error: nowhere.npy")
        assert output.text.count("\n") == 1

        opened.change(DATA="phantom", EPOCHS=100_000, CHANGES=tiny | {"modell.ngf": 16})
        with pytest.raises(opened.failed):
            opened.run(last="setup")
        assert opened.said("setup").startswith("error: the first cell:")

        opened.change(CHANGES=tiny)
        stop = threading.Thread(target=_when_written, args=(metrics, 8, opened.interrupt))
        stop.start()
        opened.run(last="train")
        stop.join()
        done = records(workdir)[-1]["step"]
        assert 8 <= done < 4 * 100_000
        assert f"after step {done}, saved" in opened.said("train")
        assert "Run this cell again" in opened.said("train")
        assert opened.updates["train"] >= 2
        assert not (workdir / "model").exists()

        epochs = done // 4 + 2
        opened.change(EPOCHS=epochs)
        opened.run()
    assert f"resuming run at step {done}" in opened.said("train")
    found = records(workdir)
    assert [r["step"] for r in found if "loss_d" in r] == list(range(1, 4 * epochs + 1))
    assert found[-1]["swd"] > 0
    for name in ("slices", "train", "drawn", "curves"):
        (picture,) = opened.pictures(name)
        assert picture.std() > 0.01, name
    assert "skull density ratio" in opened.said("measured")
    assert np.load(workdir / "slices.npy").shape == (TINY["final_slices"], 128, 128)
    assert "Traceback" not in "".join(opened.said(cell.id) for cell in opened.notebook.cells if "outputs" in cell)


def _when_written(path, lines, act, timeout=200):
    """Does something as soon as a file has that many lines."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if path.exists() and path.read_text().count("\n") >= lines:
            return act()
        time.sleep(0.1)


@pytest.mark.all
def test_inference_runs_anywhere_and_exports_what_it_drew(tmp_path, kernel_env):
    import nibabel

    import skullgan_jax

    opened = Opened("inference", tmp_path)
    opened.change(MODEL="try", NUM=20, SEED=3, WHERE="area_mm2 > 0", OUTPUT="out", TRY_OUT=TINY)
    with opened.kernel(kernel_env):
        opened.run()
    assert "a small pair is trained there" in opened.said("load")
    assert "12 of the first 12 slices fit" in opened.said("select")
    for name in ("look", "measure", "select", "convert"):
        (picture,) = opened.pictures(name)
        assert picture.std() > 0.01, name

    expected = skullgan_jax.load(tmp_path / "try").sample(20, seed=3)
    out = tmp_path / "out"
    hu = np.load(out / "skulls.npy")
    np.testing.assert_array_equal(hu, expected)
    np.testing.assert_array_equal(np.asarray(nibabel.load(out / "volume.nii.gz").dataobj).T, hu)
    assert "all hold what was drawn: True" in opened.said("read")
    about = json.loads((out / "skulls.json").read_text())
    assert (about["model"], about["seed"], about["num"]) == ("try", 3, 20)
    with (out / "skulls.csv").open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == list(range(20))
