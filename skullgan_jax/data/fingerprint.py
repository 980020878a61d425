"""A short name of the content of training data, all of it, by which a run knows its data again."""

import hashlib
import re

import numpy as np

from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.slices.chunks import chunks

_SOME = 64  # slices that the fingerprints of before were of


class Fingerprint:
    """Sees the slices in order, in chunks of any length; what it costs is a fraction of reading them.

    Of each slice it keeps the sum of its 64-bit words, each times an odd weight of its place: the change of one word
    always changes it, any other but once in 2^32 or less. Byte and memory order do not matter.
    """

    def __init__(self):
        self._digest, self._num, self._kind, self._weights = hashlib.sha256(), 0, "", None

    def update(self, chunk: np.ndarray) -> None:
        """The next slices, (n, 128, 128), any real dtype."""
        dtype = chunk.dtype.newbyteorder("<")
        words = np.ascontiguousarray(chunk, dtype).reshape(len(chunk), -1).view("<u8")
        if self._weights is None:
            self._weights = np.random.Philox(0).random_raw(words.shape[1]) | np.uint64(1)  # the same for ever, NEP 19
        self._digest.update(np.einsum("ij,j->i", words, self._weights).astype("<u8"))
        self._num, self._kind = self._num + len(chunk), f"{chunk.shape[1:]} {dtype.str}"

    def hexdigest(self) -> str:
        """32 hex digits."""
        whole = self._digest.copy()
        whole.update(f"{self._num} {self._kind}".encode())
        return whole.hexdigest()[:32]


def of(images: np.ndarray) -> str:
    """The fingerprint of (N, 128, 128) slices."""
    seen = Fingerprint()
    for chunk in chunks(images):
        seen.update(chunk)
    return seen.hexdigest()


def known(fingerprint: str, images: np.ndarray, calibration: Calibration) -> bool:
    """Whether slices are those of a fingerprint, which may be one of before: 16 hex digits, of some of them."""
    if re.fullmatch("[0-9a-f]{16}", str(fingerprint)):
        return fingerprint == _of_some(images, calibration)
    return fingerprint == of(images)


def _of_some(images: np.ndarray, calibration: Calibration) -> str:
    dtype = images.dtype.newbyteorder("<")
    ends = f"Calibration(hu_min={calibration.hu_min!r}, hu_max={calibration.hu_max!r})"
    digest = hashlib.sha256(f"{images.shape} {dtype.str} {ends}".encode())
    for i in np.unique(np.linspace(0, len(images) - 1, _SOME).astype(int)):
        digest.update(np.ascontiguousarray(images[i], dtype))
    return digest.hexdigest()[:16]
