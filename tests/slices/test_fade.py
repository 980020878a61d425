"""How slices fade into air."""

import numpy as np

from skullgan_jax.slices import fade
from skullgan_jax.slices.calibration import Calibration


def test_air_beside_bone_goes_on_as_bone_does():
    """By hand, in HU over the range of 0 to 2000, with a floor of 400: at most 320. What is cut there, is as before."""
    hu = np.zeros((4, 128, 128), np.float32)
    hu[0, 60] = 700  # one row, nothing behind it: half, but for the most
    hu[1, 60:63] = np.array([500, 800, 900])[:, None]  # goes on at 200 above and, at most, at 320 below
    hu[2, 60:63] = np.array([500, 1200, 420])[:, None]  # none above
    hu[3, 60, 60] = 500  # 250 on all sides
    scale = Calibration(0, 2000, 400)
    x = scale.to_unit(hu)[..., None]
    seen = np.asarray(fade.faded(x, float(scale.to_unit(np.float32(400)))))[..., 0]
    found = 1000 * (seen + 1)
    np.testing.assert_allclose(found[0, 58:63, 64], [0, 320, 700, 320, 0], atol=1e-3)
    np.testing.assert_allclose(found[1, 58:65, 64], [0, 200, 500, 800, 900, 320, 0], atol=1e-3)
    np.testing.assert_allclose(found[2, 58:65, 64], [0, 0, 500, 1200, 420, 0, 0], atol=1e-3)
    np.testing.assert_allclose(found[3, 58:63, 58:63].sum(), 500 + 8 * 250, atol=1e-2)
    np.testing.assert_allclose(scale.to_hu(seen), hu, atol=1e-3)
