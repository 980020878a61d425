"""What comes back from readers, and cannot be scored."""

import json

import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.evaluate.turing.score import score
from tests.evaluate.turing import reading


def test_answers_that_cannot_be_scored(tmp_path, reading_of_40):
    path, key = reading_of_40
    good = reading.write_answers(tmp_path / "good.json", key, reading.rated(key, 5))
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
        ([reading.write_answers(tmp_path / "o.json", key | {"test": "0"}, reading.rated(key, 5))], "give its own key"),
        ([reading.write_answers(tmp_path / "s.json", key, {"zz": ("real", 1)})], "answers an image zz"),
        ([reading.write_answers(tmp_path / "e.json", key, {})], "holds no answer"),
        (
            [good, reading.write_answers(tmp_path / "twice.json", key, reading.rated(key, 4), " a ")],
            "reader a is in .*good.json too",
        ),
    ):
        with pytest.raises(InputError, match=match) as error:
            score(files, path)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="is not the key"):
        score([good], good)
