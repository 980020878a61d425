"""The measures against closed forms, scipy and scikit-learn."""

import numpy as np
import pytest
import scipy.stats

from skullgan_jax.data import phantom
from skullgan_jax.evaluate.measures import compare, embedding, intervals, memorisation, spectrum


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


def test_ks_and_wasserstein_are_scipys(rng):
    a, b = rng.normal(size=300), rng.normal(0.3, 2, size=200)
    assert compare.ks(a, b) == pytest.approx(scipy.stats.ks_2samp(a, b).statistic, abs=1e-12)
    assert compare.ks(np.r_[a, a], a) == 0
    assert compare.wasserstein(a, b) == pytest.approx(scipy.stats.wasserstein_distance(a, b))
    assert compare.wasserstein(a, a + 0.7) == pytest.approx(0.7)


def test_the_floor_is_the_mean_over_halves():
    values = np.array([1.0, 2, 3, 4, np.nan, 6])
    pairs = [(np.array([0, 1, 4]), np.array([2, 3, 5])), (np.array([0, 2]), np.array([1, 3]))]
    # {1, 2} and {3, 4, 6}: KS 1, Wasserstein 17/6; {1, 3} and {2, 4}: KS 1/2, Wasserstein 1.
    found = compare.floor(values, pairs)
    assert found == pytest.approx({"ks": 0.75, "wasserstein": (17 / 6 + 1) / 2})


def test_bootstrap_covers_the_difference_of_means(rng):
    found = compare.distributions(rng.normal(size=400), rng.normal(0.5, 1, size=400), None, 0)
    assert found["difference"]["low"] < 0.5 < found["difference"]["high"]
    # Of two means of 400: 2 x 1.96 x sqrt(2 / 400).
    assert found["difference"]["high"] - found["difference"]["low"] == pytest.approx(0.277, rel=0.1)
    assert found["wasserstein"]["low"] < 0.5 < found["wasserstein"]["high"]


def test_intervals_by_subject_are_wider(rng):
    subjects = np.repeat(np.arange(20), 20)
    values = rng.normal(size=20)[subjects] + 0.1 * rng.normal(size=400)
    widths = []
    for s in (None, subjects):
        found = compare.distributions(values, values, s, 0)["real"]
        widths.append(found["high"] - found["low"])
    assert widths[1] > 3 * widths[0]  # sqrt(20) where a subject's slices are alike


