"""Near duplicates among slices, found exactly.

Two slices are near duplicates when the first 50 rows of both, binarised at 1200 HU, differ in fewer than 200 pixels. By
this rule TUSNet (kbp-lab/TUSNet) kept 3,222 of 5,000 samples of SkullGAN. Every pair is compared: a slice is 6,400
bits, and XOR and popcount over them cost less than twice a bound that would spare most pairs the comparison
(benchmarks/duplicates.py). So the time depends on how many slices there are, not on what they show.
"""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from skullgan_jax.slices.size import SIZE

ROWS = 50
THRESHOLD_HU = 1200  # above it a pixel is set
PUBLISHED = 200  # pixels; fewer is a near duplicate

_PIXELS = ROWS * SIZE
_WORDS = _PIXELS // 32
# Compared at a time: few enough that the distances stay in a core's cache, enough that a call costs little beside them.
_BATCH, _BLOCK = 256, 1024


class Distinct:
    """Drops near duplicates from a stream of slices, first come first kept, as TUSNet does.

    A slice is kept exactly if it differs in `least` pixels or more from every slice kept before it, however the stream
    is cut into batches. What was kept is held in 800 bytes a slice. After an interruption, add what was kept: all of it
    is kept again.

    Args:
      least: pixels, of 6,400. 0 keeps everything, 1 drops exact copies (of the binarised rows).
    """

    def __init__(self, least: int = PUBLISHED):
        self.least = least
        self._len = 0
        self._blocks: list[np.ndarray | jax.Array] = []  # (200, 1024) uint32 each; the last one may have room

    def __len__(self) -> int:
        """How many slices were kept so far."""
        return self._len

    def add(self, hu) -> np.ndarray:
        """Keep what is new.

        Args:
          hu: (B, 128, 128) HU of any real dtype.

        Returns:
          (B,) bool, which of them were kept.
        """
        words = _pack(hu)
        kept = np.empty(len(words), bool)
        for i in range(0, len(words), _BATCH):
            kept[i : i + _BATCH] = self._add(words[i : i + _BATCH])
        return kept

    def _add(self, words: np.ndarray) -> np.ndarray:
        new = np.ones(len(words), bool)
        for i, block in enumerate(self._blocks):
            held = min(self._len - i * _BLOCK, _BLOCK)
            new &= _compare(words, block)[:, :held].min(1) >= self.least
        alike = _compare(words, _block(words)) < self.least
        for i in range(len(words)):
            if new[i]:
                new[i + 1 :] &= ~alike[i, i + 1 : len(words)]
        self._append(words[new])
        return new

    def _append(self, words: np.ndarray):
        while len(words):
            held = self._len % _BLOCK
            if not held:
                self._blocks.append(_block(words[:0]))
            part, words = np.split(words, [_BLOCK - held])
            self._blocks[-1][:, held : held + len(part)] = part.T
            self._len += len(part)
            if self._len % _BLOCK == 0:
                self._blocks[-1] = jnp.asarray(self._blocks[-1])  # full: to the device, once


def nearest(a, b=None) -> np.ndarray:
    """Distance of each slice to the nearest one: pixels that differ in the first 50 rows, binarised at 1200 HU.

    Args:
      a: (N, 128, 128) HU of any real dtype.
      b: (M, 128, 128) HU, where to look; None looks among the other slices of `a`.

    Returns:
      (N,) int32; 6401, more than any distance, where there is nothing to compare with.
    """
    words = _pack(a)
    found = np.full(len(words), _PIXELS + 1, np.int32)
    for i, j, distances in _tiles(words, words if b is None else _pack(b)):
        if b is None:
            itself = np.arange(max(i, j), min(i + distances.shape[0], j + distances.shape[1]))
            distances = distances.copy()
            distances[itself - i, itself - j] = _PIXELS + 1
        rows = slice(i, i + len(distances))
        found[rows] = np.minimum(found[rows], distances.min(1))
    return found


