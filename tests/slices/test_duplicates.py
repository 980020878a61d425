"""Near duplicates against the rule written out pair by pair."""

import numpy as np
import pytest

from skullgan_jax.data.phantom import segments
from skullgan_jax.slices import duplicates
from skullgan_jax.slices.duplicates import PUBLISHED, ROWS, THRESHOLD_HU, Distinct, diversity, nearest


def pixels(hu):
    return (np.asarray(hu)[:, :ROWS] > THRESHOLD_HU).reshape(len(hu), -1)


def distances(a, b):
    """(N, M) pixels that differ: set in one or the other but not in both. Counts are exact in float32."""
    a, b = pixels(a).astype(np.float32), pixels(b).astype(np.float32)
    return (a.sum(1)[:, None] + b.sum(1) - 2 * a @ b.T).astype(int)


def greedy(between, least):
    kept = np.zeros(len(between), bool)
    for i, row in enumerate(between):
        kept[i] = (row[kept] >= least).all()
    return kept


def stripes(counts):
    """Slice i has its first counts[i] pixels set, so that distances are differences of counts."""
    set_ = np.arange(128 * 128) < np.asarray(counts)[:, None]
    return np.where(set_, 1500, 0).astype(np.int16).reshape(-1, 128, 128)


@pytest.fixture(scope="module")
def mixed():
    """2,600 slices, and their distances: phantoms, near and exact copies of them, empty ones and noise, shuffled."""
    rng = np.random.default_rng(0)
    base = segments(900)
    near = np.roll(base[rng.integers(0, 900, 900)], 1, axis=2)
    worn = base[rng.integers(0, 900, 500)].copy()
    for i, hu in enumerate(worn):  # i % 400 pixels turned over
        hu[np.unravel_index(rng.choice(ROWS * 128, i % 400, replace=False), (ROWS, 128))] += 1300
    noise = rng.integers(-1000, 3400, (150, 128, 128), np.int16)
    hu = np.concatenate([base, near, worn, base[:100], noise, np.zeros((50, 128, 128), np.int16)])
    hu = hu[rng.permutation(len(hu))]
    return hu, distances(hu, hu)


def test_the_published_rule_is_what_is_said():
    assert (ROWS, THRESHOLD_HU, PUBLISHED) == (50, 1200, 200)
    hu = np.zeros((4, 128, 128), np.int16)
    hu[1, 49, :100] = hu[1, 0, :99] = 1201  # 199 pixels
    hu[2, 50:] = 3000  # below the rows that count
    hu[3] = 1200  # not above the threshold
    assert list(Distinct().add(hu)) == [True, False, False, False]
    hu[1, 0, 99] = 1201  # 200
    assert list(Distinct().add(hu)) == [True, True, False, False]


@pytest.mark.parametrize("least", [0, 1, 2, 50, 200, 201, 1000, 6400, 6401])
def test_kept_are_those_of_the_greedy_rule(mixed, least):
    hu, between = mixed
    distinct = Distinct(least)
    kept = distinct.add(hu)
    np.testing.assert_array_equal(kept, greedy(between, least))
    assert len(distinct) == kept.sum()
    if least == 0:
        assert kept.all()
    if least == 1:  # exact copies of what counts
        assert kept.sum() == len(np.unique(pixels(hu), axis=0))
    if least == 6401:
        assert kept.sum() == 1


@pytest.mark.parametrize("cut", [1, 7, 100, 256, 257, 1500])
def test_batches_do_not_matter(mixed, cut):
    hu, between = mixed
    hu, distinct = hu[:1600] if cut > 1 else hu[:300], Distinct()
    kept = np.concatenate([distinct.add(hu[i : i + cut]) for i in range(0, len(hu), cut)])
    np.testing.assert_array_equal(kept, greedy(between[: len(hu), : len(hu)], PUBLISHED))


def test_uneven_and_empty_batches(mixed):
    hu, between = mixed
    distinct, kept, start, rng = Distinct(90), [], 0, np.random.default_rng(1)
    while start < len(hu):
        size = rng.integers(0, 700)
        kept.append(distinct.add(hu[start : start + size]))
        start += size
    np.testing.assert_array_equal(np.concatenate(kept), greedy(between, 90))


