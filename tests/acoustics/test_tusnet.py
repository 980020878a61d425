"""TUSNet's files, read by torch, and its lines against those of scikit-image."""

import csv

import numpy as np
import pytest

from skullgan_jax import acoustics
from skullgan_jax.acoustics import tusnet
from skullgan_jax.acoustics.inputs import Slices
from skullgan_jax.data import phantom


@pytest.fixture
def layout(monkeypatch):
    """Two slices, two pairs to a file."""
    monkeypatch.setattr(tusnet, "_PAIRS", 2)
    hu = phantom.segments(2, seed=4)
    slices = Slices("s.npy", 2, lambda a, b: hu[a:b], 60 / 128, 2734.53, {})
    return hu, tusnet.Layout(slices, acoustics.flat_array(512))


def _pairs(rows: slice) -> dict:
    """Three pairs of a formula."""
    random = np.random.default_rng(0)
    everything = {
        "field": random.uniform(0, 1e6, (3, 512, 512)).astype(np.float32),
        "delays": random.uniform(0, 2e-5, (3, 80)).astype(np.float32),
        "slice": np.array([0, 0, 1], np.int32),
        "target": acoustics.targets(512)[[0, 55, 0]].astype(np.int32),
        "focus": np.array([[230, 161]] * 3, np.int32),
        "peak": np.array([5e5, 6e5, 7e5], np.float32),
        "peak_in_water": np.array([1e6, 1e6, 1e6], np.float32),
        "shift_mm": np.array([0.5, 0, 1], np.float32),
    }
    return {name: values[rows] for name, values in everything.items()}


def test_torch_reads_what_the_loader_wants(layout, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    hu, layout = layout
    output = tmp_path / "tusnet"
    blocks = (_pairs(slice(i, i + 1)) for i in range(3))
    layout.write("tusnet", str(output), blocks, {"num": 3, "medium": "tusnet"})
    assert "the last file has 1 pairs" in capsys.readouterr().err
    fields, phases, norms = torch.load(output / "pfields/00000.pt", weights_only=True)
    np.testing.assert_array_equal(fields.numpy(), _pairs(slice(2))["field"])
    np.testing.assert_array_equal(phases.numpy(), _pairs(slice(2))["delays"])
    np.testing.assert_array_equal(norms.numpy(), _pairs(slice(2))["field"].max((1, 2)))
    assert len(torch.load(output / "pfields/00001.pt", weights_only=True)[0]) == 1
    plain = torch.load(output / "inputs/00000.pt", weights_only=True).numpy()
    traced = torch.load(output / "inputs_traced/00000.pt", weights_only=True).numpy()
    assert plain.shape == traced.shape == (2, 512, 512)
    fine = np.asarray(acoustics.upsample(hu[:1], 512))[0]
    drawn = plain[1] - fine
    greatest = 2734.531494140625
    elements = acoustics.flat_array(512)
    np.testing.assert_allclose(drawn[tuple(elements.T)], greatest, rtol=1e-6)
    assert plain[1, 448, 352] == pytest.approx(greatest)
    assert np.count_nonzero(drawn) == 81
    assert traced[1, 448, 352] == pytest.approx(greatest)
    lined = np.argwhere(traced[1] != plain[1])
    assert lined.min(0).tolist() == [25, 15]
    assert lined.max(0).tolist() == [448, 489]
    assert traced[1].max() <= 2 * greatest
    with open(output / "fields.csv", newline="") as file:
        assert [row["shift_mm"] for row in csv.DictReader(file)] == ["0.500", "0.000", "1.000"]
    about = layout.about(str(output))
    assert about["num"] == 3
    assert layout.undamaged(str(output), about)
    (output / "inputs/00001.pt").write_bytes(b"")
    assert not layout.undamaged(str(output), about)


def test_lines_are_those_of_scikit_image():
    """line_aa(25, 15, 224, 160) of scikit-image 0.26: 494 pixels, their sum, and some of them."""
    rows, columns, weights = tusnet.line((25, 15), (224, 160))
    assert len(rows) == 494
    assert weights.sum() == pytest.approx(247.22418051270202, abs=1e-9)
    found = {(r, c): w for r, c, w in zip(rows.tolist(), columns.tolist(), weights, strict=True)}
    some = {(25, 15): 1, (26, 15): 0.4111040810760309, (26, 16): 0.7806870370903839, (100, 70): 0.7157054184504976}
    for place, weight in some.items():
        assert found[place] == pytest.approx(weight, abs=1e-12)
