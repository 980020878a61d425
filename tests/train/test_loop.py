"""The training loop on the phantom, a tiny pair and real files: resume, stops and what ends it."""

import dataclasses
import json
import os
import resource
import shutil
import signal

import jax
import numpy as np
import pytest

from skullgan_jax.errors import MachineError
from skullgan_jax.model import checkpoint
from skullgan_jax.model.load import load
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.train import finish, judge, monitor, program, resume, setup
from skullgan_jax.train import loop as train
from skullgan_jax.train.step import Recipe
from tests.support import ended
from tests.train.refused import SLICES, refusal


def assert_same_state(found, expected):
    """Bit for bit, NaN and -0 included."""
    assert found[0] == expected[0]
    assert found[1].keys() == expected[1].keys()
    assert len(expected[1]) > 80
    for name, array in expected[1].items():
        assert found[1][name].dtype == array.dtype
        assert found[1][name].tobytes() == array.tobytes(), name


def stop_at(step, number, monkeypatch):
    """Send the process a signal when the loop has queued `step` steps."""
    write = monitor.Monitor.step

    def and_stop(self, done, metrics):
        write(self, done, metrics)
        if done == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(monitor.Monitor, "step", and_stop)


@pytest.fixture(autouse=True, scope="module")
def _short_end(finished):
    """The pictures, model and samples of a run are judged once, of `finished`; the others end with the last step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "finish", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def stopped(tiny, tmp_path_factory):
    """The workdir of a run that SIGTERM stopped in the middle of its second epoch."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(6, signal.SIGTERM, patch)
        train.train(tiny(), workdir)
    return workdir


def test_whole_run(finished, final_state, records):
    """Every step is recorded once, each epoch's checkpoint is judged, latest and best are kept."""
    lines = records(finished)
    steps = [r for r in lines if "loss_d" in r]
    judged = {r["step"]: r for r in lines if "swd" in r}
    assert [r["step"] for r in steps] == [*range(1, 13)]
    assert [r["epoch"] for r in steps] == [0] * 4 + [1] * 4 + [2] * 4
    assert all({"loss_g", "d_real", "d_fake", "lr_d", "lr_g", "images_per_s"} <= r.keys() for r in steps)
    assert sorted(judged) == [4, 8, 12]
    assert all({"kid", "coverage", "spread", "collapse"} <= r.keys() for r in judged.values())
    best = checkpoint.Checkpoints(finished, create=False).best
    covered = max(r["coverage"] for r in judged.values())
    assert judged[best]["coverage"] >= 0.9 * covered
    kept = {int(p.name) for p in (finished / "checkpoints").iterdir()}
    assert kept == {12, best}
    assert final_state(finished)[0] == 12
    assert sorted(p.name for p in (finished / "samples").iterdir()) == ["00000000.png", "00000012.png"]
    for name in ("curves.png", "progress.png", "slices.png", "config.json", "tensorboard"):
        assert (finished / name).exists(), name
    assert json.loads((finished / "config.json").read_text())["batch_size"] == 4
    trained = load(finished / "model")
    assert trained.provenance["step"] == best
    assert trained.standing is not None
    hu, about = np.load(finished / "slices.npy"), json.loads((finished / "slices.json").read_text())
    assert (hu.dtype, hu.shape) == (np.int16, (4, 128, 128))
    assert about["calibration"] == trained.calibration.to_dict()
    assert not list(finished.rglob("*.tmp"))


@pytest.mark.all
@pytest.mark.parametrize(
    ("method", "when", "possible"),
    ids=["in an epoch", "while saving the first", "while saving the second"],
    argvalues=[
        ("monitor.Monitor.step", "args[1] == 7 and written(4)", {4}),
        ("checkpoint.Checkpoints.save", "calls == 1", {None, 4}),
        ("checkpoint.Checkpoints.save", "calls == 2", {4, 8}),
    ],
)
def test_kill_9_and_resume_gives_the_same_bits(
    method, when, possible, start, tiny, finished, tmp_path, final_state, records
):
    code = f"""
import os, time
from skullgan_jax.model import checkpoint
from skullgan_jax.train import monitor
real, calls = {method}, 0
def written(step):
    while not os.path.exists({str(tmp_path)!r} + f"/run/checkpoints/{{step}}"):
        time.sleep(0.01)
    return True
def and_die(*args, **kwargs):
    global calls
    calls += 1
    real(*args, **kwargs)
    if {when}:
        os.kill(os.getpid(), 9)
{method} = and_die
"""
    ended(start(tmp_path / "run", code=code), -signal.SIGKILL)
    assert checkpoint.Checkpoints(tmp_path / "run", create=False).latest in possible
    train.train(tiny(), tmp_path / "run")
    assert_same_state(final_state(tmp_path / "run"), final_state(finished))
    assert [r["step"] for r in records(tmp_path / "run") if "loss_d" in r] == [*range(1, 13)]


