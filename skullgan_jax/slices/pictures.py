"""Figures of a run: sample grids, loss curves and the progress of the generator.

matplotlib is imported where a figure is drawn: who only samples may not have it.
"""

import pathlib

import numpy as np

from skullgan_jax.machine import files


def _save(figure, path) -> None:
    with files.whole(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


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
    import matplotlib
    from matplotlib import image

    low, high = window
    page = sheet(np.asarray(hu, np.float32), columns)
    colours = matplotlib.colormaps["gray"].with_extremes(bad="white")
    image.imsave(path, page, cmap=colours, vmin=low, vmax=high, format="png", metadata={"Description": text})


def _units(calibration) -> str:
    return "grey level" if (calibration.hu_min, calibration.hu_max) == (0, 255) else "HU"


def grid(path, hu, calibration, *, title: str, columns: int = 4) -> None:
    """Slices (N, 128, 128) in HU as a contact sheet with a colour bar; values below 0 HU show as black."""
    import matplotlib
    from matplotlib.figure import Figure

    page = sheet(np.asarray(hu, np.float32), columns)
    height = 7.0 * page.shape[0] / page.shape[1] + 0.5
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["gray"].with_extremes(bad="white")
    drawn = axes.imshow(page, cmap=colours, vmin=max(0, calibration.hu_min), vmax=calibration.hu_max)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    figure.colorbar(drawn, ax=axes, label=_units(calibration), fraction=0.03, pad=0.01)
    _save(figure, path)


def curves(path, records: list[dict]) -> None:
    """Losses, D's mean outputs, learning rates and the checkpoint metric over steps."""
    from matplotlib.figure import Figure

    steps = [r for r in records if "loss_d" in r]
    judged = [r for r in records if "swd" in r]
    figure = Figure(figsize=(8, 10), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    for row, names, label in (
        (axes[0], (("loss_d", "D"), ("loss_g", "G")), "loss"),
        (axes[1], (("d_real", "D(x)"), ("d_fake", "D(G(z))")), "mean output of D"),
        (axes[2], (("lr_d", "D"), ("lr_g", "G")), "learning rate"),
    ):
        for (name, legend), style in zip(names, ("-", "--"), strict=True):
            row.plot([r["step"] for r in steps], [r[name] for r in steps], style, lw=1, label=legend)
        row.set_ylabel(label)
        row.legend(loc="upper right", fontsize=8)
    axes[0].axhline(0.9, color="grey", lw=0.8, ls=":")
    axes[2].set_yscale("log")
    axes[3].plot([r["step"] for r in judged], [r["swd"] for r in judged], "o-", ms=3, lw=1)
    axes[3].set_ylabel("SWD x 1000 (lower is better)")
    axes[3].set_xlabel("step")
    for row in axes:
        row.grid(alpha=0.3)
    _save(figure, path)


def progress(path, grids: list[pathlib.Path], *, most: int = 8) -> None:
    """The same fixed latents through training: up to `most` of the saved grids side by side."""
    from matplotlib import image
    from matplotlib.figure import Figure

    chosen = [grids[i] for i in sorted({round(i) for i in np.linspace(0, len(grids) - 1, most)})]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(4 * columns, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, file in zip(axes.flat, chosen, strict=False):
        axis.imshow(image.imread(file))
    _save(figure, path)
