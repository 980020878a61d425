"""Two sets compared by numbers, always beside what two halves of the reals differ by.

The rule, the same for each distance: the reals are halved HALVINGS times at random (by subject where subjects are
known), into A and B. d(A, B) is the floor; the mean over the halvings of d(F, B), F as many fakes as there are in A,
is the fake's distance. It is too great above limit = mean + c x standard deviation of the floor, where c is such that
LEVEL of the halvings stay within the limits of all distances at once (single-step maxT, Westfall & Young 1993): one c
for all, however they depend on each other. Had the fakes the same source as the reals, d(F, B) would be distributed as
d(A, B) is, and its mean over the halvings fluctuate less: fewer than 1 - LEVEL of such comparisons exceed any limit.
"""

import zlib

import numpy as np
import scipy.stats

HALVINGS = 200
LEVEL = 0.99  # of the halvings that stay within all limits
MOST = 1000  # slices in a half
LEAST_SUBJECTS = 6  # ten ways of halving them; with fewer, slices are halved, and the report says so
RESAMPLED = 1000  # bootstrap


def generator(seed: int, name: str) -> np.random.Generator:
    """A named stream of a seed."""
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def by_subject(subjects: np.ndarray | None) -> bool:
    """Whether there are enough subjects to halve them."""
    return subjects is not None and len(np.unique(subjects)) >= LEAST_SUBJECTS


