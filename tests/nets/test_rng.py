"""The random numbers: the cipher against JAX's own, the normals against theory, and what a sample depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from scipy import stats

from skullgan_jax.errors import InputError
from skullgan_jax.nets import rng

KEY = jnp.array([0x13198A2E, 0x03707344], jnp.uint32)


@pytest.mark.parametrize("key", [[0, 0], [2**32 - 1, 2**32 - 1], [0x13198A2E, 0x03707344]])
def test_threefry_equals_jax(key):
    """Bit for bit, on counters that include the ends and one run through many."""
    random = np.random.default_rng(0)
    counter = np.concatenate([np.arange(2048), random.integers(0, 2**32, 2046), [2**31, 2**32 - 1]]).astype(np.uint32)
    key = jnp.asarray(key, jnp.uint32)
    first, second = jax.jit(rng._threefry)(key[0], key[1], counter)
    theirs = threefry_2x32(key, jnp.concatenate([counter, jnp.zeros_like(counter)])).reshape(2, -1)
    np.testing.assert_array_equal(first, theirs[0])
    np.testing.assert_array_equal(second, theirs[1])


def test_threefry_known_answer():
    """The published answer for 20 rounds of zero key and zero counter (kat_vectors of Random123)."""
    zero = jnp.zeros(1, jnp.uint32)
    first, second = rng._threefry(zero[0], zero[0], zero)
    assert (int(first[0]), int(second[0])) == (0x6B200159, 0x99BA4EFE)


def test_normal_uses_each_counter_once():
    """Element i of the first half comes from word 0 of counter i, of the second half from word 1."""
    shape = (6, 5, 4, 3)
    count = jnp.arange(np.prod(shape) // 2, dtype=jnp.uint32)
    words = threefry_2x32(KEY, jnp.concatenate([count, jnp.zeros_like(count)]))
    expected = rng._bits_to_normal(words).reshape(shape)
    drawn = jax.jit(rng.normal, static_argnums=1)(jax.random.wrap_key_data(KEY)[None], shape)
    assert drawn.dtype == jnp.float32
    np.testing.assert_array_equal(drawn[0], expected)


def test_normal_is_normal():
    """Moments within 4 standard errors, Kolmogorov-Smirnov, and no correlation between neighbours or halves."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = np.asarray(jax.jit(rng.normal, static_argnums=1)(keys, (512, 512)), np.float64)
    n = x.size
    assert np.isfinite(x).all()
    assert 4.5 < np.abs(x).max() < 5.5  # of a million draws; expected 4.9
    assert abs(x.mean()) < 4 / np.sqrt(n)
    assert abs(x.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(stats.skew(x, axis=None)) < 4 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(x, axis=None)) < 4 * np.sqrt(24 / n)
    assert stats.kstest(x.ravel(), "norm").pvalue > 0.01
    for row in x:
        assert stats.kstest(row.ravel(), "norm").pvalue > 0.01
    pairs = {
        "words of a counter": (x[:, :256], x[:, 256:]),
        "rows": (x[:, 1:], x[:, :-1]),
        "columns": (x[:, :, 1:], x[:, :, :-1]),
        "samples": (x[1:], x[:-1]),
    }
    for name, (a, b) in pairs.items():
        assert abs((a * b).mean()) < 4 / np.sqrt(a.size), name


def test_extreme_bits():
    """The ends of the range are finite and opposite, as is every cell and its mirror."""
    bits = np.array([0, 2**32 - 1, 2**31 - 1, 2**31], np.uint32)
    low, high, below, above = np.asarray(jax.jit(rng._bits_to_normal)(bits), np.float64)
    # 23 bits: the outermost cell is centred at 1 - 2^-23, the innermost at 2^-23
    np.testing.assert_allclose([high, above], stats.norm.ppf(0.5 + 0.5 * np.array([1 - 2.0**-23, 2.0**-23])), rtol=1e-4)
    assert (low, below) == (-high, -above)
    bits = np.random.default_rng(0).integers(0, 2**32, 10000, np.uint32)
    x = np.asarray(jax.jit(rng._bits_to_normal)(np.stack([bits, ~bits])))
    np.testing.assert_array_equal(x[0], -x[1])


