"""All measures of a fake set against a real one, as numbers for metrics.json and arrays for the figures."""

import dataclasses
import time

import numpy as np

from skullgan_jax.evaluate import inputs
from skullgan_jax.evaluate.inputs import Slices
from skullgan_jax.evaluate.measures import (
    classify,
    compare,
    controls,
    embedding,
    features,
    fid,
    fidelity,
    memorisation,
    spectrum,
)
from skullgan_jax.evaluate.measures.chunks import measure
from skullgan_jax.slices import duplicates, radiology
from skullgan_jax.version import __version__

LEAST = 50  # slices of each set; with fewer, halves of the reals say nothing


@dataclasses.dataclass(frozen=True)
class Measure:
    """A line of the table: its name, what it tests (simple, structure or diversity), and how it is written."""

    label: str
    group: str
    digits: int
    unit: str = ""
    percent: bool = False
    worse: str = "more"  # what of it is worse, and so tested


# Of the distances that compare.judge looks at. A share such as precision is tested by what it falls short of one.
MEASURES = {
    "sdr_ks": Measure("SDR, KS", "simple", 3),
    "sdr_wasserstein": Measure("SDR, Wasserstein", "simple", 3),
    "thickness_mm_ks": Measure("thickness, KS", "simple", 3),
    "thickness_mm_wasserstein": Measure("thickness, Wasserstein", "simple", 2, "mm"),
    "mean_hu_ks": Measure("mean intensity, KS", "simple", 3),
    "mean_hu_wasserstein": Measure("mean intensity, Wasserstein", "simple", 0, "HU"),
    "spectrum": Measure("power spectrum, RMS", "structure", 2, "dB"),
    "precision": Measure("precision", "structure", 0, "%", True, "less"),
    "density": Measure("density", "structure", 2, "", False, "less"),
    "kid": Measure("KID x 1000, these features", "structure", 2),
    "recall": Measure("recall", "diversity", 0, "%", True, "less"),
    "coverage": Measure("coverage", "diversity", 0, "%", True, "less"),
    "duplicates": Measure("near duplicates, more than in reals", "diversity", 1, "%", True),
}
SIMPLE = tuple(name for name, m in MEASURES.items() if m.group == "simple")
OTHERS = tuple(name for name, m in MEASURES.items() if m.group == "structure")
_FALL_SHORT = ("precision", "recall", "density", "coverage")


@dataclasses.dataclass
class Pooled:
    """Everything about each slice that distances need, the sets one after the other, reals first."""

    simple: dict[str, np.ndarray]
    power: np.ndarray
    features: np.ndarray
    gram: fidelity.Gram
    alike: list[np.ndarray]  # of each set, which pairs are near duplicates
    names: list[str]
    starts: np.ndarray  # and the end of the last set

    def members(self, name: str) -> np.ndarray:
        """Indices of a set."""
        i = self.names.index(name)
        return np.arange(self.starts[i], self.starts[i + 1])

    def distances(self, fake: np.ndarray, real: np.ndarray) -> dict[str, float]:
        """Each of MEASURES between two subsets, greater being worse."""
        found = {}
        for name in controls.NAMES:
            a, b = (self.simple[name][i] for i in (fake, real))
            a, b = a[np.isfinite(a)], b[np.isfinite(b)]
            enough = len(a) and len(b)
            found[f"{name}_ks"] = compare.ks(a, b) if enough else 1.0
            found[f"{name}_wasserstein"] = compare.wasserstein(a, b) if enough else np.inf
        found["spectrum"] = spectrum.distance(self.power[fake], self.power[real])
        for name, value in self.gram.compare(fake, real).items():
            found[name] = 1 - value if name in _FALL_SHORT else 1000 * value
        found["duplicates"] = self._repeated(fake) - self._repeated(real)
        return found

    def _repeated(self, members: np.ndarray) -> float:
        """The share of a subset of one set that has a near duplicate in it."""
        which = np.searchsorted(self.starts, members[0], side="right") - 1
        own = members - self.starts[which]
        return float(self.alike[which][np.ix_(own, own)].any(1).mean())


def pool(sets: dict[str, np.ndarray], measured: dict[str, dict[str, np.ndarray]]) -> Pooled:
    """Looks at each slice once.

    Args:
      sets: {name: (N, 128, 128) HU}, real first.
      measured: {name: what numbers.measure gives}.
    """
    names = list(sets)
    described = [features.describe(hu) for hu in sets.values()]
    scaled = np.concatenate(features.scaled(described[0], described[1:]))
    return Pooled(
        simple={n: np.concatenate([measured[s][n] for s in names]) for n in controls.NAMES},
        power=np.concatenate([spectrum.power_db(hu) for hu in sets.values()]),
        features=scaled,
        gram=fidelity.Gram(scaled),
        alike=[_alike(hu) for hu in sets.values()],
        names=names,
        starts=np.cumsum([0, *(len(hu) for hu in sets.values())]),
    )