def halvings(num: int, subjects: np.ndarray | None, size: int, seed: int, count: int = HALVINGS):
    """Pairs of disjoint sets of the reals.

    Args:
      num: how many reals.
      subjects: (num,) of any hashable kind, or None.
      size: the most in a half.
      seed: of the stream.
      count: how many pairs.

    Returns:
      List of pairs of int arrays of one size, that differs from pair to pair where subjects are halved.
    """
    rng = generator(seed, "halvings")
    pairs = []
    for _ in range(count):
        if by_subject(subjects):
            names = np.unique(subjects)
            chosen = rng.permutation(len(names))[: len(names) // 2]
            first = np.isin(subjects, names[chosen])
            a, b = (rng.permutation(np.flatnonzero(x)) for x in (first, ~first))
        else:
            order = rng.permutation(num)
            a, b = order[: num // 2], order[num // 2 :]
        n = min(len(a), len(b), size)
        pairs.append((np.sort(a[:n]), np.sort(b[:n])))
    return pairs


def judge(distances, pairs, others: dict[str, np.ndarray], seed: int) -> dict[str, dict]:
    """Each distance against its limit.

    Args:
      distances: of two index arrays into the pooled sets, judged first, reals second; gives {name: float}, where
        greater is worse.
      pairs: of `halvings`; reals are the first of the pooled sets.
      others: {set: its indices into the pooled sets}.
      seed: of the stream.

    Returns:
      {name: {"floor", "floor_sd", "limit", and for each set {"value", "low", "high", "passes"}}}; low and high are the
      2.5 % and 97.5 % points over the halvings, which spread as a bootstrap of the reals does.
    """
    rng = generator(seed, "judge")
    floor, values = [], {name: [] for name in others}
    for a, b in pairs:
        floor.append(distances(a, b))
        for name, members in others.items():
            values[name].append(distances(np.sort(rng.choice(members, len(a), replace=False)), b))
    names = list(floor[0])
    table = np.array([[f[n] for n in names] for f in floor])
    mean, sd = table.mean(0), table.std(0, ddof=1) + 1e-9
    limit = mean + np.quantile(((table - mean) / sd).max(1), LEVEL) * sd
    result = {}
    for i, name in enumerate(names):
        result[name] = {"floor": float(mean[i]), "floor_sd": float(sd[i]), "limit": float(limit[i])}
        for other, found in values.items():
            x = np.array([f[name] for f in found])
            low, high = np.quantile(x, (0.025, 0.975))
            passes = bool(x.mean() <= limit[i])
            result[name][other] = {"value": float(x.mean()), "low": float(low), "high": float(high), "passes": passes}
    return result


def ks(a: np.ndarray, b: np.ndarray) -> float:
    """The two-sample Kolmogorov-Smirnov statistic: the greatest difference of the distribution functions."""
    both = np.concatenate([a, b])
    left, right = (np.searchsorted(np.sort(x), both, side="right") / len(x) for x in (a, b))
    return float(np.abs(left - right).max())


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """The first Wasserstein distance, in the unit of the values."""
    if len(a) == len(b):
        return float(np.abs(np.sort(a) - np.sort(b)).mean())
    return float(scipy.stats.wasserstein_distance(a, b))


def floor(values: np.ndarray, pairs) -> dict[str, float]:
    """What two halves of the reals differ by in one number of a slice: means over the halvings.

    Args:
      values: (N,), NaN where a slice does not have it.
      pairs: of `halvings`.
    """
    halves = [[x[np.isfinite(x)] for x in (values[a], values[b])] for a, b in pairs]
    halves = [(a, b) for a, b in halves if len(a) and len(b)]
    statistics = {"ks": ks, "wasserstein": wasserstein}
    return {name: float(np.mean([statistic(a, b) for a, b in halves])) for name, statistic in statistics.items()}


def resample(rng, values: np.ndarray, subjects: np.ndarray | None) -> np.ndarray:
    """As many draws with replacement: of slices, or of subjects with all their slices."""
    if subjects is None:
        return rng.choice(values, len(values))
    names, codes = np.unique(subjects, return_inverse=True)
    groups = [values[codes == i] for i in range(len(names))]
    return np.concatenate([groups[i] for i in rng.integers(len(names), size=len(names))])


def distributions(real: np.ndarray, fake: np.ndarray, subjects: np.ndarray | None, seed: int) -> dict:
    """Two distributions with 95 % bootstrap intervals.

    The reals are resampled by subject where enough are known, the fakes by slice. Intervals of distances, which a
    bootstrap overstates, are centred: value + (quantile - mean of the bootstrap), not below 0.

    Args:
      real: (N,) finite.
      fake: (M,) finite.
      subjects: (N,) or None.
      seed: of the stream.

    Returns:
      {"real", "fake": {"mean", "low", "high", "sd", "quantiles" of 5, 25, 50, 75 and 95 %}, "difference", "ks",
      "wasserstein": {"value", "low", "high"}, "ks_p": of slices taken as independent}.
    """
    rng = generator(seed, "bootstrap")
    subjects = subjects if by_subject(subjects) else None
    statistics = {"ks": ks, "wasserstein": wasserstein}
    drawn = {name: [] for name in ("real", "fake", *statistics)}
    for _ in range(RESAMPLED):
        r, f = resample(rng, real, subjects), rng.choice(fake, len(fake))
        drawn["real"].append(r.mean())
        drawn["fake"].append(f.mean())
        for name, statistic in statistics.items():
            drawn[name].append(statistic(r, f))
    result = {}
    for name, x in (("real", real), ("fake", fake)):
        low, high = np.quantile(drawn[name], (0.025, 0.975))
        quantiles = np.quantile(x, (0.05, 0.25, 0.5, 0.75, 0.95))
        result[name] = {
            "mean": float(x.mean()),
            "low": float(low),
            "high": float(high),
            "sd": float(x.std(ddof=1)),
            "quantiles": quantiles.tolist(),
        }
    low, high = np.quantile(np.subtract(drawn["fake"], drawn["real"]), (0.025, 0.975))
    result["difference"] = {"value": float(fake.mean() - real.mean()), "low": float(low), "high": float(high)}
    for name, statistic in statistics.items():
        value, centre = statistic(real, fake), np.mean(drawn[name])
        low, high = (max(0.0, float(value + q - centre)) for q in np.quantile(drawn[name], (0.025, 0.975)))
        result[name] = {"value": value, "low": low, "high": high}
    result["ks_p"] = float(scipy.stats.ks_2samp(real, fake, method="asymp").pvalue)
    return result
