"""Sheets and figures, read back."""

import io
import sys

import matplotlib
import numpy as np
from matplotlib import image

from skullgan_jax.slices import pictures
from skullgan_jax.slices.calibration import Calibration


def test_a_sheet_is_a_pixel_for_a_pixel():
    """Black, white and the middle of the window; what is beyond it, gaps and NaN; the text in the file."""
    hu = np.array([[[-50, 0], [1000, 2000]], [[3000, np.nan], [500, 500]], [[0, 0], [0, 0]]], np.float32)
    found = pictures.png(hu, 2, window=(0, 2000), text="made up")
    page = image.imread(io.BytesIO(found), format="png")
    assert page.shape == (6, 6, 3)
    np.testing.assert_array_equal(page[..., 0], page[..., 2])
    expected = np.ones((6, 6))
    expected[:2, :2], expected[:2, 4:], expected[4:, :2] = [[0, 0], [0.5, 1]], [[1, 1], [0.25, 0.25]], 0
    np.testing.assert_allclose(page[..., 0], expected, atol=0.5 / 255)
    assert b"Description\0made up" in found


def slices(rows):
    hu = np.zeros((5, 128, 128), np.int16)
    hu[:, rows] = 1500
    return hu


def height(path):
    return image.imread(path).shape[0]


def test_a_figure_is_cropped_to_the_bone(tmp_path):
    """Grey levels, which have neither bone nor millimetres, are not."""
    for name, rows, scale in (
        *(("thin", slice(10, 20), (0, 2000)), ("thick", slice(10, 60), (0, 2000)), ("no", slice(0, 0), (0, 2000))),
        ("grey", slice(10, 20), (0, 255)),
    ):
        pictures.grid(tmp_path / name, slices(rows), Calibration(*scale), title="t")
    thin, thick, no, grey = (height(tmp_path / name) for name in ("thin", "thick", "no", "grey"))
    assert thin < thick < grey <= no


def test_what_is_cut_away_is_told(tmp_path, monkeypatch):
    """A speck far below the segment does not keep the figure from being cropped, and its slice is counted."""
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda figure, _: drawn.append(figure.axes[0]))
    hu = slices(slice(10, 20))
    hu[1, 100, 5], hu[3, 127, 127] = 1500, 150
    pictures.grid(tmp_path / "x.png", hu, Calibration(0, 2000), title="t", columns=5)
    assert drawn[0].get_title() == "t\n1 of 5 exceed 200 HU in rows that are not shown"
    assert drawn[0].images[0].get_array().shape[0] == 10 + 2 * 6


def test_the_scale_is_of_the_pixels(tmp_path, monkeypatch):
    """20 mm are 20 / pixel_mm pixels of a slice, and 128 of these are as wide as one."""
    drawn = []
    monkeypatch.setattr(pictures, "save", lambda figure, _: drawn.append(figure.axes[0]))
    for pixel_mm in (0.5, 1.0):
        pictures.grid(tmp_path / "x.png", slices(slice(10, 20)), Calibration(0, 2000), title="t", pixel_mm=pixel_mm)
    assert [np.ptp(axes.lines[0].get_xdata()) for axes in drawn] == [40, 20]
    assert [axes.texts[0].get_text() for axes in drawn] == ["20 mm"] * 2


def test_the_process_keeps_its_backend(tmp_path, monkeypatch):
    """No window system is asked for a figure, and what draws a notebook's stays."""
    monkeypatch.setitem(matplotlib.rcParams, "backend", "svg")
    known = set(sys.modules)
    pictures.grid(tmp_path / "x.png", slices(slice(10, 20)), Calibration(0, 2000), title="t")
    assert matplotlib.rcParams["backend"] == "svg"
    assert "matplotlib.pyplot" not in set(sys.modules) - known
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"
