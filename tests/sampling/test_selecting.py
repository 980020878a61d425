"""Samples of a condition, and distinct ones: what is kept, by whom and how ever it is drawn."""

import contextlib
import csv
import json

import numpy as np

from skullgan_jax.sampling import run
from skullgan_jax.sampling.store import Store
from skullgan_jax.slices import duplicates
from tests.sampling.folder import files


def test_a_condition(command, hu, measures, tmp_path):
    """Against numpy on the same draws."""
    limit = float(np.median(measures["mean_hu"]))
    fits = np.flatnonzero(measures["mean_hu"] < limit)
    status, lines = command(num=10, output=tmp_path / "s.npy", where=f"mean_hu<{limit}")
    draws = fits[9] + 1
    assert status == 0
    assert f"kept 10 of {draws} draws ({1000 / draws:.3g} %), {1000 / draws:.3g} % fit" in lines
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[fits[:10]])
    about = json.loads((tmp_path / "s.json").read_text())
    assert (about["draws"], about["kept"], about["where"]) == (draws, 10, f"mean_hu<{limit}")
    with (tmp_path / "s.csv").open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == fits[:10].tolist()


def test_distinct_ones(command, hu, tmp_path):
    """By one process, by two, into an array and a store, in one go and in two: the same, and brute force's."""
    seen, kept = (hu[:, :50] > 1200).reshape(64, -1), []
    distances = (seen[:, None] != seen).sum(-1)
    least = int(np.quantile(distances[np.triu_indices(64, 1)], 0.03))
    for i in range(64):
        if all(distances[i, j] >= least for j in kept):
            kept.append(i)
    assert 8 < len(kept) < 60
    num = len(kept) - 1
    wanted = hu[kept[:num]]
    command(num=num, output=tmp_path / "s.npy", unique=least)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), wanted)
    command(num=num // 2, output=tmp_path / "t.zarr", unique=least)
    command(num=num, output=tmp_path / "t.zarr", unique=least)
    np.testing.assert_array_equal(Store(tmp_path / "t.zarr").read(0, num).hu, wanted)
    np.testing.assert_array_equal(Store(tmp_path / "t.zarr").read(0, num).index, kept[:num])
    for process in (1, 0, 1, 0):
        command(num=num, output=tmp_path / "u.npy", unique=least, process=process, processes=2)
    np.testing.assert_array_equal(np.load(tmp_path / "u.npy"), wanted)
    assert duplicates.Distinct(least).add(np.load(tmp_path / "u.npy")).all()


def test_a_process_that_is_ahead_takes_what_is_missing(command, measures, tmp_path, monkeypatch):
    """It goes by its own draws first: here a tenth or so fits, and one shard would not do. Alone, it has them all."""
    limit = float(np.quantile(measures["mean_hu"], 0.1))
    write, written = Store.write, []
    monkeypatch.setattr(Store, "write", lambda self, shard, drawn: written.append(shard) or write(self, shard, drawn))
    flags = {"num": 10, "where": f"mean_hu<{limit}"}
    assert command(output=tmp_path / "s.npy", process=1, processes=2, **flags)[0] == 0
    ahead = next(i for i, shard in enumerate(written) if shard % 2 == 0)
    draws = Store(tmp_path / "s.npy.draws")
    found = np.concatenate([draws.read(*draws.rows(shard)).measures["mean_hu"] for shard in written[:ahead]])
    # What is drawn next is decided up to three batches before, which here are as many shards.
    assert (found < limit).sum() >= 10 > (found[:-64] < limit).sum()
    assert len(written) == len(set(written))
    command(output=tmp_path / "t.npy", **flags)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), np.load(tmp_path / "t.npy"))


def test_one_process_writes_what_all_have(command, measures, tmp_path, monkeypatch):
    """The others wait for it, and have it then; if it was killed, the next one writes."""
    flags = {"num": 5, "output": tmp_path / "s.npy", "where": f"mean_hu<{float(np.median(measures['mean_hu']))}"}
    wrote, lock = f"wrote 5 samples to {tmp_path}/s.npy", tmp_path / ".s.npy.lock"
    lock.write_text("")  # of one that was killed
    assert wrote in command(**flags)[1]
    assert not lock.exists()
    first = files(tmp_path)
    for path in (p for p in tmp_path.iterdir() if p.is_file()):
        path.unlink()

    @contextlib.contextmanager
    def after_another(path, waiting):
        with monkeypatch.context() as patch:
            patch.setattr(run, "in_turn", lambda *_: contextlib.nullcontext())
            assert wrote in command(**flags)[1]
        waiting()
        yield

    monkeypatch.setattr(run, "in_turn", after_another)
    assert command(**flags) == (
        *(0, [f"{tmp_path}/s.npy: another process puts it together; waiting for it",
              f"{tmp_path}/s.npy: has 5 samples already"]),
    )  # fmt: skip
    assert files(tmp_path) == first


def test_the_yield_falls(command, hu, tmp_path):
    """A process that goes by the first draws, which all differ, is wrong, and goes on: nobody is left without."""
    seen = (hu[:, :50] > 1200).reshape(64, -1)
    distances = (seen[:, None] != seen).sum(-1)
    least = int(np.quantile(distances[np.triu_indices(64, 1)], 0.2))
    kept = np.flatnonzero(duplicates.Distinct(least).add(hu))
    num = len(kept)
    assert num < len(duplicates.Distinct(least).add(hu[:16])) * 4 * 0.8
    for process in (2, 0):
        status, lines = command(
            num=num, output=tmp_path / "s.npy", unique=least, process=process, processes=3, max_draws=64
        )
        assert status == 0, lines
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[kept])
    assert lines == [f"{tmp_path}/s.npy: has {num} samples already"]


def test_both_together(command, hu, measures, tmp_path):
    limit = float(np.median(measures["mean_hu"]))
    fits = np.flatnonzero(measures["mean_hu"] < limit)
    kept = fits[duplicates.Distinct(700).add(hu[fits])]
    assert 10 < len(kept) < len(fits)
    command(num=10, output=tmp_path / "s.npy", where=f"mean_hu<{limit}", unique=700)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[kept[:10]])


def test_nothing_fits(command, measures, tmp_path):
    status, lines = command(num=5, output=tmp_path / "s.npy", where="mean_hu<0", max_draws=40)
    assert status == 2
    assert lines[-1].startswith(
        "error: --num=5: 0 of 40 draws (0 %), 0 % fit; ask for less, or give --max_draws above 40"
    )
    seen = measures["mean_hu"][:40]
    assert lines[-1].endswith(f"they have mean_hu {seen.min():.4g} to {seen.max():.4g}, median {np.median(seen):.4g}")
    assert not (tmp_path / "s.npy").exists()
    hu = Store(tmp_path / "s.npy.draws").read(0, 40).hu
    assert not hu.any()  # what does not fit takes no room
    for process in (1, 0):
        again = command(
            num=5, output=tmp_path / "s.npy", where="mean_hu<0", max_draws=120, process=process, processes=2
        )
    assert again[1][-1].startswith("error: --num=5: 0 of 120 draws (0 %), 0 % fit; ask for less")
