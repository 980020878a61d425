"""Samples of a seed: the same whatever the batch; the statistics they are drawn with."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax import model, models, rng, sample


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    return model.load(finished / "model")


def draw(trained, num, **options):
    return sample.slices(trained.pair, trained.g_params, trained.standing, trained.calibration, num, **options)


def test_sample_i_is_the_same_whatever_the_batch(trained):
    """Within 1 HU: sums of another shape round otherwise."""
    ten = draw(trained, 10, seed=3, batch=16)
    assert (ten.shape, ten.dtype) == (((10, 128, 128)), np.int16)
    for batch in (1, 4):
        other = draw(trained, 6, seed=3, batch=batch)
        assert np.abs(other.astype(int) - ten[:6]).max() <= 1
    np.testing.assert_array_equal(draw(trained, 10, seed=3, batch=16), ten)
    assert np.abs(draw(trained, 1, seed=4, batch=16)[0].astype(int) - ten[0]).max() > 1
    assert len({hu.tobytes() for hu in ten}) == 10


def test_progress_counts_to_the_end(trained):
    seen = []
    draw(trained, 10, seed=0, batch=4, progress=seen.append)
    assert seen == [4, 8, 10]


def test_hu_stay_in_the_calibration(trained):
    hu = draw(trained, 4, seed=0, batch=4)
    assert hu.min() >= round(trained.calibration.hu_min)
    assert hu.max() <= round(trained.calibration.hu_max)


def test_standing_statistics_are_the_mean_over_batches(trained):
    """Of the batches' means and unbiased variances: here, of what enters the first normalisation, by numpy."""
    found = sample.standing_statistics(trained.pair, trained.g_params, seed=5, batch=4, num=8)
    assert jax.tree.structure(found) == jax.tree.structure(trained.g_stats)
    graph, _ = trained.pair.graphs()
    ones = []
    for start in (0, 4):
        z, noise = rng.latents(rng.stream(5, "standing"), start + jnp.arange(4), trained.pair.nz, trained.pair.ngf)
        old = jax.tree.map(lambda x: jnp.asarray(x) + 2, trained.g_stats)  # any: only the move counts
        new = models.apply(graph, trained.g_params, old, z, noise, train=True)[1]
        ones.append(jax.tree.map(lambda n, o: (n - 0.9 * o) / 0.1, new, old))  # torch: 0.9 old + 0.1 batch
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *ones)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_standing_statistics_do_not_depend_on_the_trail(finished):
    """Exported ones are of the weights alone, with the default seed."""
    exported = model.load(finished / "model")
    again = sample.standing_statistics(exported.pair, exported.g_params)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(exported.standing), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_the_final_slices_of_a_run_are_samples_of_its_model(finished, trained):
    written = np.load(finished / "slices.npy")
    again = draw(trained, len(written), seed=111)
    assert np.abs(written.astype(int) - again).max() <= 1


def test_save_slices(tmp_path):
    hu = np.arange(2 * 128 * 128, dtype=np.int16).reshape(2, 128, 128)
    sample.save_slices(tmp_path / "s.npy", hu, {"calibration": {"hu_min": 0.0}})
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy", allow_pickle=False), hu)
    assert json.loads((tmp_path / "s.json").read_text()) == {"calibration": {"hu_min": 0.0}}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.json", "s.npy"]
