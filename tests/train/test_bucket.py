"""Training with nothing but a bucket: what is there at the end, what others read meanwhile, and kills at any moment."""

import json
import re
import time

import numpy as np
import pytest

from skullgan_jax.data import phantom
from skullgan_jax.errors import InputError, MachineError
from skullgan_jax.machine import places
from skullgan_jax.model import checkpoint
from skullgan_jax.model.load import load
from skullgan_jax.train.loop import train
from tests import bucket
from tests.processes.test_distributed import STEADY, devices, free_port
from tests.support import ended

URL = "gs://somebody/runs/skull"


def losses(text: str) -> list[tuple]:
    """Step, losses and judgement of the records of a metrics.jsonl."""
    rows = [json.loads(line) for line in text.splitlines()]
    return [(r["step"], r.get("loss_d"), r.get("loss_g"), r.get("kid"), r.get("swd")) for r in rows]


@pytest.mark.all
def test_a_run_in_a_bucket_is_that_in_a_folder(tiny, finished, final_state, monkeypatch):
    """Stopped by a bucket that fails while a checkpoint is sent, and gone on with: the same bits and model."""
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "initial_delay": "10ms"})
    broken = []
    with bucket.serving(lambda method, name: 503 if broken and "checkpoints/8" in name else None) as objects:
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


@pytest.mark.all
def test_a_run_that_begins_with_what_is_in_a_bucket(tiny, own_home, tmp_path):
    """Slices, and a checkpoint of another run to continue from: the losses are those of folders."""
    np.save(tmp_path / "slices.npy", phantom.segments(16, 4))
    with bucket.serving(holding={"data/slices.npy": (tmp_path / "slices.npy").read_bytes()}):
        found = []
        for where, data in ((tmp_path, tmp_path), ("gs://somebody/runs", "gs://somebody/data")):
            flags = {"data.path": f"{data}/slices.npy", "final_slices": 0}
            train(tiny(epochs=1, **flags), f"{where}/one")
            train(tiny(epochs=2, checkpoint=f"{where}/one", **flags), f"{where}/two")
            with places.opened(f"{where}/two") as place:
                found.append(losses(place.read("metrics.jsonl")[0].decode()))
        assert found[0] == found[1]
        assert [row[0] for row in found[0] if row[1]] == [5, 6, 7, 8]
        line = r"--config.checkpoint=gs://somebody/runs/three: holds no checkpoint; give a training workdir"
        with pytest.raises(InputError, match=line):
            train(tiny(checkpoint="gs://somebody/runs/three"), tmp_path / "three")


@pytest.fixture
def job(start):
    """A function of a folder for each of two processes of one job, and flags: the processes, with only a bucket shared.

    Each has a home and a TMPDIR of its own.
    """
    running = []

    def go(folders, *flags):
        port = free_port()
        for process, folder in enumerate(folders):
            folder.mkdir(exist_ok=True)
            place = {
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(len(folders)),
                "JAX_PROCESS_ID": str(process),
                "HOME": str(folder),
                "XDG_CACHE_HOME": "",
                "TMPDIR": str(folder),
                "JAX_COMPILATION_CACHE_DIR": "gs://somebody/compiled",
            }
            env = place | devices(1)
            running.append(start(URL, "--distributed", *STEADY, *flags, env=env, code=_ALIKE))
        return running[-len(folders) :]

    yield go
    for process in running:
        process.kill()


# Programs compiled by one process serve the other, which would compile at each start.
_ALIKE = "from tests.processes import programs\nprograms.share()"


def _checkpoints(objects) -> set[str]:
    return {name for name in objects if re.search(r"/checkpoints/\d+\.json$", name)}


def _wait_for(condition, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not condition():
        time.sleep(0.05)


def _kills(job, final_state, tmp_path, kills: int, flags=()):
    """Bits of a run of two processes of which either was killed so often are those of a run that was not."""
    random = np.random.default_rng(0)
    folders = [tmp_path / "host0", tmp_path / "host1"]
    with bucket.serving() as objects:
        found = {}
        for name in ("whole", "killed"):
            for key in [key for key in objects if key.startswith("runs/")]:
                del objects[key]
            for _ in range(kills if name == "killed" else 0):
                before, processes = dict(objects), job(folders, *flags)
                # Soon after a checkpoint, or at any moment of the start.
                later, until = random.uniform(0, 2), random.choice((300, random.uniform(3, 20)))
                until = until if _checkpoints(before) else 300
                _wait_for(lambda before=before: _checkpoints(objects) - _checkpoints(before), until)
                time.sleep(later)
                assert processes[0].poll() is None, "it ended before it was killed; give it more epochs"
                for process in processes[:: random.choice((1, -1))]:
                    process.kill()
                    time.sleep(random.uniform(0, 1))
            said = [ended(process, 0, within=300 + 120 * kills) for process in job(folders, *flags)]
            with places.opened(URL) as place:
                place.fetch(f"checkpoints/{max(map(int, place.folders('checkpoints')))}")
                found[name] = final_state(place.local), losses(objects["runs/skull/metrics.jsonl"].decode())
            assert "runs/skull/lock.json" not in objects
            # Nothing but what the two checkpoints list is under checkpoints/, whatever was begun.
            listed = [json.loads(objects[n])["folder"] for n in _checkpoints(objects)]
            inside = {n.split("/")[3] for n in objects if n.startswith("runs/skull/checkpoints/")}
            assert {n for n in inside if not n.endswith(".json")} == {folder.rpartition("/")[2] for folder in listed}
    assert "the step was compiled before" in said[0]
    (whole_step, whole), whole_losses = found["whole"]
    (step, killed), killed_losses = found["killed"]
    assert (step, killed_losses) == (whole_step, whole_losses)
    for name, array in whole.items():
        np.testing.assert_array_equal(killed[name], array, err_msg=name)


@pytest.mark.all
def test_two_hosts_with_nothing_but_a_bucket(job, final_state, tmp_path):
    _kills(job, final_state, tmp_path, 1, ("--config.shard_state=True",))


@pytest.mark.slow
def test_two_hosts_killed_at_twenty_moments(job, final_state, tmp_path):
    _kills(job, final_state, tmp_path, 20, ("--config.epochs=30", "--config.shard_state=True"))