def test_sigterm_saves_where_it_stands(stopped, tiny, finished, tmp_path, final_state, records, capfd):
    """In the middle of an epoch; the same command goes on to the same bits."""
    assert final_state(stopped)[0] == 6
    assert [r["step"] for r in records(stopped) if "loss_d" in r] == [1, 2, 3, 4, 5, 6]
    shutil.copytree(stopped, tmp_path / "run")
    train.train(tiny(), tmp_path / "run")
    assert "at step 6" in capfd.readouterr().err
    assert_same_state(final_state(tmp_path / "run"), final_state(finished))
    kept = sorted((r["step"], "swd" in r) for r in records(tmp_path / "run"))
    assert kept == sorted([(i, False) for i in range(1, 13)] + [(i, True) for i in (4, 8, 12)])


def test_given_checkpoint_is_continued(stopped, tiny, finished, tmp_path, final_state, capfd):
    """In a new workdir, optimizer and all, without touching the old one."""
    before = sorted(p.stat().st_mtime_ns for p in stopped.rglob("*"))
    train.train(tiny(checkpoint=str(stopped)), tmp_path / "run")
    assert f"continuing from step 6 of {stopped}" in capfd.readouterr().err
    assert_same_state(final_state(tmp_path / "run"), final_state(finished))
    assert sorted(p.stat().st_mtime_ns for p in stopped.rglob("*")) == before


def test_epochs_may_be_raised(finished_copy, tiny, final_state, records, capfd):
    train.train(tiny(epochs=4), finished_copy)
    assert "at step 12" in capfd.readouterr().err
    assert final_state(finished_copy)[0] == 16
    assert [r["step"] for r in records(finished_copy) if "loss_d" in r] == [*range(1, 17)]
    assert json.loads((finished_copy / "config.json").read_text())["epochs"] == 4


def scripted(kids, monkeypatch):
    """The judgement of each checkpoint by its step, in place of what its samples look like."""

    def make(config, pair, data):
        grid, _ = known(config, pair, data)
        steps = iter(kids)
        return grid, lambda params, stats: {"kid": next(steps), "coverage": 0.5, "spread": 1.0, "swd": 1.0}

    known = judge.grid_and_judge
    monkeypatch.setattr(judge, "grid_and_judge", make)


def test_patience_ends_a_run_in_which_nothing_gets_better(tiny, tmp_path, monkeypatch, final_state, records, capfd):
    """As at its end, once and for all; with more patience the same run goes on."""
    ends = []
    monkeypatch.setattr(finish, "finish", lambda *about: ends.append(about[2]))
    with monkeypatch.context() as patch:
        scripted([1.0, 0.5, 0.75], patch)
        train.train(tiny(epochs=4, patience=1, sample_every=4), tmp_path / "run")
    line = "no checkpoint since that of step 8 was better, for --config.patience=1 epochs: the run ends after step 12"
    assert (ends, final_state(tmp_path / "run")[0]) == ([8], 12)
    assert line in capfd.readouterr().err
    assert (tmp_path / "run" / "samples" / "00000012.png").exists()
    train.train(tiny(epochs=4, patience=1), tmp_path / "run")
    assert (ends, final_state(tmp_path / "run")[0]) == ([8, 8], 12)
    assert line in capfd.readouterr().err
    train.train(tiny(epochs=4), tmp_path / "run")
    assert final_state(tmp_path / "run")[0] == 16
    assert [r["step"] for r in records(tmp_path / "run") if "loss_d" in r] == [*range(1, 17)]


def nan_at(steps, monkeypatch):
    """One bad batch for each step done that is named."""

    def with_nan(*args, start_step, **kwargs):
        for step, batch in enumerate(batches(*args, start_step=start_step, **kwargs), start_step):
            yield {k: v * np.nan for k, v in batch.items()} if step in steps else batch

    batches = setup.batches
    monkeypatch.setattr(setup, "batches", with_nan)


def test_nan_names_the_step_and_the_last_good_checkpoint(tiny, finished, tmp_path, monkeypatch, final_state):
    """Without the bad batch the run goes on from that checkpoint to the same bits."""
    with monkeypatch.context() as patch:
        nan_at([9], patch)
        line = refusal(tiny(), tmp_path / "run")
    assert "not finite at step 10: " in line
    assert "loss_d=nan" in line
    assert "the last good checkpoint is step 8" in line
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir() if int(p.name) > 8] == []
    train.train(tiny(), tmp_path / "run")
    assert_same_state(final_state(tmp_path / "run"), final_state(finished))


def test_nan_before_the_first_checkpoint(tiny, tmp_path, monkeypatch):
    nan_at([0], monkeypatch)
    line = refusal(tiny(), tmp_path / "run")
    assert line.startswith(f"{tmp_path}/run: not finite at step 1: ")
    assert line.endswith("; no checkpoint was saved yet; lower --config.recipe.lr or look at the data")


