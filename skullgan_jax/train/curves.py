"""Figures of a run: its curves over the steps, and what the same latents gave through training."""

import pathlib

import numpy as np
from matplotlib import image
from matplotlib.figure import Figure

from skullgan_jax.slices import pictures


def curves(path, records: list[dict]) -> None:
    """Losses, D's mean outputs, learning rates and the checkpoint metric over steps."""
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
    pictures.save(figure, path)


def progress(path, grids: list[pathlib.Path], *, most: int = 8) -> None:
    """The same fixed latents through training: up to `most` of the saved grids side by side."""
    chosen = [grids[i] for i in sorted({round(i) for i in np.linspace(0, len(grids) - 1, most)})]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = Figure(figsize=(4 * columns, 4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, file in zip(axes.flat, chosen, strict=False):
        axis.imshow(image.imread(file))
    pictures.save(figure, path)
