"""t-SNE of real, fake and control slices, and beside it what a linear classifier makes of the same features."""

import numpy as np

from skullgan_jax.evaluate.measures import intervals

FOLDS = 5
SHOWN = 500  # of each set in the map


def folds(num: int, subjects: np.ndarray | None, count: int) -> np.ndarray:
    """(num,) int, the fold of each: whole subjects, else runs of neighbours, which may overlap with one another."""
    if subjects is None or len(np.unique(subjects)) < count:
        return np.arange(num) * count // num
    _, codes, sizes = np.unique(subjects, return_inverse=True, return_counts=True)
    of_subject, filled = np.zeros(len(sizes), int), np.zeros(count, int)
    for subject in np.argsort(-sizes, kind="stable"):  # the greatest first, each into the emptiest fold
        of_subject[subject] = np.argmin(filled)
        filled[of_subject[subject]] += sizes[subject]
    return of_subject[codes]


def tell_apart(real: np.ndarray, fake: np.ndarray, subjects: np.ndarray | None) -> dict:
    """Two-sample test by a classifier (Lopez-Paz & Oquab 2017): linear discriminant, Ledoit-Wolf shrinkage.

    Cross-validated in five folds; a half means that it cannot tell.

    Args:
      real: (N, D) features.
      fake: (M, D).
      subjects: (N,) or None.

    Returns:
      What `intervals.accuracy` gives.
    """
    import threadpoolctl
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    n = min(len(real), len(fake))
    sets = []
    for x, s in ((real, subjects), (fake, None)):
        chosen = np.linspace(0, len(x) - 1, n).astype(int)
        sets.append((x[chosen], None if s is None else s[chosen]))
    fold = [folds(n, s, FOLDS) for _, s in sets]
    hits = [np.zeros(n, bool), np.zeros(n, bool)]
    for i in range(FOLDS):
        train = np.concatenate([x[f != i] for (x, _), f in zip(sets, fold, strict=True)])
        labels = np.repeat([1, 0], [np.sum(f != i) for f in fold])
        with threadpoolctl.threadpool_limits(1):
            model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=(0.5, 0.5)).fit(train, labels)
        for k, ((x, _), f) in enumerate(zip(sets, fold, strict=True)):
            if np.any(f == i):
                hits[k][f == i] = model.predict(x[f == i]) == 1 - k
    return intervals.accuracy(*hits, sets[0][1])


def tsne(features: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """A map of the sets.

    Args:
      features: {set: (N, D)}.
      seed: of the map.

    Returns:
      {set: (at most 500, 2)}, evenly spread over each set.
    """
    import threadpoolctl
    from sklearn.manifold import TSNE

    some = {k: x[np.unique(np.linspace(0, len(x) - 1, SHOWN).astype(int))] for k, x in features.items()}
    pooled = np.concatenate(list(some.values()))
    perplexity = min(30.0, (len(pooled) - 1) / 3)
    with threadpoolctl.threadpool_limits(1):  # its threads wait by spinning, and on shared cores take ten times as long
        placed = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(pooled)
    cuts = np.cumsum([len(x) for x in some.values()])[:-1]
    return dict(zip(some, np.split(placed, cuts), strict=True))