def test_disk_full_while_saving(tiny, tmp_path, monkeypatch, final_state):
    """One line; the previous checkpoint stays good. RLIMIT_FSIZE stands for the disk, for as long as a save takes."""
    save = checkpoint.Checkpoints.save

    def on_a_full_disk(self, state, meta, *, judged):
        if int(state.step) < 8:
            save(self, state, meta, judged=judged)
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            save(self, state, meta, judged=judged)
            self.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(checkpoint.Checkpoints, "save", on_a_full_disk)
    line = refusal(tiny(), tmp_path / "run", MachineError)
    assert line.startswith(f"{tmp_path}/run/checkpoints: saving a checkpoint failed (")
    assert line.endswith("the checkpoint of step 4 is good: free some space and run the same command again")
    assert final_state(tmp_path / "run")[0] == 4


@pytest.mark.all
def test_disk_full_of_a_command(start, tiny, finished, tmp_path, final_state):
    """One line and exit 75; the previous checkpoint stays good, and with space again the run goes on from it.

    RLIMIT_FSIZE stands for the disk: from the second checkpoint on, no larger file can be written.
    """
    code = """
import resource
from skullgan_jax.model import checkpoint
save = checkpoint.Checkpoints.save
def and_fill(self, state, meta, *, judged):
    if int(state.step) == 8:
        self.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    save(self, state, meta, judged=judged)
checkpoint.Checkpoints.save = and_fill
"""
    line = ended(start(tmp_path / "run", code=code), 75).splitlines()[-1]
    assert line.startswith(f"error: {tmp_path}/run/checkpoints: saving a checkpoint failed (")
    assert "the checkpoint of step 4 is good: free some space and run the same command again" in line
    assert 'File "' not in line
    train.train(tiny(), tmp_path / "run")
    assert_same_state(final_state(tmp_path / "run"), final_state(finished))


@pytest.mark.parametrize("where", ["samples/00000012.png.tmp", "curves.png.tmp"])
def test_disk_full_while_writing_pictures(where, finished_copy, tiny, monkeypatch):
    """In the loop and after it."""
    from skullgan_jax.slices import pictures

    def full(*args):
        raise OSError(28, "No space left on device", where)

    monkeypatch.setattr(pictures, "save", full)
    if where.startswith("curves"):
        monkeypatch.setattr(monitor.Monitor, "picture", lambda *args: None)
        monkeypatch.setattr(finish, "finish", full)
    line = refusal(tiny(), finished_copy, MachineError)
    assert line == (
        f"{finished_copy}: cannot be written (No space left on device); the last good checkpoint is step 12; "
        "free some space and run the same command again"
    )


def first_state(config, workdir, capfd):
    """What the ladder gives a new workdir: the state and what is said of it."""
    plan = setup.prepare(config)
    workdir.mkdir()
    found = resume.initial_state(plan, checkpoint.Checkpoints(workdir), workdir, program.places(plan).like)
    return *found, capfd.readouterr().err


@pytest.mark.parametrize("kind", ["model", "."])
def test_pretrained_weights_start_a_run(kind, finished, tiny, tmp_path, capfd):
    """Of a model directory or a workdir's best checkpoint: all four trees, with a fresh Adam, schedule and step."""
    source = finished / kind
    found, step, said = first_state(tiny(pretrained=str(source), **{"recipe.lr": 2e-3}), tmp_path / "run", capfd)
    assert f"starting from the weights of {source}" in said
    given = load(source)
    assert step == int(found.step) == 0
    for name in ("g_params", "g_stats", "d_params", "d_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, name), getattr(given, name))
    for adam in (found.g_adam, found.d_adam):
        assert int(adam.count) == 0
        assert all(not np.any(m) for m in jax.tree.leaves((adam.mu, adam.nu)))
    for plateau in (found.g_plateau, found.d_plateau):
        assert (float(plateau.lr), float(plateau.best), int(plateau.bad)) == (np.float32(2e-3), np.inf, 0)


def test_a_run_on_a_file(tiny, tmp_path, final_state):
    """The README's case: slices of the user, (N, 128, 128, 1), float, a rest that fills no batch."""
    hu = np.concatenate([SLICES, SLICES[:2]]).astype(np.float32)[..., None]
    np.save(tmp_path / "slices.npy", hu)
    train.train(tiny(epochs=1, **{"data.path": str(tmp_path / "slices.npy")}), tmp_path / "run")
    step, arrays = final_state(tmp_path / "run")
    assert step == 4
    assert all(np.isfinite(a).all() for name, a in arrays.items() if "best" not in name)
    about = checkpoint.Checkpoints(tmp_path / "run", create=False).meta(4)
    assert Calibration.from_dict(about["calibration"]) == Calibration(hu.min(), hu.max())
    assert about["data"]["num"] == 18


def test_recipe_is_the_configs(tiny):
    assert dataclasses.asdict(Recipe(**tiny().recipe)) == tiny().recipe.to_dict()
    assert setup.make_pair(tiny()) == Pair(nc=1, nz=8, ngf=16, ndf=4, dtype="float32")
