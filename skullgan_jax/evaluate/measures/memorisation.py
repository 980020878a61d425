"""Does the generator repeat its training set? Each fake's nearest training slice against that of held-out slices.

It fails where a fake lies nearer to the training set than a held-out slice in more than half of the pairs
(Mann-Whitney; 99 % bootstrap interval), or where more of the fakes than of the held-out slices are near copies (99.5 %
interval): a few copies among many new slices do not move the first.
"""

import numpy as np
import scipy.stats

from skullgan_jax.evaluate.measures import compare, intervals

COPY_HU = 100.0  # one head read again is 10 to 100 HU from itself, other places of it 107 or more (docs/prepare.md)
PAIRS = 6
_BATCH = 2048


def _quarter(hu: np.ndarray) -> np.ndarray:
    """(N, 1024) float32: means of 4 x 4 pixels."""
    out = [
        np.asarray(hu[i : i + _BATCH], np.float32).reshape(-1, 32, 4, 32, 4).mean((2, 4)).reshape(-1, 1024)
        for i in range(0, len(hu), _BATCH)
    ]
    return np.concatenate(out)


def nearest(hu: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training slice of each, or its mirror image.

    The distance is the RMS of the difference in HU over all pixels where either slice is above 0, at a quarter of the
    resolution.

    Args:
      hu: (N, 128, 128) HU.
      train: (T, 128, 128) HU, a memory map if need be.

    Returns:
      (N,) float32 distances in HU and (N,) indices, negative where it is the mirror image: of slice -index - 1.
    """
    small = _quarter(hu)
    squares, bone = (small**2).sum(1), (small > 0).astype(np.float32)
    area = bone.sum(1)
    best, index = np.full(len(hu), np.inf, np.float32), np.zeros(len(hu), int)
    for start in range(0, len(train), _BATCH):
        part = _quarter(train[start : start + _BATCH])
        for mirrored in (False, True):
            if mirrored:
                part = part.reshape(-1, 32, 32)[:, :, ::-1].reshape(-1, 1024)
            present = (part > 0).astype(np.float32)
            d2 = squares[:, None] + (part**2).sum(1) - 2 * small @ part.T
            either = area[:, None] + present.sum(1) - bone @ present.T
            d2 = np.maximum(d2, 0) / np.maximum(either, 1)
            k = d2.argmin(1)
            found = d2[np.arange(len(hu)), k]
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
      shares nearer than COPY_HU, how many training subjects the fakes' nearest slices come from, `passes`;
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
        intervals.share(distance < COPY_HU, None, intervals.DECIDES),
        intervals.share(held_out < COPY_HU, subjects, intervals.DECIDES),
    )
    closest = np.argsort(distance, kind="stable")[:PAIRS]
    own = np.where(index < 0, -index - 1, index)
    result = {
        "num_train": len(train),
        "fake_median_hu": float(np.median(distance)),
        "held_out_median_hu": float(np.median(held_out)),
        "nearer": {"value": float(probability(distance, held_out)), "low": float(low), "high": float(high)},
        "p": float(test.pvalue),
        "fake_copies": float(np.mean(distance < COPY_HU)),
        "held_out_copies": float(np.mean(held_out < COPY_HU)),
        "copy_hu": COPY_HU,
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
