"""A page that gives nothing away, read in a browser; scores against closed forms, scipy and simulation."""

import base64
import json
import re
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from scipy import stats

from skullgan_jax.data import phantom
from skullgan_jax.errors import InputError
from skullgan_jax.evaluate.turing import score as turing
from tests import browser

LOW, HIGH = turing.WINDOW
PIXEL_MM = 60 / 128


@pytest.fixture(scope="module")
def slices():
    """Real and fake: the phantom and the phantom."""
    return phantom.segments(60, 1), phantom.segments(60, 2)


def write(folder, slices, **changes):
    """The page's text, what it shows as {id: (rows, 128) uint8}, and the key."""
    path = folder / "t.html"
    key_path = turing.write_page(path, *slices, **{"pixel_mm": PIXEL_MM, "num": 40} | changes)
    text = path.read_text()
    test = json.loads(re.search(r'<script type="application/json" id="test">(.*?)</script>', text, re.S)[1])
    pixels = np.frombuffer(base64.b64decode(test["pixels"]), np.uint8).reshape(-1, *test["shape"])
    return text, dict(zip(test["ids"], pixels, strict=True)), json.loads(key_path.read_text())


def write_answers(path, key, answers, name="A"):
    """answers: {id: (answer, confidence)} or a rating per image of the key, fake positive, None for unanswered."""
    if not isinstance(answers, dict):
        pairs = zip(key["images"], answers, strict=True)
        answers = {i: ("fake" if r > 0 else "real", abs(r)) for i, r in pairs if r is not None}
    answers = {i: {"answer": a, "confidence": c, "seconds": 2.5} for i, (a, c) in answers.items()}
    reader = {"name": name, "role": "Radiologist", "years": 12}
    path.write_text(
        json.dumps(
            {"format": "skullgan_jax turing answers 1", "test": key["test"], "reader": reader, "answers": answers}
        )
    )
    return path


def truth(key):
    return np.array([image["truth"] == "fake" for image in key["images"].values()])


# The page


def test_the_key_names_what_is_shown(tmp_path, slices):
    text, shown, key = write(tmp_path, slices)
    assert list(shown) == list(key["images"])
    assert (key["seed"], key["num"], key["pixel_mm"]) == (0, 40, PIXEL_MM)
    picked = {"real": [], "fake": []}
    for i, image in key["images"].items():
        picked[image["truth"]].append(image["index"])
        hu = slices[image["truth"] == "fake"][image["index"]].astype(float)
        expected = np.rint(255 * (np.clip(hu, LOW, HIGH) - LOW) / (HIGH - LOW))
        top = next(r for r in range(12) if np.array_equal(expected[r : r + len(shown[i])], shown[i]))
        assert not expected[:top].any()
        assert not expected[top + len(shown[i]) :].any()
    assert all(len(set(indices)) == 20 for indices in picked.values())
    (tmp_path / "again").mkdir()
    assert write(tmp_path / "again", slices)[0] == text
    (tmp_path / "other").mkdir()
    assert write(tmp_path / "other", slices, seed=1)[2]["images"].keys().isdisjoint(key["images"])


