"""A model directory: what is written, what comes back, what is refused."""

import dataclasses
import json
import os
import pathlib
import shutil
from concurrent import futures

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from skullgan_jax.errors import InputError
from skullgan_jax.machine import lock
from skullgan_jax.model import checkpoint, directory, draw, trained
from skullgan_jax.model import load as load_module
from skullgan_jax.model.load import load
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices.calibration import Calibration
from tests import support

TREES = ("g_params", "g_stats", "d_params", "d_stats")


@pytest.fixture(autouse=True)
def _quick_to_compile(monkeypatch):
    """What is drawn in a test is compared with what the same programs drew; `finished` is made before, as it is."""
    monkeypatch.setattr(jax, "jit", support.quick_jit)


@pytest.fixture(scope="module")
def small():
    pair = Pair(nz=6, ngf=16, ndf=4)
    shapes = jax.eval_shape(lambda: pair.init(0))
    random = np.random.default_rng(0)
    trees = jax.tree.map(lambda x: random.standard_normal(x.shape).astype(x.dtype), shapes)
    for stats in trees[1::2]:
        for norm in stats.values():
            norm["var"] = abs(norm["var"])
    return trained.Model(
        pair=pair,
        **dict(zip(TREES, trees, strict=True)),
        calibration=Calibration(-1000, 2500.5),
        pixel_mm=0.46875,
        provenance={"workdir": "run", "step": 7},
        batches_tracked={"generator": [7, 7, 7, 7, 8], "discriminator": [21, 21, 21, 21]},
        standing=trees[1],
    )


def assert_same(found, expected, names=(*TREES, "standing")):
    assert found.pair == expected.pair
    assert found.calibration == expected.calibration
    for name in ("pixel_mm", "provenance", "batches_tracked"):
        assert getattr(found, name) == getattr(expected, name)
    for name in names:
        one, other = getattr(found, name), getattr(expected, name)
        assert jax.tree.structure(one) == jax.tree.structure(other), name
        jax.tree.map(np.testing.assert_array_equal, one, other)


