"""The figures of a report, each a file of its own. Sets differ by shade, line style and marker, never by hue alone."""

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from skullgan_jax.evaluate.measures import controls
from skullgan_jax.evaluate.measures.table import MEASURES
from skullgan_jax.slices.pictures import sheet

WINDOW_HU = (0, 2000)
LABELS = {"real": "real", "fake": "fake", "control": "idealised"}
RADIOLOGY = {
    "sdr": "SDR, central",
    "sdr_minmax": "SDR, min/max",
    "sdr_peaks": "SDR, peaks",
    "thickness_mm": "thickness along the normal, mm",
    "column_mm": "thickness along the column, mm",
    "mean_hu": "mean intensity, HU",
    "area_mm2": "area of bone, mm$^2$",
}
_LINES = {"real": ("0.55", "-", 2.2), "fake": ("black", "-", 1.3), "control": ("tab:blue", "--", 1.3)}
_MARKERS = {"real": ("o", "0.65"), "fake": ("x", "black"), "control": ("^", "tab:blue")}
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def draw(folder: pathlib.Path, metrics: dict, arrays: dict, seed: int) -> dict[str, pathlib.Path]:
    """Writes all figures that there are numbers for.

    Args:
      folder: where; it is there.
      metrics: of judge.evaluate.
      arrays: of judge.evaluate.
      seed: chooses the slices to show.

    Returns:
      {name: file}.
    """
    with plt.rc_context(_STYLE):
        made = _all(metrics, arrays, seed)
    files = {}
    for name, figure in made.items():
        files[name] = folder / f"{name}.png"
        figure.savefig(files[name], dpi=150)
        plt.close(figure)
    return files


def _all(metrics: dict, arrays: dict, seed: int) -> dict[str, Figure]:
    made = {"samples": _samples(arrays["sets"], seed), "distributions": _distributions(arrays["radiology"])}
    if "tests" in metrics:
        made["tests"] = _tests(metrics["tests"])
        made["spectrum"] = _spectrum(metrics["spectrum"], arrays["spectrum_floor"])
        made["tsne"] = _tsne(arrays["tsne"])
    if "classifier" in metrics or "discriminator" in metrics:
        made["classifiers"] = _classifiers(metrics)
    if "memorisation" in metrics:
        made["memorisation"] = _memorisation(metrics["memorisation"], arrays["memorisation"])
        made["pairs"] = _pairs(arrays["memorisation"]["pairs"])
    return made


def _figure(*shape, **options) -> tuple[Figure, np.ndarray]:
    return plt.subplots(*shape, layout="constrained", **options)


def _crop(hu: np.ndarray) -> slice:
    """Rows that hold bone in some of the slices."""
    rows = np.flatnonzero((hu > 200).any((0, 2)))
    return slice(0, min(128, rows[-1] + 9)) if len(rows) else slice(0, 128)