def test_the_page_is_one_file_without_the_key(tmp_path, slices):
    text, shown, _ = write(tmp_path, slices)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.html", "t.key.json"]
    assert "truth" not in text
    assert all(text.count(i) == 1 for i in shown)
    around, data = re.sub(r'(?<=id="test">).*?(?=</script>)', "", text), re.search(r'id="test">(.*?)</script>', text)[1]
    assert set(json.loads(data)) == {"id", "ids", "pixel_mm", "window", "shape", "pixels"}
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!data:)|\bsrc=|fetch\(|XMLHttp|WebSocket|sendBeacon", around)
    assert "default-src 'none'" in text


def test_what_is_not_bone_does_not_tell(tmp_path, slices):
    real, fake = slices
    rng = np.random.default_rng(0)
    given_away = fake + np.where(fake < LOW, rng.uniform(-50, np.maximum(LOW - fake, 0)), 0).astype(np.float32)
    given_away[fake > HIGH] = 2734.53
    sets = {"clean": fake, "given_away": given_away}
    pixels = {}
    for name, images in sets.items():
        (tmp_path / name).mkdir()
        _, shown, key = write(tmp_path / name, (real, images))
        pixels[name] = {(v["truth"], v["index"]): shown[i].tobytes() for i, v in key["images"].items()}
    assert pixels["clean"] == pixels["given_away"]
    sizes = [[len(zlib.compress(v)) for (t, _), v in pixels["given_away"].items() if t == c] for c in ("real", "fake")]
    assert stats.mannwhitneyu(*sizes).pvalue > 0.05
    assert len({len(v) for v in pixels["given_away"].values()}) == 1


def test_neither_the_order_nor_the_seed_tells(tmp_path, slices):
    real, fake = slices[0][:20], slices[1][:20]
    (tmp_path / "other").mkdir()
    orders, same = [], 0
    for seed in range(100):
        for file in tmp_path.glob("t.*"):
            file.unlink()
        _, shown, key = write(tmp_path, (real, fake), seed=seed, num=20)
        labels = truth(key)
        orders.append(labels)
        assert labels.sum() == 10
        same += (labels[np.argsort(list(shown))] == labels).sum()
    orders = np.array(orders)
    # 20 places, 100 draws with probability 1/2 each: all within 4 standard deviations.
    assert np.abs(orders.mean(0) - 0.5).max() < 4 * 0.05
    assert abs((orders[:, 1:] == orders[:, :-1]).mean() - 9 / 19) < 0.04
    assert abs(same / 2000 - 0.5) < 0.05
    # The same seed on slices that differ by less than the page shows: another order.
    other = write(tmp_path / "other", (real, fake + np.float32(0.01)), seed=99, num=20)[2]
    assert (truth(other) != orders[-1]).any()


def test_the_key_of_a_test_under_way_is_kept(tmp_path, slices):
    text, _, _ = write(tmp_path, slices)
    assert write(tmp_path, slices)[0] == text
    with pytest.raises(InputError, match="key of another test"):
        write(tmp_path, slices, seed=1)
    assert (tmp_path / "t.html").read_text() == text


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num": 122}, "60 real images for a test of 122"),
        ({"num": 7}, "even number"),
        ({"window": (300, 300)}, "lower end first"),
        ({"pixel_mm": 0}, "pixel_mm"),
    ],
)
def test_settings_that_make_no_page(tmp_path, slices, changes, match):
    with pytest.raises(InputError, match=match):
        write(tmp_path, slices, **changes)
    assert not list(tmp_path.iterdir())


def test_images_that_make_no_page(tmp_path, slices):
    real, fake = slices
    for bad, match in (
        (fake / 4000, "nothing above 300 HU"),
        (fake[:, :64], "shape"),
        (fake[:10], "10 fake images"),
        (np.where(fake > 0, np.nan, 0), "NaN"),
    ):
        with pytest.raises(InputError, match=match):
            write(tmp_path, (real, bad))
    with pytest.raises(InputError, match="html"):
        turing.write_page(tmp_path / "t.htm", real, fake, pixel_mm=PIXEL_MM)
    assert not list(tmp_path.iterdir())


# The page in a browser


class Reader:
    """Someone at the page."""

    def __init__(self, driver):
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        self.driver, self.keys = driver, Keys
        self._actions, self._id, self._css = ActionChains, By.ID, By.CSS_SELECTOR

    def press(self, *keys):
        for key in keys:
            self._actions(self.driver).send_keys(key).perform()

    def text(self, name):
        return self.driver.find_element(self._id, name).text

    def click(self, selector):
        self.driver.find_element(self._css, selector).click()

    def visible(self):
        return [s.get_attribute("id") for s in self.driver.find_elements(self._css, "section") if s.is_displayed()]

    def introduce(self, name):
        for field, value in (("name", name), ("role", "Radiologist"), ("years", f"12{self.keys.ENTER}")):
            self.driver.find_element(self._id, field).send_keys(value)

    def pressed(self):
        found = self.driver.find_elements(self._css, "[aria-pressed=true]")
        return [(b.get_attribute("data-answer"), int(b.get_attribute("data-confidence"))) for b in found]

    def at(self):
        return int(self.text("place").split()[1])


def downloaded(folder, name):
    for _ in range(100):
        if (folder / name).exists():
            return folder / name
        time.sleep(0.1)
    raise AssertionError(f"no {name} among {list(folder.iterdir())}")


