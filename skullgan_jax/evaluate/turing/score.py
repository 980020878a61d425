"""The visual Turing test: what the readers' answers say.

A reader answers on one ordinal scale of six steps, fake or real times guess, probable or certain. Its middle is the
decision (accuracy, sensitivity, specificity), the whole of it ranks the images (area under the ROC curve): a forced
choice alone has no curve, a confidence alone no decision. Positive means fake: sensitivity is the part of the fakes
that were called fake, specificity the part of the reals that were called real.
"""

import itertools
import math
import pathlib
import textwrap

import numpy as np
from scipy import stats

from skullgan_jax.errors import InputError
from skullgan_jax.evaluate.turing import files

_LEVEL, _POWER = 0.95, 0.80


def score(answer_paths, key_path) -> dict:
    """What the answers say, per reader and pooled.

    Accuracy, sensitivity and specificity come with exact intervals (Clopper and Pearson 1934, Biometrika 26:404) and
    accuracy with the exact two-sided binomial p against 50 %. AUC is Mann-Whitney's, ties half, with the interval of
    DeLong et al. (1988, Biometrics 44:837) on the logit scale; where an AUC is 0 or 1, which leaves no variance, with
    the exact one of min(fakes, reals) independent pairs. Readers see the same images, so their answers are not
    independent: the pooled AUC is the readers' mean with DeLong's covariances, and pooled accuracy has, beside the
    exact interval over answers, `by_image`, Student's t over images of the part of readers who were right. Intervals
    are 95 %.

    Args:
      answer_paths: the files that readers saved, one per reader.
      key_path: the test's <stem>.key.json.

    Returns:
      {"test", "num", "readers": [...], "pooled": {...}, "agreement": {"cohen": [...], "fleiss"}, "words": [...]}, for
      JSON. A reader has name, role, years, answered, missing, correct, seconds (median per image), accuracy {value,
      interval, p}, sensitivity, specificity, auc {value, interval} and images_needed; what has no value, e.g.
      the AUC of a reader who saw fakes only, is None.

    Raises:
      InputError: damaged, of another test, without an answer, or a reader twice.
    """
    key = files.read(pathlib.Path(key_path), files.KEY)
    images = key["images"]
    fake = np.array([image["truth"] == "fake" for image in images.values()])
    given = {}
    if not answer_paths:
        raise InputError("no answers to score: give the files that the readers saved")
    for path in map(pathlib.Path, answer_paths):
        answers = files.read(path, files.ANSWERS)
        if answers["test"] != key["test"]:
            raise InputError(
                f"{path}: answers test {answers['test']}, the key {key_path} is of {key['test']}: give its own key"
            )
        strange = set(answers["answers"]) - set(images)
        if strange:
            raise InputError(f"{path}: answers an image {min(strange)} that the test has not: get the file again")
        if not answers["answers"]:
            raise InputError(f"{path}: holds no answer: leave it out")
        name = answers["reader"]["name"]
        twin = [p for p, a in given.items() if a["reader"]["name"].casefold() == name.casefold()]
        if twin:
            raise InputError(f"{path}: reader {name} is in {twin[0]} too: give one file per reader")
        given[path] = answers

    # (readers, images): -3 certainly real to 3 certainly fake, NaN where unanswered.
    ratings = np.array([[_rating(a["answers"].get(i)) for i in images] for a in given.values()])
    answered, called_fake = ~np.isnan(ratings), ratings > 0
    right = answered & (called_fake == fake)
    readers = []
    for k, answers in enumerate(given.values()):
        seconds = [a["seconds"] for a in answers["answers"].values()]
        about = {**answers["reader"], "answered": int(answered[k].sum()), "missing": int((~answered[k]).sum())}
        readers.append(about | {"seconds": float(np.median(seconds))} | _figures(ratings[k : k + 1], fake))
    pooled = {"answered": int(answered.sum()), "missing": int((~answered).sum())} | _figures(ratings, fake)
    if len(readers) > 1:
        seen = answered.any(0)
        pooled["accuracy"]["by_image"] = _by_image(right.sum(0)[seen] / answered.sum(0)[seen])
    pairs = []
    for a, b in itertools.combinations(range(len(readers)), 2):
        both = answered[a] & answered[b]
        kappa = cohen_kappa(called_fake[a, both], called_fake[b, both])
        pairs.append({"readers": [readers[a]["name"], readers[b]["name"]], "images": int(both.sum()), "kappa": kappa})
    everyone = answered.all(0)
    fleiss = (
        {"images": int(everyone.sum()), "kappa": fleiss_kappa(called_fake[:, everyone])} if len(readers) > 2 else None
    )
    result = {"test": key["test"], "num": len(images), "readers": readers, "pooled": pooled}
    result["agreement"] = {"cohen": pairs, "fleiss": fleiss}
    return result | {"words": _words(result)}


