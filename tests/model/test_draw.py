"""Samples of a seed: the same whatever they are drawn with and for; the statistics they are drawn with."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import skullgan_jax
from skullgan_jax.errors import InputError
from skullgan_jax.model import draw
from skullgan_jax.nets import rng
from skullgan_jax.slices import duplicates, radiology
from tests import support

ROOT = pathlib.Path(__file__).parents[2]
latents = support.quick_jit(rng.latents, static_argnums=(2, 3))


@pytest.fixture(scope="module", autouse=True)
def _quick_to_compile():
    """What is drawn here is compared with what the same programs drew; they are not those of other tests."""
    patch = pytest.MonkeyPatch()
    patch.setattr(jax, "jit", support.quick_jit)
    for name in ("_program", "_compiled", "_fold", "_key", "_batch_statistics"):
        patch.setattr(draw, name, functools.cache(getattr(draw, name).__wrapped__))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def small(small_model):
    return skullgan_jax.load(small_model)


@pytest.fixture(scope="module")
def ten(small):
    return small.sample(10, seed=3)


def images(small, stats, indices, train=False, seed=3):
    """(B, 128, 128) in [-1, 1], stated plainly: BatchNorm in its place."""
    z, noise = latents(draw.key(seed), jnp.asarray(indices), small.pair.nz, small.pair.ngf)
    return np.asarray(support.forward(small.pair, "generator", train)(small.g_params, stats, z, noise)[0])[..., 0]


def test_sample_i_is_the_same_bits_for_any_range(small, ten):
    assert (ten.shape, ten.dtype) == ((10, 128, 128), np.int16)
    assert len({hu.tobytes() for hu in ten}) == 10
    np.testing.assert_array_equal(small.sample(3, seed=3, start=6), ten[6:9])
    twenty = small.sample(20, seed=3)  # two batches
    np.testing.assert_array_equal(twenty[:10], ten)
    np.testing.assert_array_equal(small.sample(5, seed=3, start=14), twenty[14:19])
    assert np.abs(small.sample(1, seed=4)[0].astype(int) - ten[0]).max() > 1


def test_sample_i_is_the_same_bits_whatever_the_batch(small, ten):
    """One program draws them all, for the same sample in another order of sums may be hundreds of HU off."""
    program = small.sampler(seed=3)._program
    for batch in (1, 4, 64):
        assert small.sampler(seed=3, batch=batch)._program is program
    np.testing.assert_array_equal(small.sample(6, seed=3, start=2, batch=1), ten[2:8])
    np.testing.assert_array_equal(next(small.stream(3, seed=3, start=5, batch=64)), ten[5:8])
    kept = small.samples(4, seed=3, where="mean_hu > 0", unique=1, batch=64)
    np.testing.assert_array_equal(kept.hu, ten[kept.index])
    parts = list(small.sampler(seed=3).ranges([(18, 20), (8, 10), (0, 3)]))
    np.testing.assert_array_equal(np.concatenate([p.hu for p in parts[1:]]), ten[[8, 9, 0, 1, 2]])


def test_samples_that_were_drawn_otherwise_go_on_so(small, ten):
    """A store of another backend: batches of another size, within 1 HU but for the mask's edge."""
    other = next(small.sampler(seed=3, at_a_time=4).ranges([(0, 6)])).hu
    assert np.mean(np.abs(other.astype(int) - ten[:6]) <= 1) > 0.999


def test_hu_are_the_images_through_the_calibration(small):
    """Folded, quantised on the device, against BatchNorm in its place and numpy: 1e-5 of [-1, 1] before rounding.

    Of a seed in which rounding moves no pixel over the edge of the texture noise's mask.
    """
    ten = small.sample(10, seed=5)
    plain = images(small, small.standing, range(10), seed=5)
    assert np.abs(ten - small.calibration.to_hu(plain)).max() < 0.5 + 1e-5 * 1250
    assert ten.std() > 100


@pytest.mark.parametrize("mode", ["running", "batch"])
def test_batch_norm_modes(small, mode):
    """Statistics of training; or of the group of 4 that a sample belongs to, as published."""
    if mode == "running":
        plain = images(small, small.g_stats, range(10))[:6]
    else:
        plain = np.concatenate([images(small, small.g_stats, range(i, i + 4), train=True) for i in (0, 4)])[:6]
    found = small.sample(6, seed=3, batch_norm=mode, batch=4)
    assert np.abs(found - small.calibration.to_hu(plain)).max() < 0.5 + 1e-4 * 1250
    np.testing.assert_array_equal(small.sample(2, seed=3, start=3, batch_norm=mode, batch=4), found[3:5])


