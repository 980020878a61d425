"""The figures of a report, each a file of its own. Sets differ by shade, line style and marker, never by hue alone."""

import pathlib

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from skullgan_jax.evaluate.measures import controls
from skullgan_jax.evaluate.measures.table import MEASURES
from skullgan_jax.slices import radiology
from skullgan_jax.slices.pictures import sheet
from skullgan_jax.slices.size import SIZE

NAMES = ("samples", "distributions", "tests", "spectrum", "tsne", "classifiers", "memorisation", "pairs")
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
_WIDTH = 10.5  # inches, of a figure as wide as the page
_LINES = {"real": ("0.55", "-", 2.2), "fake": ("black", "-", 1.3), "control": ("tab:blue", "--", 1.3)}
_MARKERS = {"real": ("o", "0.65"), "fake": ("x", "black"), "control": ("^", "tab:blue")}
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_MARGIN = 8  # rows above and below bone
_BAR_MM = 20
_FARTHEST = 10_000  # limits; what lies beyond is drawn here
_LINEAR = 2  # up to here the scale of the tests is linear


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
    files = {}
    with matplotlib.rc_context(_STYLE):
        for name, figure in _all(metrics, arrays, seed):
            files[name] = folder / f"{name}.png"
            figure.savefig(files[name], dpi=150)
    return files


def _all(metrics: dict, arrays: dict, seed: int):
    yield "samples", _samples(arrays["sets"], metrics["pixel_mm"], seed)
    yield "distributions", _distributions(arrays["radiology"], tested="tests" in metrics)
    if "tests" in metrics:
        yield "tests", _tests(metrics["tests"])
        yield "spectrum", _spectrum(metrics["spectrum"], arrays["spectrum_floor"])
        yield "tsne", _tsne(arrays["tsne"])
    if "classifier" in metrics or "discriminator" in metrics:
        yield "classifiers", _classifiers(metrics)
    if "memorisation" in metrics:
        yield "memorisation", _memorisation(metrics["memorisation"], arrays["memorisation"])
        yield "pairs", _pairs(arrays["memorisation"]["pairs"], metrics["pixel_mm"])