@pytest.mark.parametrize("least", [1, 3, 200])
def test_ties_at_the_threshold(least):
    counts = np.random.default_rng(least).permutation(4 * least + 1)
    expected = greedy(abs(counts[:, None] - counts), least)
    np.testing.assert_array_equal(Distinct(least).add(stripes(counts)), expected)
    assert Distinct(least).add(stripes([0, least, 2 * least])).all()
    assert list(Distinct(least).add(stripes([0, least - 1, 2 * least - 2]))) == [True, False, least > 1]


def test_a_dropped_slice_drops_nothing():
    """Each is near to the one before it; 0, 200 and 400 are kept, although 150 and 300 are near both."""
    assert list(Distinct().add(stripes([0, 150, 200, 300, 400]))) == [True, False, True, False, True]


def test_what_was_kept_is_kept_again_and_nothing_else_after_it(mixed):
    hu, _ = mixed
    kept = Distinct().add(hu)
    resumed = Distinct()
    assert resumed.add(hu[kept]).all()
    assert not resumed.add(hu).any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int32])
def test_any_real_dtype(mixed, dtype):
    hu, between = mixed
    np.testing.assert_array_equal(Distinct().add(hu[:400].astype(dtype)), greedy(between[:400, :400], PUBLISHED))


def test_kept_slices_take_800_bytes(mixed):
    distinct = Distinct(1)
    distinct.add(mixed[0])
    room = sum(np.asarray(block).nbytes for block in distinct._blocks)
    assert len(distinct) * 800 <= room < (len(distinct) + 1024) * 800


def test_nearest_of_another_set(mixed):
    hu, between = mixed
    np.testing.assert_array_equal(nearest(hu[:700], hu[700:]), between[:700, 700:].min(1))
    np.testing.assert_array_equal(nearest(hu[:3], hu), 0)


def test_nearest_of_the_others(mixed):
    hu, between = mixed
    others = between + np.diag(np.full(len(hu), 10**4))
    np.testing.assert_array_equal(nearest(hu), others.min(1))
    np.testing.assert_array_equal(nearest(hu[:300]), others[:300, :300].min(1))


def test_nearest_of_nothing():
    hu = stripes([5])
    assert list(nearest(hu)) == list(nearest(hu, hu[:0])) == [6401]
    assert nearest(hu[:0], hu).shape == nearest(hu[:0]).shape == (0,)


@pytest.mark.parametrize("least", [0, 1, 200])
def test_diversity_counts_pairs_and_kept(mixed, least):
    hu, between = mixed
    found = diversity(hu, least)
    assert found.num == len(hu)
    assert found.distinct == greedy(between, least).sum()
    assert found.pairs == np.count_nonzero(np.triu(between < least, 1))


def test_effective_number_of_groups_is_inverse_simpson():
    sizes = np.array([40, 25, 25, 9, 1])
    found = diversity(stripes(np.repeat(np.arange(5) * 300, sizes)))
    assert found.distinct == 5
    assert found.rate == pytest.approx(0.95)
    assert found.effective == pytest.approx(1 / ((sizes / 100) ** 2).sum())
    assert found.pair_rate == pytest.approx((sizes * (sizes - 1)).sum() / (100 * 99))


def test_effective_number_at_its_ends():
    assert diversity(stripes(np.arange(20) * 200)).effective == 20
    assert diversity(stripes(np.full(20, 7))).effective == 1
    alone = diversity(stripes([7]))
    assert (alone.effective, alone.rate, alone.pair_rate) == (1, 0, 0)
    with pytest.raises(ValueError, match="no slices"):
        diversity(np.zeros((0, 128, 128)))


def test_uneven_batches_compile_nine_shapes_at_most():
    duplicates._distances.clear_cache()
    distinct, hu = Distinct(), stripes(np.arange(256) * 20)
    for size in range(1, 257, 5):
        distinct.add(hu[:size])
    assert duplicates._distances._cache_size() <= 9