def test_bits_to_normal_is_the_quantile_function():
    """Against scipy's over the whole range."""
    bits = np.linspace(0, 2**32 - 1, 4097).astype(np.uint32)
    uniform = ((bits >> 9).astype(np.float64) + 0.5) / 2**23
    np.testing.assert_allclose(rng._bits_to_normal(bits), stats.norm.ppf(uniform), rtol=2e-5, atol=1e-6)


def test_normal_row_depends_on_its_key_only():
    """Whatever the batch size and the order."""
    keys = jax.random.split(jax.random.key(1), 8)
    draw = jax.jit(rng.normal, static_argnums=1)
    shape = (8, 8, 3)
    all_rows = np.asarray(draw(keys, shape))
    order = np.random.default_rng(0).permutation(8)
    np.testing.assert_array_equal(draw(keys[order], shape), all_rows[order])
    np.testing.assert_array_equal(draw(keys[2:5], shape), all_rows[2:5])
    np.testing.assert_array_equal(draw(keys[6:7], shape), all_rows[6:7])
    assert len(np.unique(all_rows)) == all_rows.size


def test_sample_depends_on_its_index_only():
    """Latent and noise of sample i are the same in any batch of indices."""
    nz, ngf = 12, 16
    draw = jax.jit(rng.latents, static_argnums=(2, 3))
    key = rng.stream(0, "sample")
    index = np.array([3, 4, 5, 1_000_000, 0, 2**31 - 1, 7, 6])
    z, noise = draw(key, jnp.asarray(index), nz, ngf)
    assert z.shape == (8, nz)
    assert [n.shape for n in noise] == [(8, 128, 128, 8), (8, 128, 128, 2)]
    assert {z.dtype, *(n.dtype for n in noise)} == {jnp.dtype("float32")}
    for places in ([0], [3, 0, 6], [7, 6, 5, 4, 3, 2, 1, 0]):
        other_z, other_noise = draw(key, jnp.asarray(index[places]), nz, ngf)
        np.testing.assert_array_equal(other_z, z[np.array(places)])
        for a, b in zip(other_noise, noise, strict=True):
            np.testing.assert_array_equal(a, b[np.array(places)])


def test_streams_and_seeds_differ():
    """No two of a few streams, seeds and indices share a latent; the same name and seed give it again."""
    names, seeds = ("train latent", "sample", "standing"), (0, 1, 111)
    draw = jax.jit(lambda key: rng.latents(key, jnp.arange(2), 16, 16)[0])
    z = np.concatenate([draw(rng.stream(seed, name)) for name in names for seed in seeds])
    assert len(np.unique(z[:, 0])) == len(z) == 18
    np.testing.assert_array_equal(draw(rng.stream(111, "standing")), z[-2:])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_is_not_taken_for_another(seed):
    """JAX takes 32 bits: 2^32 would be 0, and -1 the last one."""
    with pytest.raises(InputError, match=rf"seed={seed}: give 0 to 2\^32 - 1"):
        rng.stream(seed, "sample")


def test_latent_is_uniform():
    """The latent fills (-1, 1): bounds, mean, variance 1/3, Kolmogorov-Smirnov."""
    draw = jax.jit(lambda key, i: rng.latents(key, i, 200, 16)[0])
    z = np.concatenate([draw(rng.stream(0, "sample"), jnp.arange(i, i + 8)) for i in range(0, 400, 8)])
    assert z.shape == (400, 200)
    assert -1 < z.min() < -0.999
    assert 0.999 < z.max() < 1
    assert abs(z.mean()) < 4 * np.sqrt(1 / 3 / z.size)
    assert abs(z.var() - 1 / 3) < 4 * np.sqrt(4 / 45 / z.size)
    assert stats.kstest(z.ravel(), "uniform", (-1, 2)).pvalue > 0.01
