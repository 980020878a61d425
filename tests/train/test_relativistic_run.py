"""Whole runs of the recipe for few slices: what is kept, resumed to the same bits, on any number of devices."""

import copy
import functools
import json
import signal

import jax
import ml_collections
import numpy as np
import pytest

from skullgan_jax import convert
from skullgan_jax.errors import InputError
from skullgan_jax.evaluate.measures import classify
from skullgan_jax.model import checkpoint, draw
from skullgan_jax.model.load import load
from skullgan_jax.nets import networks
from skullgan_jax.train import finish, loop, resume, setup, sharding, state
from tests.support import ended
from tests.train.test_devices import run_on
from tests.train.test_loop import assert_same_state, nan_at, refusal

pytestmark = pytest.mark.all


@pytest.fixture(scope="module")
def tiny_small(tiny_small):
    """With a discriminator that is told of its batch, whose images are then on several devices."""
    return lambda **changes: tiny_small(**{"recipe.batch_std": 2} | changes)


@pytest.fixture(scope="module")
def whole(tiny_small, tmp_path_factory):
    """The workdir of an uninterrupted run; not to be written to."""
    workdir = tmp_path_factory.mktemp("small") / "run"
    loop.train(tiny_small(), workdir)
    return workdir


def test_kill_9_and_resume_gives_the_same_bits(whole, start, tiny_small, tmp_path, final_state, records, monkeypatch):
    code = """
import os, time
from skullgan_jax.train import monitor
step = monitor.Monitor.step
def or_die(self, done, metrics):
    if done == 7:
        while not (self.workdir / "checkpoints" / "4").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), 9)
    step(self, done, metrics)
monitor.Monitor.step = or_die
"""
    ended(start(tmp_path / "run", "--config.recipe.batch_std=2", config="small_data", code=code), -signal.SIGKILL)
    assert checkpoint.Checkpoints(tmp_path / "run", create=False).latest == 4
    monkeypatch.setattr(finish, "finish", lambda *_: None)
    loop.train(tiny_small(), tmp_path / "run")
    assert_same_state(final_state(tmp_path / "run"), final_state(whole))
    assert [r["step"] for r in records(tmp_path / "run") if "loss_d" in r] == [*range(1, 13)]


alike = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)


def test_the_model_is_the_average_with_statistics_of_its_own(whole, tiny_small):
    """Those of the exported model, too, which draws with the same ones."""
    plan = setup.prepare(tiny_small())
    checkpoints = checkpoint.Checkpoints(whole, create=False)
    saved = checkpoints.restore(12, sharding.placed(_shapes(plan), sharding.mesh(), shard_state=False))
    apart = np.abs(saved.g_params["main2"]["kernel"] - saved.g_iterate["main2"]["kernel"])
    assert apart.max() > 1e-5
    stats = draw.standing_statistics(plan.pair, saved.g_params)
    jax.tree.map(alike, saved.g_stats, stats)
    found = load(whole / "checkpoints" / "12")
    jax.tree.map(np.testing.assert_array_equal, found.g_params, saved.g_params)
    jax.tree.map(np.testing.assert_array_equal, found.g_stats, saved.g_stats)
    assert found.pair.d_batch_std == 2
    assert (found.pair.d_norm, found.d_stats, found.batches_tracked["discriminator"]) == ("none", {}, [])
    exported = load(whole / "model")
    jax.tree.map(alike, exported.standing, exported.g_stats)
    hu = exported.sample(4, seed=plan.config.seed)
    np.testing.assert_array_equal(hu, np.load(whole / "slices.npy"))
    called = classify.discriminator(exported, {"real": hu, "fake": hu}, None, 0)
    assert called["real"]["value"] == called["fake"]["value"]


