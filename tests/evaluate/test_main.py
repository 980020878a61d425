"""The command as users type it, and its report in a browser."""

import json
import os
import re
import sys
from concurrent import futures

import numpy as np
import pytest

from skullgan_jax.data import phantom
from skullgan_jax.evaluate import __main__ as command
from skullgan_jax.evaluate import judge
from skullgan_jax.evaluate.report import figures as drawn
from skullgan_jax.evaluate.report import page
from skullgan_jax.machine import lock, places
from skullgan_jax.processes.lock import only_writer
from skullgan_jax.slices import radiology
from tests import browser, bucket


def ended(capfd, *flags):
    """Exit status and what was said on stderr."""
    status = 0
    try:
        command.run(list(map(str, flags)))
    except SystemExit as end:
        status = end.code
    return status, capfd.readouterr().err


def test_files(report):
    names = {"figures", "metrics.json", "model_card.md", "radiology.csv", "report.html", "turing.key.json"}
    assert {p.name for p in report.iterdir()} == names
    assert not report.with_name("out.tmp").exists()
    table = (report / "radiology.csv").read_text().splitlines()
    assert table[0].split(",") == ["set", *radiology.NAMES]
    assert [line.split(",")[0] for line in table[1::200]] == ["real", "fake", "control"]
    figures = {p.stem for p in (report / "figures").iterdir()}
    assert figures == set(drawn.NAMES)


def test_numbers(same):
    metrics = same
    assert metrics["use"] == "research use only"
    assert metrics["sets"]["train"]["num"] == 120
    assert len(metrics["verdict"]["lines"]) == 7
    called = metrics["discriminator"]
    assert 0 <= called["real"]["low"] <= called["real"]["value"] <= called["real"]["high"] <= 1
    assert called["difference"]["value"] == pytest.approx(called["real"]["value"] - called["fake"]["value"])
    assert metrics["memorisation"]["num_train"] == 120
    assert metrics["copies"]["num"] == 0
    assert metrics["model"] == {"workdir": "run", "step": 3, "ngf": 16, "ndf": 4, "nz": 8}


def test_model_card(report, model):
    text = (report / "model_card.md").read_text()
    for word in ("Research use only", "0.46875 mm", "Not meant for", "| SDR, KS |", "Provenance", "ngf 16"):
        assert word in text
    assert "Trained on: 120 slices" in text
    assert str(model.parent) not in text


def test_the_page_is_whole_and_asks_nobody(report):
    text = (report / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)', text)
    assert "Research use only" in text
    words = re.sub(r"base64,[^\"]*", "", text)
    assert "None" not in words
    assert not re.search(r"[{}]", re.sub(r"<style>.*</style>", "", words, flags=re.S))  # no dict as Python writes it
    assert "it keeps their fingerprint" in words
    assert "Model: workdir run, step 3, ngf 16, ndf 4, nz 8." in words


def test_the_page_in_a_browser(report, tmp_path):
    with browser.opened(report / "report.html") as driver:
        assert browser.complaints(driver) == []
        heads = [h.text for h in driver.find_elements("css selector", "h2")]
        images = driver.execute_script("return [...document.images].map(i => [i.naturalWidth, i.alt])")
        wide = driver.execute_script("return document.documentElement.scrollWidth > window.innerWidth")
        marks = {m.text for m in driver.find_elements("css selector", ".mark")}
    assert heads[1:] == [
        *("Samples", "Every test on one scale", "SDR, thickness and intensity", "Power spectrum"),
        *("Near duplicates", "t-SNE", "Classifiers", "Memorisation", "Definitions", "Limits"),
    ]
    assert len(images) == 8
    assert all(width > 500 and alt for width, alt in images)
    assert not wide
    assert marks <= {"✓", "✗", "–"}


