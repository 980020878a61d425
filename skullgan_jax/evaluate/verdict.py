"""What the numbers say in words: the verdict, and what a reader has to know before he believes it."""

import numpy as np

from skullgan_jax.evaluate.inputs import Slices
from skullgan_jax.evaluate.measures import compare
from skullgan_jax.evaluate.measures.table import MEASURES, written

ALIKE = 5  # effective number of different reals, below which a report warns
FAR = 100  # limits of KID, beyond which it warns


def verdict(metrics: dict) -> dict:
    """A headline and a line for each way of looking, with its numbers: {"headline", "lines": [{what, passes,
    text}]}.
    """
    lines = []

    def add(what, passes, text):
        lines.append({"what": what, "passes": passes, "text": text})

    known = metrics["radiology"]
    means = [
        f"{label} {known[n]['fake']['mean']:.{d}f} against {known[n]['real']['mean']:.{d}f}{unit}"
        for n, label, d, unit in (
            ("sdr", "SDR", 2, ""),
            ("thickness_mm", "thickness", 1, " mm"),
            ("mean_hu", "intensity", 0, " HU"),
        )
        if n in known
    ]
    tests = metrics.get("tests")
    if tests:
        groups = {
            "simple": ("Simple metrics", "; ".join(means)),
            "structure": ("Shape and texture", _values(tests, ("spectrum", "precision", "density"))),
            "diversity": ("Diversity", _values(tests, ("recall", "coverage", "duplicates"))),
        }
        for group, (what, text) in groups.items():
            names = [n for n, m in MEASURES.items() if m.group == group]
            failed = sum(not tests[n]["fake"]["passes"] for n in names)
            over = f"; {failed} of {len(names)} beyond the limit" if failed else ""
            add(what, not failed, text + over)
        for key, what in (("two_sample", "Linear classifier"), ("classifier", "Trained network")):
            found, floor = metrics[key]["fake"], metrics[key]["floor"]
            text = f"tells fake from real in {_interval(found)} of cases (50 % is ideal; two halves of the reals: "
            add(what, found["passes"], text + f"{100 * floor['value']:.0f} %)")
    elif means:
        add("Simple metrics", None, "; ".join(means) + f"; too few {metrics['too_few']} for a test")
    if "discriminator" in metrics:
        found = metrics["discriminator"]
        text = f"calls {_interval(found['fake'])} of fakes and {_interval(found['real'])} of held-out reals real"
        add("Discriminator", found["passes"], text + ("; no judgement" if found["passes"] is None else ""))
    if "memorisation" in metrics:
        found = metrics["memorisation"]
        add(
            "Memorisation",
            found["passes"],
            f"in {_interval(found['nearer'])} of pairs a fake is nearer to the training set than a held-out slice (50 "
            f"% is ideal); {100 * found['fake_copies']:.1f} % of fakes and {100 * found['held_out_copies']:.1f} % of "
            f"held-out slices are within {found['copy_hu']:.0f} HU of a training slice",
        )
    failed = [line["what"].lower() for line in lines if line["passes"] is False]
    looks = sum(line["passes"] is not None for line in lines)
    if metrics["copies"]["share"] > 0.5:
        headline = "The fakes are copies of the real slices"
    elif not tests:
        headline = f"Too few {metrics['too_few']} to judge"
    elif failed:
        headline = f"Told from real by {len(failed)} of {looks} looks: {', '.join(failed)}"
    else:
        headline = f"Not told from real by any of {looks} looks"
    return {"headline": headline, "lines": lines}


def _values(tests: dict, names: tuple[str, ...]) -> str:
    """Values with what two halves of the reals have."""
    return "; ".join(
        f"{MEASURES[n].label} {written(n, tests[n]['fake']['value'])} (real halves {written(n, tests[n]['floor'])})"
        for n in names
    )


def _interval(share: dict) -> str:
    return f"{100 * share['value']:.0f} % [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"


def notes(metrics: dict, real: Slices, fake: Slices) -> list[str]:
    """What a reader has to know before he believes the numbers."""
    lines = []
    num, share = metrics["copies"]["num"], metrics["copies"]["share"]
    if num:
        lines.append(
            f"{num} of {len(fake.hu)} fakes ({share:.0%}) are real slices or their mirror images, pixel by pixel"
            + (": this is a copy of the real set, not a set of samples" if share > 0.5 else "")
        )
    if metrics.get("memorisation", {}).get("trained_on") is False:
        lines.append(
            "what was given as --train is not what the model was trained on (its fingerprint is another): copies of "
            "what it was trained on are not looked for; give that set"
        )
    for name, s in (("real", real), ("fake", fake)):
        empty = metrics["sets"][name]["empty"]
        if empty:
            lines.append(
                f"{empty} of {len(s.hu)} {name} slices hold no skull to measure (no bone, or no column with three "
                "pixels of it): they are missing from SDR, thickness or intensity"
            )
        if not s.stated:
            lines.append(f"the {name} slices do not state their pixel size; {s.pixel_mm:g} mm is assumed")
        if len(s.hu) < s.total:
            lines.append(f"{len(s.hu)} of {s.total} {name} slices were looked at, evenly spread")
    if "duplicates" in metrics and (effective := metrics["duplicates"]["real"]["effective"]) < ALIKE:
        lines.append(
            f"the real slices are near duplicates of each other (effective number {effective:.1f} of {len(real.hu)}): "
            "two halves of them differ by little, so other skulls fail by limits that say nothing of skulls"
        )
    kid = metrics.get("tests", {}).get("kid")
    if kid and kid["fake"]["value"] > FAR * kid["limit"]:
        lines.append(
            f"KID is far beyond its limit ({written('kid', kid['fake']['value'])} against "
            f"{written('kid', kid['limit'])}), as where the fakes have what hardly varies in the reals: so far out it "
            "grows without measure, and its size says nothing more"
        )
    if real.subjects is None:
        lines.append(
            "the real slices do not say whose they are: intervals and limits take slices as independent and are too "
            "narrow if several are of one head"
        )
    elif not compare.by_subject(real.subjects):
        lines.append(
            f"{len(np.unique(real.subjects))} subjects among the reals: fewer than {compare.LEAST_SUBJECTS} cannot be "
            "halved, so limits are of slices and leave out how much heads differ"
        )
    return lines
