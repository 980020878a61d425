"""The command: maps in each format, what they say, and what is refused."""

import json
import pathlib

import h5py
import numpy as np
import pytest
import zarr

from skullgan_jax import acoustics
from skullgan_jax.acoustics import __main__ as command
from skullgan_jax.data import phantom


@pytest.fixture(scope="module")
def skulls(tmp_path_factory) -> pathlib.Path:
    """20 phantoms as `sample` writes them: a .npy, and what it is beside it."""
    path = tmp_path_factory.mktemp("skulls") / "skulls.npy"
    np.save(path, phantom.segments(20, seed=2))
    said = {"output": "skulls.npy", "pixel_mm": 0.46875, "calibration": {"hu_min": 0.0, "hu_max": 2400.0}, "seed": 3}
    path.with_suffix(".json").write_text(json.dumps(said))
    return path


def _run(*flags) -> int:
    with pytest.raises(SystemExit) as ended:
        command.run([str(f) for f in flags])
    return ended.value.code


def _read(path: pathlib.Path) -> dict:
    """Each format by a library that others read it with."""
    if path.suffix == ".npz":
        found = dict(np.load(path))
        return found | {"about": str(found["about"])}
    if path.suffix == ".zarr":
        group = zarr.open_group(path, mode="r")
        return {name: group[name][:] for name in group} | dict(group.attrs) | {"about": json.dumps(dict(group.attrs))}
    with h5py.File(path) as file:
        found = {name: file[name][()] for name in file} | dict(file.attrs)
    if path.suffix == ".mat":  # as MATLAB sees it: the axes the other way round
        found = {name: value.T for name, value in found.items()}
        found["about"] = "".join(map(chr, found["about"].ravel()))
        found |= {name: found[name].transpose(2, 0, 1) for name in ("density", "sound_speed", "alpha_coeff")}
    return found


@pytest.mark.parametrize("ending", [".h5", ".mat", ".npz", ".zarr"])
def test_each_format(ending, skulls, tmp_path, capsys):
    output = tmp_path / f"medium{ending}"
    command.run([f"--input={skulls}", "--medium=aubry", "--size=256", f"--output={output}"])
    found, hu = _read(output), acoustics.upsample(np.load(skulls), 256)
    wanted = acoustics.medium(hu, "aubry", hu_max=2400.0)
    for name in ("density", "sound_speed", "alpha_coeff"):
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], getattr(wanted, name), rtol=1e-6)
    about = json.loads(found["about"])
    assert about["medium"] == "aubry"
    assert about["samples"] == {"seed": 3}
    assert about["pixel_mm"] * about["size"] == pytest.approx(60.0)
    assert about["hu_max"] == 2400
    assert np.ravel(found["alpha_power"]) == [1.0]
    assert "wrote" in capsys.readouterr().err
    before = sorted(p.stat().st_mtime_ns for p in [output, *output.rglob("*")])
    command.run([f"--input={skulls}", "--medium=aubry", "--size=256", f"--output={output}"])
    assert "is there already" in capsys.readouterr().err
    assert sorted(p.stat().st_mtime_ns for p in [output, *output.rglob("*")]) == before
    assert _run(f"--input={skulls}", "--medium=tusnet", "--size=256", f"--output={output}") == 2
    assert "holds other maps: medium was aubry now tusnet" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [output.name]


def test_matlab_knows_its_file(skulls, tmp_path):
    """The head of 512 bytes that MATLAB looks for, before HDF5's own."""
    output = tmp_path / "medium.mat"
    command.run([f"--input={skulls}", "--medium=tusnet", f"--output={output}"])
    head = output.read_bytes()[:520]
    assert head.startswith(b"MATLAB 7.3 MAT-file")
    assert head[124:128] == b"\x00\x02IM"
    assert head[512:520] == b"\x89HDF\r\n\x1a\n"
    with h5py.File(output) as file:
        classes = {name: file[name].attrs["MATLAB_class"] for name in file}
    assert classes["density"] == b"single"
    assert classes["alpha_power"] == b"double"
    assert classes["about"] == b"char"


@pytest.mark.all
def test_a_comparison(skulls, tmp_path):
    command.run([f"--input={skulls}", f"--compare={tmp_path / 'models.png'}"])
    assert (tmp_path / "models.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--medium=kplan"], "give --medium and --output, or --compare"),
        (["--medium=kplan", "--output=maps.txt"], "--output=maps.txt: ends in none of .h5, .mat, .npz, .zarr"),
        (["--medium=k-plan", "--output=a.h5"], "no acoustic model 'k-plan'"),
        (["--medium=kwave", "--output=a.h5"], "names no attenuation"),
        (["--medium=kplan", "--output=a.h5", "--size=64"], "--size=64: give 128"),
        (["--medium=kplan", "--output=a.h5", "--pixel_mm=nan"], "--pixel_mm=nan: give the edge"),
        (["--medium=aubry", "--output=a.h5", "--hu_max=nan"], "hu_max nan"),
    ],
)
def test_refused(flags, line, skulls, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _run(f"--input={skulls}", *flags) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_slices_that_are_no_hu(tmp_path, capsys):
    np.save(tmp_path / "unit.npy", np.linspace(-1, 1, 2 * 128 * 128, dtype=np.float32).reshape(2, 128, 128))
    assert _run(f"--input={tmp_path / 'unit.npy'}", "--medium=kplan", f"--output={tmp_path / 'a.h5'}") == 2
    assert "slices 0 to 1: values between -1 and 1 are not HU" in capsys.readouterr().err
    assert _run(f"--input={tmp_path / 'unit.npy'}", "--medium=aubry", f"--output={tmp_path / 'a.h5'}") == 2
    assert "model aubry needs hu_max" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["unit.npy"]


def test_somebody_elses_file_stays(skulls, tmp_path, capsys):
    (tmp_path / "medium.h5").write_text("mine")
    assert _run(f"--input={skulls}", "--medium=kplan", f"--output={tmp_path / 'medium.h5'}") == 2
    assert "is there, and holds no maps" in capsys.readouterr().err
    assert (tmp_path / "medium.h5").read_text() == "mine"