def test_reading_from_the_first_image_to_the_score(tmp_path, slices):
    _, shown, key = write(tmp_path, slices, num=12)
    fake = truth(key)
    # The rule: right but for the images 2, 5 and 6; the more sure, the further on.
    rating = np.where(fake, 1, -1) * np.tile([1, 2, 3, 3], 3)
    rating[[2, 5, 6]] *= -1
    folder = tmp_path / "downloads"
    folder.mkdir()
    with browser.opened(tmp_path / "t.html", downloads=folder) as driver:
        reader = Reader(driver)
        keys = reader.keys
        assert reader.visible() == ["start"]
        reader.introduce("Dr. Ünal / 1")
        assert reader.visible() == ["reading"]

        def answer(i):
            reader.press("f" if rating[i] > 0 else "r", str(abs(rating[i])))

        answer(0)
        answer(1)
        reader.press("3")  # without a side: nothing
        assert reader.at() == 3
        reader.press(*("r1" if rating[2] > 0 else "f1"))  # wrong, then undone
        reader.press(keys.BACKSPACE)
        assert (reader.at(), reader.text("answered"), reader.pressed()) == (3, "2 answered", [])
        answer(2)
        reader.press(keys.ARROW_LEFT)
        assert (reader.at(), reader.pressed()) == (3, [("fake" if rating[2] > 0 else "real", 3)])
        reader.press("1")  # less sure, then as it was
        reader.press(keys.ARROW_LEFT, "3")
        side = "fake" if rating[3] > 0 else "real"
        reader.click(f"[data-answer={side}][data-confidence='{abs(rating[3])}']")
        assert (reader.at(), reader.text("answered")) == (5, "4 answered")
        reader.press(keys.ARROW_RIGHT, keys.ARROW_RIGHT)  # two are skipped
        answer(6)

        driver.refresh()
        assert reader.text("kept") == "5 of 12 answered so far"
        reader.click("#go")
        assert (reader.at(), reader.text("answered")) == (8, "5 answered")
        for i in range(7, 12):
            answer(i)
        assert reader.at() == 5  # back to what was skipped
        answer(4)
        assert driver.execute_script("return document.getElementById('partial').textContent") == "Save so far"
        answer(5)
        assert reader.visible() == ["end"]
        reader.click("#back")
        assert reader.text("partial") == "Finish"
        reader.click("#partial")
        reader.press(keys.ENTER)
        assert reader.visible() == ["thanks"]
        assert not re.search(r"\d ?%|AUC|score|accuracy", reader.text("thanks"))
        path = downloaded(folder, f"turing_{key['test']}_Dr-Ünal-1.json")
        assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
        assert browser.complaints(driver) == []

    saved = json.loads(path.read_text())
    assert [
        {"real": -1, "fake": 1}[saved["answers"][i]["answer"]] * saved["answers"][i]["confidence"] for i in shown
    ] == list(rating)
    assert all(0 < a["seconds"] < 60 for a in saved["answers"].values())
    result = turing.score([path], tmp_path / "t.key.json")
    (one,) = result["readers"]
    assert (one["name"], one["role"], one["years"]) == ("Dr. Ünal / 1", "Radiologist", 12)
    assert (one["answered"], one["missing"], one["correct"]) == (12, 0, 9)
    assert one["accuracy"]["value"] == 0.75
    expected = stats.mannwhitneyu(rating[fake], rating[~fake]).statistic / 36
    assert one["auc"]["value"] == pytest.approx(expected)


def test_the_window_and_the_zoom(tmp_path, slices):
    _, shown, _ = write(tmp_path, slices, num=4)
    first = next(iter(shown.values())).astype(float)
    hu = LOW + (HIGH - LOW) * first / 255
    with browser.opened(tmp_path / "t.html") as driver:
        reader = Reader(driver)
        reader.introduce("A")

        def grey():
            copy = "const c = new OffscreenCanvas(COLUMNS, ROWS).getContext('2d'); c.drawImage(tile, 0, 0); "
            pixels = driver.execute_script(copy + "return [...c.getImageData(0, 0, COLUMNS, ROWS).data]")
            return np.array(pixels).reshape(*first.shape, 4)[..., 0]

        np.testing.assert_array_equal(grey(), first)
        assert reader.text("shown") == "300 to 2300 HU"
        reader.press(" ")
        assert reader.text("shown") == "300 to 1300 HU"
        np.testing.assert_allclose(grey(), np.clip(255 * (hu - 300) / 1000, 0, 255), atol=0.51)
        set_slider = (
            "for (const [id, v] of [['level', 1000], ['width', 1800]]) { const e = document.getElementById(id);"
        )
        driver.execute_script(f"{set_slider} e.value = v; e.dispatchEvent(new Event('input')); }}")
        assert reader.text("shown") == "300 to 1900 HU"  # the lower end stays where the pixels begin
        np.testing.assert_allclose(grey(), np.clip(255 * (hu - 300) / 1600, 0, 255), atol=0.51)
        reader.press("+", "+")
        assert reader.text("shown").startswith("zoom 2.3")
        reader.press("0")
        assert reader.text("shown") == "300 to 1900 HU"
        length = driver.execute_script("return document.querySelector('#scale div').getBoundingClientRect().width")
        scale = driver.execute_script("return fit().scale")
        assert length == pytest.approx(scale * 10 / PIXEL_MM, abs=1)
        assert browser.complaints(driver) == []


