"""Radiology against analytic phantoms, scipy's labels, and the definitions written out in numpy."""

import jax
import numpy as np
import pytest
from scipy import ndimage, special

from skullgan_jax.data.phantom import segments
from skullgan_jax.slices import radiology
from tests import support

PIXEL_MM = 0.46875
SUB = 8  # parts of a pixel's side in drawn phantoms
largest_component = jax.jit(radiology.largest_component)


def read(hu):
    """What `measured` says."""
    return radiology.measured(np.asarray(hu), PIXEL_MM)


def step(x, sigma):
    """Share of the pixel at distance x behind an edge that is behind it, blurred by a Gaussian: closed form."""
    if not sigma:
        return np.clip(x + 0.5, 0, 1)

    def integral(u):
        return u * special.ndtr(u / sigma) + sigma * np.exp(-((u / sigma) ** 2) / 2) / np.sqrt(2 * np.pi)

    return integral(x + 0.5) - integral(x - 0.5)


def slabs(layers, sigma, num=16):
    """(num, 128, 128) HU of flat slabs of layers (mm, HU) at every phase to the pixels."""
    edges = 20 + np.arange(num)[:, None] / num
    hu, before = 0, 0
    for thickness, value in [*layers, (0, 0)]:
        hu = hu + (value - before) * step(np.arange(128) - edges, sigma)
        edges, before = edges + thickness / PIXEL_MM, value
    return np.repeat(hu[:, :, None], 128, 2).astype(np.float32)


def arc(radius_mm, layers, sigma):
    """(128, 128) HU of a ring of layers (mm, HU) from the outside in, apex on row 10, drawn on a finer grid."""
    at = (np.arange(128 * SUB) + 0.5) / SUB * PIXEL_MM
    centre = 10 * PIXEL_MM + radius_mm
    depth = radius_mm - np.hypot(at[:, None] - centre, at - 30.0)
    inner = np.cumsum([0] + [thickness for thickness, _ in layers])
    hu = np.zeros_like(depth)
    for start, end, (_, value) in zip(inner[:-1], inner[1:], layers, strict=True):
        hu[(depth >= start) & (depth < end)] = value
    hu = ndimage.gaussian_filter(hu, sigma * SUB, mode="nearest") if sigma else hu
    return hu.reshape(128, SUB, 128, SUB).mean((1, 3)).astype(np.float32)


HOMOGENEOUS = [(5.0, 1500.0)]
FAINT = [(4.2, 900.0)]
TABLES = [(2.0, 1900.0), (3.0, 800.0), (1.7, 1700.0)]
# Full width at half maximum: none, half a pixel, one pixel, one and a half.
BLURS = [0, 0.2, 0.425, 0.6]


@pytest.mark.parametrize("sigma", BLURS)
@pytest.mark.parametrize("layers", [HOMOGENEOUS, FAINT, TABLES], ids=["homogeneous", "faint", "tables"])
def test_slab_at_every_phase_has_its_thickness(layers, sigma):
    got = read(slabs(layers, sigma))
    truth = sum(thickness for thickness, _ in layers)
    np.testing.assert_allclose(got["column_mm"], truth, atol=0.05)
    np.testing.assert_allclose(got["thickness_mm"], truth, atol=0.05)


@pytest.mark.parametrize("sigma", BLURS)
@pytest.mark.parametrize("radius", [40, 60, 90])
def test_arc_has_its_thickness_along_the_normal(radius, sigma):
    """At 40 mm the skull leans by 49 degrees at both ends, where columns are half as long again."""
    layers = [HOMOGENEOUS, FAINT, TABLES]
    got = read(np.stack([arc(radius, x, sigma) for x in layers]))
    truth = np.array([sum(thickness for thickness, _ in x) for x in layers])
    np.testing.assert_allclose(got["thickness_mm"], truth, atol=0.05)
    x = (np.arange(128) + 0.5) * PIXEL_MM - 30
    columns = [np.mean(np.sqrt(radius**2 - x**2) - np.sqrt((radius - t) ** 2 - x**2)) for t in truth]
    np.testing.assert_allclose(got["column_mm"], columns, atol=0.05)


def test_a_blur_of_sigma_one_pixel():
    """Plateaus keep their thickness; tables do not, by what the docstring says."""
    for layers, low, high in ((HOMOGENEOUS, -0.05, 0.05), (FAINT, -0.05, 0.05), (TABLES, 0.05, 0.12)):
        error = read(slabs(layers, 1.0))["thickness_mm"] - sum(thickness for thickness, _ in layers)
        assert low <= error.min() <= error.max() <= high
        error = read(arc(60, layers, 1.0)[None])["thickness_mm"] - sum(thickness for thickness, _ in layers)
        assert low <= error[0] <= high


