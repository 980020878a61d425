"""Figures of a run: its curves over the steps, and what the same latents gave through training."""

import pathlib

import numpy as np
from matplotlib import image, ticker
from matplotlib.figure import Figure

from skullgan_jax.slices import pictures
from skullgan_jax.train import monitor


def curves(path, records: list[dict], recipe, best: int | None) -> None:
    """Losses, D's mean outputs, learning rates and what checkpoints were judged by, over steps; the best is marked.

    Args:
      path: of the PNG.
      records: of metrics.jsonl.
      recipe: whose gate is drawn, if it has one.
      best: the step of the best checkpoint, or None.
    """
    steps = [r for r in records if "loss_d" in r]
    figure = Figure(figsize=(8, 14), layout="constrained")
    axes = figure.subplots(6, 1, sharex=True)
    losses, outputs, rates, kid, shares, distances = axes
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
    for row, names, label in (
        (kid, (("kid", "checkpoints"),), "KID (lower is better)"),
        (
            shares,
            (("coverage", "coverage (higher is better)"), ("spread", "spread, of reals 1")),
            "coverage and spread",
        ),
        (distances, (("swd", "checkpoints"),), "SWD x 1000 (lower is better)"),
    ):
        for name, legend in names:
            judged = [r for r in records if name in r]
            row.plot([r["step"] for r in judged], [r[name] for r in judged], "o-", ms=3, lw=1, label=legend)
            marked = [r for r in judged if r["step"] == best]
            if marked:
                text = f"best: step {best}, {marked[-1][name]:.3g}"
                row.plot(best, marked[-1][name], "*", color="C3", ms=11, label=text)
        row.set_ylabel(label)
    kid.set_yscale("symlog", linthresh=0.1)  # unbiased, so that it may come out below 0
    # A run may stay within a power of ten, and is to have numbers beside it all the same.
    kid.yaxis.set_major_locator(ticker.SymmetricalLogLocator(base=10, linthresh=0.1, subs=(1, 2, 4, 7)))
    kid.yaxis.set_major_formatter("{x:g}")
    shares.axhline(
        monitor.COLLAPSED, color="grey", lw=0.8, ls=":", label=f"spread of a collapse, {monitor.COLLAPSED:g}"
    )
    shares.set_ylim(0, 1.5)  # samples that are mostly noise spread more
    collapsed = [r for r in records if r.get("collapse")]
    if collapsed:
        at = [r["step"] for r in collapsed], [r["spread"] for r in collapsed]
        shares.plot(*at, "x", color="k", ms=7, label=f"collapse, from step {at[0][0]} on")
    distances.set_xlabel("step")
    for row in axes:
        if best is not None:
            row.axvline(best, color="C3", lw=0.8, alpha=0.6, label="best checkpoint" if row is losses else None)
        row.grid(alpha=0.3)
        row.legend(loc="best", fontsize=8)
    pictures.save(figure, path)


def progress(path, grids: list[pathlib.Path], *, most: int = 8) -> None:
    """The same fixed latents through training: up to `most` of the saved grids side by side."""
    chosen = [image.imread(grids[i]) for i in sorted({round(i) for i in np.linspace(0, len(grids) - 1, most)})]
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    high, wide = chosen[0].shape[:2]
    figure = Figure(figsize=(4 * columns, 4 * rows * high / wide), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, grid in zip(axes.flat, chosen, strict=False):
        axis.imshow(grid)
    pictures.save(figure, path)
