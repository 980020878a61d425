"""report.html: one file with everything, in the order in which it is needed."""

import base64
import html
import pathlib

from skullgan_jax.evaluate.measures import compare, controls
from skullgan_jax.evaluate.measures.table import MEASURES, written
from skullgan_jax.evaluate.report import words
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
        _section(
            "Samples", words.SAMPLES, _image(images["samples"], "slices of each set, drawn at random, side by side")
        )
    )
    if "tests" in metrics:
        body = _image(images["tests"], "each distance relative to two halves of the reals") + _tests(metrics)
        parts.append(_section("Every test on one scale", _tests_text(metrics), body))
    parts.append(
        _section(
            "SDR, thickness and intensity",
            words.RADIOLOGY,
            _image(images["distributions"], "histograms of radiological numbers")
            + _radiology(metrics["radiology"], tested="tests" in metrics),
        )
    )
    if "tests" in metrics:
        parts.append(_section("Power spectrum", words.SPECTRUM, _image(images["spectrum"], "power over frequency")))
        parts.append(_section("Near duplicates", words.DUPLICATES, _duplicates(metrics["duplicates"])))
        parts.append(_section("t-SNE", _tsne_text(metrics), _image(images["tsne"], "t-SNE map of the sets", "half")))
    if "classifiers" in images:
        parts.append(
            _section("Classifiers", words.CLASSIFIERS, _image(images["classifiers"], "accuracies with intervals"))
        )
    if "memorisation" in metrics:
        body = _image(images["memorisation"], "distances to the nearest training slice", "half")
        body += _image(images["pairs"], "the closest pairs: fake, its nearest training slice, and the difference")
        parts.append(_section("Memorisation", _memorisation_text(metrics["memorisation"]), body))
    if "fid" in metrics:
        protocol = html.escape(metrics["fid"]["protocol"])
        parts.append(_section("FID", f"<strong>{metrics['fid']['value']:.1f}</strong> ({protocol}).", ""))
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
        seed = "" if s["seed"] is None else f", sampled with seed {s['seed']}"
        return f"{what}: {html.escape(s['name'])}, {s['num']:,} slices{subjects}{seed}"

    facts = [one(n, w) for n, w in (("real", "Real"), ("fake", "Fake"), ("train", "Training")) if n in sets]
    if "model" in metrics:
        facts.append("Model: " + ", ".join(f"{k} {html.escape(str(v))}" for k, v in metrics["model"].items()))
    facts.append(f"{metrics['pixel_mm']:g} mm pixels; skullgan_jax {metrics['version']}")
    return (
        "<header><h1>Is it a skull?</h1><p class=use>Research use only: no basis for a clinical "
        f"decision.</p><p>{'. '.join(facts)}.</p></header>"
    )


def _verdict(metrics: dict) -> str:
    verdict = metrics["verdict"]
    lines = "".join(
        f"<li>{_mark(x['passes'])}<div><strong>{html.escape(x['what'])}</strong> {html.escape(x['text'])}</div></li>"
        for x in verdict["lines"]
    )
    key = "<p>✓ passes, ✗ fails, – no judgement; brackets hold 95 % intervals.</p>"
    return f'<div class="verdict"><h2>{html.escape(verdict["headline"])}</h2><ul>{lines}</ul>{key}</div>'


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
        limit = f"{'≥' if measure.falls_short else '≤'} {written(name, test['limit'])}"
        cells = [html.escape(measure.label), written(name, test["floor"]), limit]
        for s in ("fake", "control"):
            cells += [f"{written(name, test[s]['value'])} {_mark(test[s]['passes'])}"]
        rows.append(cells)
    return _table(["distance", "real halves", "limit", "fake", "idealised"], rows)


def _radiology(known: dict, tested: bool) -> str:
    """Every number of a slice; the distances of those that were tested stand in the table of the tests alone."""

    def interval(x, digits):
        return f"{x['value']:.{digits}f} [{x['low']:.{digits}f}, {x['high']:.{digits}f}]"

    rows = []
    for name, x in known.items():
        label, digits = _SHORT[name]
        cells = [f"{x[s]['mean']:.{digits}f} ± {x[s]['sd']:.{digits}f}" for s in ("real", "fake")]
        cells.append(interval(x["difference"], digits))
        if tested and name in controls.NAMES:
            cells += ["tested above", "", "tested above", ""]
        else:
            for statistic, shown in (("ks", 3), ("wasserstein", digits)):
                halves = f"{x['floor'][statistic]:.{shown}f}" if "floor" in x else ""
                cells += [interval(x[statistic], shown), halves]
        rows.append([label, *cells])
    return _table(["", "real, mean ± SD", "fake", "difference", "KS", "halves", "Wasserstein", "halves"], rows)


def _duplicates(found: dict) -> str:
    order = ("real", "fake", "control")
    rows = [
        ["slices", *(f"{found[s]['num']:,}" for s in order)],
        ["near-duplicate rate", *(f"{found[s]['rate']:.1%}" for s in order)],
        ["effective number of distinct skulls", *(f"{found[s]['effective']:,.0f}" for s in order)],
    ]
    return _table(["", "real", "fake", "idealised"], rows)


def _percent(x: dict) -> str:
    return f"{100 * x['value']:.1f} % [{100 * x['low']:.1f}, {100 * x['high']:.1f}]"


def _tsne_text(metrics: dict) -> str:
    return (
        "A map of the features without unit or axes; distances in it mean little, so read it with a number: the linear "
        "classifier, which uses the same features, tells fake from real in "
        f"<strong>{_percent(metrics['two_sample']['fake'])}</strong> of cases."
    )


def _memorisation_text(found: dict) -> str:
    p = "< 0.001" if found["p"] < 0.001 else f"= {found['p']:.3f}"
    met = ""
    if "train_subjects" in found:
        met = (
            f" The nearest slices come from {found['train_subjects_met']:.1f} (effective number) of "
            f"{found['train_subjects']} training subjects."
        )
    same = {
        True: " These slices are what the model was trained on: it keeps their fingerprint.",
        False: " These slices are <strong>not what the model was trained on</strong>: it keeps another fingerprint.",
    }.get(found["trained_on"], "")
    return (
        f"Nearest of {found['num_train']:,} training slices, mirror images included; RMS difference in HU over bone, "
        f"at a quarter of the resolution. Median {found['fake_median_hu']:.0f} HU for fakes, "
        f"{found['held_out_median_hu']:.0f} HU for held-out slices. A fake is the nearer one in "
        f"<strong>{_percent(found['nearer'])}</strong> of pairs (Mann-Whitney, p {p} for independent slices)."
        f"{met}{same}"
    )


def _definitions(metrics: dict) -> str:
    own = "".join(
        f"<dt>{html.escape(_SHORT[name][0])}<dd>{html.escape(radiology.DEFINITIONS[name])}" for name in radiology.NAMES
    )
    rest = "".join(f"<dt>{html.escape(k)}<dd>{v}" for k, v in words.TERMS.items())
    limits = "".join(f"<li>{x}" for x in words.LIMITS)
    took = "; ".join(f"{what} {seconds:.0f} s" for what, seconds in metrics["seconds"].items())
    made = f"Seed {metrics['seed']}; reals halved by {metrics['halved_by']}. It took: {html.escape(took)}."
    return (
        "<section "
        f"class=small><h2>Definitions</h2><dl>{own}{rest}</dl><h2>Limits</h2><ul>{limits}</ul><p>metrics.json holds "
        f"every number, figures/ every picture. {made}</p></section>"
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
.verdict p { margin: .7em 0 0; font-size: .88em; color: #444; }
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
