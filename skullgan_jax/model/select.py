"""Which of the samples drawn are wanted: those whose measures fit, and that are no near duplicates of earlier ones."""

import ast
import functools
import operator
from collections.abc import Callable

import numpy as np

from skullgan_jax.errors import InputError
from skullgan_jax.model.draw import INDICES, Sampler, Samples
from skullgan_jax.slices import duplicates, radiology

_COMPARISONS = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class Where:
    """A condition on measures, e.g. `sdr < 0.4 and thickness_mm > 6`: comparisons, and, or, not and brackets.

    It is parsed, never run. A comparison with a measure that a sample does not have (NaN) is false.

    Raises:
      InputError: what in it is not understood.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._refused(getattr(error, "msg", None) or "too deep") from None
        try:
            self.fits({name: np.zeros(1, np.float32) for name in radiology.NAMES})
        except RecursionError:
            raise self._refused("too deep") from None
        except OverflowError:
            raise self._refused("too large a number") from None

    @property
    def names(self) -> set[str]:
        """The measures that it compares."""
        return {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}

    def fits(self, measures: dict[str, np.ndarray]) -> np.ndarray:
        """(n,) bool of n samples."""
        return self._bool(self._tree, measures)

    def _bool(self, node, measures):
        match node:
            case ast.BoolOp(op, values):
                parts = [self._bool(value, measures) for value in values]
                return functools.reduce(operator.and_ if isinstance(op, ast.And) else operator.or_, parts)
            case ast.UnaryOp(ast.Not(), operand):
                return ~self._bool(operand, measures)
            case ast.Compare(left, ops, others) if all(type(op) in _COMPARISONS for op in ops):
                values = [self._number(side, measures) for side in (left, *others)]
                pairs = zip(ops, values, values[1:], strict=False)
                compared = functools.reduce(operator.and_, (_COMPARISONS[type(op)](a, b) for op, a, b in pairs))
                if isinstance(compared, np.ndarray):
                    return compared
                raise self._refused(f"{ast.unparse(node)!r} compares no measure")
        raise self._refused(f"{ast.unparse(node)!r} is no comparison")

    def _number(self, node, measures):
        match node:
            case ast.Name(name) if name in measures:
                return measures[name]
            case ast.Name(name):
                raise self._refused(f"no measure is called {name!r}")
            case ast.Constant(int() | float() as value) if not isinstance(value, bool):
                return float(value)
            case ast.UnaryOp(ast.USub(), operand):
                return -self._number(operand, measures)
        raise self._refused(f"{ast.unparse(node)!r} is neither a measure nor a number")

    def _refused(self, why: str) -> InputError:
        names, example = ", ".join(radiology.NAMES), "sdr<0.4 and mean_hu>900"
        return InputError(
            f'--where="{self.text[:80]}": {why[:80]}; compare {names} with numbers, e.g. --where="{example}"'
        )


class Selection:
    """Goes through the draws in their order and says which are kept.

    Args:
      where: a condition, or None.
      unique: least number of differing pixels from every one kept before (see duplicates.py), or None.

    Attributes:
      draws: how many were seen.
    """

    def __init__(self, where: Where | None, unique: int | None) -> None:
        self.where, self.draws = where, 0
        self._distinct = duplicates.Distinct(unique) if unique is not None else None
        self._seen = {name: [] for name in sorted(where.names)} if where is not None else {}
        self._fitting, self._kept = [np.zeros(0, int)], [np.zeros(0, int)]  # positions among the draws

    def __len__(self) -> int:
        return sum(map(len, self._kept))

    def add(self, samples: Samples) -> np.ndarray:
        """The next draws; (k,) positions among them of those that are kept."""
        fits = np.ones(len(samples), bool) if self.where is None else self.where.fits(samples.measures)
        fitting = kept = np.flatnonzero(fits)
        if self._distinct is not None:
            kept = fitting[self._distinct.add(samples.hu[fitting])]
        for name, seen in self._seen.items():
            seen.append(samples.measures[name])
        self._fitting.append(self.draws + fitting)
        self._kept.append(self.draws + kept)
        self.draws += len(samples)
        return kept

    def first(self, num: int) -> np.ndarray:
        """(num,) positions among the draws of the first that are kept."""
        return np.concatenate(self._kept)[:num]

    def counts(self, draws: int) -> dict[str, int]:
        """Of the first `draws` draws how many fit the condition and are kept."""
        counted = {name: int(np.searchsorted(np.concatenate(positions), draws))
                   for name, positions in (("fitting", self._fitting), ("kept", self._kept))}  # fmt: skip
        return {"draws": draws, **counted}

    def seen(self) -> str:
        """What the measures of the condition were over all draws, in words."""
        said = []
        for name, parts in self._seen.items():
            values = np.concatenate([np.zeros(0), *parts])
            values = values[~np.isnan(values)]
            ends = (
                f"{values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}" if len(values) else "none"
            )
            said.append(f"{name} {ends}")
        return "; ".join(said)


def give_up_after(num: int, start: int) -> int:
    """How many are drawn from index `start` on for a selection of num, where nothing else is said."""
    return min(max(100 * num, 10_000), INDICES - start)


def drawn(
    sampler: Sampler,
    num: int,
    *,
    start: int,
    where: Where | None,
    unique: int | None,
    max_draws: int | None,
    progress: Callable[[int], object] | None,
) -> Samples:
    """The first num samples from index `start` on that a Selection keeps; progress is called with how many there are.

    Raises:
      InputError: they are not among max_draws, by default those of `give_up_after`.
    """
    selection, kept = Selection(where, unique), []
    last = start + (max_draws or give_up_after(num, start))
    for samples in sampler.ranges((i, min(i + sampler.batch, last)) for i in range(start, last, sampler.batch)):
        kept.append(samples[selection.add(samples)])
        if progress:
            progress(min(len(selection), num))
        if len(selection) >= num:
            return Samples.concatenate(kept)[:num]
    told = in_words(selection.counts(selection.draws), where.text if where else None, unique)
    raise InputError(f"num={num}: {told}; ask for less, or give max_draws above {last - start}")


def in_words(counts: dict[str, int], where: str | None, unique: int | None) -> str:
    """The yield: `counts` of a Selection with these conditions."""
    said = f"{counts['kept']:,} of {counts['draws']:,} draws ({_percent(counts['kept'], counts['draws'])})"
    if where is not None:
        said += f", {_percent(counts['fitting'], counts['draws'])} fit"
    if unique is not None:
        said += f", {_percent(counts['kept'], counts['fitting'])}{' of these' if where else ''} are distinct"
    return said


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.3g} %"