def refusal(path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    return line


@pytest.mark.parametrize("standing", [True, False])
def test_save_and_load_again(small, standing, tmp_path):
    saved = small if standing else dataclasses.replace(small, standing=None)
    saved.save(tmp_path / "model")
    assert_same(load(tmp_path / "model"), saved)
    files = ["discriminator.safetensors", "generator.safetensors", "model", "model.json"]
    assert sorted(p.name for p in tmp_path.rglob("*")) == files + standing * ["standing.safetensors"]


def test_the_kind_of_a_discriminator_is_said(small, tmp_path):
    """And taken for the published one where an earlier version did not say."""
    pair = dataclasses.replace(small.pair, d_norm="none")
    plain = {k: v for k, v in small.d_params.items() if k.startswith("conv")}
    tracked = small.batches_tracked | {"discriminator": []}
    model = dataclasses.replace(small, pair=pair, d_params=plain, d_stats={}, batches_tracked=tracked)
    model.save(tmp_path / "none")
    assert json.loads((tmp_path / "none" / "model.json").read_text())["d_norm"] == "none"
    assert_same(load(tmp_path / "none"), model)
    pair = dataclasses.replace(pair, d_batch_std=2)
    told = jax.tree.map(np.asarray, pair.init(0)[2])
    other = dataclasses.replace(model, pair=pair, d_params=told)
    other.save(tmp_path / "std")
    assert_same(load(tmp_path / "std"), other)
    rewrite(tmp_path / "std", d_batch_std=3)
    assert "do not have the shapes that model.json states" in refusal(tmp_path / "std")
    small.save(tmp_path / "batch")
    about = json.loads((tmp_path / "batch" / "model.json").read_text())
    assert (about.pop("d_norm"), about.pop("d_batch_std")) == ("batch", 0)
    (tmp_path / "batch" / "model.json").write_text(json.dumps(about))
    assert_same(load(tmp_path / "batch"), small)
    rewrite(tmp_path / "none", d_norm="layer")
    assert refusal(tmp_path / "none").endswith("model.json: d_norm='layer': give batch or none")
    rewrite(tmp_path / "none", d_norm="batch")
    assert "is damaged" in refusal(tmp_path / "none")


def test_a_generator_alone(small, tmp_path):
    dataclasses.replace(small, d_params=None, d_stats=None, pair=Pair(nz=6, ngf=16)).save(tmp_path / "model")
    found = load(tmp_path / "model")
    assert (found.d_params, found.d_stats, found.pair) == (None, None, Pair(nz=6, ngf=16))
    assert json.loads((tmp_path / "model" / "model.json").read_text())["ndf"] is None
    assert not (tmp_path / "model" / "discriminator.safetensors").exists()


def test_standing_statistics_come_with_the_first_samples(small, tmp_path, capsys, monkeypatch):
    """Computed once and silently, stored with the model, and not taken for those of other weights."""
    monkeypatch.setattr(draw, "STANDING_LATENTS", 32)
    fresh = dataclasses.replace(small, standing=None)
    fresh.save(tmp_path / "model")
    first = load(tmp_path / "model")
    hu = first.sample(3, seed=5)
    assert (hu.shape, hu.dtype) == ((3, 128, 128), np.int16)
    again = load(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, again.standing, first.standing)
    np.testing.assert_array_equal(again.sample(3, seed=5), hu)
    assert capsys.readouterr() == ("", "")
    with safetensors.safe_open(tmp_path / "model" / "standing.safetensors", "numpy") as file:
        assert file.metadata()["latents"] == "32"
    other = dataclasses.replace(fresh, g_params=jax.tree.map(lambda x: -x, small.g_params))
    other.save(tmp_path / "other")
    shutil.copy(tmp_path / "model" / "standing.safetensors", tmp_path / "other")
    assert load(tmp_path / "other").standing is None


def test_standing_statistics_that_cannot_be_stored(small, tmp_path, capsys, monkeypatch):
    """Of a model in a folder of somebody else's: they are computed all the same, and told where somebody listens."""
    monkeypatch.setattr(draw, "STANDING_LATENTS", 16)
    dataclasses.replace(small, standing=None).save(tmp_path / "model")
    found = load(tmp_path / "model")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory, "write_standing", full)
    found.compute_standing()
    assert capsys.readouterr().err == ""
    found.compute_standing(verbose=True)
    progress, why = capsys.readouterr().err.splitlines()
    assert progress.startswith("standing statistics: latent 16/16, ")
    assert why == f"{tmp_path}/model: standing.safetensors cannot be written (No space left on device); not kept"
    assert found.standing is not None


def test_the_files_are_plain(small, tmp_path):
    """Any reader of safetensors finds the weights by their dotted names, and the sizes and units in JSON."""
    small.save(tmp_path / "model")
    about = json.loads((tmp_path / "model" / "model.json").read_text())
    assert {k: about[k] for k in ("format", "nc", "nz", "ngf", "ndf", "pixel_mm", "calibration")} == {
        "format": 1,
        "nc": 1,
        "nz": 6,
        "ngf": 16,
        "ndf": 4,
        "pixel_mm": 0.46875,
        "calibration": {"hu_min": -1000.0, "hu_max": 2500.5},
    }
    flat = safetensors.numpy.load_file(tmp_path / "model" / "discriminator.safetensors")
    assert {name.split(".")[0] for name in flat} == {"params", "stats"}
    weights = sum(a.size for name, a in flat.items() if name.startswith("params."))
    assert weights == sum(a.size for a in jax.tree.leaves(small.d_params))
    assert {a.dtype for a in flat.values()} == {np.dtype(np.float32)}