def test_a_turing_page(sets, tmp_path, capfd):
    flags = [f"--real={sets}/real.npy", f"--fake={sets}/fake.npy", f"--output={tmp_path}/out"]
    status, said = ended(capfd, *flags, "--turing", "--turing_num=20")
    assert (status, said.count("\n")) == (0, 1)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"turing.html", "turing.key.json"}
    key = json.loads((tmp_path / "out" / "turing.key.json").read_text())
    answers = {i: {"answer": x["truth"], "confidence": 3, "seconds": 2} for i, x in key["images"].items()}
    reader = {"name": "A. Reader", "role": "radiologist", "years": 9}
    saved = {"format": "skullgan_jax turing answers 1", "test": key["test"], "reader": reader, "answers": answers}
    (tmp_path / "a.json").write_text(json.dumps(saved))
    command.run(["--turing_results", f"{tmp_path}/a.json", f"--output={tmp_path}/out"])
    assert "20/20" in capfd.readouterr().out
    assert json.loads((tmp_path / "out" / "turing.json").read_text())["readers"][0]["accuracy"]["value"] == 1


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--real=REAL", "--output=OUT"], "--fake is missing"),
        (["--real=REAL", "--fake=no.npy", "--output=OUT"], "no.npy: no such file"),
        (["--real=REAL", "--fake=REAL", "--output=OUT", "--num=1"], "give a number of 2 or more"),
        (["--real=REAL", "--fake=REAL", "--output=OUT", "--seed=2147483648"], "--seed=2147483648: give one from 0 to"),
        (["--real=REAL", "--fake=REAL", "--output=REAL"], "is a file; give a folder"),
        (["--real=REAL", "--fake=REAL", "--output=ftp://host/x"], "ftp://host/x: is no place that is known"),
        (["--real=REAL", "--fake=FINE", "--output=OUT"], "real.npy has 0.46875 mm pixels (assumed; state it with"),
        (["--real=REAL", "--fake=REAL", "--output=OUT", "--fid"], "--fid: 200 reals and 200 fakes; below 2048"),
        (["--turing_results", "a.json"], "--turing_results needs --turing_key"),
        (["--reel=x"], "--reel=x"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_2(sets, tmp_path, capfd, flags, expected):
    np.save(tmp_path / "fine.npy", phantom.segments(3, 1))
    (tmp_path / "fine.json").write_text('{"pixel_mm": 0.3}')
    places = {"REAL": f"{sets}/real.npy", "FINE": f"{tmp_path}/fine.npy", "OUT": f"{tmp_path}/out"}
    for short, path in places.items():
        flags = [f.replace(short, path) for f in flags]
    status, said = ended(capfd, *flags)
    assert (status, said.count("\n")) == (2, 1), said
    assert expected in said
    assert not (tmp_path / "out").exists()


@pytest.fixture
def few(tmp_path):
    """Flags for a judgement of a second: the command's output is `out`."""
    for name, hu in zip(("real", "fake"), np.split(phantom.segments(12, 6), 2), strict=True):
        np.save(tmp_path / f"{name}.npy", hu)
    return [f"--real={tmp_path}/real.npy", f"--fake={tmp_path}/fake.npy", f"--output={tmp_path}/out"]


def test_what_is_the_users_stays(few, tmp_path, capfd):
    """In the folder, among the figures, and beside it under names like ours; of the last report nothing does."""
    out = tmp_path / "out"
    mine = [out / "notes.txt", out / "turing.key.json", tmp_path / "out.tmp" / "a", tmp_path / "out.old" / "a"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert ended(capfd, *few)[0] == 0
    mine += [out / "figures" / "my own.png"]
    mine[-1].write_text("mine")
    (out / "figures" / "tsne.png").write_text("of the last report")
    (out / "model_card.md").write_text("of the last report")
    assert ended(capfd, *few)[0] == 0
    assert {path.read_text() for path in mine} == {"mine"}
    names = {"figures", "metrics.json", "notes.txt", "radiology.csv", "report.html", "turing.key.json"}
    assert {path.name for path in out.iterdir()} == names
    assert {path.name for path in (out / "figures").iterdir()} == {"samples.png", "distributions.png", "my own.png"}
    assert {path.name for path in tmp_path.iterdir()} == {"fake.npy", "real.npy", "out", "out.old", "out.tmp"}


def test_a_folder_in_which_something_else_has_our_names_is_refused(few, tmp_path, capfd):
    (tmp_path / "out" / "figures").mkdir(parents=True)
    (tmp_path / "out" / "figures" / "samples.png").write_text("mine")
    status, said = ended(capfd, *few)
    assert (status, said.count("\n")) == (2, 1)
    assert f"--output={tmp_path}/out: holds figures and no report that they are of, which would go; give" in said
    assert (tmp_path / "out" / "figures" / "samples.png").read_text() == "mine"


def test_one_writes_a_report_at_a_time(few, tmp_path, capfd):
    with lock.only_writer(tmp_path / "out"), futures.ThreadPoolExecutor(1) as pool:
        for more in ((), ("--turing", "--turing_num=4")):
            assert pool.submit(command.run, [*few, *more]).exception().code == 2
            assert f"error: --output={tmp_path}/out: process {os.getpid()} on " in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_file_that_failed_is_named(few, tmp_path, capfd, monkeypatch):
    """Not the output for whatever it was."""

    def gone(*_, **__):
        raise FileNotFoundError(2, "No such file or directory", "/scans/gone.npy")

    with monkeypatch.context() as patch:
        patch.setattr(judge, "evaluate", gone)
        status, said = ended(capfd, *few)
    assert (status, said) == (
        2,
        "error: /scans/gone.npy: cannot be read (No such file or directory); see to its rights and its disk\n",
    )

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(drawn, "draw", full)
    status, said = ended(capfd, *few)
    assert status == 75
    assert f"error: --output={tmp_path}/out: cannot be written (No space left on device); free some" in said
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    status, said = ended(capfd, *few)
    assert (status, said.count("\n")) == (2, 1)
    assert "cannot be written (it is, or holds, the folder that this runs in)" in said
    assert {path.name for path in tmp_path.iterdir()} == {"fake.npy", "real.npy", "out"}


FIGURES = {f"figures/{name}.png" for name in ("distributions", "samples")}
REPORT = {"metrics.json", "radiology.csv", "report.html"} | FIGURES


@pytest.fixture
def in_bucket(few, own_home, tmp_path, monkeypatch):
    """Objects of a bucket with the sets and more in r/, flags, and a dict: end of a name -> how its writing fails."""
    faults = {}

    def fault(method, name):
        return next((how for end, how in faults.items() if method == "POST" and name.endswith(end)), None)

    def judged(real, fake, **_):
        sets = {name: {"pixel_mm": found.pixel_mm} for name, found in (("real", real), ("fake", fake))}
        return {"sets": sets, "verdict": {"headline": "Judged"}, "notes": []}, {"radiology": {}}

    def draw(folder, *_):
        for path in FIGURES:
            (folder.parent / path).write_text("a picture")

    monkeypatch.setattr(judge, "evaluate", judged)
    monkeypatch.setattr(drawn, "draw", draw)
    monkeypatch.setattr(page, "write", lambda path, *_: path.write_text("a page"))
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "initial_delay": "10ms"})
    with bucket.serving(fault) as objects:
        with places.Bucket("gs://somebody/sets") as place:  # which says once a process whose credentials it has
            for name in ("real", "fake"):
                place.write(f"{name}.npy", (tmp_path / f"{name}.npy").read_bytes())
                place.write(f"{name}.json", b'{"pixel_mm": 0.4}')
        url = "gs://somebody/sets"
        yield objects, [f"--real={url}/real.npy", f"--fake={url}/fake.npy", "--output=gs://somebody/r/"], faults


