"""All measures of a fake set against a real one, as numbers for metrics.json and arrays for the figures."""

import time

import numpy as np

from skullgan_jax.evaluate import inputs, verdict
from skullgan_jax.evaluate.inputs import Slices
from skullgan_jax.evaluate.measures import (
    classify,
    compare,
    controls,
    embedding,
    fid,
    memorisation,
    pooled,
    spectrum,
)
from skullgan_jax.machine import programs
from skullgan_jax.slices import copies, duplicates, fidelity, radiology
from skullgan_jax.version import __version__

LEAST = 50  # slices of each set, and different reals with a skull; with fewer, halves of the reals say nothing


@programs.kept()
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
    if with_fid:
        fid.check(len(real.hu), len(fake.hu))
    clock, subjects = _Clock(say), real.subjects
    sets = {"real": real.hu, "fake": fake.hu}
    arrays = {"sets": sets}
    metrics = {
        "version": __version__,
        "use": "research use only",
        "seed": seed,
        "pixel_mm": real.pixel_mm,
        "sets": {name: _about(s) for name, s in (("real", real), ("fake", fake), ("train", train)) if s is not None},
        "halved_by": "subject" if compare.by_subject(subjects) else "slice",
        "notes": [],
        "left_out": [],
    }
    if model is not None:
        metrics["model"] = _model(model)
    copied = copies.exact(fake.hu, real.hu)
    metrics["copies"] = {"num": int(copied.sum()), "share": float(copied.mean())}
    _measure(metrics, arrays, subjects, seed)
    clock("radiology")
    metrics["too_few"], few = _too_few(metrics, sets)
    if metrics["too_few"]:
        metrics["left_out"].append(
            f"fewer than {LEAST} {metrics['too_few']} ({few}): no floor of real halves, and so no tests; no control, "
            "spectrum, precision, recall, density, coverage, KID, near duplicates, t-SNE, classifiers"
        )
    else:
        _compare(metrics, arrays, subjects, seed, clock)
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
        metrics["memorisation"]["trained_on"] = None if model is None else inputs.trained_on(model, train)
        clock("memorisation")
    if with_fid:
        metrics["fid"] = fid.fid(real.hu, fake.hu, fid_weights)
        clock("FID")
    metrics["notes"] += verdict.notes(metrics, real, fake)
    metrics["verdict"] = verdict.verdict(metrics)
    metrics["seconds"] = clock.seconds
    return metrics, arrays


def _about(s: Slices) -> dict:
    return {
        "name": s.name,
        "num": len(s.hu),
        "of": s.total,
        "pixel_mm": s.pixel_mm,
        "subjects": None if s.subjects is None else len(np.unique(s.subjects)),
        "seed": s.seed,
    }


def _model(model) -> dict:
    """What a reader can tell a model by: its size, and of which run it is."""
    run = {k: model.provenance[k] for k in ("workdir", "step") if k in model.provenance}
    return run | {k: getattr(model.pair, k) for k in ("ngf", "ndf", "nz")}


def _measure(metrics: dict, arrays: dict, subjects, seed: int) -> None:
    """The radiology of each slice, and the distributions of each number over the slices that have it."""
    measured = {name: radiology.measured(hu, metrics["pixel_mm"]) for name, hu in arrays["sets"].items()}
    for name, found in measured.items():
        metrics["sets"][name]["empty"] = len(arrays["sets"][name]) - len(_whole(found))
    metrics["radiology"] = {}
    for name in radiology.NAMES:
        real, fake = (measured[s][name].astype(np.float64) for s in ("real", "fake"))
        known = np.isfinite(real)
        real, fake = real[known], fake[np.isfinite(fake)]
        if len(real) > 1 and len(fake) > 1:
            of = None if subjects is None else subjects[known]
            metrics["radiology"][name] = compare.distributions(real, fake, of, seed)
    arrays["radiology"] = measured


def _whole(measured: dict[str, np.ndarray]) -> np.ndarray:
    """The indices of slices with a skull: what controls are drawn of, all of SDR, thickness and intensity."""
    return np.flatnonzero(np.isfinite(np.stack([measured[n] for n in controls.NAMES])).all(0))