def test_saving_over_an_older_model(small, tmp_path):
    dataclasses.replace(small, pixel_mm=2.0).save(tmp_path / "model")
    (tmp_path / "model" / "note.txt").touch()
    small.save(tmp_path / "model")
    assert_same(load(tmp_path / "model"), small)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_is_no_model_is_left_as_it_is(small, tmp_path):
    """A folder of somebody's, a model.json of another program, a file; a folder with hidden files may become one."""
    for name, text in (("notes.txt", "mine"), ("model.json", '{"layers": []}')):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text(text)
        with pytest.raises(InputError, match="holds something else than a model, and is left as it is; give another"):
            small.save(folder)
        assert [path.read_text() for path in folder.iterdir()] == [text]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: is a file; give a folder"):
        small.save(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".gitkeep").touch()
    small.save(tmp_path / "empty")
    assert load(tmp_path / "empty") == small
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "model.json", "notes.txt"]


def test_one_saves_at_a_time(small, tmp_path):
    with lock.only_writer(tmp_path / "model"), futures.ThreadPoolExecutor(1) as pool:
        refused = pool.submit(small.save, tmp_path / "model").exception()
    assert isinstance(refused, InputError)
    assert str(refused).startswith(f"folder={tmp_path}/model: process {os.getpid()} on ")


def test_standing_statistics_are_not_kept_beside_another_model(small, tmp_path, monkeypatch, capsys):
    """That was saved in the meantime."""
    monkeypatch.setattr(draw, "standing_statistics", lambda *_, **__: small.g_stats)
    dataclasses.replace(small, standing=None).save(tmp_path / "model")
    found = load(tmp_path / "model")
    dataclasses.replace(small, g_params=jax.tree.map(lambda x: -x, small.g_params), standing=None).save(found.folder)
    found.compute_standing(verbose=True)
    assert "standing.safetensors cannot be written (another model is there by now); not kept" in capsys.readouterr().err
    assert load(tmp_path / "model").standing is None


def test_the_hash_is_of_values(small):
    """Whatever the calibration's class looks like, and of which type the sizes are; every value counts."""
    pair = dataclasses.replace(small.pair, nz=np.int64(6))
    same = dataclasses.replace(small, pair=pair, calibration=Calibration(np.float32(-1000), 2500.5))
    assert same.sha256 == small.sha256
    ends = [Calibration(0.0, 1), Calibration(-0.0, 1), Calibration(0, 1.5)]
    hashes = [dataclasses.replace(small, calibration=ends).sha256 for ends in ends]
    assert hashes[0] == hashes[1] != hashes[2]


def test_equal_is_what_draws_and_judges_alike(small):
    """Whatever it is from and was run with; any other number, or a network less, makes another."""
    same = dataclasses.replace(
        small, provenance={}, standing=None, g_params=jax.tree.map(np.copy, small.g_params), batches_tracked={}
    )
    assert small == same
    assert small == dataclasses.replace(small, pair=dataclasses.replace(small.pair, dtype="bfloat16"))
    moved = jax.tree.map(np.copy, small.d_stats)
    moved["norm5"]["var"][3] += 1
    for other in (
        dataclasses.replace(small, d_stats=moved),
        dataclasses.replace(small, d_params=None, d_stats=None),
        dataclasses.replace(small, calibration=Calibration(-1000, 2500)),
        dataclasses.replace(small, pixel_mm=0.5),
        "a model",
    ):
        assert small != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(small)


SOURCES = [{"network": "generator", "name": "netG.pth", "sha256": "ab" * 32, "dtype": "float32"}]