@pytest.mark.parametrize("sigma", BLURS)
def test_density_ratios_of_phantoms(sigma):
    hu = np.concatenate([slabs(TABLES, sigma), arc(60, TABLES, sigma)[None]])
    got = read(hu)
    np.testing.assert_allclose(got["sdr"], 800 / 1900, atol=0.01)
    np.testing.assert_allclose(got["sdr_minmax"], 800 / 1900, atol=0.01)
    np.testing.assert_allclose(got["sdr_peaks"], 800 / 1800, atol=0.01)
    homogeneous = np.concatenate([slabs(HOMOGENEOUS, sigma, 15), slabs(FAINT, sigma, 15), arc(60, FAINT, sigma)[None]])
    np.testing.assert_allclose(read(homogeneous)["sdr"], 1, atol=0.01)


def test_homogeneous_slab_is_one_by_every_definition():
    got = read(slabs(HOMOGENEOUS, 0))
    for name in ("sdr", "sdr_minmax", "sdr_peaks"):
        np.testing.assert_allclose(got[name], 1, atol=1e-6)


@pytest.mark.parametrize(("layers", "sigma"), [(HOMOGENEOUS, 0), (TABLES, 0.425), (FAINT, 1.0)])
def test_intensity_and_area_are_those_of_the_pixels(layers, sigma):
    hu = slabs(layers, sigma)
    got = read(hu)
    np.testing.assert_allclose(got["mean_hu"], [x[x > 200].mean(dtype=np.float64) for x in hu], atol=0.01)
    np.testing.assert_allclose(got["area_mm2"], (hu > 200).sum((1, 2)) * PIXEL_MM**2, rtol=1e-6)
    whole = np.zeros((1, 128, 128), np.int16)
    whole[:, 20:31] = 1234
    got = read(whole)
    assert got["mean_hu"] == pytest.approx(1234, abs=1e-3)
    assert got["thickness_mm"] == pytest.approx(11 * PIXEL_MM, abs=1e-4)


def test_density_ratios_as_they_are_defined():
    hu = segments(12, seed=3) + np.random.default_rng(0).random((12, 128, 128), np.float32)  # no two neighbours equal
    got = read(hu)
    for k, image in enumerate(hu):
        ratios = {"sdr_minmax": [], "sdr_peaks": []}
        mask = _scipy_largest(image > 200)
        for column in range(0, 128, 4):
            rows = np.flatnonzero(mask[:, column])
            if len(rows) < 3:
                continue
            ray = image[rows[0] : rows[-1] + 1, column]
            ratios["sdr_minmax"].append(ray[1:-1].min() / ray.max())
            ends = np.concatenate([[0], ray, [0]])
            peaks = np.flatnonzero((ray > 700) & (ray > ends[:-2]) & (ray > ends[2:]))
            if len(peaks) >= 2:
                a, b = peaks[0], peaks[-1]
                ratios["sdr_peaks"].append(ray[a : b + 1].min() / np.mean([ray[a], ray[b]]))
        for name, values in ratios.items():
            assert got[name][k] == pytest.approx(np.mean(values), abs=1e-5)


def test_marrow_below_the_threshold_is_within_the_ray_but_not_in_the_mask():
    hu = np.zeros((1, 128, 128), np.float32)
    hu[:, 20:25], hu[:, 25:29], hu[:, 29:34] = 1000, -50, 1000
    hu[:, 25:29, ::32] = 1000  # struts, or the tables were two components
    got = read(hu)
    for name in ("sdr", "sdr_minmax", "sdr_peaks"):  # 4 of the 32 rays run through a strut
        assert got[name] == pytest.approx((28 * -0.05 + 4 * 1) / 32, abs=1e-5)
    assert got["mean_hu"] == pytest.approx(1000)
    assert got["column_mm"] == pytest.approx(14 * PIXEL_MM, abs=1e-4)


def test_what_cannot_be_measured_is_nan():
    hu = np.zeros((4, 128, 128), np.int16)
    hu[1, 20:31] = 150  # under the threshold
    hu[2, 20] = hu[2, 22] = 1000  # one peak
    hu[2, 21] = 1500
    hu[3, 20:22] = 1000  # two pixels
    got = read(hu)
    assert set(got) == set(radiology.NAMES) == set(radiology.DEFINITIONS)
    for name, x in got.items():
        assert x.dtype == np.float32
        assert x.shape == (4,)
        if name == "area_mm2":
            np.testing.assert_allclose(x, np.array([0, 0, 3, 2]) * 128 * PIXEL_MM**2)
        else:
            expected = [True, True, name == "sdr_peaks", name.startswith("sdr")]
            np.testing.assert_array_equal(np.isnan(x), expected, err_msg=name)


