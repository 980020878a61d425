"""Released files in and models out, and back: numbers, scale, provenance, and all that is refused."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
from concurrent import futures

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

import skullgan_jax
from skullgan_jax import convert
from skullgan_jax.errors import InputError
from skullgan_jax.machine import lock
from skullgan_jax.model import draw, pytorch_file, pytorch_names, pytorch_pair
from skullgan_jax.model.load import load
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices.calibration import Calibration
from tests import bucket, support

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "data" / "pth"
PAIR = Pair(nz=4, ngf=16, ndf=8)
BOTH = {"generator": FOLDER / "netG.pth", "discriminator": FOLDER / "netD.pth"}
TREES = ("g_params", "g_stats", "d_params", "d_stats")


@pytest.fixture(autouse=True)
def _quick_to_compile(monkeypatch):
    """What is drawn in a test is compared with what the same programs drew; `finished` is made before, as it is."""
    monkeypatch.setattr(jax, "jit", support.quick_jit)


def command(monkeypatch, capsys, **flags):
    """Run the command in this process; its exit status and what it said."""
    arguments = [f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items()]
    try:
        convert.run(arguments)
        status = 0
    except SystemExit as exit:
        status = exit.code
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.fixture(scope="module")
def converted():
    return pytorch_pair.read(**BOTH, calibration="signed")


def test_every_weight_is_in_its_place(converted):
    """Those of the formula that the files were written from."""
    assert converted.pair == PAIR
    expected = support.pair_weights(PAIR)
    found = tuple(getattr(converted, name) for name in TREES)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    assert all(leaf.ctypes.data % 64 == 0 for leaf in jax.tree.leaves(found))


def test_the_networks_answer_as_pytorch_did(converted):
    """Against the recorded answers of torch in float64 to injected latents and noise, BatchNorm in standing mode."""
    facts = np.load(ROOT / "tests" / "data" / "torch_facts.npz")
    x = support.inputs("0", 4, {"nc": 1, "nz": 4, "ngf": 16})
    for i, noise in enumerate(x["noise"]):
        noise.ravel()[facts[f"settled/0/{i}"]] = 0
    g, _ = support.forward(PAIR, "generator", False)(converted.g_params, converted.g_stats, x["z"], x["noise"])
    assert np.abs(np.asarray(g[1]) - facts["g/eval"]).max() <= 1e-5
    d, _ = support.forward(PAIR, "discriminator", False)(converted.d_params, converted.d_stats, x["real"])
    np.testing.assert_allclose(d, facts["d/eval"], rtol=0, atol=1e-5)


def test_files_in_a_bucket(converted, own_home, monkeypatch, capsys, tmp_path):
    """Are the same pair, under their own names; one that is not there, or damaged, is told by its URL."""
    there = {path.name: path.read_bytes() for path in BOTH.values()} | {"bad.pth": b"PK bad"}
    with bucket.serving(holding={f"w/{name}": data for name, data in there.items()}):
        urls = {net: f"gs://somebody/w/{path.name}" for net, path in BOTH.items()}
        status, said = command(monkeypatch, capsys, **urls, output=tmp_path / "m", hu_scale="signed")
        assert status == 0, said
        found = load(tmp_path / "m")
        assert found.sha256 == converted.sha256
        assert [source["name"] for source in found.provenance["sources"]] == ["netG.pth", "netD.pth"]
        assert command(monkeypatch, capsys, verify=tmp_path / "m", **urls)[0] == 0
        for name, line in (("no.pth", "no such file"), ("bad.pth", "")):
            status, said = command(monkeypatch, capsys, generator=f"gs://somebody/w/{name}", output=tmp_path / "n")
            assert (status, said.count("\n")) == (2, 1)
            assert said.startswith(f"error: gs://somebody/w/{name}: {line}")


def test_float16_in_a_checkpoint(capsys):
    found = pytorch_pair.read(generator=FOLDER / "netG_half.pth", calibration="signed")
    assert (found.d_params, found.d_stats, found.pair) == (None, None, dataclasses.replace(PAIR, ndf=64))
    half = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), support.pair_weights(PAIR)[0])
    jax.tree.map(np.testing.assert_array_equal, found.g_params, half)
    assert "netG_half.pth: float16 become float32" in capsys.readouterr().err


def test_the_command_there_and_back(monkeypatch, capsys, tmp_path):
    """.pth -> model -> .pth or .safetensors -> model: bit for bit, with what a paper needs to say whence."""
    status, said = command(monkeypatch, capsys, **BOTH, output=tmp_path / "m", hu_scale="signed", verbose=True)
    assert (status, f"wrote {tmp_path}/m, nc=1 nz=4 ngf=16, with a discriminator" in said) == (0, True), said
    assert sum(" -> " in line for line in said.splitlines()) == 10 + 3 + 5 * 4 + 6 * 2 + 4 * 4
    assert [line.split() for line in said.splitlines() if "main2.0.weight" in line] == [
        ["main2.0.weight", "(256,", "128,", "4,", "4)", "->", "main2.kernel", "(256,", "4,", "4,", "128)"]
    ]
    about = json.loads((tmp_path / "m" / "model.json").read_text())
    assert about["calibration"] == {"hu_min": 0, "hu_max": 2734.531494140625}
    assert [(s["network"], s["name"], s["dtype"]) for s in about["provenance"]["sources"]] == [
        ("generator", "netG.pth", "float32"),
        ("discriminator", "netD.pth", "float32"),
    ]
    assert about["provenance"]["version"] == skullgan_jax.__version__
    assert about["provenance"]["converted"].endswith("+00:00")
    for to, suffix in (("torch", "pth"), ("safetensors", "safetensors")):
        out = tmp_path / to
        status, said = command(monkeypatch, capsys, model=tmp_path / "m", output=out, to=to)
        assert (status, said) == (0, f"wrote {out}/netG.{suffix}, {out}/netD.{suffix}\n")
        again = pytorch_pair.read(
            generator=out / f"netG.{suffix}", discriminator=out / f"netD.{suffix}", calibration="signed"
        )
        trees = (*support.pair_weights(PAIR),)
        jax.tree.map(np.testing.assert_array_equal, tuple(getattr(again, name) for name in TREES), trees)
    original = pytorch_names.find("generator", pytorch_file.read(FOLDER / "netG.pth"))
    written = pytorch_file.read(tmp_path / "torch" / "netG.pth")
    assert written.keys() == original.keys()
    for key, array in original.items():
        assert (written[key].dtype, written[key].tobytes()) == (array.dtype, array.tobytes()), key
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "safetensors", "torch"]


def test_counted_batches_come_back(tmp_path):
    g = dict(pytorch_names.find("generator", pytorch_file.read(FOLDER / "netG.pth")))
    counts = {key: np.asarray(125_000 + i) for i, key in enumerate(k for k in g if k.endswith("tracked"))}
    pytorch_file.write(tmp_path / "g.pth", g | counts)
    found = pytorch_pair.read(generator=tmp_path / "g.pth", calibration="unit")
    assert found.batches_tracked == {"generator": [125_000, 125_001, 125_002, 125_003, 125_004]}
    pytorch_pair.write(found, tmp_path / "out", "torch")
    written = pytorch_file.read(tmp_path / "out" / "netG.pth")
    assert {key: int(written[key]) for key in counts} == {key: int(value) for key, value in counts.items()}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["netG.pth"]


def test_torch_takes_what_is_written(converted, tmp_path):
    """torch.load(weights_only=True) and a strict load_state_dict of the published networks; equal answers."""
    torch = pytest.importorskip("torch")
    from tests.data.make_torch_facts import build

    pytorch_pair.write(converted, tmp_path / "out", "torch")
    for module, name, original in zip(build(1, 4, 16, 8), ("netG.pth", "netD.pth"), BOTH.values(), strict=True):
        state_dict = torch.load(tmp_path / "out" / name, weights_only=True)
        module.load_state_dict(state_dict, strict=True)
        for key, value in torch.load(original, weights_only=True).items():
            key = key.removeprefix("module.")
            assert state_dict[key].dtype == value.dtype
            assert torch.equal(state_dict[key], value), key
        assert list(state_dict) != []


def test_a_discriminator_of_another_kind_stays_here(converted, tmp_path, capsys):
    """The generator that it was trained with goes, as any."""
    d_params = {k: v for k, v in converted.d_params.items() if k.startswith("conv")}
    pair = dataclasses.replace(PAIR, d_norm="none")
    model = dataclasses.replace(converted, pair=pair, d_params=d_params, d_stats={})
    model.batches_tracked = {**converted.batches_tracked, "discriminator": []}
    model.save(tmp_path / "model")
    convert.run([f"--model={tmp_path}/model", f"--output={tmp_path}/out", "--to=torch"])
    said = capsys.readouterr().err.splitlines()
    assert said[-2] == "netD is not written: this discriminator has no BatchNorm, and PyTorch's, the published one, has"
    assert said[-1:] == [f"wrote {tmp_path}/out/netG.pth"]
    params, stats, _ = pytorch_names.from_torch("generator", pytorch_file.read(tmp_path / "out" / "netG.pth"), PAIR)
    jax.tree.map(np.testing.assert_array_equal, (params, stats), (converted.g_params, converted.g_stats))


def test_a_floor_stays_here_and_is_said(converted, tmp_path, capsys):
    scale = dataclasses.replace(converted.calibration, hu_floor=213)
    dataclasses.replace(converted, calibration=scale).save(tmp_path / "model")
    convert.run([f"--model={tmp_path}/model", f"--output={tmp_path}/out", "--to=torch"])
    said = capsys.readouterr().err
    assert f"netG draws below 213 HU, too: set that to {scale.hu_min:g}, as is done here" in said


@pytest.mark.slow
def test_full_size_against_torch(tmp_path):
    """Forward within 1e-4 of torch, the way there and back exact, at 203 million parameters."""
    torch = pytest.importorskip("torch")
    from tests.data import make_torch_facts

    sizes = {"nc": 1, "nz": 200, "ngf": 256, "ndf": 64}
    g, d = (module.eval() for module in make_torch_facts.build(**sizes))
    torch.save({f"module.{k}": v for k, v in g.state_dict().items()}, tmp_path / "g.pth")
    torch.save(d.state_dict(), tmp_path / "d.pth")
    found = pytorch_pair.read(generator=tmp_path / "g.pth", discriminator=tmp_path / "d.pth", calibration="signed")
    assert found.pair == Pair()
    pytorch_pair.write(found, tmp_path / "out", "torch")
    for module, name in ((g, "netG.pth"), (d, "netD.pth")):
        back = torch.load(tmp_path / "out" / name, weights_only=True, mmap=True)
        assert all(torch.equal(value, back[key]) for key, value in module.state_dict().items())
    x = support.inputs("full", 1, sizes)
    noise = make_torch_facts.silence(x["noise"], make_torch_facts.settle(g, x["z"], x["noise"]))
    mine, _ = support.forward(found.pair, "generator", False)(found.g_params, found.g_stats, x["z"], tuple(noise))
    assert np.abs(np.asarray(mine) - make_torch_facts.generate(g, x["z"], noise)).max() <= 1e-4
    with torch.no_grad():
        theirs = d.logits(make_torch_facts.nchw(x["real"], torch.float32)).numpy()
    mine, _ = support.forward(found.pair, "discriminator", False)(found.d_params, found.d_stats, x["real"])
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def bright(tmp_path_factory):
    """.pth of generators that make a bright block on a ground of a value: path by value."""
    folder = tmp_path_factory.mktemp("bright")
    paths = {ground: folder / f"{ground}.pth" for ground in (-0.999, 0.0, -0.5)}
    for ground, path in paths.items():
        pytorch_file.write(path, support.bright_block(Pair(nz=4, ngf=16), ground))
    return paths


def test_the_scale_shows_in_the_background(bright, capsys):
    """Air is 0 HU: at -1 where training scaled (0, max) to [-1, 1], at 0 where it divided by max."""
    found = pytorch_pair.read(generator=bright[-0.999])
    assert found.calibration == Calibration(0, 2734.531494140625)
    said = capsys.readouterr().err
    assert f"{bright[-0.999]}: HU scale signed, -1 to +1 is 0 to 2734.53 HU: " in said
    assert found.provenance["hu_scale"] in said
    found = pytorch_pair.read(generator=bright[0.0])
    assert found.calibration == Calibration(-2734.531494140625, 2734.531494140625)
    assert "HU scale unit, 0 to +1 is 0 to 2734.53 HU: " in capsys.readouterr().err


@pytest.mark.parametrize("path", [lambda bright: bright[-0.5], lambda _: FOLDER / "netG.pth"])
def test_a_background_that_tells_nothing_is_no_guess(bright, path, monkeypatch, capsys, tmp_path):
    path = path(bright)
    status, said = command(monkeypatch, capsys, generator=path, output=tmp_path / "m")
    assert (status, len(said.splitlines())) == (2, 1)
    assert said.startswith(f"error: {path}: the HU scale cannot be told from the background (")
    assert "give --hu_scale=signed, --hu_scale=unit, or --hu_min and --hu_max" in said
    assert list(tmp_path.iterdir()) == []


def test_other_commands_are_sent_to_this_one(bright, tmp_path):
    """Those have no flag for the scale."""
    with pytest.raises(InputError) as caught:
        load(bright[-0.5])
    assert str(caught.value).startswith(f"{bright[-0.5]}: the HU scale cannot be told from the background (")
    how = f"; say it in: skullgan convert --generator={bright[-0.5]} --output=DIR --hu_scale=signed (or unit)"
    assert str(caught.value).endswith(how)


def test_three_channels_are_no_slices(monkeypatch, capsys, tmp_path):
    shapes = pytorch_names.shapes("generator", Pair(nc=3, nz=4, ngf=16))
    pytorch_file.write(tmp_path / "rgb.pth", support.weights(shapes))
    status, said = command(monkeypatch, capsys, generator=tmp_path / "rgb.pth", output=tmp_path / "m", hu_scale="unit")
    expected = f"error: {tmp_path}/rgb.pth: makes 3 channels, a slice in HU has one; give a generator of nc=1\n"
    assert (status, said) == (2, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["rgb.pth"]


def test_a_scale_of_ones_own(monkeypatch, capsys, tmp_path):
    flags = {"generator": BOTH["generator"], "output": tmp_path / "m", "hu_min": -1000, "hu_max": 2000, "pixel_mm": 0.5}
    assert command(monkeypatch, capsys, **flags)[0] == 0
    found = load(tmp_path / "m")
    assert (found.calibration, found.pixel_mm) == (Calibration(-1000, 2000), 0.5)


def test_three_lines_of_python(bright, monkeypatch):
    """From a .pth to HU slices; the same as from the model converted of it."""
    monkeypatch.setattr(draw, "STANDING_LATENTS", 16)
    hu = skullgan_jax.load(str(bright[-0.999])).sample(4, seed=0)
    assert (hu.shape, hu.dtype) == ((4, 128, 128), np.int16)
    assert (hu.min(), hu.max()) == (1, 2735)  # tanh(atanh(-0.999)) is 1.4 HU
    assert 0.1 < np.mean(hu > 1000) < 0.5


def test_standing_statistics_on_request(bright, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(draw, "STANDING_LATENTS", 16)
    status, said = command(monkeypatch, capsys, generator=bright[0.0], output=tmp_path / "m", standing=True)
    assert (status, "standing statistics: latent 16/16" in said) == (0, True)
    assert load(tmp_path / "m").standing is not None


def hashed(folder):
    return json.loads((folder / "model.json").read_text())["files"]["generator.safetensors"]


def test_verify(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "m"
    command(monkeypatch, capsys, **BOTH, output=folder, hu_scale="signed")
    status, said = command(monkeypatch, capsys, verify=folder, **BOTH)
    assert (status, said.count(": ok, sha256 ")) == (0, 4)
    found = load(folder)
    found.standing = found.g_stats
    found.save(folder)
    status, said = command(monkeypatch, capsys, verify=folder)
    standing = folder / "standing.safetensors"
    assert (status, said.splitlines()[-1].startswith(f"{standing}: ok, sha256 of its values ")) == (0, True)
    whole = standing.read_bytes()
    standing.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    status, said = command(monkeypatch, capsys, verify=folder)
    assert (status, f"{standing}: was changed: its values have sha256 " in said, said.count("\n")) == (2, True, 1)
    for known, word in (({}, "of other weights"), ({"generator": hashed(folder)}, "written without a hash")):
        safetensors.numpy.save_file(traverse_util.flatten_dict(found.g_stats, sep="."), standing, known)
        status, said = command(monkeypatch, capsys, verify=folder)
        assert (status, said.splitlines()[-1].startswith(f"{standing}: {word}")) == (0, True)
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"calibration": {"hu_min": 0, "hu_max": 2735}}))
    standing.unlink()
    status, said = command(monkeypatch, capsys, verify=folder)
    assert (status, said.startswith(f"error: {folder}/model.json: was changed: its generator and calib")) == (2, True)
    (folder / "model.json").write_text(json.dumps(about))
    status, said = command(monkeypatch, capsys, verify=folder, generator=FOLDER / "netG_half.pth")
    assert (status, "netG_half.pth: the model's generator came from another file: sha256 " in said) == (2, True)
    data = bytearray((folder / "discriminator.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "discriminator.safetensors").write_bytes(data)
    status, said = command(monkeypatch, capsys, verify=folder)
    assert (status, "discriminator.safetensors: the model's file was changed: sha256 " in said) == (2, True)
    shutil.rmtree(folder)
    status, said = command(monkeypatch, capsys, verify=folder)
    assert (status, said) == (2, f"error: {folder}: no model here (model.json is missing); give a model directory\n")


def changed(tmp_path, net, change):
    """A .pth whose state dict was changed."""
    path = tmp_path / f"changed_{net}.pth"
    state_dict = dict(pytorch_names.find(net, pytorch_file.read(BOTH[net])))
    pytorch_file.write(path, change(state_dict) or state_dict)
    return path


def nan(key):
    return lambda d: d.update({key: np.full_like(d[key], np.nan)})


@pytest.mark.parametrize(
    ("net", "change", "expected"),
    [
        (
            "generator",
            lambda d: (
                {k: v for k, v in d.items() if k not in ("conv2.bias", "main3.1.running_var")} | {"x": d["conv2.bias"]}
            ),
            ["missing main3.1.running_var", "missing conv2.bias", "unexpected x"],
        ),
        (
            "generator",
            lambda d: d.update({"conv1.bias": d["conv2.bias"], "conv2.bias": d["conv1.bias"]}),
            ["conv1.bias has shape (2,) in place of (4,)", "conv2.bias has shape (4,) in place of (2,)"],
        ),
        ("generator", lambda d: d.update({"main1.0.weight": d["conv2.bias"]}), ["has shape (2,), not four axes"]),
        (
            "generator",
            lambda d: d.update({"main1.0.weight": np.repeat(d["main1.0.weight"], 2, axis=1)}),
            ["is not a generator of nc=1 nz=4 ngf=32", "conv4.weight has shape (1, 1, 3, 3) in place of (1, 2, 3, 3)"],
        ),
        (
            "generator",
            lambda d: d.update({"main1.0.weight": d["main1.0.weight"][:, :8]}),
            ["changed_generator.pth", "model.ngf=0: must be"],
        ),
        ("generator", lambda d: d.update({"conv2.bias": np.zeros(2, np.int64)}), ["conv2.bias is no array of numbers"]),
        ("generator", nan("conv3.weight"), ["holds NaN or infinite weights in conv3.weight; take an earlier"]),
        (
            "generator",
            lambda d: {f"netG.{k}": v for k, v in d.items()} | {"epoch": d["conv2.bias"]},
            ["epoch is no key of the network of netG.main1.0.weight; save that alone"],
        ),
        (
            "generator",
            lambda d: {"a": d["conv2.bias"]},
            ["holds no generator: there is no main1.0.weight in it, but a"],
        ),
        (
            "generator",
            lambda d: d.update({"main3.1.running_var": -d["main3.1.running_var"]}),
            ["changed_generator.pth: holds negative variances in main3.1.running_var; take an earlier checkpoint"],
        ),
        ("discriminator", nan("main.3.running_var"), ["holds NaN or infinite weights in main.3.running_var"]),
        ("discriminator", lambda d: {k: v for k, v in d.items() if "14" not in k}, ["missing main.14.weight; missing"]),
    ],
)
def test_state_dicts_that_do_not_fit(net, change, expected, tmp_path):
    """All that is wrong in one line that names the file."""
    path = changed(tmp_path, net, change)
    with pytest.raises(InputError) as caught:
        pytorch_pair.read(**(BOTH | {net: path}), calibration="signed")
    for part in expected:
        assert part in str(caught.value)


def test_missing_counts_are_zeros(tmp_path):
    """Files of PyTorch before 0.4.1 have none."""
    path = changed(tmp_path, "generator", lambda d: {k: v for k, v in d.items() if "tracked" not in k})
    assert pytorch_pair.read(generator=path, calibration="signed").batches_tracked == {"generator": [0] * 5}


def test_swapped_and_doubled(tmp_path):
    with pytest.raises(
        InputError, match=r"netD.pth: holds a discriminator, not a generator; give it as --discriminator"
    ):
        pytorch_pair.read(generator=BOTH["discriminator"], calibration="signed")
    g = pytorch_names.find("generator", pytorch_file.read(BOTH["generator"]))
    with pytest.raises(InputError, match=r"7 is no key of the network of main1\.0\.weight"):
        pytorch_names.find("generator", {**g, 7: 1})
    with pytest.raises(InputError, match="holds 2 generators"):
        pytorch_names.find("generator", {"g": g, "ema": dict(g)})
    assert pytorch_names.find("generator", {"step": 3, "nets": {"G": g, "D": {"main.0.weight": 1}}}) == g


def test_tensors_of_one_memory(monkeypatch, tmp_path):
    """A hundred views of one storage would need a hundred times the file."""
    key = "main2.0.weight"
    g = dict(pytorch_names.find("generator", pytorch_file.read(BOTH["generator"])))
    monkeypatch.setattr(pytorch_file, "read", lambda path: {**g, **{f"{i}": g[key] for i in range(100)}})
    with pytest.raises(InputError, match="its tensors are views of one memory"):
        pytorch_pair.read(generator=BOTH["generator"], calibration="signed")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "--output is missing; see --help"),
        ({"output": "m"}, "give --generator and --output, or --model, --to and --output, or --verify; see --help"),
        ({"output": "m", "generator": "no.pth"}, "no.pth: cannot be read (No such file or directory)"),
        ({"output": "m", "generator": "no.safetensors"}, "no.safetensors: cannot be read"),
        ({"output": "gs://bucket/m", "generator": "no.pth"}, "--output=gs://bucket/m: this is written to folders"),
        ({"output": "m", "model": "nothing", "to": "torch"}, "nothing: no model here (model.json is missing)"),
        ({"output": "m", "model": "nothing", "to": "onnx"}, "argument --to: invalid choice: 'onnx'"),
        ({"output": "m", "generator": "no.pth", "hu_min": 0}, "--hu_min and --hu_max belong together; give both"),
        ({"output": "m", "generator": "no.pth", "hu_min": 1, "hu_max": 0}, "need finite hu_min < hu_max"),
        ({"output": "m", "generator": "no.pth", "hu_scale": "unit", "hu_min": 0, "hu_max": 1}, "give one of them"),
        ({"output": "m", "generator": "no.pth", "pixel_mm": 0}, "--pixel_mm=0.0: give the size of a pixel in mm"),
        ({"output": "m", "generator": "no.pth", "pixel_mm": "inf"}, "--pixel_mm=inf: give the size of a pixel in mm"),
        ({"output": ".", "generator": "no.pth"}, "--output=.: is there already; give another folder or remove it"),
        ({"outputs": "m"}, "unrecognized arguments: --outputs=m; see python -m skullgan_jax.convert --help"),
    ],
)
def test_wrong_flags(flags, expected, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, said = command(monkeypatch, capsys, **flags)
    assert (status, len(said.splitlines())) == (2, 1), said
    assert said.startswith("error: ")
    assert expected in said
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").touch()
    status, said = command(monkeypatch, capsys, **BOTH, hu_scale="unit", output=tmp_path / "file" / "m")
    assert status == 2
    assert said.splitlines()[-1].startswith(f"error: --output={tmp_path}/file/m: cannot be written (Not a directory)")


def test_one_converts_to_an_output_at_a_time(monkeypatch, capsys, tmp_path):
    """And what is called like ours beside it stays: nothing but the output has changed."""
    for name in ("m.tmp", "m.old", ".m.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("mine")
    with lock.only_writer(tmp_path / "m"), futures.ThreadPoolExecutor(1) as pool:
        flags = [f"--{name}={path}" for name, path in BOTH.items()]
        ended = pool.submit(convert.run, [*flags, f"--output={tmp_path}/m", "--hu_scale=signed"]).exception()
        assert ended.code == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: --output={tmp_path}/m: process {os.getpid()} on ")
    assert command(monkeypatch, capsys, **BOTH, output=tmp_path / "m", hu_scale="signed")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.partial", "m", "m.old", "m.tmp"]
    assert [path.read_text() for path in tmp_path.glob("*m.[to]*/a")] == ["mine", "mine"]


def test_as_users_type_it_without_torch(tmp_path):
    """In a process of its own that cannot import torch; --help is quick, with an example."""
    code = "import sys; sys.modules['torch'] = None; from skullgan_jax.cli import main; main()"
    arguments = [f"--generator={BOTH['generator']}", f"--output={tmp_path}/m", "--hu_scale=signed"]
    done = subprocess.run(
        [sys.executable, "-c", code, "convert", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith(f"wrote {tmp_path}/m, nc=1 nz=4 ngf=16, without a discriminator; the first sampling")
    code = "import sys; sys.argv[1:] = ['convert', '--help']\nfrom skullgan_jax.cli import main\ntry: main()\n"
    code += "finally: assert not {'jax', 'numpy', 'tensorflow'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "python -m skullgan_jax.convert --generator=netG_SkullGAN.pth" in done.stdout
