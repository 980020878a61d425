"""Does the generator repeat its training set? Each fake's nearest training slice against that of held-out slices.

It fails where a fake lies nearer to the training set than a held-out slice in more than half of the pairs
(Mann-Whitney; 99 % bootstrap interval), or where more of the fakes than of the held-out slices are near copies (99.5 %
interval): a few copies among many new slices do not move the first.
"""

import numpy as np
import scipy.stats

from skullgan_jax.evaluate.measures import compare, intervals
from skullgan_jax.slices import copies

PAIRS = 6
_BATCH = 2048


def nearest(hu: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training slice of each, or its mirror image, by the distance of `slices.copies`.

    Args:
      hu: (N, 128, 128) HU.
      train: (T, 128, 128) HU, a memory map if need be.

    Returns:
      (N,) float32 distances in HU and (N,) indices, negative where it is the mirror image: of slice -index - 1.
    """
    small = copies.quarter(hu)
    best, index = np.full(len(hu), np.inf, np.float32), np.zeros(len(hu), int)
    for start in range(0, len(train), _BATCH):
        part = copies.quarter(train[start : start + _BATCH])
        for mirrored in (False, True):
            apart = copies.squared(small, part[:, :, ::-1] if mirrored else part)
            k = apart.argmin(1)
            found = apart[np.arange(len(hu)), k]
            nearer = found < best
            best[nearer] = found[nearer]
            index[nearer] = (-(start + k) - 1 if mirrored else start + k)[nearer]
    return np.sqrt(best), index


def compare_with_training(fake, real, train, real_subjects, train_subjects, seed: int) -> tuple[dict, dict]:
    """Whether fakes lie nearer to the training set than slices that the generator has not seen.

    Args:
      fake: (N, 128, 128) HU.
      real: (M, 128, 128) HU, held out.
      train: (T, 128, 128) HU.
      real_subjects: (M,) or None.
      train_subjects: (T,) or None.
      seed: of the bootstrap.

    Returns:
      Numbers for metrics.json: medians, the probability that a fake lies nearer than a held-out slice (Mann-Whitney U /
      (N M); 0.5 is ideal) with a 95 % bootstrap interval by subject where known, its p value of independent slices,
      shares of near copies, how many training subjects the fakes' nearest slices come from, `passes`;
      and arrays for the figure: distances, and the closest pairs.
    """
    distance, index = nearest(fake, train)
    held_out, _ = nearest(real, train)

    def probability(f, r):
        return 1 - scipy.stats.mannwhitneyu(f, r).statistic / (len(f) * len(r))

    rng = compare.generator(seed, "memorisation")
    subjects = real_subjects if compare.by_subject(real_subjects) else None
    drawn = []
    for _ in range(compare.RESAMPLED):
        r = compare.resample(rng, held_out, subjects)
        drawn.append(probability(rng.choice(distance, len(distance)), r))
    low, high = np.quantile(drawn, (0.025, 0.975))
    test = scipy.stats.mannwhitneyu(distance, held_out, alternative="less")
    more_copies = intervals.difference(
        intervals.share(distance < copies.NEAR_HU, None, intervals.DECIDES),
        intervals.share(held_out < copies.NEAR_HU, subjects, intervals.DECIDES),
    )
    closest = np.argsort(distance, kind="stable")[:PAIRS]
    own = np.where(index < 0, -index - 1, index)
    result = {
        "num_train": len(train),
        "fake_median_hu": float(np.median(distance)),
        "held_out_median_hu": float(np.median(held_out)),
        "nearer": {"value": float(probability(distance, held_out)), "low": float(low), "high": float(high)},
        "p": float(test.pvalue),
        "fake_copies": float(np.mean(distance < copies.NEAR_HU)),
        "held_out_copies": float(np.mean(held_out < copies.NEAR_HU)),
        "copy_hu": copies.NEAR_HU,
        "passes": bool(np.quantile(drawn, 0.005) <= 0.5 and more_copies.low <= 0),
    }
    if train_subjects is not None:
        counts = np.unique(train_subjects[own], return_counts=True)[1]
        shares = counts / counts.sum()
        result["train_subjects"] = len(np.unique(train_subjects))
        result["train_subjects_met"] = float(np.exp(-(shares * np.log(shares)).sum()))
    partners = np.stack([np.asarray(train[own[i]])[:, :: -1 if index[i] < 0 else 1] for i in closest])
    arrays = {
        "fake": distance,
        "held_out": held_out,
        "pairs": (np.asarray(fake[closest]), partners, distance[closest]),
    }
    return result, arrays