def test_other_components_and_the_rest_of_the_batch_do_not_count():
    hu = segments(6, seed=1)
    alone = read(hu)
    specks = hu.copy()
    specks[:, 100:103, 30:34] = 2500
    noise = np.random.default_rng(0).integers(0, 400, hu.shape).astype(np.int16)
    together = read(np.concatenate([noise, specks]))
    for name, x in alone.items():
        np.testing.assert_allclose(together[name][6:], x, rtol=1e-6, err_msg=name)


def test_a_mirrored_slice_has_the_same_thickness_and_dtype_does_not_matter():
    hu = segments(6, seed=2)
    plain, mirrored = read(hu), read(hu[:, :, ::-1])
    integers = support.quick_jit(lambda hu: radiology.measure(hu, PIXEL_MM))(hu)
    for name in ("thickness_mm", "column_mm", "mean_hu", "area_mm2"):
        np.testing.assert_allclose(mirrored[name], plain[name], rtol=1e-4)
    for name, x in plain.items():
        np.testing.assert_allclose(integers[name], x, rtol=1e-6)


def _scipy_largest(mask):
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == sizes.argmax()  # the first of equals


def _spiral(size, gap):
    """A path one pixel wide from a corner inwards, its turns `gap` pixels apart."""
    mask = np.zeros((size, size), bool)
    y = x = 0
    dy, dx = 0, 1
    length, legs = size - 1, 0
    mask[0, 0] = True
    while length > 0:
        for _ in range(length):
            y, x = y + dy, x + dx
            mask[y, x] = True
        dy, dx = dx, -dy
        legs += 1
        if legs >= 3 and legs % 2 == 1:  # three sides of full length, then two of each
            length -= gap + 1
    return mask


def _nasty():
    """(n, 128, 128): masks on which a labelling can go wrong."""
    row, column = np.mgrid[:128, :128]
    random = np.random.default_rng(0)
    comb = (column % 2 == 0) | (row == 127)
    snake = (row % 4 == 0) | (column == np.where(row % 8 < 4, 127, 0))
    masks = [
        np.zeros((128, 128), bool),
        np.ones((128, 128), bool),
        (row + column) % 2 == 0,  # one component by corners
        (row % 8 < 4) & (column % 8 < 4) & ~((row // 8 == 15) & (column // 8 == 15)),  # 255 equals
        row == column,
        row + column == 127,
        abs(row - column) == 3,  # two equals
        comb,
        comb[::-1],
        comb.T,
        comb.T[:, ::-1],
        snake,
        snake.T,
        _spiral(128, 1),
        _spiral(128, 2)[::-1].T,
        np.isin(row, (31, 32, 63, 64)) & (column > 2),  # where words meet
        (row % 2 == 0) & (column % 2 == 0) & (row < 16),  # specks, all alike
        (np.hypot(row - 64, column - 64) // 3) % 2 == 0,  # rings
    ]
    blobs = [ndimage.gaussian_filter(random.standard_normal((128, 128)), s) > 0 for s in (1, 2, 4, 8)]
    return np.stack(masks + blobs)


def test_spiral_is_what_it_says():
    mask = _spiral(128, 1)
    assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
    assert 0.4 < mask.mean() < 0.6


def test_component_of_nasty_masks_is_that_of_scipy():
    masks = _nasty()
    np.testing.assert_array_equal(largest_component(masks), [_scipy_largest(m) for m in masks])


def test_component_of_thousands_of_random_masks_is_that_of_scipy():
    random = np.random.default_rng(1)
    shape = (250, 64, 40)
    for density in (0.05, 0.2, 0.3, 0.35, 0.38, 0.4, 0.42, 0.5, 0.6, 0.8):  # percolation is at 0.407
        masks = random.random(shape) < density
        np.testing.assert_array_equal(largest_component(masks), [_scipy_largest(m) for m in masks])
    stripes = (random.random(shape) < 0.5) & (random.random((250, 64, 1)) < 0.6)  # pieces of lines, many alike
    np.testing.assert_array_equal(largest_component(stripes), [_scipy_largest(m) for m in stripes])
