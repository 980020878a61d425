"""Figures of a run: its curves over the steps, and what the same latents gave through training."""

import pathlib

import numpy as np
from matplotlib import image
from matplotlib.figure import Figure

from skullgan_jax.slices import pictures


def curves(path, records: list[dict], recipe) -> None:
    """Losses, D's mean outputs, learning rates and the checkpoint metric over steps; the best checkpoint is marked.

    Args:
      path: of the PNG.
      records: of metrics.jsonl.
      recipe: whose gate is drawn, if it has one.
    """
    steps = [r for r in records if "loss_d" in r]
    judged = [r for r in records if "swd" in r]
    figure = Figure(figsize=(8, 10), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    losses, outputs, rates, distances = axes
    for row, names, label in (
        (losses, (("loss_d", "discriminator (D)"), ("loss_g", "generator (G)")), "loss"),
        (outputs, (("d_real", "of real slices, D(x)"), ("d_fake", "of synthetic slices, D(G(z))")), "mean output of D"),
        (rates, (("lr_d", "discriminator (D)"), ("lr_g", "generator (G)")), "learning rate (log scale)"),
    ):
        for (name, legend), style in zip(names, ("-", "--"), strict=True):
            row.plot([r["step"] for r in steps], [r[name] for r in steps], style, lw=1, label=legend)
        row.set_ylabel(label)
    if hasattr(recipe, "gate_loss"):
        gate = f"gate, {recipe.gate_loss:g}: from epoch {recipe.gate_epoch} on a net below it does not step"
        losses.axhline(recipe.gate_loss, color="grey", lw=0.8, ls=":", label=gate)
    losses.set_ylim(bottom=0)
    outputs.set_ylim(0, 1)
    rates.set_yscale("log")
    distances.plot([r["step"] for r in judged], [r["swd"] for r in judged], "o-", ms=3, lw=1, label="checkpoints")
    distances.set_ylabel("SWD x 1000 (lower is better)")
    distances.set_xlabel("step")
    if judged:
        best = min(judged, key=lambda r: r["swd"])
        text = f"best: step {best['step']}, {best['swd']:.3g}"
        distances.plot(best["step"], best["swd"], "*", color="C3", ms=11, label=text)
        losses.axvline(best["step"], color="C3", lw=0.8, alpha=0.6, label="best checkpoint")
        for row in axes[1:]:
            row.axvline(best["step"], color="C3", lw=0.8, alpha=0.6)
    for row in axes:
        row.grid(alpha=0.3)
        row.legend(loc="best", fontsize=8)
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