@pytest.mark.parametrize(
    ("provenance", "origin"),
    [
        ({"workdir": "run", "step": 7, "data": {"name": "skull", "num": 2414}}, "run, step 7, of 2414 skull slices"),
        ({"workdir": "run", "step": 7}, "run, step 7"),
        ({"sources": SOURCES, "converted": "2026-11-25"}, "netG.pth (sha256 abababababababab)"),
        ({"sources": [{}, 3]}, "unknown"),
        ([1], "unknown"),
        ({}, "unknown"),
    ],
)
def test_five_lines_say_what_it_is(small, provenance, origin):
    """The counts by hand: of every convolution its kernel and bias, of every BatchNorm scale and shift."""
    g = 6 * 16 * 256 + sum(16 * 2 * a * a for a in (128, 64, 32, 16, 8)) + 2 * sum((256, 128, 64, 32, 16))
    g += 9 * (8 * 4 + 4 * 2 + 2 * 1 + 1) + 4 + 2 + 1
    d = 16 * (1 * 4 + 4 * 8 + 8 * 16 + 16 * 32 + 32 * 64 + 64) + sum((4, 8, 16, 32, 64, 1)) + 2 * sum((8, 16, 32, 64))
    lines = repr(dataclasses.replace(small, provenance=provenance)).splitlines()
    assert lines == [
        f"SkullGAN: generator of {g:,} parameters, nc=1 nz=6 ngf=16; discriminator of {d:,}, ndf=4",
        "  calibration  -1 to +1 is -1000 to 2500.5 HU; 0.46875 mm per pixel",
        f"  from         {origin}",
        "  standing     statistics to sample with are there",
        f"  sha256       {small.sha256[:16]}",
    ]
    alone = dataclasses.replace(small, d_params=None, d_stats=None, standing=None)
    assert str(alone).splitlines()[0].endswith("; no discriminator")
    assert str(alone).splitlines()[3] == "  standing     statistics to sample with are computed with the first samples"


def rewrite(folder, **changed):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def flip(folder, name):
    """A bit of the last number."""
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)


def cut(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            lambda f: shutil.rmtree(f),
            "no model here (model.json is missing); give a model directory, a training workdir or a .pth",
        ),
        (lambda f: (f / "model.json").unlink(), "no model here (model.json is missing)"),
        (lambda f: (f / "generator.safetensors").unlink(), "no model here (generator.safetensors is missing)"),
        (lambda f: (f / "discriminator.safetensors").unlink(), "no model here (discriminator.safetensors is missing)"),
        (lambda f: cut(f, "generator.safetensors"), "/generator.safetensors: is damaged or cut short ("),
        (lambda f: (f / "generator.safetensors").write_bytes(b""), "/generator.safetensors: is empty ("),
        (lambda f: cut(f, "discriminator.safetensors"), "/discriminator.safetensors: is damaged or cut short ("),
        (lambda f: cut(f, "model.json"), "/model.json: is damaged or cut short ("),
        (lambda f: (f / "model.json").write_bytes(b""), "/model.json: is empty ("),
        (
            lambda f: (f / "model.json").write_text("[1]"),
            "/model.json: is damaged (it holds no fields)",
        ),
        (lambda f: (f / "model.json").write_text("[" * 100_000), "/model.json: is damaged or cut short ("),
        (lambda f: (f / "model.json").write_bytes(b"\xff\xfe"), "/model.json: is damaged or cut short ("),
        (lambda f: rewrite(f, format=2), "/model.json: has format 2, this version reads 1; update it"),
        (lambda f: rewrite(f, nz="x"), "/model.json: is damaged (TypeError"),
        (lambda f: rewrite(f, nz=8.5), "/model.json: is damaged (TypeError"),
        (lambda f: rewrite(f, nz=1e999), "/model.json: is damaged (TypeError"),
        (lambda f: rewrite(f, nz=7), "the weights do not have the shapes that model.json states; export it again"),
        (lambda f: rewrite(f, ngf=32), "the weights do not have the shapes that model.json states"),
        (lambda f: rewrite(f, ngf=7), "/model.json: model.ngf=7: must be a positive multiple of 16"),
        (lambda f: rewrite(f, calibration={"hu_min": 0}), "hu_max"),
        (lambda f: rewrite(f, calibration=3), "/model.json: calibration 3: need numbers"),
        (lambda f: rewrite(f, pixel_mm=-1), "/model.json: is damaged (ValueError: pixel_mm is -1.0)"),
        (
            lambda f: rewrite(f, batches_tracked={"generator": [1]}),
            "is damaged (ValueError: batches_tracked",
        ),
        (lambda f: rewrite(f, files={}), "/model.json: is damaged (KeyError"),
        (lambda f: rewrite(f, files=[1]), "/model.json: is damaged (TypeError"),
        (lambda f: (f / "standing.safetensors").write_bytes(b"x"), "/standing.safetensors: is damaged or cut short ("),
        (lambda f: flip(f, "standing.safetensors"), "/standing.safetensors: was changed: its values have sha256 "),
        (lambda f: flip(f, "generator.safetensors"), "/generator.safetensors: the model's file was changed: sha256 "),
        (
            lambda f: flip(f, "discriminator.safetensors"),
            "/discriminator.safetensors: the model's file was",
        ),
        (
            lambda f: shutil.copy(f / "discriminator.safetensors", f / "generator.safetensors"),
            "/generator.safetensors: the model's file was changed: sha256 ",
        ),
    ],
)
def test_damaged(small, damage, expected, tmp_path):
    folder = tmp_path / "model"
    small.save(folder)
    damage(folder)
    assert expected in refusal(folder)