@pytest.mark.parametrize("subjects", [None, np.arange(103) // 10])
def test_halves_are_disjoint_and_of_one_size(subjects):
    for a, b in compare.halvings(103, subjects, 40, 0, 20):
        assert len(a) == len(b) <= 40
        assert not set(a) & set(b)
        if subjects is not None:
            assert not set(subjects[a]) & set(subjects[b])


def _mean_difference(values):
    return lambda a, b: {"mean": abs(values[a].mean() - values[b].mean()), "sd": abs(values[a].std() - values[b].std())}


def test_the_limit_is_passed_by_the_same_and_not_by_another_source():
    failed = {"same": 0, "shifted": 0, "wider": 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        values = np.r_[rng.normal(size=300), rng.normal(size=300), rng.normal(0.6, 1, 300), rng.normal(0, 1.6, 300)]
        members = {name: np.arange(300 * (i + 1), 300 * (i + 2)) for i, name in enumerate(failed)}
        found = compare.judge(_mean_difference(values), compare.halvings(300, None, 1000, seed), members, seed)
        for name in failed:
            failed[name] += not all(test[name]["passes"] for test in found.values())
    assert failed["same"] <= 1
    assert (failed["shifted"], failed["wider"]) == (40, 40)


def test_halving_by_subject_allows_what_subjects_differ_by():
    """Reals of 12 heads and fakes of 12 others: by slice they differ, by subject they do not."""
    failed = {True: 0, False: 0}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=24).repeat(30) + 0.3 * rng.normal(size=720)
        for by_subject in failed:
            subjects = np.arange(360) // 30 if by_subject else None
            pairs = compare.halvings(360, subjects, 1000, seed)
            found = compare.judge(_mean_difference(values), pairs, {"fake": np.arange(360, 720)}, seed)
            failed[by_subject] += not all(test["fake"]["passes"] for test in found.values())
    assert failed[True] <= 1
    assert failed[False] >= 10


def test_spectrum_of_white_noise_is_flat_and_of_a_wave_a_line(rng):
    noise = rng.normal(0, 30, size=(60, 128, 128))
    # A Hann window keeps 3/8 of the power.
    power = np.mean(10 ** (spectrum.power_db(noise) / 10), 0)
    np.testing.assert_allclose(power[3:], 900 * 3 / 8, rtol=0.1)
    y = np.arange(128)[:, None]
    wave = np.broadcast_to(100 * np.cos(2 * np.pi * 20 * y / 128), (1, 128, 128))
    assert spectrum.power_db(wave)[0].argmax() == 20 - 1
    assert spectrum.frequencies(0.46875)[-1] == pytest.approx(1 / (2 * 0.46875))
    a = spectrum.power_db(noise)
    assert spectrum.distance(a, a + 3) == pytest.approx(3, rel=1e-5)


def test_shares_are_wilsons():
    found = intervals.share(np.arange(100) < 30)
    expected = scipy.stats.binomtest(30, 100).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert intervals.share(np.ones(10, bool)).low == pytest.approx(scipy.stats.binomtest(10, 10).proportion_ci(
        method="wilson").low)  # fmt: skip
    for num in range(1, 300):  # an interval holds its share, rounding or not
        assert intervals.share(np.ones(num, bool)).high == 1
        assert intervals.share(np.zeros(num, bool)).low == 0


def test_a_share_of_subjects_counts_subjects():
    """Ten subjects of 20 slices, of each all or none: as good as ten slices."""
    hits = np.repeat(np.arange(10) < 5, 20)
    by_slice, by_subject = intervals.share(hits), intervals.share(hits, np.repeat(np.arange(10), 20))
    assert by_subject.high - by_subject.low > 3.5 * (by_slice.high - by_slice.low)
    alike = intervals.share(np.tile(np.arange(20) < 10, 10), np.repeat(np.arange(10), 20))
    assert alike == intervals.share(np.tile(np.arange(20) < 10, 10))


def test_folds_keep_subjects_together():
    subjects = np.array(list("aaabbbbcddee"))
    fold = embedding.folds(len(subjects), subjects, 3)
    assert sorted(np.bincount(fold)) == [4, 4, 4]
    for s in set(subjects):
        assert len(set(fold[subjects == s])) == 1
    assert embedding.folds(6, None, 3).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_linear_classifier_knows_a_shift_and_guesses_without(rng):
    a = rng.normal(size=(600, 5))
    # The best there is for a shift of 2: the normal distribution function at 1, 84.1 %.
    found = embedding.tell_apart(a[:300], a[300:] + 2 * np.eye(5)[0], None)
    assert found["low"] < 0.841 < found["high"]
    assert not found["passes"]
    assert embedding.tell_apart(a[:300], a[300:], None)["passes"]


def test_nearest_training_slices_by_brute_force():
    hu, train = phantom.segments(5, 1), phantom.segments(9, 2)
    hu[1], hu[2] = train[4], train[7, :, ::-1]
    distance, index = memorisation.nearest(hu, train)
    assert max(distance[1:3]) < 1  # what float32 leaves of sums of squares
    assert (index[1], index[2]) == (4, -7 - 1)

    def quarter(x):
        return x.reshape(32, 4, 32, 4).mean((1, 3))

    def rms(a, b):
        return np.sqrt(((a - b) ** 2)[(a > 0) | (b > 0)].mean())

    both = [quarter(t.astype(float)) for t in train] + [quarter(t[:, ::-1].astype(float)) for t in train]
    expected = [min(rms(quarter(h.astype(float)), t) for t in both) for h in hu]
    np.testing.assert_allclose(distance, expected, rtol=1e-3, atol=1)


def test_copies_are_told_from_new_slices():
    train, real = phantom.segments(150, 1), phantom.segments(60, 2)
    subjects = np.arange(150) // 15
    new, _ = memorisation.compare_with_training(phantom.segments(60, 3), real, train, None, subjects, 0)
    assert new["passes"]
    assert new["nearer"]["low"] < 0.5 < new["nearer"]["high"]
    noise = np.random.default_rng(0).normal(0, 20, (60, 128, 128))
    mirrored = train[:60, :, ::-1] + noise * (train[:60, :, ::-1] > 0)
    copied, arrays = memorisation.compare_with_training(mirrored, real, train, None, subjects, 0)
    assert not copied["passes"]
    assert copied["nearer"]["value"] > 0.99
    assert copied["fake_copies"] == 1
    assert copied["train_subjects_met"] == pytest.approx(4)  # 60 of 15 each
    fakes, partners, _ = arrays["pairs"]
    assert np.abs(fakes - partners).max() < 150