def _too_few(metrics: dict, sets: dict[str, np.ndarray]) -> tuple[str | None, str]:
    """What there is too little of for halves of the reals to say something, None if there is enough; and how many."""
    real, fake = (len(hu) for hu in sets.values())
    whole = real - metrics["sets"]["real"]["empty"]
    different = len({np.ascontiguousarray(hu).tobytes() for hu in sets["real"]})
    if min(real, fake) < LEAST:
        return "slices", f"{real} real, {fake} fake"
    if whole < LEAST:
        return "reals with a skull", f"{whole} of {real}"
    if different < LEAST:
        return "different reals", f"{different} of {real}"
    return None, ""


def _compare(metrics: dict, arrays: dict, subjects, seed: int, clock) -> None:
    """What takes a control and halves of the reals: the tests, what is behind them, the classifiers, the map."""
    _control(arrays, metrics["pixel_mm"], seed)
    clock("controls")
    sets = arrays["sets"]
    every = pooled.pool(sets, arrays["radiology"])
    clock("features and spectra")
    members = {name: every.members(name) for name in sets}
    others = {name: m for name, m in members.items() if name != "real"}
    size = min(compare.MOST, *map(len, others.values()))
    pairs = compare.halvings(len(sets["real"]), subjects, size, seed)
    smallest = min(len(a) for a, _ in pairs)
    if smallest <= fidelity.NEIGHBOURS:  # one subject has nearly all of them
        metrics["halved_by"], subjects = "slice", None
        metrics["notes"].append(
            f"most reals are of one subject: of halves by subject some would hold {smallest} slices, so limits are of "
            "slices and leave out how much heads differ"
        )
        pairs = compare.halvings(len(sets["real"]), None, size, seed)
    metrics["half_size"] = int(np.median([len(a) for a, _ in pairs]))
    metrics["tests"] = compare.judge(every.distances, pairs, others, seed)
    for name, found in metrics["radiology"].items():
        found["floor"] = compare.floor(arrays["radiology"]["real"][name], pairs)
    metrics["fidelity"] = {name: every.gram.compare(m, members["real"]) for name, m in others.items()}
    found = {name: duplicates.diversity(hu) for name, hu in sets.items()}
    metrics["duplicates"] = {
        name: {"num": d.num, "distinct": d.distinct, "rate": d.rate, "pair_rate": d.pair_rate, "effective": d.effective}
        for name, d in found.items()
    }
    clock("distances against real halves")
    _spectra(metrics, arrays, {name: every.power[m] for name, m in members.items()}, pairs)
    _classifiers(
        metrics, arrays, {name: every.features[m] for name, m in members.items()}, pairs[0], subjects, seed, clock
    )


def _control(arrays: dict, pixel_mm: float, seed: int) -> None:
    """Adds a set of idealised skulls, one for each real that has all of what they take from it."""
    sets, measured = arrays["sets"], arrays["radiology"]
    whole = compare.generator(seed, "control").permutation(_whole(measured["real"]))[: compare.MOST]
    sets["control"] = controls.idealised({n: measured["real"][n][whole] for n in controls.NAMES}, pixel_mm)
    measured["control"] = radiology.measured(sets["control"], pixel_mm)


def _spectra(metrics: dict, arrays: dict, power: dict[str, np.ndarray], pairs) -> None:
    """The mean power spectrum of each set, and by how much those of the halves differ."""
    metrics["spectrum"] = {
        "cycles_per_mm": spectrum.frequencies(metrics["pixel_mm"]).tolist(),
        **{name: x.mean(0).tolist() for name, x in power.items()},
    }
    arrays["spectrum_floor"] = np.stack([power["real"][a].mean(0) - power["real"][b].mean(0) for a, b in pairs])


def _classifiers(metrics: dict, arrays: dict, scaled: dict[str, np.ndarray], pair, subjects, seed: int, clock) -> None:
    """Two classifiers on each set, and on one half of the reals against the other, which they cannot tell apart."""
    sets, (a, b) = arrays["sets"], pair
    subjects = subjects if compare.by_subject(subjects) else None
    half = None if subjects is None else subjects[a]
    others = [name for name in sets if name != "real"]
    metrics["two_sample"] = {
        "floor": embedding.tell_apart(scaled["real"][a], scaled["real"][b], half),
        **{name: embedding.tell_apart(scaled["real"], scaled[name], subjects) for name in others},
    }
    arrays["tsne"] = embedding.tsne(scaled, seed)
    clock("t-SNE and two-sample classifier")
    metrics["classifier"] = {
        "floor": classify.trained(sets["real"][a], sets["real"][b], half, seed),
        **{name: classify.trained(sets["real"], sets[name], subjects, seed) for name in others},
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