def _samples(sets: dict, seed: int, columns: int = 4, most: int = 32) -> Figure:
    some = {}
    for name, hu in sets.items():
        picked = np.random.default_rng((seed, len(hu))).permutation(len(hu))[:most]
        some[name] = np.asarray(hu[np.sort(picked)], np.float32)
    rows = _crop(np.concatenate(list(some.values())))
    lines = -(-max(map(len, some.values())) // columns)
    ratio = lines * (rows.stop + 2) / (columns * 130)
    width = 10.5
    figure, axes = _figure(1, len(some), figsize=(width, width / len(some) * ratio + 0.75), squeeze=False)
    for axis, (name, hu) in zip(axes[0], some.items(), strict=True):
        padded = np.full((lines * columns, rows.stop, 128), np.nan, np.float32)
        padded[: len(hu)] = hu[:, rows]
        colours = plt.get_cmap("gray").with_extremes(bad="white")
        drawn = axis.imshow(sheet(padded, columns), cmap=colours, vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        axis.set_axis_off()
        axis.set_title(LABELS[name])
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.03, pad=0.01, aspect=60, shrink=0.5)
    bar.set_label("HU")
    return figure


def _distributions(measured: dict) -> Figure:
    figure, axes = _figure(2, 4, figsize=(10.5, 4.6))
    for axis, (name, label) in zip(axes.flat, RADIOLOGY.items(), strict=False):
        values = {s: m[name][np.isfinite(m[name])] for s, m in measured.items()}
        pooled = np.concatenate(list(values.values()))
        low, high = np.quantile(pooled, (0.002, 0.998)) if len(pooled) else (0, 1)
        bins = np.linspace(low, high if high > low else low + 1, 33)
        for s, x in values.items():
            colour, line, width = _LINES[s]
            if s == "real":
                axis.hist(x, bins, density=True, color="0.8", label=LABELS[s])
            elif len(x):
                axis.hist(x, bins, density=True, histtype="step", color=colour, ls=line, lw=width, label=LABELS[s])
        axis.set_xlabel(label)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        if name in controls.NAMES:
            axis.set_title("tested", fontsize=8, color="0.3", loc="right")
    last = axes.flat[-1]
    last.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    last.legend(handles, labels, loc="center")
    return figure


def _tests(tests: dict) -> Figure:
    """Each distance on one scale: 0 where two halves of the reals are, 1 at the limit."""
    names = list(MEASURES)
    figure, axis = _figure(figsize=(10.5, 0.3 * len(names) + 1.3))
    most = 1.0
    for row, name in enumerate(names):
        test = tests[name]
        scale = test["limit"] - test["floor"]
        for s in ("control", "fake"):
            if s in test:
                at = (test[s]["value"] - test["floor"]) / scale
                most = max(most, at)
                marker, colour = _MARKERS[s]
                face = colour if marker == "x" else "white"
                axis.plot(at, row, marker, color=colour, mfc=face, ms=8, mew=1.8, label=LABELS[s] if not row else None)
        if row and MEASURES[names[row - 1]].group != MEASURES[name].group:
            axis.axhline(row - 0.5, color="0.8", lw=0.8)
    axis.axvspan(-3, 1, color="0.92", zorder=0)
    axis.axvline(0, color="0.6", lw=0.8)
    axis.axvline(1, color="black", lw=1.2, ls=":")
    axis.set_xscale("symlog", linthresh=2, linscale=1.5)
    axis.set_xlim(-2, max(4.0, most * 1.4))
    ticks = [-1, 0, 1, 2, *(t for t in (5, 10, 20, 50, 100, 200, 500, 1000, 10000) if t < most * 1.4)]
    axis.set_xticks(ticks, [str(t) for t in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(names)), [MEASURES[n].label for n in names])
    axis.invert_yaxis()
    axis.set_xlabel("distance from the reals: 0 as two halves of the reals, 1 (dotted) the limit; grey: passes")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _spectrum(spectrum: dict, floor: np.ndarray) -> Figure:
    figure, (left, right) = _figure(1, 2, figsize=(10.5, 3.2))
    x = np.array(spectrum["cycles_per_mm"])
    for s in ("real", "fake", "control"):
        colour, line, width = _LINES[s]
        left.plot(x, spectrum[s], color=colour, ls=line, lw=width, label=LABELS[s])
        if s != "real":
            right.plot(x, np.subtract(spectrum[s], spectrum["real"]), color=colour, ls=line, lw=width, label=LABELS[s])
    low, high = np.quantile(floor, (0.005, 0.995), axis=0)
    right.fill_between(x, low, high, color="0.8", label="two halves of the reals, 99 %")
    left.set(xlabel="cycles per mm", ylabel="power, dB over 1 HU$^2$", title="mean over slices")
    right.set(xlabel="cycles per mm", ylabel="dB", title="difference from real")
    for axis in (left, right):
        axis.legend(fontsize=8)
    return figure


def _tsne(placed: dict) -> Figure:
    figure, axis = _figure(figsize=(6.4, 5.2))
    for s, x in placed.items():
        marker, colour = _MARKERS[s]
        face = {"facecolors": "none", "edgecolors": colour} if marker != "x" else {"color": colour}
        axis.scatter(*x.T, marker=marker, s=16, linewidths=0.9, label=LABELS[s], **face)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3)
    return figure


