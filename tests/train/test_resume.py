"""Where a run starts: past damaged checkpoints, with another rate, from what an earlier version let pass."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest

from skullgan_jax.model import checkpoint
from skullgan_jax.model.load import load
from skullgan_jax.nets.pair import quick_to_compile
from skullgan_jax.processes import distributed
from skullgan_jax.train import finish, loop, program, relativistic, resume, setup
from tests.train.refused import refusal


@pytest.fixture(autouse=True, scope="module")
def _short_end(finished):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "finish", lambda *_: None)
        yield


@pytest.fixture
def two(finished_copy, tiny):
    """A run with the checkpoints of step 12, the best, and of step 16, the latest."""
    checkpoints = checkpoint.Checkpoints(finished_copy)
    plan = setup.prepare(tiny(epochs=4))
    state = checkpoints.restore(12, program.places(plan).like)
    meta = checkpoints.meta(12)
    now = type(state)(**{**vars(state), "step": state.step + 4})
    checkpoints.save(now, meta, judged={"swd": 1e9})
    checkpoints.close()
    assert checkpoints.steps == [16, 12]
    return finished_copy


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def begun(config, workdir):
    """The plan of a run, and its state and step where it would begin."""
    plan = setup.prepare(config)
    checkpoints = checkpoint.Checkpoints(workdir, known=resume.known(workdir))
    return plan, *resume.initial_state(plan, checkpoints, workdir, program.places(plan).like)


@pytest.mark.parametrize("place", ["meta/metadata", "state"])
def test_past_a_damaged_checkpoint_when_asked(place, two, tiny, tmp_path, capfd):
    newest = two / "checkpoints" / "16"
    damaged = newest / place
    flip(max((newest / "state").rglob("*"), key=lambda p: p.stat().st_size) if place == "state" else damaged)
    before = sorted(p.relative_to(two) for p in two.rglob("*"))
    line = refusal(tiny(epochs=5), two)
    assert line.startswith(f"{damaged}: damaged")
    assert line.endswith("; the checkpoint of step 12 is good: to go on from it give --config.skip_damaged=True")
    line = refusal(tiny(epochs=5, checkpoint=str(two)), tmp_path / "new")
    assert line.startswith(f"{damaged}: damaged")
    assert sorted(p.relative_to(two) for p in two.rglob("*")) == before, "nothing is lost"
    asked = tiny(epochs=5, skip_damaged=True)
    for _ in range(2):  # of no account where none is damaged
        plan, state, step = begun(asked, two)
        assert (step, int(state.step)) == (12, 12)
    said = capfd.readouterr().err
    assert said.count(f"going on from step 12; the damaged one is {newest}.damaged now") == 1
    assert sorted(p.name for p in newest.parent.iterdir()) == ["12", "16.damaged"]
    checkpoints = checkpoint.Checkpoints(two)
    checkpoints.save(type(state)(**{**vars(state), "step": state.step + 4}), plan.meta, judged={"swd": 0.0})
    checkpoints.close()
    assert sorted(p.name for p in newest.parent.iterdir()) == ["16", "16.damaged"]


def test_no_good_checkpoint(finished_copy, tiny):
    (only,) = (finished_copy / "checkpoints").iterdir()
    shutil.rmtree(only / "meta")
    line = refusal(tiny(epochs=5, skip_damaged=True), finished_copy)
    assert line == f"{only}/meta/metadata: missing; no good checkpoint is there: start anew in another --workdir"


def test_a_rate_may_be_lowered_on_record(finished_copy, tiny, capfd):
    """Both rates, where the schedule has them by now; neither raised nor back."""
    plan, state, _ = begun(tiny(epochs=4, **{"recipe.lr": 2.5e-4}), finished_copy)
    assert f"{finished_copy}: from step 12 on recipe.lr is 0.00025, not 0.001" in capfd.readouterr().err
    before = checkpoint.Checkpoints(finished_copy, create=False).restore(12, program.places(plan).like)
    for name in ("g_plateau", "d_plateau"):
        np.testing.assert_allclose(getattr(state, name).lr, getattr(before, name).lr / 4, rtol=1e-6)
    checkpoints = checkpoint.Checkpoints(finished_copy)
    checkpoints.save(type(state)(**{**vars(state), "step": state.step + 4}), plan.meta, judged={"swd": 0.0})
    checkpoints.close()
    about = checkpoints.meta(16)
    assert about["config"]["recipe"]["lr"] == 2.5e-4
    assert about["changes"] == [{"step": 12, "recipe.lr": [1e-3, 2.5e-4]}]
    assert load(finished_copy / "checkpoints" / "16").provenance["changes"] == about["changes"]
    assert "recipe.lr was 0.00025 now 0.001" in refusal(tiny(epochs=5), finished_copy)
    plan, _, _ = begun(tiny(epochs=5, **{"recipe.lr": 2e-4}), finished_copy)
    assert [change["recipe.lr"] for change in plan.meta["changes"]] == [[1e-3, 2.5e-4], [2.5e-4, 2e-4]]


@pytest.mark.parametrize("bad", [0.0, float("nan")])
def test_a_pixel_that_was_let_pass_can_be_mended(bad, finished_copy, tiny, capfd):
    """Of a run that is done, too: its model has the size that is given now."""
    checkpoints = checkpoint.Checkpoints(finished_copy)
    about = checkpoints.meta(12)
    about["config"]["data"]["pixel_mm"] = about["pixel_mm"] = bad
    checkpoints.write_meta(12, about)
    assert "--config.data.pixel_mm=" in refusal(tiny(**{"data.pixel_mm": bad}), finished_copy)
    loop.train(tiny(**{"data.pixel_mm": 0.5}), finished_copy)
    assert f"from step 12 on data.pixel_mm is 0.5, not {bad}" in capfd.readouterr().err
    about = checkpoints.meta(12)
    assert about["pixel_mm"] == about["config"]["data"]["pixel_mm"] == 0.5
    assert about["changes"] == [{"step": 12, "data.pixel_mm": ["nan" if bad != bad else bad, 0.5]}]
    assert load(finished_copy).pixel_mm == 0.5
    assert "data.pixel_mm was 0.5 now 0.25" in refusal(tiny(**{"data.pixel_mm": 0.25}), finished_copy)


def test_what_was_let_pass_may_be_changed(finished_copy, tiny):
    checkpoints = checkpoint.Checkpoints(finished_copy)
    about = checkpoints.meta(12)
    about["config"]["recipe"] |= {"g_factor": 2.0, "b1": 2.0}
    checkpoints.write_meta(12, about)
    plan, _, _ = begun(tiny(epochs=5), finished_copy)
    assert plan.meta["changes"] == [{"step": 12, "recipe.b1": [2.0, 0.5], "recipe.g_factor": [2.0, 0.5]}]


def test_what_each_recipe_begins_with_from_scratch(tiny, tiny_small, tmp_path):
    """The published generator, weight for weight; that for few slices with an open tail, its average, too."""
    for config, open_tail in ((tiny(), False), (tiny_small(), True)):
        plan, found, _ = begun(config, tmp_path / "run")
        expected = quick_to_compile(lambda plan=plan: plan.pair.init(plan.config.seed)[0])()
        if open_tail:
            expected = relativistic.with_open_tail(expected, plan.config.seed)
            jax.tree.map(np.testing.assert_array_equal, found.g_iterate, found.g_params)
        jax.tree.map(np.testing.assert_array_equal, found.g_params, expected)


def test_a_generator_is_enough_for_the_relativistic_recipe(finished, tiny_small, tmp_path, capfd):
    """Of a pair of the published recipe, and of a generator alone: its discriminator begins anew, and that is said."""
    given = load(finished / "model")
    dataclasses.replace(given, d_params=None, d_stats=None).save(tmp_path / "alone")
    for source, why in (
        (finished / "model", "its own is of another kind or width"),
        (tmp_path / "alone", "it has none"),
    ):
        plan, found, step = begun(tiny_small(pretrained=str(source)), tmp_path / "run")
        assert step == 0
        assert f"starting from the generator of {source}, with a fresh discriminator ({why})" in capfd.readouterr().err
        for name in ("g_params", "g_iterate"):
            jax.tree.map(np.testing.assert_array_equal, getattr(found, name), load(source).g_params)
        fresh = plan.pair.init(plan.config.seed)[2]
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found.d_params, fresh)
        assert found.d_stats == {}
    line = refusal(tiny_small(pretrained=str(finished), **{"model.nz": 9}), tmp_path / "run")
    assert "another architecture (nc=1 nz=8 ngf=16" in line


def test_a_pair_of_the_relativistic_recipe_begins_that_alone(finished, tiny_small, tiny, tmp_path, capfd):
    """With its own discriminator; the published recipe needs another kind."""
    plan, found, _ = begun(tiny_small(), tmp_path / "run")
    weights = jax.device_get((found.g_params, found.g_stats, found.d_params, found.d_stats))
    given = load(finished / "model")
    given.g_params, given.g_stats, given.d_params, given.d_stats = weights
    given.pair, given.batches_tracked["discriminator"] = plan.pair, []
    given.standing = None
    given.save(tmp_path / "pair")
    _, found, _ = begun(tiny_small(pretrained=str(tmp_path / "pair"), seed=7), tmp_path / "other")
    assert f"starting from the weights of {tmp_path}/pair\n" in capfd.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, found.d_params, weights[2])
    assert refusal(tiny(pretrained=str(tmp_path / "pair")), tmp_path / "run") == (
        f"--config.pretrained={tmp_path}/pair: its discriminator has no BatchNorm, and that of this recipe has; "
        "go on with --config=configs/small_data.py"
    )


def test_nothing_is_left_to_be_done(finished, tiny, tmp_path):
    line = refusal(tiny(checkpoint=str(finished)), tmp_path / "new")
    assert line == (
        f"--config.checkpoint={finished}: has done 12 steps, all of the 12 of this run; give more than "
        "--config.epochs=3"
    )
    assert not (tmp_path / "new").exists()


def test_the_first_process_names_the_checkpoint(two, tiny, monkeypatch, capfd):
    """Whatever this one sees itself."""
    monkeypatch.setattr(distributed, "from_first", lambda name, _: [[12, 1.0]] if name == "checkpoints" else _)
    _, state, step = begun(tiny(epochs=5), two)
    assert (step, int(state.step)) == (12, 12)


def test_what_one_process_cannot_read_none_reads(monkeypatch):
    monkeypatch.setattr(distributed, "gather", lambda mine: [mine, "/shared/12/state: damaged"])
    with pytest.raises(checkpoint.Damaged, match="/shared/12/state: damaged"):
        resume._on_all(lambda: "whole")