def inside(objects) -> set[str]:
    """What is in r/."""
    return {name.removeprefix("r/") for name in objects if name.startswith("r/")}


def test_a_report_in_a_bucket(in_bucket, capfd):
    """It takes the place of the last one, what is the user's stays, and the sets are in a bucket, too."""
    objects, flags, faults = in_bucket
    assert ended(capfd, *flags) == (0, "Judged. Look at gs://somebody/r/report.html\n")
    assert inside(objects) == REPORT
    metrics = json.loads(objects["r/metrics.json"])
    assert metrics["sets"]["real"]["pixel_mm"] == 0.4
    with places.Bucket("gs://somebody/r") as place:
        for name in ("figures/tsne.png", "model_card.md", "notes.txt", "figures/my own.png"):
            place.write(name, name.encode())
        assert ended(capfd, *flags)[0] == 0
        assert inside(objects) == REPORT | {"notes.txt", "figures/my own.png"}
        # Whatever of it comes not to its end, the same command brings it there.
        faults["radiology.csv"] = 503
        status, said = ended(capfd, *flags)
        assert (status, said.count("error: ")) == (75, 1)
        assert "error: gs://somebody/r/radiology.csv: cannot be written (" in said
        assert objects["r/metrics.json"] == b""
        faults.clear()
        assert ended(capfd, *flags)[0] == 0
        assert json.loads(objects["r/metrics.json"]) == metrics
        assert inside(objects) == REPORT | {"notes.txt", "figures/my own.png"}
        with only_writer(place):
            status, said = ended(capfd, *flags)
            assert (status, said.count("\n")) == (2, 1)
            assert said.startswith(f"error: --output=gs://somebody/r: in use by process {os.getpid()} on ")
        place.write("metrics.json", b"{}")
        status, said = ended(capfd, *flags)
        assert status == 2
        assert said.startswith("error: --output=gs://somebody/r: holds figures, metrics.json, radiology.csv, report")


