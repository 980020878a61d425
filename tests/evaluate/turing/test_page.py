"""A page that gives nothing away."""

import json
import re
import zlib

import numpy as np
import pytest
from scipy import stats

from skullgan_jax.errors import InputError
from skullgan_jax.evaluate.turing.page import WINDOW, write_page
from tests.evaluate.turing import reading

LOW, HIGH = WINDOW


def test_the_key_names_what_is_shown(tmp_path, slices):
    text, shown, key = reading.write(tmp_path, slices)
    assert list(shown) == list(key["images"])
    assert (key["seed"], key["num"], key["pixel_mm"]) == (0, 40, reading.PIXEL_MM)
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
    assert reading.write(tmp_path / "again", slices)[0] == text
    (tmp_path / "other").mkdir()
    assert reading.write(tmp_path / "other", slices, seed=1)[2]["images"].keys().isdisjoint(key["images"])


def test_the_page_is_one_file_without_the_key(tmp_path, slices):
    text, shown, _ = reading.write(tmp_path, slices)
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
        _, shown, key = reading.write(tmp_path / name, (real, images))
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
        _, shown, key = reading.write(tmp_path, (real, fake), seed=seed, num=20)
        labels = reading.truth(key)
        orders.append(labels)
        assert labels.sum() == 10
        same += (labels[np.argsort(list(shown))] == labels).sum()
    orders = np.array(orders)
    # 20 places, 100 draws with probability 1/2 each: all within 4 standard deviations.
    assert np.abs(orders.mean(0) - 0.5).max() < 4 * 0.05
    assert abs((orders[:, 1:] == orders[:, :-1]).mean() - 9 / 19) < 0.04
    assert abs(same / 2000 - 0.5) < 0.05
    # The same seed on slices that differ by less than the page shows: another order.
    other = reading.write(tmp_path / "other", (real, fake + np.float32(0.01)), seed=99, num=20)[2]
    assert (reading.truth(other) != orders[-1]).any()


def test_the_key_of_a_test_under_way_is_kept(tmp_path, slices):
    text, _, _ = reading.write(tmp_path, slices)
    assert reading.write(tmp_path, slices)[0] == text
    with pytest.raises(InputError, match="key of another test"):
        reading.write(tmp_path, slices, seed=1)
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
        reading.write(tmp_path, slices, **changes)
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
            reading.write(tmp_path, (real, bad))
    with pytest.raises(InputError, match="html"):
        write_page(tmp_path / "t.htm", real, fake, pixel_mm=reading.PIXEL_MM)
    assert not list(tmp_path.iterdir())