def test_measures_are_those_of_the_images(small, ten):
    drawn = next(small.sampler(seed=3).ranges([(4, 10)]))
    np.testing.assert_array_equal(drawn.index, range(4, 10))
    expected = support.quick_jit(radiology.measure, static_argnums=1)(ten[4:], 0.46875)
    assert drawn.measures.keys() == set(radiology.NAMES)
    for name in radiology.NAMES:
        np.testing.assert_allclose(drawn.measures[name], expected[name], rtol=1e-5, err_msg=name)


def test_samples_are_those_of_sample_with_their_measures(small, ten):
    found = small.samples(6, seed=3, start=4)
    np.testing.assert_array_equal(found.hu, ten[4:])
    np.testing.assert_array_equal(found.index, range(4, 10))
    assert found.measures.keys() == set(radiology.NAMES)


@pytest.fixture(scope="module")
def twenty(small):
    return small.samples(20, seed=3)


def test_samples_that_fit(small, twenty):
    """The first 3 above the median, each with its index and measures."""
    values = twenty.measures["mean_hu"]
    seen = []
    found = small.samples(3, seed=3, where=f"mean_hu > {np.median(values)}", progress=seen.append)
    np.testing.assert_array_equal(found.index, np.flatnonzero(values > np.median(values))[:3])
    np.testing.assert_array_equal(found.hu, twenty.hu[found.index])
    np.testing.assert_array_equal(found.measures["mean_hu"], values[found.index])
    assert seen[-1] == 3


def test_samples_that_differ(small, twenty, monkeypatch):
    """Each from all that were kept before it, in as many pixels of the first 50 rows at 1200 HU."""
    bits = twenty.hu[:, :50] > 1200
    apart = (bits[:, None] != bits[None]).sum((2, 3))
    unique, kept = int(np.quantile(apart[apart > 0], 0.2)), []
    for i in range(20):
        if all(apart[i, j] >= unique for j in kept):
            kept.append(i)
    assert 2 < len(kept) < 18
    monkeypatch.setattr(duplicates, "PUBLISHED", unique)
    for asked in (unique, True):
        found = small.samples(len(kept), seed=3, unique=asked, max_draws=20)
        np.testing.assert_array_equal(found.index, kept)
    with pytest.raises(InputError, match=f"num=21: {len(kept)} of 20 draws .* distinct; ask for less, or give max_dr"):
        small.samples(21, seed=3, unique=unique, max_draws=20)


def test_a_batch_is_drawn_once(small, ten, monkeypatch):
    """For ranges that share it, and for a stream of any batch size."""
    sampler, calls = small.sampler(seed=3), []
    program = sampler._program
    monkeypatch.setattr(sampler, "_program", lambda *args: calls.append(np.asarray(args[2]).tolist()) or program(*args))
    parts = list(sampler.ranges([(0, 3), (3, 9), (9, 18), (18, 20)]))
    assert calls == [[0], [16]]
    np.testing.assert_array_equal(np.concatenate([p.hu for p in parts])[:10], ten)


def test_streams(small, ten):
    """Without an end for a loop that ends by itself, with one, and as tf.data."""
    stream = small.stream(4, seed=3)
    np.testing.assert_array_equal([next(stream), next(stream)], ten[:8].reshape(2, 4, 128, 128))
    parts = list(small.stream(4, seed=3, start=1, num=9))
    assert [len(p) for p in parts] == [4, 4, 1]
    np.testing.assert_array_equal(np.concatenate(parts), ten[1:])
    dataset = small.dataset(4, seed=3, num=10)
    for _ in range(2):  # each iteration begins anew
        np.testing.assert_array_equal(np.concatenate(list(dataset.as_numpy_iterator())), ten)


def test_the_recipe_for_pytorch(small_model, ten, monkeypatch):
    """As docs/sampling.md has it: one after the other, or a part for each worker."""
    torch = pytest.importorskip("torch")
    (recipe,) = (c for c in (ROOT / "docs" / "sampling.md").read_text().split("```") if "IterableDataset" in c)
    names = {}
    exec(recipe.removeprefix("python").replace("models/skullgan", str(small_model)), names)
    assert names["loader"].dataset.num == 10_000
    slices = names["Slices"](small_model, 10, batch_size=4, seed=3)
    found = list(torch.utils.data.DataLoader(slices, batch_size=None))
    assert [tuple(hu.shape) for hu in found] == [(4, 128, 128), (4, 128, 128), (2, 128, 128)]
    np.testing.assert_array_equal(torch.cat(found), ten)
    parts = []
    for worker in range(3):
        monkeypatch.setattr(
            torch.utils.data, "get_worker_info", lambda w=worker: types.SimpleNamespace(id=w, num_workers=3)
        )
        parts.append(torch.cat(list(slices)))
    assert [len(part) for part in parts] == [3, 3, 4]
    np.testing.assert_array_equal(torch.cat(parts), ten)


