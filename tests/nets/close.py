"""Comparing arrays."""

import numpy as np


def assert_close(ours, theirs, relative, name=""):
    """Within `relative` of the largest element."""
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape, name
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max(), err_msg=name)
