"""Checkpoints of a small state: which are kept, what a donated state, a full disk and a kill do to them."""

import dataclasses
import json
import re
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from skullgan_jax.errors import InputError, MachineError
from skullgan_jax.machine import files, places
from skullgan_jax.model import checkpoint
from tests import bucket


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


def save_now(checkpoints, state, meta):
    """Save it and wait: what fails may be told by either."""
    checkpoints.save(state, meta, judged={"swd": 0.5})
    checkpoints.wait()


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
        checkpoints.save(make(step), {}, judged=None if swd is None else {"swd": swd})
        checkpoints.wait()
    assert set(steps(tmp_path)) == kept
    assert (checkpoints.latest, checkpoints.best) == (len(metrics), best)
    checkpoints.close()
    again = checkpoint.Checkpoints(tmp_path)
    assert (again.latest, again.best) == (len(metrics), best)
    for step in kept:
        assert_equal(again.restore(step, like(make(step))), make(step))
    again.save(make(9), {}, judged={"swd": 0.5})  # a resumed run still knows the metrics of the earlier ones
    again.wait()
    assert (set(steps(tmp_path)), again.best) == ({9}, 9)
    again.close()


def test_the_lowest_kid_among_those_of_enough_coverage_is_the_best(tmp_path):
    """The highest coverage so far counts, kept or not; a stop, which is not judged, forgets nothing of it."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    script = [
        # kid, coverage, the best then
        (3.0, 0.10, 1),
        (4.0, 0.50, 2),  # 0.10 is less than 0.9 of 0.50
        (2.0, 0.46, 3),
        (2.5, 0.51, 3),  # 0.46 is 0.9 of 0.51 and more
        None,
        (0.1, 0.45, 3),  # less than 0.9 of 0.51, of which there is no checkpoint any more
        (1.0, 0.46, 7),
        (1.0, 0.60, 8),
    ]
    for step, numbers in enumerate(script, 1):
        if numbers is None:
            checkpoints.save(make(step), {}, judged=None)
            expected = 3
        else:
            kid, coverage, expected = numbers
            checkpoints.save(make(step), {}, judged={"kid": kid, "coverage": coverage, "swd": 1.0})
        checkpoints.wait()
        assert checkpoints.best == expected, step
        assert set(steps(tmp_path)) == {expected, step}
        checkpoints.close()
        checkpoints = checkpoint.Checkpoints(tmp_path)
        assert checkpoints.best == expected, step
    assert checkpoints.judged(8) == {"kid": 1.0, "coverage": 0.6, "swd": 1.0}


def test_one_that_was_judged_by_swd_alone_is_compared_by_it(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(make(1), {}, judged={"swd": 2.0})
    for step, (kid, swd), best in ((2, (0.1, 3.0), 1), (3, (0.5, 1.0), 3), (4, (0.4, 9.0), 4), (5, (0.6, 0.5), 4)):
        checkpoints.save(make(step), {}, judged={"kid": kid, "coverage": 0.5, "swd": swd})
        checkpoints.wait()
        assert checkpoints.best == best, step
    checkpoints.close()


def test_meta_and_parts(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    meta = {"config": {"seed": 1, "recipe": {"lr": 3e-4}}, "calibration": {"hu_min": -1000.5}, "text": "é"}
    checkpoints.save(make(3), meta, judged={"swd": 1.0})
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
        checkpoints.save(now, {}, judged=None)
        for _ in range(30):
            now = step(now)
        checkpoints.wait()
        found = checkpoints.restore(saved, like(now))
        assert_equal(found, State(jnp.int32(saved), jax.tree.map(lambda x, s=saved: jnp.asarray(x + s), start), {}))
    checkpoints.close()


def test_a_full_disk_leaves_the_previous_one(tmp_path):
    """RLIMIT_FSIZE stands for the disk: writing the larger file fails."""
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(make(1), {"n": 1}, judged={"swd": 1.0})
    checkpoints.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(MachineError) as caught:
            save_now(checkpoints, make(2, size=100_000), {"n": 2})
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
    again.save(make(2), {"n": 2}, judged={"swd": 0.5})
    again.wait()
    assert steps(tmp_path) == [2], "what was half written is cleaned up"
    assert_equal(again.restore(2, like(make(2))), make(2))
    again.close()


def test_a_full_disk_at_the_first_one(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(MachineError, match="no checkpoint is there yet") as caught:
            save_now(checkpoints, make(2, size=100_000), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "None" not in str(caught.value)
    assert not checkpoint.exists(tmp_path)


def test_what_a_kill_left_half_written_is_no_checkpoint(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(make(1), {}, judged={"swd": 1.0})
    checkpoints.wait()
    checkpoints.close()
    half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    (half / "state").mkdir(parents=True)
    (half / "state" / "manifest.ocdbt").write_bytes(b"half")
    again = checkpoint.Checkpoints(tmp_path)
    assert again.latest == 1
    assert_equal(again.restore(1, like(make(1))), make(1))
    again.save(make(3), {}, judged={"swd": 2.0})
    again.wait()
    assert steps(tmp_path) == [1, 3], "it is cleaned up"
    again.close()


def test_read_only_makes_and_removes_nothing(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(make(1), {}, judged={"swd": 1.0})
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


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(checkpoint, "_LATE_SECONDS", 0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with two checkpoints, of which 1 is the best and 2 the latest; not to be written to."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = checkpoint.Checkpoints(workdir)
    for step in (1, 2):
        checkpoints.save(make(step), {"n": step, "calibration": [0.1, 1e-300]}, judged={"swd": float(step)})
        checkpoints.wait()
    checkpoints.close()
    return workdir


def everything(workdir, step):
    """What is read of a checkpoint, or Damaged."""
    reader = checkpoint.Checkpoints(workdir, create=False)
    return reader.meta(step), checkpoint.listed(workdir)[step], reader.restore(step, like(make(step)))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


DAMAGE = {
    "no meta": (lambda at: shutil.rmtree(at / "meta"), "meta/metadata: missing"),
    "empty meta": (lambda at: emptied(at / "meta" / "metadata"), "meta/metadata: empty"),
    "cut meta": (lambda at: cut(at / "meta" / "metadata"), "meta/metadata: damaged"),
    "another meta": (lambda at: (at / "meta" / "metadata").write_text("[1]"), "meta/metadata: holds no fields"),
    "no state": (lambda at: shutil.rmtree(at / "state"), "state: damaged or not all there"),
    "an array is missing": (lambda at: largest(at / "state").unlink(), "state: damaged or not all there ("),
    "an array is cut": (lambda at: cut(largest(at / "state")), "state: damaged or not all there ("),
    "empty metadata": (lambda at: emptied(at / "state" / "_METADATA"), "state/_METADATA: damaged or not all there"),
    "cut metadata": (lambda at: cut(at / "state" / "_METADATA"), "state/_METADATA: damaged or not all there"),
    "empty manifest": (
        lambda at: emptied(at / "state" / "manifest.ocdbt"),
        "state/manifest.ocdbt: damaged or not all there (",
    ),
    "an empty folder": (lambda at: (shutil.rmtree(at), at.mkdir()), "meta/metadata: missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_one_line_that_names_the_file(kind, saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")
    damage, expected = DAMAGE[kind]
    damage(workdir / "checkpoints" / "2")
    assert checkpoint.exists(workdir)
    with pytest.raises(checkpoint.Damaged) as caught:
        everything(workdir, 2)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{workdir}/checkpoints/2/{expected}")
    assert_equal(everything(workdir, 1)[2], make(1))


def flipped(workdir, rng, i: int) -> str:
    """Flip one bit of one byte of checkpoint 2, in its i-th file of all in turns from the largest on."""
    files = [p for p in (workdir / "checkpoints" / "2").rglob("*") if p.is_file() and p.stat().st_size]
    path = sorted(files, key=lambda p: -p.stat().st_size)[i % len(files)]
    content = bytearray(path.read_bytes())
    at = rng.integers(len(content))
    content[at] ^= 1 << rng.integers(8)
    path.write_bytes(content)
    return f"byte {at} of {path}"


@pytest.mark.parametrize("num", [25, pytest.param(300, marks=pytest.mark.all)])
def test_a_flipped_bit_is_found_or_changes_nothing(num, saved, tmp_path):
    rng, found = np.random.default_rng(0), 0
    expected = everything(saved, 2)
    for i in range(num):
        workdir = shutil.copytree(saved, tmp_path / str(i))
        where = flipped(workdir, rng, i)
        try:
            meta, judged, state = everything(workdir, 2)
        except checkpoint.Damaged:
            found += 1
        else:
            assert (meta, judged) == expected[:2], where
            assert_equal(state, expected[2])
        shutil.rmtree(workdir)
    assert found > num / 4


def test_checksums_by_another_name_are_not_those_of_a_checkpoint_without(saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")
    (path,) = (workdir / "checkpoints" / "2").glob("met*/metadata")
    path.write_text(path.read_text().replace('"checksums"', '"bhecksums"'))
    with pytest.raises(checkpoint.Damaged, match=r"2/met.*: damaged \(its checksums are not there\)"):
        everything(workdir, 2)


def test_a_flipped_byte_of_an_array_is_named(saved, tmp_path, monkeypatch):
    """What the files themselves do not find: the array that is read is another."""
    find = ocp.Checkpointer.restore

    def another(self, *args, **kwargs):
        state = find(self, *args, **kwargs)
        kernel = np.array(state.g_params["a"]["kernel"])
        kernel.view(np.uint8)[5] ^= 1
        return dataclasses.replace(state, g_params={"a": {"kernel": jnp.asarray(kernel)}})

    monkeypatch.setattr(ocp.Checkpointer, "restore", another)
    with pytest.raises(
        checkpoint.Damaged, match=r"/2/state: damaged \(g_params/a/kernel not as saved, by its checksum"
    ):
        everything(saved, 2)


def test_what_is_read_while_it_is_replaced(saved, tmp_path):
    """A better one came, and this one went, between the list and the reading."""
    workdir = shutil.copytree(saved, tmp_path / "run")
    tries = []

    def read(checkpoints, step):
        tries.append(step)
        if len(tries) == 1:
            writer = checkpoint.Checkpoints(workdir)
            writer.save(make(3), {}, judged={"swd": 0.5})
            writer.close()
        return checkpoints.meta(step), checkpoints.restore(step, like(make(step)))

    meta, state = checkpoint.read(workdir, read)
    assert (tries, meta) == ([1, 3], {})
    assert_equal(state, make(3))
    assert steps(workdir) == [3]


def test_one_that_is_named_and_goes_while_it_is_read(saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")

    def read(checkpoints, step):
        writer = checkpoint.Checkpoints(workdir)
        writer.save(make(3), {}, judged={"swd": 0.5})
        writer.close()
        return checkpoints.restore(step, like(make(step)))

    with pytest.raises(InputError) as caught:
        checkpoint.read(workdir, read, 2)
    folder = workdir / "checkpoints"
    gone = f"{folder}/2: was removed meanwhile, by the training that runs there"
    assert str(caught.value) == f"{gone}; give {folder}/3 in its place"


def test_what_is_read_while_it_is_replaced_in_a_bucket():
    """And nothing of what went is left there."""
    tries, url = [], "gs://somebody/run"
    with bucket.serving() as objects:
        with places.opened(url) as place, places.opened(url) as there:
            writer = checkpoint.Checkpoints(place)
            for step in (1, 2):
                writer.save(make(step), {}, judged={"swd": float(step)})
            writer.wait()

            def read(checkpoints, step):
                tries.append(step)
                if len(tries) == 1:
                    writer.save(make(3), {}, judged={"swd": 0.5})
                    writer.wait()
                return checkpoints.meta(step), checkpoints.restore(step, like(make(step)))

            meta, state = checkpoint.read(there, read)
            writer.write_meta(3, {"n": 8})
            writer.close()
            assert (tries, meta) == ([1, 3], {})
            assert_equal(state, make(3))
        assert {re.match(r"run/checkpoints/(\d+)[./]", name)[1] for name in objects} == {"3"}
        with places.opened(url) as there:
            reader = checkpoint.Checkpoints(there, create=False)
            assert (reader.steps, reader.meta(3)) == ([3], {"n": 8})
            assert_equal(reader.restore(3, like(make(3))), make(3))


def test_a_damaged_one_is_told_with_the_others(saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")
    folder = workdir / "checkpoints"
    emptied(folder / "1" / "meta" / "metadata")
    with pytest.raises(InputError) as caught:
        checkpoint.read(workdir, lambda checkpoints, step: step)
    assert str(caught.value) == f"{folder}/1/meta/metadata: empty; give {folder}/2 in its place"
    assert checkpoint.read(workdir, lambda checkpoints, step: step, 2) == 2
    shutil.rmtree(folder / "2")
    with pytest.raises(InputError, match=r"/1/meta/metadata: empty; there is no other checkpoint$"):
        checkpoint.read(workdir, lambda checkpoints, step: step)


def test_what_a_kill_left_half_removed_goes(saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "2.removed")
    (workdir / "checkpoints" / "2.damaged").mkdir()
    checkpoints = checkpoint.Checkpoints(workdir)
    assert checkpoints.steps == [1]
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["1", "2.damaged"]


def test_the_list_of_the_first_process_counts(saved):
    reader = checkpoint.Checkpoints(saved, create=False, known={1: {"swd": 1.0}})
    assert (reader.latest, reader.best, checkpoint.listed(saved)) == (1, 1, {1: {"swd": 1.0}, 2: {"swd": 2.0}})


def test_meta_is_replaced_whole(saved, tmp_path):
    workdir = shutil.copytree(saved, tmp_path / "run")
    checkpoints = checkpoint.Checkpoints(workdir)
    checkpoints.write_meta(1, {"n": 7})
    meta, judged, state = everything(workdir, 1)
    assert (meta, judged) == ({"n": 7}, {"swd": 1.0})
    assert_equal(state, make(1))
    checkpoint.Checkpoints(workdir, create=False).write_meta(1, {"n": 8})
    assert checkpoints.meta(1) == {"n": 7}, "who only reads writes nothing"