def test_progress_counts_to_the_end(small):
    seen = []
    small.sample(10, seed=3, batch_norm="batch", batch=4, progress=seen.append)
    assert seen == [4, 8, 10]


@pytest.mark.all
def test_the_same_bits_on_8_devices(small, small_model, compiled):
    """Virtual ones of a CPU, in a process of its own; 20 samples are not a whole number of batches of 8 devices."""
    assert jax.local_device_count() == 1
    code = f"""
import hashlib, jax, skullgan_jax
from tests import support
jax.jit = support.quick_jit
assert jax.local_device_count() == 8
hu = skullgan_jax.load({str(small_model)!r}).sample(20, seed=3)
print(hashlib.sha256(hu.tobytes()).hexdigest())"""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": compiled}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(small.sample(20, seed=3).tobytes()).hexdigest()


def test_the_hash_is_of_the_generator(small, small_model):
    assert small.sha256 == skullgan_jax.load(small_model).sha256
    other = skullgan_jax.load(small_model)
    other.g_params["conv4"]["kernel"] = other.g_params["conv4"]["kernel"] + np.float32(1e-6)
    assert other.sha256 != small.sha256


def test_standing_statistics_are_the_mean_over_batches(small):
    """Of the batches' means and unbiased variances: here, of what enters the first normalisation, by numpy."""
    found = draw.standing_statistics(small.pair, small.g_params, seed=5, batch=4, num=8)
    means, variances = [], []
    for start in (0, 4):
        z, _ = latents(rng.stream(5, "standing"), start + jnp.arange(4), small.pair.nz, small.pair.ngf)
        x = np.einsum("bz,zhwc->bhwc", z, small.g_params["main1"]["kernel"])
        means.append(x.mean((0, 1, 2)))
        variances.append(x.var((0, 1, 2), ddof=1))
    np.testing.assert_allclose(found["norm1"]["mean"], np.mean(means, 0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["norm1"]["var"], np.mean(variances, 0), rtol=1e-4)


def test_standing_statistics_wait_for_each_batch(small, monkeypatch):
    """A CPU with several devices has no thread left for the step before them, once 32 programs wait for it."""
    found, late = [], 0

    @jax.jit
    def batch(params, stream, start):  # a tenth of a second
        mean = jnp.full((500, 500), 1 / 500)
        same = jax.lax.fori_loop(0, 100, lambda _, x: mean @ x, mean)[0, 0]
        return jax.tree.map(lambda s: jnp.full(s.shape, same), small.pair.shapes()[1])

    def one(*args):
        nonlocal late
        late += sum(not x.is_ready() for x in jax.tree.leaves(found[-1:]))
        found.append(batch(*args))
        return found[-1]

    monkeypatch.setattr(draw, "_batch_statistics", lambda *_: one)
    stats = draw.standing_statistics(small.pair, small.g_params, batch=4, num=16)
    assert (len(found), late) == (4, 0)
    np.testing.assert_allclose(stats["norm1"]["mean"], 1 / 500, rtol=1e-3)


@pytest.mark.all
def test_standing_statistics_do_not_depend_on_the_training_precision(small_model):
    found = []
    for dtype in ("float32", "bfloat16"):
        trained = skullgan_jax.load(small_model)
        trained.pair, trained.folder = dataclasses.replace(trained.pair, dtype=dtype), None
        trained.compute_standing()
        found.append(trained.standing)
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_what_cannot_be_drawn(small):
    with pytest.raises(InputError, match="num=0: give 1 or more"):
        small.sample(0)
    with pytest.raises(InputError, match="start=-1: give 0 or more"):
        small.samples(1, start=-1)
    with pytest.raises(InputError, match="unique=0: give 1 or more"):
        small.samples(1, unique=0)
    with pytest.raises(InputError, match="indices end at 2\\^32 - 1"):
        small.samples(2, start=2**32 - 1)
    with pytest.raises(InputError, match="no measure is called 'density'"):
        small.samples(1, where="density > 1")
    with pytest.raises(InputError, match="batch_norm='no': give one of standing, running, batch"):
        small.sample(1, batch_norm="no")