def test_a_browser_that_stores_nothing(tmp_path, slices):
    _, _, key = write(tmp_path, slices, num=4)
    blank = tmp_path / "blank.html"
    blank.write_text('<!DOCTYPE html><link rel="icon" href="data:,">')
    refuse = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }})"
    with browser.opened(blank, downloads=tmp_path) as driver:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": refuse})
        driver.get((tmp_path / "t.html").as_uri())
        reader = Reader(driver)
        assert "keeps nothing" in reader.text("forgets")
        reader.introduce("B")
        reader.press(*"f1r2")
        reader.click("#partial")
        path = downloaded(tmp_path, f"turing_{key['test']}_B.json")
        reader.press(*"f3f3")
        assert reader.visible() == ["end"]
        reader.press(reader.keys.ENTER)
        assert reader.visible() == ["thanks"]
        assert browser.complaints(driver) == []
    one = turing.score([path], tmp_path / "t.key.json")["readers"][0]
    assert (one["answered"], one["missing"]) == (2, 2)


# The score


@pytest.fixture(scope="module")
def test_of_40(tmp_path_factory, slices):
    folder = tmp_path_factory.mktemp("turing")
    return folder / "t.key.json", write(folder, slices)[2]


def rated(key, wrong, seed=0):
    """Ratings with the first `wrong` images of each class answered wrongly."""
    fake = truth(key)
    rating = np.where(fake, 1, -1) * np.random.default_rng(seed).integers(1, 4, len(fake))
    for side in (fake, ~fake):
        rating[np.flatnonzero(side)[:wrong]] *= -1
    return rating.tolist()


def test_exact_intervals(tmp_path, test_of_40):
    path, key = test_of_40
    result = turing.score([write_answers(tmp_path / "a.json", key, rated(key, 6))], path)
    one = result["readers"][0]
    for name, k, n in (("accuracy", 28, 40), ("sensitivity", 14, 20), ("specificity", 14, 20)):
        assert one[name]["value"] == pytest.approx(k / n)
        ends = stats.beta.ppf(0.025, k, n - k + 1), stats.beta.ppf(0.975, k + 1, n - k)
        assert one[name]["interval"] == pytest.approx(ends)
    assert one["accuracy"]["p"] == pytest.approx(2 * stats.binom.sf(27, 40, 0.5))
    assert one["seconds"] == 2.5
    assert result["pooled"]["accuracy"] == one["accuracy"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    said = turing.report(result)
    assert "A told 70% right (95 % interval 53% to 83%, p = 0.017): better than guessing." in said
    assert max(map(len, said.splitlines())) < 130
    assert "28/40" in said


def test_unanswered_images_are_counted(tmp_path, test_of_40):
    path, key = test_of_40
    only_fakes = [r if f else None for r, f in zip(rated(key, 3), truth(key), strict=True)]
    one = turing.score([write_answers(tmp_path / "a.json", key, only_fakes)], path)["readers"][0]
    assert (one["answered"], one["missing"], one["correct"]) == (20, 20, 17)
    assert one["specificity"] is None
    assert one["auc"] is None
    assert "20 images were left unanswered" in " ".join(turing.score([tmp_path / "a.json"], path)["words"])


def test_the_interval_of_the_auc_is_delongs():
    rng = np.random.default_rng(0)
    fake = np.arange(50) < 20
    ratings = np.clip(np.rint(rng.normal(np.where(fake, 1.0, 0), 1.5, (2, 50))), -3, 3)
    above = (1 + np.sign(ratings[:, :20, None] - ratings[:, None, 20:])) / 2  # readers x fakes x reals
    areas = above.mean((1, 2))
    covariance = np.cov(above.mean(2)) / 20 + np.cov(above.mean(1)) / 30
    for rows, mean, variance in (([0], areas[0], covariance[0, 0]), ([0, 1], areas.mean(), covariance.sum() / 4)):
        got = turing.auc_interval(ratings[rows], fake)
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
        low, high = turing.auc_interval(ratings[None], fake)["interval"]
        held += low <= area <= high
    assert 930 <= held <= 970  # 950 +- 3 standard deviations


def test_areas_without_variance():
    fake = np.arange(20) < 10
    perfect = np.where(fake, 3.0, -3.0)[None]
    assert turing.auc_interval(perfect, fake) == {"value": 1, "interval": [pytest.approx(0.025**0.1), 1]}
    assert turing.auc_interval(-perfect, fake) == {"value": 0, "interval": [0, pytest.approx(1 - 0.025**0.1)]}
    assert turing.auc_interval(np.ones((1, 20)), fake) == {"value": 0.5, "interval": None}


def test_agreement():
    yes, no = [True], [False]
    a, b = np.array(yes * 25 + no * 25), np.array(yes * 20 + no * 5 + yes * 10 + no * 15)
    assert turing.cohen_kappa(a, b) == pytest.approx(0.4)  # agreed 0.7, by chance 0.5
    assert turing.cohen_kappa(a, a) == 1
    assert turing.cohen_kappa(a | True, a | True) is None
    # Three readers, four images with 3, 2, 1, 0 of them saying fake: agreed (1 + 1/3 + 1/3 + 1)/4, by chance 1/2.
    called = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], bool)
    assert turing.fleiss_kappa(called) == pytest.approx((2 / 3 - 0.5) / 0.5)
    assert turing.fleiss_kappa(np.stack([a, a, a])) == 1
    assert turing.fleiss_kappa(called[:, :0]) is None