@pytest.mark.parametrize(("how", "status"), [(403, 2), (404, 2), (503, 75)])
def test_a_bucket_that_may_not_be_written_to_is_told_before_any_work(how, status, in_bucket, capfd, monkeypatch):
    objects, flags, faults = in_bucket
    faults["lock.json"] = how
    monkeypatch.setattr(judge, "evaluate", None)
    found, said = ended(capfd, *flags)
    assert (found, said.count("\n")) == (status, 1)
    assert said.startswith("error: gs://somebody/r/lock.json: cannot be written (")
    assert not inside(objects)


def test_a_turing_page_in_a_bucket(in_bucket, tmp_path, capfd):
    objects, flags, _ = in_bucket
    assert ended(capfd, *flags, "--turing", "--turing_num=4")[0] == 0
    assert inside(objects) == {"turing.html", "turing.key.json"}
    key = json.loads(objects["r/turing.key.json"])
    answers = {i: {"answer": x["truth"], "confidence": 3, "seconds": 2} for i, x in key["images"].items()}
    saved = {"format": "skullgan_jax turing answers 1", "test": key["test"], "answers": answers}
    (tmp_path / "a.json").write_text(json.dumps(saved | {"reader": {"name": "A. Reader", "role": "", "years": 9}}))
    assert ended(capfd, f"--turing_results={tmp_path}/a.json", flags[-1])[0] == 0
    assert json.loads(objects["r/turing.json"])["readers"][0]["accuracy"]["value"] == 1
    status, said = ended(capfd, *flags, "--turing", "--turing_num=2")
    assert (status, said.count("\n")) == (2, 1)
    assert "gs://somebody/r/turing.key.json" in said
    assert json.loads(objects["r/turing.key.json"]) == key


@pytest.mark.parametrize("module", ["matplotlib", "sklearn"])
def test_what_is_not_installed_is_named_before_any_work(sets, tmp_path, capfd, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    status, said = ended(capfd, f"--real={sets}/real.npy", f"--fake={sets}/fake.npy", f"--output={tmp_path}/out")
    assert (status, said.count("\n")) == (2, 1), said
    assert f"{module} is needed for this and not installed: pip install" in said
    assert not (tmp_path / "out").exists()
