"""The page that shows what was cut and what was thrown out, and what speaks against training on it."""

import base64
import collections
import html
import io
import itertools
import pathlib

import numpy as np

from skullgan_jax.ct.cut import UNREAD
from skullgan_jax.ct.pieces import MEASURES, Piece
from skullgan_jax.ct.scans import LOSSY, SAME_PLACES
from skullgan_jax.ct.window import DEFINITIONS
from skullgan_jax.slices import copies, pictures
from skullgan_jax.slices.size import SIZE

_FEW_SUBJECTS = 20
_CLIPPED = 100  # pixels at the greatest value of a scan: noise does not pile up there
_COMPARED = 10_000  # segments, at most 200 per scan
_SHOWN = 96  # accepted segments
_LANDMARKS = (("air", -1000), ("water", 0), ("soft tissue", 40), ("diploe", 700), ("cortical bone", 1700))
_HISTOGRAMS = (  # name, label, digits
    ("sdr", "SDR (central)", 2),
    ("thickness_3d_mm", "thickness, mm", 1),
    ("mean_hu", "mean intensity, HU", 0),
    ("lean_degrees", "lean out of the plane, degrees", 0),
)
_STYLES = {"color": "0.7", "histtype": "stepfilled"}, {"color": "black", "histtype": "step"}

Found = dict[str, list[Piece]]


def definitions() -> dict[str, str]:
    """What the numbers of a segment mean."""
    from skullgan_jax.slices import radiology  # JAX, which the processes that cut need not import

    return {name: radiology.DEFINITIONS[name] for name in MEASURES} | DEFINITIONS


def warnings(summary: dict, found: Found) -> list[str]:
    """What a person should know before training on it, a line each."""
    scans, lines = summary["scans"], _who_is_who(summary)
    subjects = {s["subject"] for s in scans.values()}
    if len(subjects) < _FEW_SUBJECTS:
        lines.append(
            f"fewer than {_FEW_SUBJECTS} subjects ({len(subjects)}): a generator learns these heads, not heads"
        )
    for field, what, unit in (("kernel", "reconstruction kernels", ""), ("kvp", "tube voltages", " kV")):
        counts = collections.Counter(s[field] for s in scans.values())
        if len(counts) > 1:
            parts = (f"{'unknown' if not k else f'{k:g}' if field == 'kvp' else k}{unit if k else ''} in {n}"
                     for k, n in counts.most_common())  # fmt: skip
            lines.append(f"mixed {what} ({', '.join(parts)} scans): HU of thin bone differ between them")
    metal = [sum(n for reason, n in s["windows"].items() if reason.startswith("metal")) for s in scans.values()]
    if any(metal):
        lines.append(f"metal in {sum(metal)} windows of {sum(n > 0 for n in metal)} scans, thrown out")
    clipped = collections.Counter(s["hu_max"] for s in scans.values() if s["at_hu_max"] >= _CLIPPED)
    if clipped:
        ends = ", ".join(f"{hu:g} HU in {n}" for hu, n in clipped.most_common(3))
        lines.append(f"clipped HU ({ends} scans): what is denser is cut off")
    coarse = [s for s in scans.values() if s["source_pixel_mm"] > 1.3 * summary["pixel_mm"]]
    if coarse:
        lines.append(f"{len(coarse)} scans have pixels coarser than the segments: those are smoother than the others")
    for note, what in ((LOSSY, "HU are not what the scanner gave"), (SAME_PLACES, "one at each was cut")):
        if count := sum(any(note in n for n in s["notes"]) for s in scans.values()):
            lines.append(f"slices {note} in {_many(count, 'scan')}: {what}")
    if gaps := summary["slices"].get(UNREAD):
        lines.append(f"{_many(gaps, 'slice')} could not be read: gaps in their scans")
    twins = _near_duplicates(found)
    for a, b, share in twins[:5]:
        leak = ", in both splits" if scans[a]["split"] != scans[b]["split"] else ""
        what = "one patient twice?" if scans[a]["subject"] != scans[b]["subject"] else "they count twice"
        lines.append(f"scans {a} and {b} are near duplicates ({share:.0%} of the segments{leak}): {what}")
    if len(twins) > 5:
        lines.append(f"and {len(twins) - 5} more pairs of scans that are near duplicates")
    if not any(s["split"] == "held_out" for s in scans.values()):
        lines.append("nothing is held out: nothing is left to judge a generator by")
    return lines


