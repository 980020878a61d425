"""report.html: one file with everything, in the order in which it is needed."""

import base64
import html
import json
import pathlib

from skullgan_jax.evaluate.measures import compare
from skullgan_jax.evaluate.measures.table import MEASURES, written
from skullgan_jax.machine import files
from skullgan_jax.slices import radiology

_GROUPS = {
    "simple": "Simple metrics: numbers that idealised skulls match as well",
    "structure": "Shape and texture",
    "diversity": "Diversity",
}
_SHORT = {
    "sdr": ("SDR, central", 3),
    "sdr_minmax": ("SDR, min/max", 3),
    "sdr_peaks": ("SDR, peaks", 3),
    "thickness_mm": ("thickness, normal, mm", 2),
    "column_mm": ("thickness, column, mm", 2),
    "mean_hu": ("mean intensity, HU", 0),
    "area_mm2": ("area of bone, mm²", 0),
}


def write(path: pathlib.Path, metrics: dict, images: dict[str, pathlib.Path]) -> None:
    """Writes the page, self-contained.

    Args:
      path: of the page.
      metrics: of judge.evaluate.
      images: of figures.draw.

    Raises:
      OSError: it cannot be written.
    """
    parts = [_head(metrics), _verdict(metrics), _notes(metrics)]
    parts.append(
        _section("Samples", _SAMPLES, _image(images["samples"], "slices of each set, drawn at random, side by side"))
    )
    if "tests" in metrics:
        body = _image(images["tests"], "each distance relative to two halves of the reals") + _tests(metrics)
        parts.append(_section("Every test on one scale", _tests_text(metrics), body))
    parts.append(
        _section(
            "SDR, thickness and intensity",
            "Histograms over slices. Intervals are 95 %, by bootstrap; halves: what two halves of the reals differ by.",
            _image(images["distributions"], "histograms of radiological numbers") + _radiology(metrics["radiology"]),
        )
    )
    if "tests" in metrics:
        parts.append(_section("Power spectrum", _SPECTRUM, _image(images["spectrum"], "power over spatial frequency")))
        parts.append(_section("Fidelity and diversity", _fidelity_text(metrics), _fidelity(metrics)))
        parts.append(_section("t-SNE", _tsne_text(metrics), _image(images["tsne"], "t-SNE map of the sets", "half")))
    if "classifiers" in images:
        parts.append(_section("Classifiers", _CLASSIFIERS, _image(images["classifiers"], "accuracies with intervals")))
    if "memorisation" in metrics:
        body = _image(images["memorisation"], "distances to the nearest training slice", "half")
        body += _image(images["pairs"], "the closest pairs")
        parts.append(_section("Memorisation", _memorisation_text(metrics["memorisation"]), body))
    parts.append(_definitions(metrics))
    files.write_text(path, _PAGE.replace("@BODY@", "\n".join(parts)))


