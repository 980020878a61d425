"""The page in a browser, from the first image to the score."""

import json
import re
import time

import numpy as np
import pytest
from scipy import stats

from skullgan_jax.evaluate.turing import score
from skullgan_jax.evaluate.turing.page import WINDOW
from tests import browser
from tests.evaluate.turing import reading

LOW, HIGH = WINDOW


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
    _, shown, key = reading.write(tmp_path, slices, num=12)
    fake = reading.truth(key)
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
    result = score.score([path], tmp_path / "t.key.json")
    (one,) = result["readers"]
    assert (one["name"], one["role"], one["years"]) == ("Dr. Ünal / 1", "Radiologist", 12)
    assert (one["answered"], one["missing"], one["correct"]) == (12, 0, 9)
    assert one["accuracy"]["value"] == 0.75
    expected = stats.mannwhitneyu(rating[fake], rating[~fake]).statistic / 36
    assert one["auc"]["value"] == pytest.approx(expected)


def test_the_window_and_the_zoom(tmp_path, slices):
    _, shown, _ = reading.write(tmp_path, slices, num=4)
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
        assert length == pytest.approx(scale * 10 / reading.PIXEL_MM, abs=1)
        assert browser.complaints(driver) == []


def test_a_browser_that_stores_nothing(tmp_path, slices):
    _, _, key = reading.write(tmp_path, slices, num=4)
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
    one = score.score([path], tmp_path / "t.key.json")["readers"][0]
    assert (one["answered"], one["missing"]) == (2, 2)