@dataclasses.dataclass(frozen=True)
class Diversity:
    """How many different slices a set holds.

    Attributes:
      num: slices in the set.
      distinct: slices that `Distinct` keeps of them, in their order.
      pairs: unordered pairs that are near duplicates.
    """

    num: int
    distinct: int
    pairs: int

    @property
    def rate(self) -> float:
        """Near-duplicate rate: the share that `Distinct` drops (0.36 of TUSNet's 5,000). It grows with `num`."""
        return 1 - self.distinct / self.num

    @property
    def pair_rate(self) -> float:
        """The share of pairs that are near duplicates. It does not depend on `num`, but for chance."""
        return self.pairs / max(1, self.num * (self.num - 1) // 2)

    @property
    def effective(self) -> float:
        """Effective number of distinct slices, from 1, all alike, to `num`, no two alike.

        num^2 / (num + 2 pairs): similarity-sensitive diversity of order 2 (Leinster and Cobbold 2012, Ecology 93:477)
        with similarity 1 for near duplicates and 0 otherwise. Where near duplicates fall into groups it is the inverse
        Simpson number of those, 1 / sum of squared shares. Joining chains of near duplicates into groups would not do:
        2,000 phantoms, no two of them nearer than 71 pixels, have 333 in one such group.
        """
        return self.num**2 / (self.num + 2 * self.pairs)


def diversity(hu, least: int = PUBLISHED) -> Diversity:
    """Count distinct slices and pairs of near duplicates.

    Args:
      hu: (N, 128, 128) HU of any real dtype, at least one slice.
      least: pixels; pairs that differ in fewer are near duplicates.

    Raises:
      ValueError: if there is no slice.
    """
    if not len(hu):
        raise ValueError("no slices to count")
    words = _pack(hu)
    pairs = 0
    for i, j, distances in _tiles(words, words, above=True):
        pairs += int(np.count_nonzero(np.triu(distances < least, i - j + 1)))
    return Diversity(len(words), int(Distinct(least).add(hu).sum()), pairs)


def _pack(hu) -> np.ndarray:
    """(N, 128, 128) HU -> (N, 200) uint32, a bit for each pixel."""
    words = np.empty((len(hu), _WORDS), np.uint32)
    for i in range(0, len(hu), _BLOCK):
        bits = np.asarray(hu[i : i + _BLOCK, :ROWS]) > THRESHOLD_HU
        words[i : i + _BLOCK] = np.packbits(bits.reshape(len(bits), _PIXELS), axis=1).view(np.uint32)
    return words


def _block(words: np.ndarray) -> np.ndarray:
    """(n <= 1024, 200) -> (200, 1024): word by word, so that one register holds a word of many slices."""
    block = np.zeros((_WORDS, _BLOCK), np.uint32)
    block[:, : len(words)] = words.T
    return block


def _tiles(a: np.ndarray, b: np.ndarray, above: bool = False) -> Iterator[tuple[int, int, np.ndarray]]:
    """All distances of (N, 200) to (M, 200), in parts: first row, first column, distances.

    With `above`, parts that lie below the diagonal altogether are left out.
    """
    for j in range(0, len(b), _BLOCK):
        columns = b[j : j + _BLOCK]
        block = jnp.asarray(_block(columns))
        for i in range(0, min(len(a), j + _BLOCK) if above else len(a), _BATCH):
            yield i, j, _compare(a[i : i + _BATCH], block)[:, : len(columns)]


def _compare(words: np.ndarray, block) -> np.ndarray:
    """(n <= 256, 200) against (200, 1024): distances (n, 1024) uint32."""
    # Padded to a power of two: a stream of uneven batches compiles nine shapes at most.
    padded = np.zeros((1 << (len(words) - 1).bit_length(), _WORDS), np.uint32)
    padded[: len(words)] = words
    return np.asarray(_distances(padded, block))[: len(words)]


@jax.jit
def _distances(a, b):
    """(A, 200) and (200, B) uint32 -> (A, B) uint32, bits that differ."""

    def add(word, total):
        return total + lax.population_count(a[:, word, None] ^ b[word])

    # Eight words to a pass over the sums. XLA's own reduction over words is over ten times slower on a CPU.
    return lax.fori_loop(0, _WORDS, add, jnp.zeros((a.shape[0], b.shape[1]), jnp.uint32), unroll=8)