def test_a_run_of_before_goes_on_without_what_came_later(tiny_small):
    saved = copy.deepcopy(setup.prepare(tiny_small()).meta)
    for field in ("batch_std", "air"):
        del saved["config"]["recipe"][field]
    without = setup.prepare(tiny_small(**{"recipe.batch_std": 0, "recipe.air": 0.0}))
    assert resume.check_same(without, saved, "run") == {}
    assert not setup.make_pair(ml_collections.ConfigDict(saved["config"])).d_batch_std
    for field, was, now in (("batch_std", 0, 2), ("air", 0.0, 0.05)):
        with pytest.raises(InputError, match=rf"recipe\.{field} was {was} now {now}[;,]"):
            resume.check_same(setup.prepare(tiny_small()), saved, "run")


@pytest.mark.parametrize(("changes", "air"), [({}, True), ({"recipe.air": 0.0}, False), ({"recipe.floor": 0.0}, False)])
def test_where_no_slice_has_bone_is_known_where_it_is_asked_for(changes, air, tiny_small):
    """Of phantoms that arch over the middle the corners at the bottom, and no place that is bone in one."""
    plan = setup.prepare(tiny_small(**changes))
    assert (plan.air is not None) == air
    if air:
        assert plan.air[-1, [0, -1]].all()
        assert not (plan.data.images > 0)[:, plan.air].any()


def _shapes(plan):
    return jax.eval_shape(lambda: state.create(*plan.pair.init(0), recipe=plan.recipe))


def test_pytorch_draws_the_same(whole, tmp_path):
    """A strict load of the published generator, in its evaluation mode, with the same latents and noise."""
    torch = pytest.importorskip("torch")
    from benchmarks import torch_peer

    convert.run([f"--model={whole}", f"--output={tmp_path}/out", "--to=torch"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["netG.pth"]
    model = load(whole)
    theirs = torch_peer.Generator(nz=8, ngf=16)
    theirs.load_state_dict(torch.load(tmp_path / "out" / "netG.pth", weights_only=True), strict=True)
    random = np.random.default_rng(0)
    z = random.uniform(-1, 1, (2, 8)).astype(np.float32)
    noise = [0.1 * random.standard_normal((2, 128, 128, c), np.float32) for c in (8, 2)]
    ours, _ = networks.apply(model.pair.graphs()[0], model.g_params, model.g_stats, z, noise, train=False)
    with torch.no_grad():
        images = theirs.eval()(
            torch.from_numpy(z[:, :, None, None]), [torch.from_numpy(np.moveaxis(n, -1, 1).copy()) for n in noise]
        )
    # A pixel at the edge of the noise's mask may fall on either side.
    assert np.mean(np.abs(np.asarray(ours)[..., 0] - images.numpy()[:, 0]) < 1e-4) > 0.999


def test_nan_names_the_step(tiny_small, tmp_path, monkeypatch):
    nan_at([9], monkeypatch)
    line = refusal(tiny_small(), tmp_path / "run")
    assert "not finite at step 10: " in line
    assert "the last good checkpoint is step 8" in line


def test_a_rate_may_be_lowered(whole, tiny_small, capfd):
    """It is the recipe's, and not in the state."""
    plan = setup.prepare(tiny_small(epochs=4, **{"recipe.lr": 1e-4}))
    like = sharding.placed(_shapes(plan), sharding.mesh(), shard_state=False)
    known = resume.known(whole)
    _, step = resume.initial_state(plan, checkpoint.Checkpoints(whole, create=False, known=known), whole, like)
    assert step == 12
    assert "from step 12 on recipe.lr is 0.0001, not 0.0005" in capfd.readouterr().err
    assert json.loads((whole / "config.json").read_text())["recipe"]["lr"] == 5e-4


def test_same_numbers_on_any_number_of_devices():
    """The first step as it is, five without noise at a small rate, as of the published recipe."""
    results = run_on(8, (1, 8), "relativistic")
    alone, eight = results[1], results[8]
    for name, tolerance in (("first", 2e-4), ("five", 1e-5)):
        found, expected = np.array(eight[name]), np.array(alone[name])
        np.testing.assert_allclose(found[:, :2], expected[:, :2], rtol=tolerance, err_msg=name)
        np.testing.assert_allclose(found[:, 2:], expected[:, 2:], rtol=1e-3, err_msg=name)