def _classifiers(metrics: dict) -> Figure:
    rows = []
    names = {"floor": "two halves of the reals", "fake": "fake against real", "control": "idealised against real"}
    for key, what in (("two_sample", "linear classifier"), ("classifier", "trained network")):
        for s, label in names.items():
            if key in metrics and s in metrics[key]:
                rows.append((f"{what}: {label}", metrics[key][s], s))
    for s in ("real", "fake", "control"):
        if s in metrics.get("discriminator", {}):
            what = "held-out reals" if s == "real" else f"{LABELS[s]}s" if s == "fake" else "idealised skulls"
            rows.append((f"discriminator: {what} called real", metrics["discriminator"][s], s))
    figure, axis = _figure(figsize=(10.5, 0.32 * len(rows) + 0.9))
    for row, (label, share, s) in enumerate(rows):
        marker, colour = _MARKERS["real" if s == "floor" else s]
        low, value, high = (100 * share[k] for k in ("low", "value", "high"))
        axis.errorbar(
            value, row, xerr=[[value - low], [high - value]], fmt=marker, color=colour, mfc="white", capsize=3, ms=7,
            mew=1.6,
        )  # fmt: skip
        axis.annotate(f"{value:.1f} %", (101.5, row), va="center", fontsize=8, annotation_clip=False)
        if row and label.split(":")[0] != rows[row - 1][0].split(":")[0]:
            axis.axhline(row - 0.5, color="0.8", lw=0.8)
    axis.axvline(50, color="0.5", lw=0.9, ls=":")
    axis.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axis.invert_yaxis()
    axis.set_xlim(0, 101)
    axis.set_xlabel("accuracy, or share called real, % with 95 % interval")
    return figure


def _memorisation(found: dict, arrays: dict) -> Figure:
    figure, axis = _figure(figsize=(6.4, 3.2))
    for s, key, label in (("real", "held_out", "held-out"), ("fake", "fake", "fake")):
        colour, line, width = _LINES[s]
        x = np.sort(arrays[key])
        axis.step(
            x, np.arange(1, len(x) + 1) / len(x) * 100, where="post", color=colour, ls=line, lw=width, label=label
        )
    axis.axvline(found["copy_hu"], color="0.5", ls=":", lw=1)
    axis.annotate("near copies", (found["copy_hu"], 97), ha="right", fontsize=8, xytext=(-4, 0), va="top",
                  textcoords="offset points")  # fmt: skip
    axis.set_xlim(left=0)
    axis.set_ylim(0, 100)
    axis.set(xlabel="distance to the nearest training slice, HU", ylabel="% of slices nearer")
    axis.legend(loc="lower right")
    return figure


def _pairs(pairs) -> Figure:
    fakes, partners, distances = pairs
    rows = _crop(np.concatenate([fakes, partners]))
    n = len(fakes)
    figure, axes = _figure(3, n, figsize=(10.5, 10.5 / n * 3 * rows.stop / 128 + 0.7), squeeze=False)
    for i in range(n):
        a, b = (np.asarray(x[i], np.float32)[rows] for x in (fakes, partners))
        for axis, hu in zip(axes[:2, i], (a, b), strict=True):
            axis.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        axes[2, i].imshow(a - b, cmap="gray", vmin=-1000, vmax=1000)
        axes[0, i].set_title(f"{distances[i]:.0f} HU", fontsize=8)
    for axis, label in zip(axes[:, 0], ("fake", "nearest in\ntraining", "difference,\n$\\pm$1000 HU"), strict=True):
        axis.set_ylabel(label, fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
