"""All sets as one, each slice looked at once, so that distances between any two parts of them cost little."""

import dataclasses

import numpy as np

from skullgan_jax.evaluate.measures import compare, controls, spectrum
from skullgan_jax.evaluate.measures.table import MEASURES
from skullgan_jax.slices import duplicates, features, fidelity


@dataclasses.dataclass
class Pooled:
    """Everything about each slice that distances need, the sets one after the other, reals first."""

    simple: dict[str, np.ndarray]
    power: np.ndarray
    features: np.ndarray
    gram: fidelity.Gram
    alike: list[np.ndarray]  # of each set, which pairs are near duplicates
    names: list[str]
    starts: np.ndarray  # and the end of the last set

    def members(self, name: str) -> np.ndarray:
        """Indices of a set."""
        i = self.names.index(name)
        return np.arange(self.starts[i], self.starts[i + 1])

    def distances(self, fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
        """Each of MEASURES between two subsets, greater being worse."""
        found = {}
        for name in controls.NAMES:
            a, b = (self.simple[name][i] for i in (fake, real))
            # A subset without anything to measure has none of it.
            a, b = (x[np.isfinite(x)] if np.isfinite(x).any() else np.zeros(1, x.dtype) for x in (a, b))
            found[f"{name}_ks"] = compare.ks(a, b)
            found[f"{name}_wasserstein"] = compare.wasserstein(a, b)
        found["spectrum"] = spectrum.distance(self.power[fake], self.power[real])
        for name, value in self.gram.compare(fake, real).items():
            found[name] = 1 - value if MEASURES[name].falls_short else 1000 * value
        found["duplicates"] = self._repeated(fake) - self._repeated(real)
        return found

    def _repeated(self, members: np.ndarray) -> float:
        """The share of a subset of one set that has a near duplicate in it."""
        which = np.searchsorted(self.starts, members[0], side="right") - 1
        own = members - self.starts[which]
        return float(self.alike[which][np.ix_(own, own)].any(1).mean())


def pool(sets: dict[str, np.ndarray], measured: dict[str, dict[str, np.ndarray]]) -> Pooled:
    """Looks at each slice once.

    Args:
      sets: {name: (N, 128, 128) HU}, real first.
      measured: {name: what radiology.measured gives}.
    """
    names = list(sets)
    described = [features.describe(hu) for hu in sets.values()]
    scaled = np.concatenate(features.scaled(described[0], described[1:]))
    return Pooled(
        simple={n: np.concatenate([measured[s][n] for s in names]) for n in controls.NAMES},
        power=np.concatenate([spectrum.power_db(hu) for hu in sets.values()]),
        features=scaled,
        gram=fidelity.Gram(scaled),
        alike=[_alike(hu) for hu in sets.values()],
        names=names,
        starts=np.cumsum([0, *(len(hu) for hu in sets.values())]),
    )


def _alike(hu: np.ndarray) -> np.ndarray:
    """(N, N) bool: which pairs of different slices are near duplicates."""
    bits = (np.asarray(hu)[:, : duplicates.ROWS] > duplicates.THRESHOLD_HU).reshape(len(hu), -1).astype(np.float32)
    counts = bits.sum(1)
    alike = counts[:, None] + counts[None] - 2 * bits @ bits.T < duplicates.PUBLISHED
    np.fill_diagonal(alike, False)
    return alike