def report(result: dict) -> str:
    """The result of `score` as short text."""
    readers = result["readers"]
    rows = [("reader", "right", "accuracy", "p", "sensitivity", "specificity", "AUC", "s/image", "images needed")]
    pooled = {"name": "all answers", "seconds": None, **result["pooled"]}
    for r in readers if len(readers) == 1 else [*readers, pooled]:
        numbers = (_percent(r[name]) for name in ("sensitivity", "specificity"))
        auc = "-" if not r["auc"] else f"{r['auc']['value']:.2f}{_interval(r['auc']['interval'], '.2f')}"
        rows.append(
            (
                *(r["name"], f"{r['correct']}/{r['answered']}", _percent(r["accuracy"]), _p(r["accuracy"]["p"])),
                *(*numbers, auc, "" if r["seconds"] is None else f"{r['seconds']:.1f}"),
                f"{r['images_needed']:,}" if r["images_needed"] else "-",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    who = f"{len(readers)} reader{'s' if len(readers) > 1 else ''}"
    return "\n".join(
        (
            f"Visual Turing test {result['test']}: {result['num']} images, half of them fake, {who}",
            *("", *table, "", *(textwrap.fill(line, 100) for line in result["words"]), ""),
            "Brackets: 95 % intervals (exact; AUC: DeLong). p: exact binomial test against 50 %, two-sided.",
            "Sensitivity: fakes called fake; specificity: reals called real. Images needed: to tell the accuracy",
            "from 50 % at the 5 % level with 80 % power (Fleiss, Levin and Paik 2003). Research use only.",
        )
    )


def auc_interval(ratings: np.ndarray, fake: np.ndarray) -> dict | None:
    """Mean area under the ROC curve of readers of the same images, and its 95 % interval.

    Args:
      ratings: (readers, images), higher is more likely fake, NaN where unanswered.
      fake: (images,) bool.

    Returns:
      {"value", "interval"}; None where a reader's answers are all of reals or all of fakes. The interval is None
      where fewer than two images of a class, or one and the same answer throughout, give no variance.
    """
    areas, moved = [], np.zeros(ratings.shape[1])  # by each image, the mean area, as DeLong's structural components do
    for row in ratings:
        a, b = (np.flatnonzero(~np.isnan(row) & side) for side in (fake, ~fake))
        if not (len(a) and len(b)):
            return None
        above = (1 + np.sign(row[a, None] - row[b])) / 2  # fakes x reals
        areas.append(above.mean())
        for own, part in ((a, above.mean(1)), (b, above.mean(0))):
            moved[own] += (part - areas[-1]) / len(own) / len(ratings)
    area = float(np.mean(areas))
    m, n = ((~np.isnan(ratings)).any(0)[side].nonzero()[0].size for side in (fake, ~fake))
    if area in (0.0, 1.0):
        tail = ((1 - _LEVEL) / 2) ** (1 / min(m, n))
        return {"value": area, "interval": [tail, 1.0] if area else [0.0, 1 - tail]}
    variance = sum((moved[side] ** 2).sum() * count / max(count - 1, 1) for side, count in ((fake, m), (~fake, n)))
    if min(m, n) < 2 or not variance:
        return {"value": area, "interval": None}
    logit, half = math.log(area / (1 - area)), _z(1 - (1 - _LEVEL) / 2) * math.sqrt(variance) / (area * (1 - area))
    return {"value": area, "interval": [float(1 / (1 + math.exp(-x))) for x in (logit - half, logit + half)]}


def cohen_kappa(a: np.ndarray, b: np.ndarray) -> float | None:
    """Agreement of two readers beyond chance (Cohen 1960, Educ. Psychol. Meas. 20:37).

    Args:
      a: (images,) bool.
      b: (images,) bool.

    Returns:
      1 is full, 0 what chance gives; None where both always say the same one thing, or there is no image.
    """
    if not len(a):
        return None
    p, q = a.mean(), b.mean()
    chance = p * q + (1 - p) * (1 - q)
    return None if chance == 1 else float(((a == b).mean() - chance) / (1 - chance))


def fleiss_kappa(called: np.ndarray) -> float | None:
    """Agreement of several readers beyond chance (Fleiss 1971, Psychol. Bull. 76:378).

    Args:
      called: (readers, images) bool.

    Returns:
      As `cohen_kappa`.
    """
    readers, images = called.shape
    if not images:
        return None
    counts = np.stack([called.sum(0), (~called).sum(0)])
    agreed = ((counts**2).sum(0) - readers) / (readers * (readers - 1))
    chance = ((counts.sum(1) / (readers * images)) ** 2).sum()
    return None if chance == 1 else float((agreed.mean() - chance) / (1 - chance))


def images_needed(accuracy: float) -> int | None:
    """Images for a two-sided test at 5 % to tell this accuracy from 50 % with 80 % power; even; None at 50 %.

    n' = ((z_0.975 sqrt(1/4) + z_0.8 sqrt(p (1 - p))) / d)^2 with d = |p - 1/2|, then corrected for continuity,
    n = n'/4 (1 + sqrt(1 + 2 / (n' d)))^2: Fleiss, Levin and Paik, Statistical Methods for Rates and Proportions,
    3rd ed. 2003, chapter 2.
    """
    d = abs(accuracy - 0.5)
    if d < 1e-9:
        return None
    n = ((_z(1 - (1 - _LEVEL) / 2) / 2 + _z(_POWER) * math.sqrt(accuracy * (1 - accuracy))) / d) ** 2
    return 2 * math.ceil(n / 4 * (1 + math.sqrt(1 + 2 / (n * d))) ** 2 / 2)


def _z(p: float) -> float:
    return float(stats.norm.ppf(p))


def _rating(answer: dict | None) -> float:
    if answer is None:
        return math.nan
    return answer["confidence"] if answer["answer"] == "fake" else -answer["confidence"]


def _figures(ratings: np.ndarray, fake: np.ndarray) -> dict:
    answered = ~np.isnan(ratings)
    right = answered & ((ratings > 0) == fake)
    correct, total = int(right.sum()), int(answered.sum())
    return {
        "correct": correct,
        "accuracy": _share(correct, total) | {"p": float(stats.binomtest(correct, total).pvalue)},
        "sensitivity": _share(int(right[:, fake].sum()), int(answered[:, fake].sum())),
        "specificity": _share(int(right[:, ~fake].sum()), int(answered[:, ~fake].sum())),
        "auc": auc_interval(ratings, fake),
        "images_needed": images_needed(correct / total),
    }


def _share(count: int, total: int) -> dict | None:
    if not total:
        return None
    interval = stats.binomtest(count, total).proportion_ci(_LEVEL, "exact")
    return {"value": count / total, "interval": [float(interval.low), float(interval.high)]}


def _by_image(part: np.ndarray) -> dict:
    """Interval and p against 1/2 of the mean of the part of readers who were right on an image, (images,)."""
    if not np.ptp(part):  # no variance: as one reader of these images
        count = round(part.sum())
        return {"interval": _share(count, len(part))["interval"], "p": float(stats.binomtest(count, len(part)).pvalue)}
    test = stats.ttest_1samp(part, 0.5)
    low, high = test.confidence_interval(_LEVEL)
    return {"interval": [float(max(low, 0)), float(min(high, 1))], "p": float(test.pvalue)}


def _words(result: dict) -> list[str]:
    """A line per reader, one for all of them, and one on their agreement."""
    lines = []
    for r in result["readers"]:
        line = f"{r['name']} {_verdict(r['accuracy'], r['images_needed'])}"
        lines.append(line + (f" {r['missing']} images were left unanswered." if r["missing"] else ""))
    if len(lines) > 1:
        pooled = result["pooled"]
        by_image = pooled["accuracy"] | pooled["accuracy"]["by_image"]
        lines.append(f"Together, image by image, they {_verdict(by_image, pooled['images_needed'])}")
        kappas = [(" and ".join(pair["readers"]), pair["kappa"]) for pair in result["agreement"]["cohen"]]
        if result["agreement"]["fleiss"]:
            kappas.append(("all, Fleiss", result["agreement"]["fleiss"]["kappa"]))
        listed = "; ".join(f"{who} {'undefined' if k is None else f'{k:.2f}'}" for who, k in kappas)
        lines.append(f"Agreement between readers, kappa (0 chance, 1 full): {listed}.")
    return lines


def _verdict(accuracy: dict, needed: int | None) -> str:
    value, (low, high), p = accuracy["value"], accuracy["interval"], accuracy["p"]
    said = f"told {value:.0%} right (95 % interval {low:.0%} to {high:.0%}, p {_p(p, '= ')}):"
    if p < 1 - _LEVEL:
        return f"{said} {'better' if value > 0.5 else 'worse'} than guessing."
    most = max(high, 1 - low)
    rest = f"to tell {value:.0%} from 50% would take {needed:,} images." if needed else "exactly half."
    return f"{said} not told from guessing, but up to {most:.0%} is not excluded; {rest}"


def _p(p: float, equals: str = "") -> str:
    return "< 0.001" if p < 0.001 else f"{equals}{p:.3f}"


def _percent(share: dict | None) -> str:
    return "-" if share is None else f"{share['value']:.0%}{_interval(share['interval'], '.0%')}"


def _interval(interval: list | None, form: str) -> str:
    return "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"
