"""What the tests of the reading test share."""

import pytest

from skullgan_jax.data import phantom
from tests.evaluate.turing import reading


@pytest.fixture(scope="session")
def slices():
    """Real and fake: the phantom and the phantom."""
    return phantom.segments(60, 1), phantom.segments(60, 2)


@pytest.fixture(scope="session")
def reading_of_40(tmp_path_factory, slices):
    """A test of 40 images: the path of its key, and the key."""
    folder = tmp_path_factory.mktemp("turing")
    return folder / "t.key.json", reading.write(folder, slices)[2]