def shown(name: str, distance: float) -> float:
    """A distance of MEASURES as it is written: precision, not what it falls short of one; percent."""
    value = 1 - distance if name in _FALL_SHORT else distance
    return 100 * value if MEASURES[name].percent else value


def evaluate(
    real: Slices,
    fake: Slices,
    *,
    model=None,
    train: Slices | None = None,
    seed: int = 0,
    with_fid: bool = False,
    fid_weights: str | None = None,
    say=lambda line: None,
) -> tuple[dict, dict]:
    """Judges a fake set.

    Args:
      real: held out from training.
      fake: samples.
      model: the model that they are of, for its discriminator, or None.
      train: what it was trained on, or None.
      seed: of everything random.
      with_fid: whether FID is computed.
      fid_weights: see `fid.fid`.
      say: told a line of each part that is done.

    Returns:
      Numbers for metrics.json, and arrays for the figures.

    Raises:
      InputError: the sets cannot be compared.
    """
    clock = _Clock(say)
    if with_fid:
        fid.check(len(real.hu), len(fake.hu))
    sets = {"real": real.hu, "fake": fake.hu}
    subjects = real.subjects
    usable = subjects if compare.by_subject(subjects) else None
    metrics = {
        "version": __version__,
        "use": "research use only",
        "seed": seed,
        "pixel_mm": real.pixel_mm,
        "sets": {name: _about(s) for name, s in (("real", real), ("fake", fake), ("train", train)) if s is not None},
        "halved_by": "subject" if usable is not None else "slice",
        "notes": [],
        "left_out": [],
    }
    copied = inputs.copies(real.hu, fake.hu)
    metrics["copies"] = {"num": int(copied.sum()), "share": float(copied.mean())}
    measured = {name: measure(hu, real.pixel_mm) for name, hu in sets.items()}
    for name, found in measured.items():
        metrics["sets"][name]["empty"] = int(np.isnan(found["mean_hu"]).sum())
    metrics["radiology"] = _radiology(measured["real"], measured["fake"], usable, seed)
    clock("radiology")

    arrays = {"sets": sets, "radiology": measured}
    few = min(len(hu) for hu in sets.values()) < LEAST
    if few:
        metrics["left_out"].append(
            f"fewer than {LEAST} slices ({len(real.hu)} real, {len(fake.hu)} fake): no floor of real halves, and so "
            "no tests; no control, spectrum, precision, recall, density, coverage, KID, "
            "near duplicates, t-SNE, classifiers"
        )
    else:
        _compare(metrics, arrays, subjects, usable, seed, clock)
    if model is None:
        metrics["left_out"].append("no --model: its discriminator is not asked")
    elif model.d_params is None:
        metrics["left_out"].append("the model has no discriminator")
    else:
        metrics["discriminator"] = classify.discriminator(model, sets, subjects, seed)
        clock("discriminator")
    if train is None:
        metrics["left_out"].append("no --train: whether training slices are repeated is not looked at")
    else:
        metrics["memorisation"], arrays["memorisation"] = memorisation.compare_with_training(
            fake.hu, real.hu, train.hu, subjects, train.subjects, seed
        )
        clock("memorisation")
    if with_fid:
        metrics["fid"] = fid.fid(real.hu, fake.hu, fid_weights)
        clock("FID")
    metrics["notes"] += _notes(metrics, real, fake, subjects)
    metrics["verdict"] = _verdict(metrics)
    metrics["seconds"] = clock.seconds
    return metrics, arrays


def _compare(metrics: dict, arrays: dict, subjects, usable, seed: int, clock) -> None:
    """What takes halves of the reals: controls, distances against their limits, classifiers, the map."""
    sets, measured = arrays["sets"], arrays["radiology"]
    pixel_mm = metrics["pixel_mm"]
    whole = np.flatnonzero(np.isfinite(np.stack([measured["real"][n] for n in controls.NAMES])).all(0))
    whole = compare.generator(seed, "control").permutation(whole)[: compare.MOST]
    targets = {n: measured["real"][n][whole] for n in controls.NAMES}
    sets["control"] = controls.idealised(targets, pixel_mm)
    measured["control"] = measure(sets["control"], pixel_mm)
    clock("controls")

    pooled = pool(sets, measured)
    clock("features and spectra")
    others = [name for name in sets if name != "real"]
    members = {name: pooled.members(name) for name in others}
    size = min(compare.MOST, *(len(m) for m in members.values()))
    pairs = compare.halvings(len(sets["real"]), subjects, size, seed)
    metrics["tests"] = compare.judge(pooled.distances, pairs, members, seed)
    for name, found in metrics["radiology"].items():
        found["floor"] = compare.floor(measured["real"][name], pairs)
    metrics["half_size"] = int(np.median([len(a) for a, _ in pairs]))
    metrics["fidelity"] = {name: pooled.gram.compare(m, pooled.members("real")) for name, m in members.items()}
    found = {name: duplicates.diversity(hu) for name, hu in sets.items()}
    metrics["duplicates"] = {
        name: {"num": d.num, "distinct": d.distinct, "rate": d.rate, "pair_rate": d.pair_rate, "effective": d.effective}
        for name, d in found.items()
    }
    clock("distances against real halves")

    power = {name: pooled.power[pooled.members(name)] for name in sets}
    scaled = {name: pooled.features[pooled.members(name)] for name in sets}
    metrics["spectrum"] = {
        "cycles_per_mm": spectrum.frequencies(pixel_mm).tolist(),
        **{name: x.mean(0).tolist() for name, x in power.items()},
    }
    arrays["power"] = power
    arrays["spectrum_floor"] = np.stack([power["real"][a].mean(0) - power["real"][b].mean(0) for a, b in pairs])

    a, b = pairs[0]
    halves = {"real": scaled["real"][a], "other": scaled["real"][b]}
    half_subjects = None if usable is None else subjects[a]
    metrics["two_sample"] = {
        "floor": embedding.tell_apart(halves["real"], halves["other"], half_subjects),
        **{name: embedding.tell_apart(scaled["real"], scaled[name], usable) for name in others},
    }
    arrays["tsne"] = embedding.tsne(scaled, seed)
    clock("t-SNE and two-sample classifier")
    metrics["classifier"] = {
        "floor": classify.trained(sets["real"][a], sets["real"][b], half_subjects, seed),
        **{name: classify.trained(sets["real"], sets[name], usable, seed) for name in others},
    }
    clock("trained classifier")


