"""The phantom against its hard rules and against the 16 samples published with SkullGAN."""

import numpy as np
import pytest
from scipy import ndimage

from skullgan_jax.data import phantom

PIXEL_MM = 60 / 128
NUM = 200


@pytest.fixture(scope="module")
def slices():
    return phantom.segments(NUM, seed=3)


@pytest.fixture(scope="module")
def masks(slices):
    return np.stack([bone(hu) for hu in slices])


def bone(hu):
    """Largest component over 200 HU."""
    labels, _ = ndimage.label(hu > 200)
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])


def crossing_rows(hu, mask):
    """Sub-pixel rows where each column crosses 200 HU, outside and inside: two (128,) arrays."""
    column = np.arange(128)
    top, bottom = mask.argmax(0), 127 - mask[::-1].argmax(0)

    def step(inside, outside):
        a, b = hu[inside, column].astype(float), hu[outside, column].astype(float)
        return (a - 200) / (a - b)

    return top - step(top, top - 1), bottom + step(bottom, bottom + 1)


def thickness_mm(hu, mask):
    """Mean thickness along the outer table's normal."""
    outer, inner = crossing_rows(hu, mask)
    slope = np.gradient(ndimage.gaussian_filter1d(outer, 3))
    return np.mean((inner - outer) / np.hypot(1, slope)) * PIXEL_MM


def peaks_ratio(ray):
    """Min between the outermost local peaks over 700 HU / mean of those peaks; nan where there is none."""
    padded = np.pad(ray, 1, constant_values=0)
    peaks = np.flatnonzero((ray > 700) & (ray >= padded[:-2]) & (ray >= padded[2:]))
    if not peaks.size:
        return np.nan
    first, last = peaks[0], peaks[-1]
    return ray[first : last + 1].min() / ray[[first, last]].mean()


def density_ratios(hu, mask):
    """SDR as min/max without the pixel of partial volume at each end, central, and peaks; 32 columns."""
    ratios = []
    for column in range(0, 128, 4):
        ray = hu[mask[:, column], column].astype(float)
        quarter = ray.size // 4
        central = ray[quarter : ray.size - quarter]
        ratios.append((ray[1:-1].min() / ray.max(), central.min() / ray.max(), peaks_ratio(ray)))
    return np.nanmean(ratios, axis=0)


def test_shape_and_dtype(slices):
    assert slices.shape == (NUM, 128, 128)
    assert slices.dtype == np.int16
    assert phantom.segments(0).shape == (0, 128, 128)


def test_a_segment_depends_on_seed_and_index_alone():
    ten = phantom.segments(10, seed=5)
    np.testing.assert_array_equal(ten, phantom.segments(10, seed=5))
    np.testing.assert_array_equal(ten[5:], phantom.segments(5, seed=5, start=5))
    assert not np.array_equal(ten, phantom.segments(10, seed=6))


def test_segments_differ(slices):
    # Near duplicates by the rule of TUSNet: fewer than 200 pixels of the first 50 rows differ at 1200 HU.
    dense = (slices[:, :50] > 1200).reshape(NUM, -1).astype(np.float32)
    differing = dense.sum(1)[:, None] + dense.sum(1)[None] - 2 * dense @ dense.T
    near = np.mean(differing[np.triu_indices(NUM, 1)] < 200)
    assert near < 0.002
    assert len({hu.tobytes() for hu in slices}) == NUM


def test_hard_rules(slices, masks):
    rows = masks.any(2)
    top, bottom = rows.argmax(1), 127 - rows[:, ::-1].argmax(1)
    ends = masks[:, :, [0, -1]].argmax(1)
    assert masks.any(1).all()  # bone in every column
    assert set(top) == {10, 11}
    assert bottom.max() <= 51
    assert ends.min() >= 15
    assert ends.max() <= 31
    assert slices.min() == 0
    assert slices.max() < 3000


def test_nothing_but_skull(slices, masks):
    np.testing.assert_array_equal(slices > 200, masks)  # no islands
    halo = ndimage.binary_dilation(masks, np.ones((1, 7, 7)))
    assert not slices[~halo].any()
    holes = [(ndimage.binary_fill_holes(mask) & ~mask).sum() / mask.sum() for mask in masks]
    assert max(holes) < 0.01  # marrow under 200 HU is a pixel here and there
    assert np.mean(holes) < 0.001


def test_apex_column(masks):
    apex = np.array([mask[mask.any(1).argmax()].argmax() for mask in masks])
    assert np.mean((apex >= 24) & (apex <= 69)) > 0.95
    assert apex.std() > 6


def test_thickness(slices, masks):
    mm = np.array([thickness_mm(hu, mask) for hu, mask in zip(slices, masks, strict=True)])
    assert mm.mean() == pytest.approx(5.2, abs=0.3)
    assert mm.min() == pytest.approx(3.6, abs=0.3)
    assert mm.max() == pytest.approx(7.1, abs=0.4)


def test_intensity(slices, masks):
    mean = np.array([hu[mask].mean() for hu, mask in zip(slices, masks, strict=True)])
    assert mean.mean() == pytest.approx(1364, abs=50)
    low, high = np.percentile(mean, [3, 97])  # the range of 16 is about this wide
    assert low == pytest.approx(1057, abs=80)
    assert high == pytest.approx(1578, abs=80)
    percentiles = np.percentile(slices[masks], [1, 5, 25, 50, 75, 95, 99])
    np.testing.assert_allclose(percentiles, [236, 397, 992, 1426, 1759, 2070, 2231], rtol=0.06)


def test_density_ratio(slices, masks):
    ratios = np.array([density_ratios(hu, mask) for hu, mask in zip(slices, masks, strict=True)])
    np.testing.assert_allclose(ratios.mean(0), [0.55, 0.60, 0.66], atol=0.04)
    low, high = np.percentile(ratios[:, 1], [3, 97])
    assert low == pytest.approx(0.28, abs=0.12)
    assert high == pytest.approx(0.78, abs=0.08)


def test_depth_of_a_circle():
    # A circle knows the distance to every point: a contour of radius 90 about row 100, column 63.5.
    centre_row, centre_column, radius = 100, 63.5, 90
    contour = centre_row - np.sqrt(radius**2 - (phantom.ARC - centre_column) ** 2)
    foot, depth = phantom._foot_and_depth(contour, np.gradient(contour), slice(8, 54))
    row, column = np.mgrid[8:54, :128]
    expected = radius - np.hypot(row - centre_row, column - centre_column)
    bearing = (column - centre_column) / (radius - expected)
    near = (expected > -3) & (expected < 15) & (np.abs(centre_column + radius * bearing - centre_column) < 70)
    np.testing.assert_allclose(depth[near], expected[near], atol=0.1)
    np.testing.assert_allclose(foot[near], (centre_column + radius * bearing)[near], atol=0.5)