def _figure(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, np.ndarray]:
    """A figure of its own, and its axes (rows, columns): pyplot would keep it, and set a backend for the process."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _rows(hu: np.ndarray) -> slice:
    """The rows that hold bone in some of these slices (N, 128, 128), and a few around."""
    rows = np.flatnonzero((hu > radiology.THRESHOLD_HU).any((0, 2)))
    return slice(max(0, rows[0] - _MARGIN), min(SIZE, rows[-1] + 1 + _MARGIN)) if len(rows) else slice(0, SIZE)


def _scale_bar(axis, pixel_mm: float, bottom: float) -> None:
    """A bar of 20 mm in the dark lower left corner of a slice, `bottom` being its last row."""
    left, end = 5.0, 5 + _BAR_MM / pixel_mm
    axis.plot((left, end), (bottom - 9, bottom - 9), color="white", lw=2, solid_capstyle="butt")
    axis.annotate(f"{_BAR_MM} mm", (end + 4, bottom - 9), color="white", fontsize=7, va="center")


def _samples(sets: dict, pixel_mm: float, seed: int, columns: int = 4, most: int = 32) -> Figure:
    some = {}
    for name, hu in sets.items():
        picked = np.random.default_rng((seed, len(hu))).permutation(len(hu))[:most]
        some[name] = np.asarray(hu[np.sort(picked)], np.float32)
    rows = _rows(some["real"])
    height = rows.stop - rows.start
    lines = -(-max(map(len, some.values())) // columns)
    ratio = lines * (height + 2) / (columns * (SIZE + 2))
    figure, axes = _figure(_WIDTH, _WIDTH / len(some) * ratio + 0.75, 1, len(some))
    for axis, (name, hu) in zip(axes[0], some.items(), strict=True):
        padded = np.full((lines * columns, height, SIZE), np.nan, np.float32)
        padded[: len(hu)] = hu[:, rows]
        colours = matplotlib.colormaps["gray"].with_extremes(bad="white")
        drawn = axis.imshow(sheet(padded, columns), cmap=colours, vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        _scale_bar(axis, pixel_mm, height)
        axis.set_axis_off()
        hidden = (np.delete(hu, np.arange(SIZE)[rows], 1) > radiology.THRESHOLD_HU).any((1, 2)).sum()
        outside = f" ({hidden} of {len(hu)} exceed {radiology.THRESHOLD_HU:g} HU in rows not shown)" if hidden else ""
        axis.set_title(LABELS[name] + outside, fontsize=9)
    bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.03, pad=0.01, aspect=60, shrink=0.5)
    bar.set_label("HU")
    return figure


def _distributions(measured: dict, tested: bool) -> Figure:
    figure, axes = _figure(_WIDTH, 4.6, 2, 4)
    for axis, (name, label) in zip(axes.flat, RADIOLOGY.items(), strict=False):
        values = {s: m[name][np.isfinite(m[name])] for s, m in measured.items()}
        pooled = np.concatenate(list(values.values()))
        low, high = np.quantile(pooled, (0.002, 0.998)) if len(pooled) else (0, 1)
        bins = np.linspace(low, high if high > low else low + 1, 33)
        for s, x in values.items():
            colour, line, width = _LINES[s]
            shown = bool(((x >= bins[0]) & (x <= bins[-1])).any())  # no density of nothing
            if s == "real":
                axis.hist(x, bins, density=shown, color="0.8", label=LABELS[s])
            elif shown:
                axis.hist(x, bins, density=True, histtype="step", color=colour, ls=line, lw=width, label=LABELS[s])
        axis.set_xlabel(label + ("\n(tested)" if tested and name in controls.NAMES else ""))
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
    axes[0, 0].set_ylabel("share of slices")
    axes[1, 0].set_ylabel("share of slices")
    axes[1, 3].set_axis_off()
    drawn = {label: h for axis in axes.flat for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    names = [LABELS[s] for s in measured if LABELS[s] in drawn]  # of a set without skulls some panels have nothing
    axes[1, 3].legend([drawn[name] for name in names], names, loc="center", fontsize=9)
    return figure


def _tests(tests: dict) -> Figure:
    """Each distance on one scale: 0 where two halves of the reals are, 1 at the limit."""
    names = list(MEASURES)
    figure, ((axis,),) = _figure(_WIDTH, 0.3 * len(names) + 1.4)
    axis.axvspan(-3, 1, color="0.92", zorder=0, label="passes")
    axis.axvline(0, color="0.6", lw=0.9, label="two halves of the reals, mean")
    axis.axvline(1, color="black", lw=1.2, ls=":", label="limit")
    most = 1.0
    for row, name in enumerate(names):
        test = tests[name]
        scale = test["limit"] - test["floor"]
        for s in ("control", "fake"):
            if s in test:
                at = min((test[s]["value"] - test["floor"]) / max(scale, 1e-9), _FARTHEST)
                most = max(most, at)
                marker, colour = _MARKERS[s]
                face = colour if marker == "x" else "white"
                label = None if row else LABELS[s]
                axis.plot(at, row, marker, color=colour, mfc=face, ms=8, mew=1.8, ls="", label=label)
        if row and MEASURES[names[row - 1]].group != MEASURES[name].group:
            axis.axhline(row - 0.5, color="0.8", lw=0.8)
    axis.set_xscale("symlog", linthresh=_LINEAR, linscale=1.5)
    axis.set_xlim(-2, max(4.0, most * 1.4))
    ticks = [-1, 0, 1, 2, *(t for t in (5, 10, 20, 50, 100, 200, 500, 1000, 10000) if t < most * 1.4)]
    axis.set_xticks(ticks, [str(t) for t in ticks])
    axis.minorticks_off()
    axis.set_yticks(range(len(names)), [MEASURES[n].label for n in names])
    axis.invert_yaxis()
    axis.set_xlabel(
        f"distance: 0 as two halves of the reals, 1 at the limit; the scale is logarithmic beyond {_LINEAR}"
    )
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5)
    return figure


def _spectrum(spectrum: dict, floor: np.ndarray) -> Figure:
    figure, ((left, right),) = _figure(_WIDTH, 3.2, 1, 2)
    x = np.array(spectrum["cycles_per_mm"])
    low, high = np.quantile(floor, (0.005, 0.995), axis=0)
    right.fill_between(x, low, high, color="0.8", label="two halves of\nthe reals, 99 %")
    for s in ("real", "fake", "control"):
        colour, line, width = _LINES[s]
        left.plot(x, spectrum[s], color=colour, ls=line, lw=width)
        right.plot(x, np.subtract(spectrum[s], spectrum["real"]), color=colour, ls=line, lw=width, label=LABELS[s])
    left.set(xlabel="cycles per mm", ylabel="power, dB over 1 HU$^2$ (logarithmic)", title="mean over slices")
    right.set(xlabel="cycles per mm", ylabel="dB (3 dB: twice the power)", title="difference from real")
    figure.legend(loc="outside right upper")
    return figure


def _tsne(placed: dict) -> Figure:
    figure, ((axis,),) = _figure(6.4, 5.2)
    for s, x in placed.items():
        marker, colour = _MARKERS[s]
        face = {"facecolors": "none", "edgecolors": colour} if marker != "x" else {"color": colour}
        axis.scatter(*x.T, marker=marker, s=16, linewidths=0.9, label=LABELS[s], **face)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, fontsize=9)
    return figure


def _classifiers(metrics: dict) -> Figure:
    rows = []
    names = {"floor": "two halves of the reals", "fake": "fake against real", "control": "idealised against real"}
    for key, what in (("two_sample", "linear classifier"), ("classifier", "trained network")):
        for s, label in names.items():
            if key in metrics and s in metrics[key]:
                rows.append((f"{what}, accuracy: {label}", metrics[key][s], s))
    for s, what in (("real", "held-out reals"), ("fake", "fakes"), ("control", "idealised skulls")):
        if s in metrics.get("discriminator", {}):
            rows.append((f"discriminator: {what} called real", metrics["discriminator"][s], s))
    figure, ((axis,),) = _figure(_WIDTH, 0.32 * len(rows) + 1.1)
    axis.axvline(50, color="0.5", lw=0.9, ls=":", label="50 %, the accuracy of guessing")
    for row, (label, share, s) in enumerate(rows):
        marker, colour = _MARKERS["real" if s == "floor" else s]
        low, value, high = (100 * share[k] for k in ("low", "value", "high"))
        axis.errorbar(
            value, row, xerr=[[value - low], [high - value]], fmt=marker, color=colour, mfc="white", capsize=3, ms=7,
            mew=1.6, label=None if row else "value and 95 % interval",
        )  # fmt: skip
        axis.annotate(f"{value:.1f} %", (101.5, row), va="center", fontsize=8, annotation_clip=False)
        if row and label.split(":")[0] != rows[row - 1][0].split(":")[0]:
            axis.axhline(row - 0.5, color="0.8", lw=0.8)
    axis.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axis.invert_yaxis()
    axis.set_xlim(0, 101)
    axis.set_xlabel("%")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def _memorisation(found: dict, arrays: dict) -> Figure:
    figure, ((axis,),) = _figure(6.4, 3.2)
    for s, key, label in (("real", "held_out", "held-out"), ("fake", "fake", "fake")):
        colour, line, width = _LINES[s]
        x, y = np.sort(arrays[key]), np.arange(1, len(arrays[key]) + 1) / len(arrays[key]) * 100
        axis.step(x, y, where="post", color=colour, ls=line, lw=width, label=label)
    axis.axvline(found["copy_hu"], color="0.4", ls=":", lw=1.2, label=f"near copies: below {found['copy_hu']:.0f} HU")
    axis.set_xlim(left=0)
    axis.set_ylim(0, 100)
    axis.set(xlabel="RMS distance to the nearest training slice, HU", ylabel="% of slices at that or less")
    axis.legend(loc="lower right")
    return figure


def _pairs(pairs, pixel_mm: float) -> Figure:
    fakes, partners, distances = pairs
    rows = _rows(partners)
    height = rows.stop - rows.start
    figure, axes = _figure(_WIDTH, _WIDTH / len(fakes) * 3 * height / SIZE + 0.7, 3, len(fakes))
    for column, fake, partner, distance in zip(axes.T, fakes, partners, distances, strict=True):
        a, b = (np.asarray(hu, np.float32)[rows] for hu in (fake, partner))
        for axis, hu in zip(column[:2], (a, b), strict=True):
            axis.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        column[2].imshow(a - b, cmap="gray", vmin=-1000, vmax=1000)
        column[0].set_title(f"{distance:.0f} HU apart", fontsize=8)
    _scale_bar(axes[0, 0], pixel_mm, height)
    for axis, label in zip(axes[:, 0], ("fake", "nearest in\ntraining", "difference,\n$\\pm$1000 HU"), strict=True):
        axis.set_ylabel(label, fontsize=8)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