def test_damaged_at_random(small, tmp_path):
    """Refused in a line that names a file, or it is the same model."""
    random = np.random.default_rng(0)
    small.save(tmp_path / "model")
    for i, name in enumerate([path.name for path in (tmp_path / "model").iterdir()] * 10):
        folder = pathlib.Path(shutil.copytree(tmp_path / "model", tmp_path / f"{i}"))
        data = bytearray((folder / name).read_bytes())
        at = int(random.integers(min(len(data), 2000) if i % 2 else len(data)))  # half of them in headers
        match random.integers(3):
            case 0:
                data[at] ^= 1 << int(random.integers(8))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = random.bytes(3)
        (folder / name).write_bytes(data)
        said = ""
        try:
            assert load(folder) == small
        except InputError as error:
            said = str(error)
        assert not said or said.startswith(f"{folder}/") or "do not have the shapes that model.json states" in said
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("net", "value"), [("g_params", np.nan), ("d_params", np.inf), ("g_stats", -1), ("standing", -1)]
)
def test_numbers_that_would_draw_nothing_but_0_hu(small, net, value, tmp_path):
    tree = jax.tree.map(np.copy, getattr(small, net))
    layer, leaf = ("norm2", "var") if value == -1 else ("conv2", "kernel")
    tree[layer][leaf].flat[3] = value
    dataclasses.replace(small, **{net: tree}).save(tmp_path / "model")
    where = {"g": "generator", "d": "discriminator", "s": "standing"}[net[0]]
    said = f": holds NaN, infinite weights or negative variances in {where} {layer}.{leaf}; take an earlier one"
    assert said in refusal(tmp_path / "model")


def test_three_channels_are_no_slice(small):
    with pytest.raises(InputError, match=r"nc=3: this generator makes 3 channels, a slice in HU has one"):
        dataclasses.replace(small, pair=dataclasses.replace(small.pair, nc=3)).sample(1)


def test_a_file_is_no_model(tmp_path):
    (tmp_path / "model").touch()
    assert "is empty; copy it again" in refusal(tmp_path / "model")


def test_a_workdir_gives_its_best_checkpoint(finished):
    """The same as was exported at the end of the run."""
    checkpoints = checkpoint.Checkpoints(finished, create=False)
    found = load(finished)
    assert found.provenance["step"] == checkpoints.best
    assert found.provenance["config"]["batch_size"] == 4
    assert found.provenance["data"]["name"] == "phantom"
    exported = load(finished / "model")
    assert found == exported
    assert_same(found, dataclasses.replace(exported, provenance=found.provenance))