def test_several_readers_see_the_same_images(tmp_path, test_of_40):
    path, key = test_of_40
    wrong = (6, 6, 10)
    files = [write_answers(tmp_path / f"{i}.json", key, rated(key, w), f"R{i}") for i, w in enumerate(wrong)]
    result = turing.score(files, path)
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
    said = turing.report(result)
    assert "all answers" in said
    assert "R0 and R2 0.60" in said
    # All right on all images: no variance between images, so the interval is of one reader of 40.
    same = [write_answers(tmp_path / f"s{i}.json", key, rated(key, 0), f"S{i}") for i in range(2)]
    by_image = turing.score(same, path)["pooled"]["accuracy"]["by_image"]
    assert by_image["interval"] == [pytest.approx(0.025 ** (1 / 40)), 1]


@pytest.mark.parametrize("accuracy", [0.52, 0.55, 0.6, 0.7, 0.8, 0.35])
def test_images_needed_give_the_power(accuracy):
    n = turing.images_needed(accuracy)
    assert n % 2 == 0

    def power(n):
        least = int(stats.binom.isf(0.025, n, 0.5)) + 1  # the exact test's first count that is significant
        return stats.binom.sf(least - 1, n, max(accuracy, 1 - accuracy))

    assert 0.79 < power(n) < 0.85
    assert power(int(n * 0.9)) < 0.8


def test_images_needed_at_the_ends():
    assert turing.images_needed(0.5) is None
    assert turing.images_needed(1.0) == 6  # of five, not even all right are significant at 5 %


def test_answers_that_cannot_be_scored(tmp_path, test_of_40):
    path, key = test_of_40
    good = write_answers(tmp_path / "good.json", key, rated(key, 5))
    ids = list(key["images"])

    def bad(name, text):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path / name

    damaged = json.loads(good.read_text())
    damaged["answers"][ids[0]]["confidence"] = 9
    (tmp_path / "is_folder").mkdir()
    for files, match in (
        ([], "no answers"),
        ([tmp_path / "none.json"], "cannot be read"),
        ([tmp_path / "is_folder"], "cannot be read"),
        ([bad("cut.json", good.read_text()[:-9])], "not JSON, or damaged"),
        ([bad("deep.json", "[" * 100_000)], "not JSON, or damaged"),
        ([bad("bytes.json", b"\xff\xfe\xfa")], "not JSON, or damaged"),
        ([bad("nan.json", good.read_text().replace("2.5", "NaN"))], "not JSON, or damaged"),
        ([bad("list.json", "[1]")], "is not the answers"),
        ([path], "is not the answers"),
        ([bad("nine.json", json.dumps(damaged))], "a field is missing or has no sense"),
        ([write_answers(tmp_path / "o.json", key | {"test": "0"}, rated(key, 5))], "give its own key"),
        ([write_answers(tmp_path / "s.json", key, {"zz": ("real", 1)})], "answers an image zz"),
        ([write_answers(tmp_path / "e.json", key, {})], "holds no answer"),
        ([good, write_answers(tmp_path / "twice.json", key, rated(key, 4), " a ")], "reader a is in .*good.json too"),
    ):
        with pytest.raises(InputError, match=match) as error:
            turing.score(files, path)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="is not the key"):
        turing.score([good], good)


def test_neither_jax_nor_tensorflow_is_needed():
    code = "import sys, skullgan_jax.evaluate.turing.score; print({'jax', 'tensorflow', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
