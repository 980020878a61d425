"""Scores against closed forms, scipy and simulation."""

import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from skullgan_jax.evaluate.turing import score
from tests.evaluate.turing import reading


def test_exact_intervals(tmp_path, reading_of_40):
    path, key = reading_of_40
    result = score.score([reading.write_answers(tmp_path / "a.json", key, reading.rated(key, 6))], path)
    one = result["readers"][0]
    for name, k, n in (("accuracy", 28, 40), ("sensitivity", 14, 20), ("specificity", 14, 20)):
        assert one[name]["value"] == pytest.approx(k / n)
        ends = stats.beta.ppf(0.025, k, n - k + 1), stats.beta.ppf(0.975, k + 1, n - k)
        assert one[name]["interval"] == pytest.approx(ends)
    assert one["accuracy"]["p"] == pytest.approx(2 * stats.binom.sf(27, 40, 0.5))
    assert one["seconds"] == 2.5
    assert result["pooled"]["accuracy"] == one["accuracy"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    said = score.report(result)
    assert "A told 70% right (95 % interval 53% to 83%, p = 0.017): better than guessing." in said
    assert max(map(len, said.splitlines())) < 130
    assert "28/40" in said


def test_unanswered_images_are_counted(tmp_path, reading_of_40):
    path, key = reading_of_40
    only_fakes = [r if f else None for r, f in zip(reading.rated(key, 3), reading.truth(key), strict=True)]
    one = score.score([reading.write_answers(tmp_path / "a.json", key, only_fakes)], path)["readers"][0]
    assert (one["answered"], one["missing"], one["correct"]) == (20, 20, 17)
    assert one["specificity"] is None
    assert one["auc"] is None
    assert "20 images were left unanswered" in " ".join(score.score([tmp_path / "a.json"], path)["words"])


def test_the_interval_of_the_auc_is_delongs():
    rng = np.random.default_rng(0)
    fake = np.arange(50) < 20
    ratings = np.clip(np.rint(rng.normal(np.where(fake, 1.0, 0), 1.5, (2, 50))), -3, 3)
    above = (1 + np.sign(ratings[:, :20, None] - ratings[:, None, 20:])) / 2  # readers x fakes x reals
    areas = above.mean((1, 2))
    covariance = np.cov(above.mean(2)) / 20 + np.cov(above.mean(1)) / 30
    for rows, mean, variance in (([0], areas[0], covariance[0, 0]), ([0, 1], areas.mean(), covariance.sum() / 4)):
        got = score.auc_interval(ratings[rows], fake)
        assert got["value"] == pytest.approx(mean)
        half = 1.959964 * np.sqrt(variance) / (mean * (1 - mean))
        logit = np.log(mean / (1 - mean))
        assert got["interval"] == pytest.approx([1 / (1 + np.exp(half - logit)), 1 / (1 + np.exp(-half - logit))])


def test_the_interval_of_the_auc_holds_the_truth():
    # Six steps with known probabilities: the true area is a sum over the steps.
    p_fake, p_real = np.array([1, 2, 3, 4, 5, 5]) / 20, np.array([5, 4, 4, 3, 2, 2]) / 20
    area = sum(p_fake[i] * (p_real[:i].sum() + p_real[i] / 2) for i in range(6))
    rng = np.random.default_rng(0)
    fake = np.arange(100) < 50
    held = 0
    for _ in range(1000):
        ratings = np.concatenate([rng.choice(6, 50, p=p_fake), rng.choice(6, 50, p=p_real)]).astype(float)
        low, high = score.auc_interval(ratings[None], fake)["interval"]
        held += low <= area <= high
    assert 930 <= held <= 970  # 950 +- 3 standard deviations


def test_areas_without_variance():
    fake = np.arange(20) < 10
    perfect = np.where(fake, 3.0, -3.0)[None]
    assert score.auc_interval(perfect, fake) == {"value": 1, "interval": [pytest.approx(0.025**0.1), 1]}
    assert score.auc_interval(-perfect, fake) == {"value": 0, "interval": [0, pytest.approx(1 - 0.025**0.1)]}
    assert score.auc_interval(np.ones((1, 20)), fake) == {"value": 0.5, "interval": None}


def test_agreement():
    yes, no = [True], [False]
    a, b = np.array(yes * 25 + no * 25), np.array(yes * 20 + no * 5 + yes * 10 + no * 15)
    assert score.cohen_kappa(a, b) == pytest.approx(0.4)  # agreed 0.7, by chance 0.5
    assert score.cohen_kappa(a, a) == 1
    assert score.cohen_kappa(a | True, a | True) is None
    # Three readers, four images with 3, 2, 1, 0 of them saying fake: agreed (1 + 1/3 + 1/3 + 1)/4, by chance 1/2.
    called = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], bool)
    assert score.fleiss_kappa(called) == pytest.approx((2 / 3 - 0.5) / 0.5)
    assert score.fleiss_kappa(np.stack([a, a, a])) == 1
    assert score.fleiss_kappa(called[:, :0]) is None


def test_several_readers_see_the_same_images(tmp_path, reading_of_40):
    path, key = reading_of_40
    wrong = (6, 6, 10)
    files = [
        reading.write_answers(tmp_path / f"{i}.json", key, reading.rated(key, w), f"R{i}") for i, w in enumerate(wrong)
    ]
    result = score.score(files, path)
    pooled, agreement = result["pooled"], result["agreement"]
    assert (pooled["correct"], pooled["answered"]) == (28 + 28 + 20, 120)
    part = np.repeat([0, 2 / 3, 1], [12, 8, 20])  # of the readers who were right, per image
    expected = stats.ttest_1samp(part, 0.5)
    assert pooled["accuracy"]["by_image"]["p"] == pytest.approx(expected.pvalue)
    assert pooled["accuracy"]["by_image"]["interval"] == pytest.approx(expected.confidence_interval(0.95))
    assert pooled["auc"]["value"] == pytest.approx(np.mean([r["auc"]["value"] for r in result["readers"]]))
    assert agreement["cohen"][0] == {"readers": ["R0", "R1"], "images": 40, "kappa": 1.0}
    assert [round(pair["kappa"], 3) for pair in agreement["cohen"][1:]] == [0.6, 0.6]
    assert agreement["fleiss"]["images"] == 40
    said = score.report(result)
    assert "all answers" in said
    assert "R0 and R2 0.60" in said
    # All right on all images: no variance between images, so the interval is of one reader of 40.
    same = [reading.write_answers(tmp_path / f"s{i}.json", key, reading.rated(key, 0), f"S{i}") for i in range(2)]
    by_image = score.score(same, path)["pooled"]["accuracy"]["by_image"]
    assert by_image["interval"] == [pytest.approx(0.025 ** (1 / 40)), 1]


@pytest.mark.parametrize("accuracy", [0.52, 0.55, 0.6, 0.7, 0.8, 0.35])
def test_images_needed_give_the_power(accuracy):
    n = score.images_needed(accuracy)
    assert n % 2 == 0

    def power(n):
        least = int(stats.binom.isf(0.025, n, 0.5)) + 1  # the exact test's first count that is significant
        return stats.binom.sf(least - 1, n, max(accuracy, 1 - accuracy))

    assert 0.79 < power(n) < 0.85
    assert power(int(n * 0.9)) < 0.8


def test_images_needed_at_the_ends():
    assert score.images_needed(0.5) is None
    assert score.images_needed(1.0) == 6  # of five, not even all right are significant at 5 %


def test_neither_jax_nor_tensorflow_is_needed():
    code = "import sys, skullgan_jax.evaluate.turing.score; print({'jax', 'tensorflow', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
