"""Sheets of slices: as they are, and as a figure with a colour bar."""

import matplotlib

from skullgan_jax.machine import files

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def save(figure, path) -> None:
    """Write a figure as a whole PNG."""
    with files.whole(path) as partial:
        figure.savefig(partial, format="png", dpi=110)
    plt.close(figure)


def sheet(hu, columns: int):
    """(N, H, W) -> one image, rows of `columns` with a gap of two pixels."""
    n, h, w = hu.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + 2) - 2, columns * (w + 2) - 2), np.nan, np.float32)
    for i, slice_ in enumerate(hu):
        r, c = divmod(i, columns)
        sheet[r * (h + 2) : r * (h + 2) + h, c * (w + 2) : c * (w + 2) + w] = slice_
    return sheet


def contact_sheet(path, hu, columns: int, *, window: tuple[float, float], text: str) -> None:
    """Slices (N, 128, 128) in HU as an 8-bit PNG, a pixel for a pixel; the text goes into the file."""
    low, high = window
    page = sheet(np.asarray(hu, np.float32), columns)
    colours = plt.get_cmap("gray").with_extremes(bad="white")
    plt.imsave(path, page, cmap=colours, vmin=low, vmax=high, format="png", metadata={"Description": text})


def _units(calibration) -> str:
    return "grey level" if (calibration.hu_min, calibration.hu_max) == (0, 255) else "HU"


def grid(path, hu, calibration, *, title: str, columns: int = 4) -> None:
    """Slices (N, 128, 128) in HU as a contact sheet with a colour bar; values below 0 HU show as black."""
    page = sheet(np.asarray(hu, np.float32), columns)
    height = 7.0 * page.shape[0] / page.shape[1] + 0.5
    figure, axes = plt.subplots(figsize=(8, height), layout="constrained")
    colours = plt.get_cmap("gray").with_extremes(bad="white")
    drawn = axes.imshow(page, cmap=colours, vmin=max(0, calibration.hu_min), vmax=calibration.hu_max)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    figure.colorbar(drawn, ax=axes, label=_units(calibration), fraction=0.03, pad=0.01)
    save(figure, path)