def _section(title: str, text: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2><p>{text}</p>{body}</section>"


def _image(path: pathlib.Path, alt: str, kind: str = "full") -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img class="{kind}" alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'


def _table(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and the others numbers; cells are HTML."""
    top = "".join(f"<th{'' if i == 0 else ' class=n'}>{h}" for i, h in enumerate(head))
    body = ""
    for row in rows:
        if len(row) == 1:
            body += f"<tr class=group><td colspan={len(head)}>{row[0]}"
        else:
            body += "<tr>" + "".join(f"<td{'' if i == 0 else ' class=n'}>{c}" for i, c in enumerate(row))
    return f'<div class="wide"><table><thead><tr>{top}</thead><tbody>{body}</tbody></table></div>'


def _mark(passes: bool | None) -> str:
    if passes is None:
        return "<span class=mark>–</span>"
    return "<span class='mark pass'>✓</span>" if passes else "<span class='mark fail'>✗</span>"


def _head(metrics: dict) -> str:
    sets = metrics["sets"]

    def one(name, what):
        s = sets[name]
        subjects = "" if s["subjects"] is None else f", {s['subjects']} subjects"
        return f"{what}: {html.escape(s['name'])}, {s['num']:,} slices{subjects}"

    words = [one(n, w) for n, w in (("real", "Real"), ("fake", "Fake"), ("train", "Training")) if n in sets]
    words.append(f"{metrics['pixel_mm']:g} mm pixels; seed {metrics['seed']}; version {metrics['version']}")
    return (
        "<header><h1>Is it a skull?</h1><p class=use>Research use only: no basis for a clinical "
        f"decision.</p><p>{'. '.join(words)}.</p></header>"
    )


def _verdict(metrics: dict) -> str:
    verdict = metrics["verdict"]
    lines = "".join(
        f"<li>{_mark(x['passes'])}<div><strong>{html.escape(x['what'])}</strong> {html.escape(x['text'])}</div></li>"
        for x in verdict["lines"]
    )
    return f'<div class="verdict"><h2>{html.escape(verdict["headline"])}</h2><ul>{lines}</ul></div>'


def _notes(metrics: dict) -> str:
    lines = [*metrics["notes"], *(f"left out: {x}" for x in metrics["left_out"])]
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(x)}" for x in lines)
    return f"<div class=notes><h3>Before you rely on it</h3><ul>{items}</ul></div>"


def _tests_text(metrics: dict) -> str:
    return (
        f"Each distance is taken between {metrics['half_size']:,} fakes and {metrics['half_size']:,} reals, and "
        f"between two halves of the reals of that size ({compare.HALVINGS} random halvings by "
        f"{metrics['halved_by']}). A set passes up to the limit; {compare.LEVEL:.0%} of the halvings stay within the "
        "limits of all rows at once. Idealised skulls are smooth shells with the reals' SDR, thickness and "
        "intensity: what lets them pass cannot tell a skull from a drawing of one."
    )


def _tests(metrics: dict) -> str:
    rows, group = [], None
    for name, measure in MEASURES.items():
        test = metrics["tests"][name]
        if measure.group != group:
            group = measure.group
            rows.append([_GROUPS[group]])
        cells = [html.escape(measure.label), written(name, test["floor"]), written(name, test["limit"])]
        for s in ("fake", "control"):
            cells += [f"{written(name, test[s]['value'])} {_mark(test[s]['passes'])}"]
        rows.append(cells)
    return _table(["distance", "real halves", "limit", "fake", "idealised"], rows)


def _radiology(known: dict) -> str:
    def interval(x, digits):
        return f"{x['value']:.{digits}f} [{x['low']:.{digits}f}, {x['high']:.{digits}f}]"

    rows = []
    for name, x in known.items():
        label, digits = _SHORT[name]
        means = [f"{x[s]['mean']:.{digits}f} ± {x[s]['sd']:.{digits}f}" for s in ("real", "fake")]
        distances = [interval(x["difference"], digits)]
        for statistic, shown in (("ks", 3), ("wasserstein", digits)):
            halves = f"{x['floor'][statistic]:.{shown}f}" if "floor" in x else ""
            distances += [interval(x[statistic], shown), halves]
        rows.append([label, *means, *distances])
    return _table(["", "real, mean ± SD", "fake", "difference", "KS", "halves", "Wasserstein", "halves"], rows)


def _fidelity_text(metrics: dict) -> str:
    return (
        "All slices of both sets, on 448 stated features of shape and texture, with 5 nearest neighbours. Precision: "
        "fakes that lie among the reals; recall: reals that lie among the fakes; near duplicates: first 50 rows, "
        "binarised at 1200 HU, fewer than 200 pixels different."
    )


def _fidelity(metrics: dict) -> str:
    rows = []
    known = metrics["fidelity"]
    for name, label, form in (
        ("precision", "precision", "{:.1%}"),
        ("recall", "recall", "{:.1%}"),
        ("density", "density (1 is ideal)", "{:.2f}"),
        ("coverage", "coverage", "{:.1%}"),
        ("kid", "KID x 1000 (these features, not Inception's)", "{:.2f}"),
    ):
        factor = 1000 if name == "kid" else 1
        rows.append([label, "", *(form.format(factor * known[s][name]) for s in ("fake", "control"))])
    twins = metrics["duplicates"]
    order = ("real", "fake", "control")
    rows.append(["slices", *(f"{twins[s]['num']:,}" for s in order)])
    rows.append(["near-duplicate rate", *(f"{twins[s]['rate']:.1%}" for s in order)])
    rows.append(["effective number of distinct skulls", *(f"{twins[s]['effective']:,.0f}" for s in order)])
    if "fid" in metrics:
        rows.append([f"FID: {html.escape(metrics['fid']['protocol'])}", "", f"{metrics['fid']['value']:.1f}", ""])
    return _table(["", "real", "fake", "idealised"], rows)


def _percent(x: dict) -> str:
    return f"{100 * x['value']:.1f} % [{100 * x['low']:.1f}, {100 * x['high']:.1f}]"


def _tsne_text(metrics: dict) -> str:
    found = metrics["two_sample"]
    return (
        "A map of the features; distances in it mean little, so read it with a number: a linear classifier on the "
        f"same features tells fake from real in <strong>{_percent(found['fake'])}</strong> of cases, idealised from "
        f"real in {_percent(found['control'])}, one half of the reals from the other in {_percent(found['floor'])} "
        "(50 % is guessing)."
    )


def _memorisation_text(found: dict) -> str:
    p = "< 0.001" if found["p"] < 0.001 else f"= {found['p']:.3f}"
    met = ""
    if "train_subjects" in found:
        met = (
            f" The nearest slices come from {found['train_subjects_met']:.1f} (effective number) of "
            f"{found['train_subjects']} training subjects."
        )
    return (
        f"Nearest of {found['num_train']:,} training slices, mirror images included; RMS difference in HU over bone, "
        f"at a quarter of the resolution. Median {found['fake_median_hu']:.0f} HU for fakes, "
        f"{found['held_out_median_hu']:.0f} HU for held-out slices. A fake is the nearer one in "
        f"<strong>{_percent(found['nearer'])}</strong> of pairs (Mann-Whitney, p {p} for independent slices).{met}"
    )


def _definitions(metrics: dict) -> str:
    own = "".join(
        f"<dt>{html.escape(_SHORT[name][0])}<dd>{html.escape(radiology.DEFINITIONS[name])}" for name in radiology.NAMES
    )
    rest = "".join(f"<dt>{html.escape(k)}<dd>{v}" for k, v in _TERMS.items())
    limits = "".join(f"<li>{x}" for x in _LIMITS)
    made = html.escape(json.dumps({k: metrics[k] for k in ("seed", "halved_by", "seconds")}))
    return (
        "<section "
        f"class=small><h2>Definitions</h2><dl>{own}{rest}</dl><h2>Limits</h2><ul>{limits}</ul><p>metrics.json holds "
        f"every number, figures/ every picture. {made}</p></section>"
    )


_SAMPLES = "Drawn at random, none picked; 0 HU is black, 2000 HU white. Idealised skulls are the control."
_SPECTRUM = (
    "Power averaged over directions. Missing detail shows as a fall on the right, checkerboards as peaks there. "
    "Grey: what two halves of the reals differ by."
)
_CLASSIFIERS = (
    "50 % is ideal for each accuracy. The discriminator should call as many fakes real as held-out reals; what it "
    "calls the idealised skulls says how much it looks at. It shares the generator's history, the trained network "
    "does not."
)
_TERMS = {
    "Floor and limit": (
        f"The reals are halved {compare.HALVINGS} times into A and B; d(A, B) is the floor, the mean of d(F, B) the "
        "set's distance, F being as many of the set. limit = mean + c x standard deviation of the floor, one c for "
        f"all rows, within which {compare.LEVEL:.0%} of the halvings stay in all rows at once (single-step maxT, "
        "Westfall and Young 1993)."
    ),
    "KS, Wasserstein": (
        "Greatest difference of the distribution functions; mean distance of sorted values, in their unit. Bootstrap "
        f"of {compare.RESAMPLED}, reals by subject where {compare.LEAST_SUBJECTS} or more are known; intervals "
        "centred on the value."
    ),
    "Features": (
        "Means of 8 x 8 pixels (256); log(1 + energy / 100 HU) of Gabor filters, four orientations at waves of 4, 8 "
        "and 16 pixels, means over 32 x 32 pixels (192). Each standardised by the reals, both blocks of equal weight."
    ),
    "Precision, recall": "Kynkäänniemi et al. 2019, 5 neighbours.",
    "Density, coverage": "Naeem et al. 2020, 5 neighbours.",
    "KID": "Unbiased squared MMD, kernel (x·y + 1)³ (Binkowski et al. 2018), on these features.",
    "Power spectrum": (
        "|DFT|²/N over rings of 1 to 64 cycles per image, Hann window along rows; distance: RMS over rings of the "
        "difference of mean dB."
    ),
    "Near duplicates": (
        "Share of slices with a near duplicate in their set, less that of the reals (in the tests); share that "
        "dropping them one by one removes (near-duplicate rate); n² / (n + 2 pairs) (effective number)."
    ),
    "Linear classifier": (
        "Linear discriminant with Ledoit-Wolf shrinkage on the features, five folds; balanced accuracy. It fails "
        "where the 99.5 % interval (Wilson; with subjects, of the effective number) lies above 50 %."
    ),
    "Trained network": (
        "Four 4 x 4 convolutions (8 to 64 channels), BatchNorm, mean over the image, on a slice and its fine detail; "
        "150 steps of Adam, two folds, at most 1000 slices of each set. It fails as the linear classifier does."
    ),
    "Discriminator": (
        "The model's own, in batches of 16 of one set, BatchNorm by the batch, as in training; real is a logit above "
        "0. No judgement where it calls fewer than 5 % or more than 95 % of the reals real, and the fakes alike."
    ),
    "Memorisation": (
        "It fails where the 99 % bootstrap interval of the share of pairs lies above 50 %, or more fakes than "
        "held-out slices are near copies (99.5 % interval). Slices within 100 HU are near copies: a head read again "
        "differs by 10 to 100 HU, other places of it by 107 or more."
    ),
}
_LIMITS = (
    "Passing means that these looks, with so many slices, see no difference; not that there is none.",
    "With slices of few heads the reals are no sample of people. Without subjects, slices count as independent.",
    "A generator of heads it was trained on lies nearer to them than new heads do, without copying a slice.",
    "SDR depends on the kernel of the scanner (0.05 between two); compare sets of the same kernels.",
    "No radiologist has looked: that is what the visual Turing test is for.",
)
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Is it a skull?</title><link rel="icon" href="data:,">
<style>
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; max-width: 1080px; margin: 2.5em auto;
  padding: 0 1.2em; color: #16181b; background: #fff; }
h1 { font-size: 2em; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 1.2em; margin: 0 0 .3em; }
h3 { font-size: 1em; margin: 0; }
header p { margin: .3em 0; color: #444; }
header .use { color: #16181b; font-weight: 600; }
section { margin: 2.6em 0 0; }
section > p { max-width: 48em; margin: .2em 0 .8em; color: #333; }
img { display: block; margin: .4em auto .8em; max-width: 100%; }
img.full { width: 100%; }
img.half { width: 62%; }
.verdict { border: 2px solid #16181b; border-radius: 6px; padding: 1em 1.3em; margin: 1.4em 0; }
.verdict h2 { font-size: 1.35em; }
.verdict ul { list-style: none; padding: 0; margin: .6em 0 0; }
.verdict li { display: flex; gap: .8em; padding: .3em 0; border-top: 1px solid #e3e3e3; }
.verdict strong { margin-right: .4em; }
.mark { display: inline-block; width: 1.2em; text-align: center;
  font-weight: 700; flex: none; align-self: flex-start; }
.fail { background: #16181b; color: #fff; border-radius: 3px; }
.notes { background: #f4f4f2; border-left: 5px solid #888; padding: .7em 1.2em; }
.notes ul { margin: .3em 0; padding-left: 1.2em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9em; width: 100%; }
th, td { text-align: left; padding: .28em .8em .28em 0; vertical-align: top; border-bottom: 1px solid #e6e6e6; }
th { border-bottom: 1.5px solid #16181b; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.group td { font-weight: 600; padding-top: .8em; }
.small { font-size: .88em; }
dl { display: grid; grid-template-columns: 11em 1fr; gap: .35em 1em; }
dt { font-weight: 600; }
dd { margin: 0; }
@media (max-width: 640px) { dl { grid-template-columns: 1fr; }
img.half { width: 100%; }
}
@media print { @page { margin: 14mm; }
body { margin: 0; max-width: none; font-size: 10.5pt; padding: 0; }
  h2 { break-after: avoid; }
img, tr, li, .verdict, .notes { break-inside: avoid; }
section { margin-top: 1.4em; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
</style></head><body>
@BODY@
</body></html>
"""
