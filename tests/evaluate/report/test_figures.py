"""What a stranger must be able to read off the figures."""

import matplotlib
import numpy as np

from skullgan_jax.data import phantom
from skullgan_jax.evaluate.report import figures


def named(axis):
    """The texts of a legend."""
    return {text.get_text() for text in axis.get_legend().get_texts()}


def test_every_line_of_the_tests_is_named_and_the_scale_too(same):
    (axis,) = figures._tests(same["tests"]).axes
    assert named(axis) == {"passes", "two halves of the reals, mean", "limit", "idealised", "fake"}
    assert axis.get_xscale() == "symlog"
    assert "logarithmic beyond 2" in axis.get_xlabel()
    assert len(axis.get_yticklabels()) == len(same["tests"])


def test_a_set_that_some_panels_lack_is_named():
    """As one without anything to take an SDR of."""
    radiology = {s: {n: np.arange(9.0) for n in figures.RADIOLOGY} for s in ("real", "fake")}
    radiology["fake"]["sdr"] = np.full(9, np.nan)
    assert named(figures._distributions(radiology, tested=False).axes[-1]) == {"real", "fake"}


def test_every_line_of_the_spectra_is_named_and_the_scale_too(same):
    figure = figures._spectrum(same["spectrum"], np.zeros((3, 64)))
    (names,) = figure.legends
    assert {text.get_text() for text in names.get_texts()} == {
        *("real", "fake", "idealised"),
        "two halves of\nthe reals, 99 %",
    }
    assert "logarithmic" in figure.axes[0].get_ylabel()


def test_the_bar_is_as_long_as_it_says():
    figure = figures._samples({"real": phantom.segments(8, 1), "fake": phantom.segments(8, 2)}, 0.5, 0)
    for axis in figure.axes[:2]:
        (bar,) = axis.get_lines()
        assert np.ptp(bar.get_xdata()) == 20 / 0.5
        assert axis.texts[0].get_text() == "20 mm"


def test_what_lies_outside_of_the_rows_shown_is_counted():
    real, fake = phantom.segments(8, 1), phantom.segments(8, 2)
    rows = figures._rows(real)
    assert rows.stop < 120
    fake[:3, 125, 5] = 900
    figure = figures._samples({"real": real, "fake": fake}, 0.5, 0)
    titles = [axis.get_title("left") or axis.get_title() for axis in figure.axes[:2]]
    assert titles[0] == "real"
    assert titles[1].startswith("fake (")
    assert int(titles[1].split("(")[1].split()[0]) >= 3


def test_drawing_leaves_matplotlib_as_it_was(tmp_path, same):
    before = dict(matplotlib.rcParams)
    radiology = {s: {n: np.arange(9.0) for n in figures.RADIOLOGY} for s in ("real", "fake")}
    arrays = {"sets": {"real": phantom.segments(4, 1), "fake": phantom.segments(4, 2)}, "radiology": radiology}
    drawn = figures.draw(tmp_path, {"pixel_mm": 0.5}, arrays, 0)
    assert {path.name for path in drawn.values()} == {"samples.png", "distributions.png"}
    assert dict(matplotlib.rcParams) == before