def _who_is_who(summary: dict) -> list[str]:
    """How sure it is that no patient is on both sides of the split."""
    scans, lines = summary["scans"].values(), []
    ids = collections.defaultdict(set)
    for s in scans:
        for word in s["told_by"]:
            if word.startswith("id "):
                ids[word].add((s["subject"], s["split"]))
    if summary["made_with"]["subject_by"] == "folder":
        count = len({s["subject"] for s in scans})
        lines.append(
            f"patients are told apart by folder: each of {_many(count, 'folder')} right below --input is taken for one"
        )
        if torn := sum(len({split for _, split in places}) > 1 for places in ids.values()):
            lines.append(f"{_many(torn, 'PatientID')} in several folders, in both splits: one patient twice?")
        return lines
    folders = {word for s in scans for word in s["told_by"] if word.startswith("of ")}
    if len(ids) == 1 and len(folders) > 1:
        where = f"{len(folders)} folders right below --input"
        lines.append(f"one PatientID in {where}: if it is no patient's, give --subject_by=folder and another --output")
    known = {subject for places in ids.values() for subject, _ in places}
    if unsure := {s["subject"] for s in scans} - known:
        count = sum(s["subject"] in unsure for s in scans)
        lines.append(
            f"no PatientID in {_many(count, 'scan')}: study, frame of reference, and the folders and files right below "
            f"--input make {_many(len(unsure), 'subject')} of them; who is in several may be on both sides of the split"
        )
    return lines


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _near_duplicates(found: Found) -> list[tuple[str, str, float]]:
    """Pairs of scans that share segments, and the share of the first one's, where it is a quarter or more."""
    per_scan = max(2, min(200, _COMPARED // max(1, len(found))))
    pooled = {scan: copies.quarter(_some(pieces, per_scan)) for scan, pieces in found.items()}
    pairs = []
    for (a, x), (b, y) in itertools.combinations(((s, x) for s, x in pooled.items() if len(x)), 2):
        near = ((copies.squared(x, y) < copies.NEAR_HU**2) | (copies.cosine(x, y) > copies.NEAR_COSINE)).any(1).mean()
        if near >= 0.25:
            pairs.append((a, b, float(near)))
    return sorted(pairs, key=lambda pair: -pair[2])


def _some(pieces: list[Piece], count: int) -> np.ndarray:
    """(<= count, 128, 128) float32: accepted segments, evenly spread."""
    counts = [sum(not k["reason"] for k in p.known) for p in pieces]
    total, first, out = sum(counts), 0, []
    wanted = np.unique(np.linspace(0, max(total - 1, 0), min(count, total)).astype(int))
    for piece, n in zip(pieces, counts, strict=True):
        own = wanted[(wanted >= first) & (wanted < first + n)] - first
        if len(own):
            out.append(piece.accepted()[own])
        first += n
    return np.concatenate([np.zeros((0, SIZE, SIZE), np.float32), *out])


def write(path: pathlib.Path, summary: dict, found: Found) -> None:
    """Writes the page, self-contained.

    Raises:
      OSError: it cannot be written.
    """
    scans, windows = summary["scans"], summary["windows"]
    per_scan = max(1, -(-_SHOWN // len(found)))
    accepted = np.concatenate([_some(pieces, per_scan) for pieces in found.values()])
    if len(accepted) > _SHOWN:
        accepted = accepted[np.linspace(0, len(accepted) - 1, _SHOWN).astype(int)]
    subjects = {s["subject"]: s["split"] for s in scans.values()}
    held_out = list(subjects.values()).count("held_out")
    rejected = [
        f"<figure>{_pictures(images)}<figcaption>{html.escape(reason)}: {windows[reason]}</figcaption></figure>"
        for reason, images in _rejected(found).items()
    ]
    facts = [(k, s["split"], x) for s, k, x in _rows(found, scans)]
    if summary["warnings"]:
        verdict = f"Look at {len(summary['warnings'])} points before you train on it"
    else:
        verdict = "Nothing speaks against training on it"
    path.write_text(
        _PAGE.format(
            verdict=verdict,
            summary=f"Segments: {windows['accepted']:,}; subjects: {len(subjects)}, {held_out} held out; "
            f"scans: {len(scans)}; {summary['pixel_mm']:g} mm pixels; version {summary['version']}",
            warnings="".join(f"<li>{html.escape(line)}</li>" for line in summary["warnings"]),
            width=SIZE * summary["pixel_mm"],
            accepted=_pictures(accepted),
            rejected="".join(rejected) or "<p>None.</p>",
            funnel=_funnel(summary),
            histogram=_histogram(found),
            distributions=_distributions(facts),
            subjects=_by(found, scans, "subject"),
            kernels=_by(found, scans, "kernel"),
            measures="".join(f"<dt>{k}<dd>{html.escape(text)}" for k, text in summary["measures"].items()),
            limits=html.escape(", ".join(f"{k} {v}" for k, v in summary["made_with"].items() if k != "salt")),
        ),
        encoding="utf-8",
    )


def _rows(found: Found, scans: dict):
    """(scan, known, of each) accepted segment."""
    for scan, pieces in found.items():
        for known in itertools.chain.from_iterable(p.known for p in pieces):
            if not known["reason"]:
                yield scans[scan], known, scan


def _rejected(found: Found, most: int = 12) -> dict[str, np.ndarray]:
    """Up to `most` windows per reason, (N, 128, 128), spread over the scans, the commonest reason first."""
    places = collections.defaultdict(list)
    totals = collections.Counter()
    for piece in itertools.chain.from_iterable(found.values()):
        totals.update(k["reason"] for k in piece.known if k["reason"])
        for position, i in enumerate(piece.shown):
            places[piece.known[i]["reason"]].append((piece, position))
    out = {}
    for reason, _ in totals.most_common():
        some = places[reason]
        some = [some[i] for i in np.unique(np.linspace(0, len(some) - 1, most).astype(int))]
        images = np.stack([piece.rejected()[position] for piece, position in some])
        if images.any():  # a ring too small has no window
            out[reason] = images.astype(np.float32)
    return out


def _pictures(hu: np.ndarray, columns: int = 12) -> str:
    """A contact sheet, 0 HU black and 2000 HU white."""
    missing = -len(hu) % columns if len(hu) > columns else columns - len(hu)
    padded = np.concatenate([hu, np.full((missing, SIZE, SIZE), np.nan, np.float32)])
    return _image(pictures.png(padded[:, :64], columns, window=(0, 2000)), f"{len(hu)} segments")


def _figure(figure, alt: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return _image(file.getvalue(), alt)


def _image(png: bytes, alt: str) -> str:
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _funnel(summary: dict) -> str:
    slices, windows = collections.Counter(summary["slices"]), collections.Counter(summary["windows"])
    ignored = sum(summary["ignored_files"].values())
    steps = [
        ("files and series that could not be used", summary["left_out"], "see the lines that the command printed"),
        ("files passed over", ignored, ", ".join(f"{n} {what}" for what, n in summary["ignored_files"].items())),
        ("scans given twice", summary["repeated_scans"], ""),
        ("scans cut", len(summary["scans"]), ""),
    ]
    out = "".join(f"<tr><td>{w}<td class=n>{n:,}<td>{html.escape(t)}</tr>" for w, n, t in steps)
    for what, counter, kept in (("slices", slices, "cut"), ("windows", windows, "accepted")):
        total = sum(counter.values())
        rows = [(f"{what} looked at", total), (kept, counter[kept])]
        rows += [(f"&nbsp; {html.escape(k)}", n) for k, n in counter.most_common() if k != kept]
        for name, n in rows:
            width = round(100 * n / max(total, 1), 1)
            out += f'<tr><td>{name}<td class=n>{n:,}<td><div class=bar style="width:{width}%"></div></tr>'
    return f"<table class=funnel>{out}</table>"


def _histogram(found: Found) -> str:
    """HU of whole slices, a line per scan (40 at most) and the sum."""
    from matplotlib.figure import Figure  # which the processes that cut need not import

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    edges = -1024 + 16 * np.arange(257) + 8
    each = [np.sum([p.histogram for p in pieces], 0) for pieces in found.values()]
    for one in each[:40]:
        axes.step(edges, np.maximum(one / max(one.sum(), 1), 1e-9), where="mid", color="0.7", lw=0.6)
    total = np.sum(each, 0)
    axes.step(edges, np.maximum(total / total.sum(), 1e-9), where="mid", color="black", lw=1.2)
    axes.set(yscale="log", ylim=(1e-6, 1), ylabel="part of the pixels (logarithmic)")
    axes.set_xlabel("HU (the last bin holds all above)")
    axes.margins(x=0.01)
    for i, (name, hu) in enumerate(_LANDMARKS):
        axes.axvline(hu, color="tab:blue", lw=0.8, ls="--")
        axes.annotate(f"{name} {hu}", (hu, 0.5 if i % 2 else 0.15), fontsize=8, color="tab:blue", xytext=(3, 0),
                      textcoords="offset points")  # fmt: skip
    return _figure(figure, "histogram of HU")


def _distributions(facts) -> str:
    """Histograms of what is known of the accepted segments, train and held-out apart."""
    from matplotlib.figure import Figure  # which the processes that cut need not import

    figure = Figure(figsize=(12, 2.8), layout="constrained")
    for axes, (name, label, digits) in zip(figure.subplots(1, 4), _HISTOGRAMS, strict=True):
        values = {split: np.array([k[name] for k, s, _ in facts if s == split]) for split in ("train", "held_out")}
        both = np.concatenate(list(values.values()))
        bins = np.linspace(both.min(), both.max(), 31) if np.ptp(both) else 10
        for (split, x), style in zip(values.items(), _STYLES, strict=True):
            if len(x):
                what = f"{split.replace('_', '-')}, mean {x.mean():.{digits}f}"
                axes.hist(x, bins, density=True, label=what, **style)
        axes.set_xlabel(label)
        axes.set_yticks([])
        axes.locator_params(axis="x", nbins=5)
        axes.legend(fontsize=7)
    return _figure(figure, "histograms of SDR, thickness, intensity and lean")


def _by(found: Found, scans: dict, field: str) -> str:
    """A table with a line per subject or kernel."""
    groups = collections.defaultdict(list)
    for scan in found:
        groups[scans[scan][field]].append(scan)
    head = (field, "split", "scans", "kV", "slice mm", "windows", "accepted", "thickness mm", "SDR", "HU", "notes")
    out = "".join(f"<th>{h}" for h in head)
    for group, members in sorted(groups.items()):
        known = [k for s in members for p in found[s] for k in p.known]
        good = [k for k in known if not k["reason"]]
        means = [np.mean([k[n] for k in good] or [np.nan]) for n in ("thickness_3d_mm", "sdr", "mean_hu")]
        numbers = [
            ", ".join(f"{x:g}" for x in sorted({scans[s][f] for s in members})) for f in ("kvp", "source_slice_mm")
        ]
        cells = [
            group or "unknown",
            ", ".join(sorted({scans[s]["split"].replace("_", "-") for s in members})),
            len(members),
            *numbers,
            f"{len(known):,}",
            f"{len(good):,}",
            *(f"{m:.{digits}f}" if good else "-" for m, digits in zip(means, (1, 2, 0), strict=True)),
            "; ".join(sorted({n for s in members for n in scans[s]["notes"]})),
        ]
        out += "<tr>" + "".join(f"<td>{html.escape(str(c))}" for c in cells)
    return f"<table>{out}</table>"


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Skull segments</title>
<link rel="icon" href="data:,">
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: #111; }}
h1 {{ font-size: 1.6em; margin-bottom: .2em; }}
h2 {{ font-size: 1.15em; margin-top: 2em; border-bottom: 1px solid #ccc; }}
img {{ max-width: 100%; display: block; }} figure {{ margin: .6em 0; }} figcaption {{ color: #444; }}
table {{ border-collapse: collapse; font-size: .9em; }}
th, td {{ text-align: left; padding: .15em .7em .15em 0; vertical-align: top; }}
tr:nth-child(even) td {{ background: #f5f5f5; }} dt {{ font-weight: 600; }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
.funnel {{ width: 100%; }} .funnel td:last-child {{ width: 45%; }}
.bar {{ background: #555; height: .9em; margin-top: .25em; }}
.wide {{ overflow-x: auto; }} .verdict {{ border-left: 5px solid #333; padding: .3em 1em; background: #f2f2f2; }}
@media print {{ body {{ margin: 0; }} h2 {{ break-after: avoid; }} figure, img {{ break-inside: avoid; }} }}
</style></head><body>
<h1>Skull segments</h1>
<p>{summary}</p>
<div class="verdict"><strong>{verdict}</strong><ul>{warnings}</ul></div>
<h2>Accepted</h2>
<p>Spread over all scans; each {width:.0f} mm wide, the outer surface up, 0 HU black and 2000 HU white. Nothing but
vault should be here.</p>
{accepted}
<h2>Thrown out, by the reason</h2>
{rejected}
<h2>What became of it all</h2>
{funnel}
<h2>HU of whole slices</h2>
<p>Black: all scans; grey: each. Air and soft tissue should peak at their marks; if not, the scale is not HU.</p>
{histogram}
<h2>Accepted segments</h2>
{distributions}
<h2>Subjects</h2>
<div class="wide">{subjects}</div>
<h2>Kernels</h2>
<div class="wide">{kernels}</div>
<h2>How it was cut</h2>
<p>{limits}. Subjects and scans are named by salted hashes. Research use only.</p>
<dl>{measures}</dl>
</body></html>
"""