class _Clock:
    """Says how long each part took."""

    def __init__(self, say):
        self.say, self.seconds, self.last = say, {}, time.perf_counter()

    def __call__(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what] = round(now - self.last, 2)
        self.say(f"{what}: {now - self.last:.1f} s")
        self.last = now


def _about(s: Slices) -> dict:
    return {
        "name": s.name,
        "num": len(s.hu),
        "of": s.total,
        "pixel_mm": s.pixel_mm,
        "subjects": None if s.subjects is None else len(np.unique(s.subjects)),
    }


def _radiology(real: dict, fake: dict, subjects, seed: int) -> dict:
    """Distributions of each number, over the slices that have it."""
    result = {}
    for name in radiology.NAMES:
        known = np.isfinite(real[name])
        r, f = real[name][known], fake[name][np.isfinite(fake[name])]
        if len(r) > 1 and len(f) > 1:
            s = None if subjects is None else subjects[known]
            result[name] = compare.distributions(r.astype(np.float64), f.astype(np.float64), s, seed)
    return result


def _notes(metrics: dict, real: Slices, fake: Slices, subjects) -> list[str]:
    """What a reader has to know before he believes the numbers."""
    lines = []
    num, share = metrics["copies"]["num"], metrics["copies"]["share"]
    if num:
        lines.append(
            f"{num} of {len(fake.hu)} fakes ({share:.0%}) are real slices or their mirror images, pixel by pixel"
            + (": this is a copy of the real set, not a set of samples" if share > 0.5 else "")
        )
    for name in ("real", "fake"):
        empty = metrics["sets"][name]["empty"]
        if empty:
            lines.append(
                f"{empty} {name} slices hold no bone to measure; they are left out of SDR, thickness, intensity"
            )
    for s in (real, fake):
        if not s.stated:
            lines.append(f"{s.name} does not state its pixel size; {s.pixel_mm:g} mm is assumed")
        if len(s.hu) < s.total:
            lines.append(f"{len(s.hu)} of {s.total} slices of {s.name} were looked at, evenly spread")
    if subjects is None:
        lines.append(
            "the real slices do not say whose they are: intervals and limits take slices as independent and are too "
            "narrow if several are of one head"
        )
    elif not compare.by_subject(subjects):
        lines.append(
            f"{len(np.unique(subjects))} subjects among the reals: fewer than {compare.LEAST_SUBJECTS} cannot be "
            "halved, so limits are of slices and leave out how much heads differ"
        )
    return lines


def _alike(hu: np.ndarray) -> np.ndarray:
    """(N, N) bool: which pairs of different slices are near duplicates."""
    bits = (np.asarray(hu)[:, : duplicates.ROWS] > duplicates.THRESHOLD_HU).reshape(len(hu), -1).astype(np.float32)
    counts = bits.sum(1)
    alike = counts[:, None] + counts[None] - 2 * bits @ bits.T < duplicates.PUBLISHED
    np.fill_diagonal(alike, False)
    return alike


def _verdict(metrics: dict) -> dict:
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
        add("Simple metrics", None, "; ".join(means) + "; too few slices for a test")
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
        headline = "Too few slices to judge"
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


def written(name: str, distance: float) -> str:
    """A distance of MEASURES as people read it, with its unit."""
    m = MEASURES[name]
    return f"{shown(name, distance):.{m.digits}f}{' ' + m.unit if m.unit else ''}"


def _interval(share: dict) -> str:
    return f"{100 * share['value']:.0f} % [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"
