"""For tests: runs that are refused."""

import numpy as np
import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.train import loop

SLICES = np.random.default_rng(0).integers(-1000, 3000, (16, 128, 128)).astype(np.int16)


def refusal(config, workdir, kind=InputError) -> str:
    """The line that the run is refused with, or ends with."""
    with pytest.raises(kind) as caught:
        loop.train(config, workdir)
    line = str(caught.value)
    assert "\n" not in line
    return line
