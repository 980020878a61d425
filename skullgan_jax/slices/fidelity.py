"""Fidelity and diversity on features: precision, recall, density, coverage and KID.

Precision and recall: Kynkäänniemi et al. 2019 (arXiv 1904.06991). Density and coverage: Naeem et al. 2020 (2002.09797).
KID: Binkowski et al. 2018 (1801.01401), the unbiased squared MMD with a cubic kernel, here on the features of
features.py, so that it is no KID of Inception's and compares with values of this program alone.
"""

import numpy as np

NEIGHBOURS = 5
NAMES = ("precision", "recall", "density", "coverage", "kid")


def _squared(gram, diagonal_a, diagonal_b):
    """Squared distances of rows a to rows b from inner products."""
    return diagonal_a[:, None] + diagonal_b[None] - 2 * gram


def _radii(squared, neighbours: int):
    """Squared distance of each to its k-th nearest other one."""
    return np.partition(squared, neighbours, axis=1)[:, neighbours]  # the nearest one is itself


class Gram:
    """Inner products of the features of all sets, of which any subset is then compared at little cost.

    Args:
      features: (N, D) float32, the sets one after the other.
    """

    def __init__(self, features: np.ndarray):
        self.gram = features @ features.T
        self.squares = np.diagonal(self.gram).copy()

    def compare(self, fake: np.ndarray, real: np.ndarray, neighbours: int = NEIGHBOURS) -> dict[str, float]:
        """The five numbers.

        Args:
          fake: (A,) indices.
          real: (B,) indices.
          neighbours: k of the k nearest neighbours.
        """
        ff, rr = self.gram[np.ix_(fake, fake)], self.gram[np.ix_(real, real)]
        rf = self.gram[np.ix_(real, fake)]
        f2, r2 = self.squares[fake], self.squares[real]
        apart = _squared(rf, r2, f2)
        fake_radii, real_radii = _radii(_squared(ff, f2, f2), neighbours), _radii(_squared(rr, r2, r2), neighbours)
        within = apart < real_radii[:, None]
        return {
            "precision": float(within.any(0).mean()),
            "recall": float((apart < fake_radii).any(1).mean()),
            "density": float(within.sum(0).mean() / neighbours),
            "coverage": float((apart.min(1) < real_radii).mean()),
            "kid": _kid(ff, rr, rf),
        }

    def spread(self, fake: np.ndarray, real: np.ndarray) -> float:
        """How far apart the fakes are, in parts of how far the reals are: near 0 where a few are drawn over and over.

        The distance of a fake to the nearest other one, in the median, over the same of the reals. Unlike the median
        over all pairs it sees a collapse to two images, too, of which half of the pairs are well apart.

        Args:
          fake: (A,) indices, A > 1.
          real: (B,) indices, of as many.
        """
        nearest = [
            np.sqrt(max(float(np.median(_radii(self._apart(members, members), 1))), 0.0)) for members in (fake, real)
        ]
        return nearest[0] / max(nearest[1], 1e-6)

    def _apart(self, a: np.ndarray, b: np.ndarray):
        return _squared(self.gram[np.ix_(a, b)], self.squares[a], self.squares[b])


def _kid(ff, rr, rf) -> float:
    """E k(f, f') + E k(r, r') - 2 E k(r, f), pairs of one with itself left out; k(x, y) = (x.y + 1)^3.

    |x|^2 is about 1 (see features.py), so the kernel needs no division by the number of features.
    """

    def mean(gram, same: bool):
        kernel = (gram + 1) * (gram + 1) * (gram + 1)
        n, m = gram.shape
        total = kernel.sum(dtype=np.float64)
        return (total - np.trace(kernel, dtype=np.float64)) / (n * (n - 1)) if same else total / (n * m)

    return float(mean(ff, True) + mean(rr, True) - 2 * mean(rf, False))
