"""Fields of slices and targets as a job: numbers, going on, processes, and what is refused."""

import csv
import json
import pathlib

import numpy as np
import pytest

from skullgan_jax import acoustics
from skullgan_jax.acoustics import __main__ as command
from skullgan_jax.acoustics import focus, inputs
from skullgan_jax.acoustics.fields import FieldStore
from skullgan_jax.acoustics.solver import Grid

SIZE = 64


@pytest.fixture(scope="module")
def arches(tmp_path_factory) -> pathlib.Path:
    """Two slices of 64 x 64, an arch and a thicker one, as `sample` would describe them."""
    hu = np.zeros((2, SIZE, SIZE), np.int16)
    hu[0, 12:15], hu[1, 12:18, :32] = 1500, 1200
    path = tmp_path_factory.mktemp("arches") / "arches.npy"
    np.save(path, hu)
    return path


@pytest.fixture(scope="module", autouse=True)
def _small():
    """Slices of the grid's own size, which are refused elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "open_slices", lambda path: np.load(path))
        patch.setattr(inputs, "PIXEL_MM", 60 / SIZE)
        yield


def simulate(arches, output, *more) -> None:
    command.run(["simulate", f"--input={arches}", "--medium=kplan", f"--size={SIZE}", f"--output={output}", *more])


def refused(capsys, *args) -> str:
    with pytest.raises(SystemExit) as ended:
        simulate(*args)
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ")
    return said


@pytest.fixture(scope="module")
def done(arches, tmp_path_factory) -> pathlib.Path:
    output = tmp_path_factory.mktemp("done") / "f.zarr"
    simulate(arches, output, "--shard=1")
    return output


def test_a_field_is_that_of_its_parts(arches, done):
    """Delays by time reversal, then the array through the slice, each by the functions that users have."""
    store = FieldStore(done)
    found = store.read(0, 2)
    assert found["slice"].tolist() == [0, 1]
    assert found["target"].tolist() == [[40, 32]] * 2
    about = store.about
    assert about["complete"]
    grid = Grid((SIZE,) * 2, 60e-3 / SIZE, about["dt"], about["steps"], about["speed_ref"], (14, 14), 5.0)
    elements = acoustics.flat_array(SIZE)
    medium = acoustics.medium(np.load(arches)[1].astype(np.float32), "kplan")
    delays = acoustics.reversed_delays(medium, grid, elements, (40, 32))
    np.testing.assert_allclose(found["delays"][1], delays, atol=grid.dt * 1.01)
    field = acoustics.sonicate(medium, grid, elements, np.asarray(found["delays"][1])).p_max
    np.testing.assert_allclose(found["field"][1], field, atol=2e-4 * float(np.max(field)))
    at, peak = focus.peak(field, focus.behind_bone(medium, 40))
    assert found["focus"][1].tolist() == list(at)
    np.testing.assert_allclose(found["peak"][1], peak, rtol=1e-3)
    # TUSNet's: as many steps as sound takes over twice the width of the slowest medium, water.
    assert about["steps"] == int(2 * 60e-3 / 1500 / about["dt"]) + 1
    assert about["dt"] == pytest.approx(0.3 * 60e-3 / SIZE / (1.33 * 1856.3 + 167), rel=1e-3)  # kplan at 1500 HU


def test_the_table_and_the_picture(done):
    with open(done.with_suffix(".csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    found = FieldStore(done).read(0, 2)
    assert [float(row["peak_pa"]) for row in rows] == pytest.approx(found["peak"].tolist(), rel=1e-5)
    assert [int(row["focus_row"]) for row in rows] == found["focus"][:, 0].tolist()
    assert all(0 < float(row["peak_pa"]) < float(row["peak_in_water_pa"]) for row in rows)
    assert done.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.all
def test_going_on_and_processes_give_the_same_bits(arches, done, tmp_path, capsys):
    output = tmp_path / "f.zarr"
    simulate(arches, output, "--shard=1", "--process=1", "--processes=2")
    assert "1 shards of others are not there yet" in capsys.readouterr().err
    assert not FieldStore(output).about["complete"]
    simulate(arches, output, "--shard=1", "--process=0", "--processes=2")
    one, two = FieldStore(done).read(0, 2), FieldStore(output).read(0, 2)
    for name in FieldStore.NAMES:
        np.testing.assert_array_equal(one[name], two[name])
    capsys.readouterr()
    simulate(arches, output, "--shard=1")
    assert "has 2 fields already" in capsys.readouterr().err


@pytest.mark.all
def test_delays_of_water(arches, tmp_path):
    simulate(arches, tmp_path / "f.zarr", "--delays=water", "--num=1")
    found = FieldStore(tmp_path / "f.zarr").read(0, 1)
    grid = Grid((SIZE,) * 2, 60e-3 / SIZE, 1e-8, 10, 3000.0)
    wanted = acoustics.geometric_delays(grid, acoustics.flat_array(SIZE), (40, 32))
    np.testing.assert_allclose(found["delays"][0], wanted, atol=1e-11)


def test_what_is_refused(arches, done, tmp_path, capsys):
    before = {p: p.read_bytes() for p in sorted(done.rglob("*")) if p.is_file()}
    assert "holds other fields: delays was reversed now water" in refused(capsys, arches, done, "--delays=water")
    assert "--num=3: " in refused(capsys, arches, tmp_path / "f.zarr", "--num=3")
    assert "TUSNet's grid is of 512" in refused(capsys, arches, tmp_path / "folder")
    assert "belong together" in refused(capsys, arches, tmp_path / "f.zarr", "--process=0")
    assert {p: p.read_bytes() for p in sorted(done.rglob("*")) if p.is_file()} == before
    hu = np.load(arches)
    for place, what in (((3, 20), "the element of the array in row 3, column"), ((40, 32), "the target in row 40")):
        wrong = hu.copy()
        wrong[1][place[0] - 1 : place[0] + 2, place[1] - 2 : place[1] + 3] = 1200
        np.save(tmp_path / "wrong.npy", wrong)
        said = refused(capsys, tmp_path / "wrong.npy", tmp_path / "f.zarr")
        assert f"slice 1 of wrong.npy: {what}" in said
    (tmp_path / "g.csv").write_text("mine")
    assert "g.csv is there and would be replaced" in refused(capsys, arches, tmp_path / "g.zarr")
    assert (tmp_path / "g.csv").read_text() == "mine"
    np.save(tmp_path / "unit.npy", hu / 1500.0)
    assert "between -1 and 1 are not HU" in refused(capsys, tmp_path / "unit.npy", tmp_path / "f.zarr")
    assert not (tmp_path / "f.zarr").exists()


def test_other_slices_of_the_same_name_are_refused(arches, done, tmp_path, capsys):
    other = tmp_path / arches.name
    hu = np.load(arches)
    hu[1, 14, 7] += 1
    np.save(other, hu)
    assert "samples was" in refused(capsys, other, done)


def test_a_store_says_what_it_is(done):
    about = json.loads((done / "zarr.json").read_text())["attributes"]
    assert about["medium"] == "kplan"
    assert about["elements"] == len(acoustics.flat_array(SIZE))
