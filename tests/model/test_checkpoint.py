"""Checkpoints of a small state: which are kept, what a donated state, a full disk and a kill do to them."""

import dataclasses
import json
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.machine import files
from skullgan_jax.model import checkpoint


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    step: jax.Array
    g_params: dict
    adam: dict


def make(step, size=1000):
    random = np.random.default_rng(step)  # noise: what is saved cannot be compressed
    return State(
        jnp.int32(step),
        {"a": {"kernel": jnp.asarray(random.random((size, 3)), jnp.float32)}},
        {"count": jnp.int32(step), "mu": jnp.asarray(random.random(size), jnp.bfloat16)},
    )


def like(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def steps(workdir):
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("metrics", "kept", "best"),
    [
        ([3.0, 1.0, 2.0, 5.0], {2, 4}, 2),
        ([1.0, 2.0, 3.0], {1, 3}, 1),
        ([3.0, 2.0, 1.0], {3}, 3),
        ([2.0, 1.0, None], {2, 3}, 2),  # stopped by SIGTERM: no metric, the latest all the same
        ([2.0, None, 3.0, None, None], {1, 5}, 1),
        ([None, None], {2}, 2),
        ([None, 4.0, None], {2, 3}, 2),
    ],
)
def test_the_latest_and_the_lowest_are_kept(tmp_path, metrics, kept, best):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for step, swd in enumerate(metrics, 1):
        checkpoints.save(make(step), {}, swd=swd)
        checkpoints.wait()
    assert set(steps(tmp_path)) == kept
    assert (checkpoints.latest, checkpoints.best) == (len(metrics), best)
    checkpoints.close()
    again = checkpoint.Checkpoints(tmp_path)
    assert (again.latest, again.best) == (len(metrics), best)
    for step in kept:
        assert_equal(again.restore(step, like(make(step))), make(step))
    again.save(make(9), {}, swd=0.5)  # a resumed run still knows the metrics of the earlier ones
    again.wait()
    assert (set(steps(tmp_path)), again.best) == ({9}, 9)
    again.close()


def test_meta_and_parts(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    meta = {"config": {"seed": 1, "recipe": {"lr": 3e-4}}, "calibration": {"hu_min": -1000.5}, "text": "é"}
    checkpoints.save(make(3), meta, swd=1.0)
    checkpoints.wait()
    assert checkpoints.meta(3) == meta
    checkpoints.close()
    reader = checkpoint.Checkpoints(tmp_path, create=False)
    parts = reader.restore_parts(3, {"g_params": like(make(3)).g_params})
    assert_equal(parts, {"g_params": make(3).g_params})
    reader.close()


def test_a_state_donated_while_it_is_written(tmp_path):
    """The step that follows overwrites the arrays in place; the checkpoint has what they were."""
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    start = {str(i): np.full(500_000, i, np.float32) for i in range(8)}
    now = step(State(jnp.int32(0), jax.tree.map(jnp.asarray, start), {}))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    for _ in range(3):
        saved = int(now.step)
        checkpoints.save(now, {}, swd=None)
        for _ in range(30):
            now = step(now)
        checkpoints.wait()
        found = checkpoints.restore(saved, like(now))
        assert_equal(found, State(jnp.int32(saved), jax.tree.map(lambda x, s=saved: jnp.asarray(x + s), start), {}))
    checkpoints.close()


def test_a_full_disk_leaves_the_previous_one(tmp_path):
    """RLIMIT_FSIZE stands for the disk: writing the larger file fails."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(make(1), {"n": 1}, swd=1.0)
    checkpoints.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError) as caught:  # noqa: PT012  (either of the two may tell)
            checkpoints.save(make(2, size=100_000), {"n": 2}, swd=0.5)
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{tmp_path}/checkpoints: saving a checkpoint failed (")
    assert "the checkpoint of step 1 is good: free some space" in line
    assert (checkpoints.latest, checkpoints.best) == (1, 1)
    assert_equal(checkpoints.restore(1, like(make(1))), make(1))
    again = checkpoint.Checkpoints(tmp_path)
    assert again.latest == 1
    again.save(make(2), {"n": 2}, swd=0.5)
    again.wait()
    assert steps(tmp_path) == [2], "what was half written is cleaned up"
    assert_equal(again.restore(2, like(make(2))), make(2))
    again.close()


def test_a_full_disk_at_the_first_one(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError, match="no checkpoint is there yet") as caught:  # noqa: PT012
            checkpoints.save(make(2, size=100_000), {}, swd=0.5)
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "None" not in str(caught.value)
    assert not checkpoint.exists(tmp_path)


def test_what_a_kill_left_half_written_is_no_checkpoint(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(make(1), {}, swd=1.0)
    checkpoints.wait()
    checkpoints.close()
    half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "manifest.ocdbt").write_bytes(b"half")
    again = checkpoint.Checkpoints(tmp_path)
    assert again.latest == 1
    assert_equal(again.restore(1, like(make(1))), make(1))
    again.save(make(3), {}, swd=2.0)
    again.wait()
    assert steps(tmp_path) == [1, 3], "it is cleaned up"
    again.close()


def test_read_only_makes_and_removes_nothing(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(make(1), {}, swd=1.0)
    checkpoints.wait()
    half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    half.mkdir()  # another process is writing it
    reader = checkpoint.Checkpoints(tmp_path, create=False)
    assert reader.latest == 1
    assert_equal(reader.restore(1, like(make(1))), make(1))
    reader.close()
    assert half.exists()


def test_exists(tmp_path):
    assert not checkpoint.exists(tmp_path)
    (tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir(parents=True)
    assert not checkpoint.exists(tmp_path)
    (tmp_path / "checkpoints" / "3").mkdir()
    assert checkpoint.exists(tmp_path)
    assert not checkpoint.exists(tmp_path / "no")


def test_write_json_replaces_whole(tmp_path):
    path = tmp_path / "about.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"b": [1.5, "x"]})
    assert json.loads(path.read_text()) == {"b": [1.5, "x"]}
    assert [p.name for p in tmp_path.iterdir()] == ["about.json"]