def test_a_workdir_keeps_its_standing_statistics(finished, tmp_path, monkeypatch):
    """Those of exactly these weights, from its folder or the model exported there; damaged ones are computed anew."""
    monkeypatch.setattr(draw, "standing_statistics", lambda pair, params, **_: load(finished).g_stats)
    shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints")
    first = load(tmp_path)
    assert first.standing is None
    first.compute_standing()
    kept = tmp_path / "standing.safetensors"
    with safetensors.safe_open(kept, "numpy") as file:
        about = file.metadata()
    own = directory.sha256(traverse_util.flatten_dict(first.standing, sep="."))
    assert about == {"model_sha256": first.sha256, "latents": "256", "seed": "0", "sha256": own}
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).standing, first.standing)
    whole = kept.read_bytes()
    kept.write_bytes(whole[:1000])
    assert load(tmp_path).standing is None
    kept.write_bytes(whole.replace(first.sha256.encode(), b"0" * 64))
    assert load(tmp_path).standing is None
    shutil.copytree(finished / "model", tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path).standing, load(finished / "model").standing)


CONFIG = {
    "data": {"name": "skull", "path": "/scans/StMarysHospital", "num": 2000},
    "pretrained": "celeba_of_ward_3",
    "checkpoint": "",
    "seed": 1,
    "more": {"list_of": "ward/7"},
}


def test_paths_stay_at_home(small, finished, tmp_path):
    """What a run was given, in a workdir as in what it exports, and in a model of an earlier version."""
    left = load_module._without_paths(CONFIG)
    assert left["data"] == {"name": "skull", "path": "(left out)", "num": 2000}
    assert (left["pretrained"], left["checkpoint"], left["seed"]) == ("(left out)", "", 1)
    assert left["more"] == {"list_of": "(left out)"}
    assert load_module._without_paths({"path": "phantom"}) == {"path": "phantom"}
    changes = [{"step": 3, "data.path": ["ward", "ward/7"], "recipe.lr": [1, 0.5]}]
    without = [{"step": 3, "data.path": ["(left out)"] * 2, "recipe.lr": [1, 0.5]}]
    assert load_module._without_paths(changes) == without
    dataclasses.replace(small, provenance={"workdir": "run", "config": CONFIG}).save(tmp_path / "model")
    found = load(tmp_path / "model")
    assert found.provenance == {"workdir": "run", "config": left}
    found.save(tmp_path / "model")
    text = (tmp_path / "model" / "model.json").read_text()
    assert not [word for word in ("StMarys", "ward") if word in text]
    assert str(finished.parent) not in (finished / "model" / "model.json").read_text()


def test_exported_statistics_do_not_depend_on_the_trail(finished):
    """Exported ones are of the weights alone, with the default seed."""
    exported = load(finished / "model")
    again = draw.standing_statistics(exported.pair, exported.g_params)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(exported.standing), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_final_slices_of_a_run_are_samples_of_its_model(finished):
    written = np.load(finished / "slices.npy")
    np.testing.assert_array_equal(load(finished / "model").sample(len(written), seed=111), written)


def test_a_workdir_that_was_never_judged_gives_its_last(finished, tmp_path):
    """As after a SIGTERM in the first epoch."""
    source = checkpoint.Checkpoints(finished, create=False)
    meta = source.meta(source.latest)
    expected = load(finished)
    pair = Pair(**meta["pair"])
    for step in (3, 5):
        trees = {name: jax.tree.map(lambda x, s=step: x + s, getattr(expected, name)) for name in TREES}
        checkpoints = checkpoint.Checkpoints(tmp_path)
        checkpoints.save(jax.device_put(_State(np.int32(step), **trees)), meta, judged=None)
        checkpoints.wait()
        checkpoints.close()
    found = load(tmp_path)
    assert (found.provenance["step"], found.pair) == (5, pair)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b + np.float32(5)), found.g_params, expected.g_params)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    step: object
    g_params: dict
    g_stats: dict
    d_params: dict
    d_stats: dict


def test_an_empty_folder_is_no_model(tmp_path):
    assert "no model here (model.json is missing)" in refusal(tmp_path)
    assert list(pathlib.Path(tmp_path).iterdir()) == []
