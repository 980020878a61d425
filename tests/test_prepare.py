"""The command on folders as hospitals export them."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from concurrent import futures
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest

from skullgan_jax import prepare
from skullgan_jax.ct import dataset, pieces, report
from skullgan_jax.data import prepared
from skullgan_jax.data.open import open_data
from skullgan_jax.machine import lock
from skullgan_jax.machine.tensorflow import import_tensorflow
from tests import browser
from tests.ct import heads


def command(capfd, *flags, jobs=1):
    """Exit status and lines on stderr; each of the processes that cut takes longer to start than to cut these heads."""
    with pytest.raises(SystemExit) as ended:
        prepare.run([f"--jobs={jobs}", *map(str, flags)])
    return ended.value.code, capfd.readouterr().err.splitlines()


def config(path):
    return SimpleNamespace(name="skull", path=str(path), pixel_mm=1, num=0)


def one_thread(jobs, context):
    """In place of processes, each of which takes longer to start than to cut these heads."""
    dataset._opened.clear()
    return futures.ThreadPoolExecutor(1)


@pytest.fixture(autouse=True)
def _in_this_process(request, monkeypatch):
    if "processes" not in request.fixturenames:
        monkeypatch.setattr(futures, "ProcessPoolExecutor", one_thread)


@pytest.fixture
def processes():
    """Cut in processes, as users do."""


@pytest.fixture(scope="module")
def volume():
    return heads.head(shape=(4, 400, 400))


@pytest.fixture(scope="module")
def made(tmp_path_factory, volume):
    """A folder with two heads, `in`, and what was prepared of them as plain arrays, `skulls`."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("one", "two"):
        heads.write_dicom(folder / "in" / name, volume, patient=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(futures, "ProcessPoolExecutor", one_thread)
        with pytest.raises(SystemExit):
            prepare.run([f"--input={folder / 'in'}", f"--output={folder / 'skulls'}", "--format=npy"])
    return folder


@pytest.fixture
def two_heads(made, tmp_path):
    return pathlib.Path(shutil.copytree(made / "in", tmp_path / "in"))


@pytest.fixture
def prepared_heads(made, tmp_path):
    """A copy of what was made, to go on from: the flags that made it there."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'skulls'}", "--format=npy"


def test_from_a_hospital_folder_with_much_that_is_wrong(tmp_path, capfd, volume):
    source, output = tmp_path / "SECRETNAME", tmp_path / "skulls"
    for name, kernel in (("one", "H60"), ("deep/er/two", "H30")):
        heads.write_dicom(source / name, volume, patient=f"SECRETNAME{name[:3]}", ConvolutionKernel=kernel)
    heads.write_dicom(source / "scout", volume[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    heads.write_dicom(source / "mr", volume[:1], Modality="MR")
    heads.write_dicom(source / "nowhere", volume[:1], ImagePositionPatient=None)
    heads.write_dicom(source / "single", volume[:1])
    heads.write_dicom(source / "raw", volume[:1], RescaleSlope=None)
    heads.write_dicom(source / "windowed", volume[:1], BitsStored=8)
    heads.write_dicom(source / "colour", volume[:1], SamplesPerPixel=3)
    heads.write_dicom(source / "frames", volume[:1], NumberOfFrames=2)
    heads.write_dicom(source / "water", np.clip(volume, -1000, 40))
    heads.write_dicom(source / "short", volume[:4], PixelData=b"12")
    (source / "junk.dcm").write_bytes(b"no")
    (source / "all.zip").write_bytes(b"PK")
    (source / "README").write_text("as exported")
    heads.write_dicom(source / "half", volume[:1])
    (half,) = (source / "half").iterdir()
    half.write_bytes(half.read_bytes()[:700])
    (source / "link.dcm").symlink_to("gone")
    os.mkfifo(source / "pipe")
    status, lines = command(capfd, f"--input={source}", f"--output={output}", "--held_out=0.5")
    assert status == 1
    problems = [line for line in lines if line.startswith("left out: ")]
    for wanted in (
        *("MR instead", "ImagePositionPatient", "1 slice,", "rescale slope", "no vault", "truncated", "8 bits"),
        *("junk.dcm: not DICOM", "archive", "colour: 1 file: colour or multi-frame", "frames: 1 file: colour or"),
        *("half: 1 file: cut short", "1 file: cannot be read (No such file"),
    ):
        assert sum(wanted in line for line in problems) == 1, wanted
    assert len(problems) == 13

    summary = json.loads((output / "summary.json").read_text())
    assert len({scan["subject"] for scan in summary["scans"].values()}) == 2
    assert (summary["left_out"], summary["ignored_files"]) == (13, {"localisers": 1, "notes and others": 1})
    for wanted in (
        "fewer than 20 subjects",
        "mixed reconstruction kernels (H",
        "near duplicates (100% of the segments, in",
    ):
        assert sum(wanted in line for line in summary["warnings"]) == 1, wanted
    written = [p for p in tmp_path.rglob("*") if p.is_file() and source not in p.parents]
    everything = b"".join(p.read_bytes() for p in written) + "".join(map(str, written)).encode()
    everything = everything.replace(str(tmp_path).encode(), b"")
    headers = [pydicom.dcmread(p) for folder in ("one", "deep/er/two") for p in (source / folder).iterdir()]
    said = {str(e.value) for h in headers for e in h if e.VR in ("DA", "TM", "PN", "LO", "SH", "UI")} - {"H60", "H30"}
    assert {"19700102", "142536.123456", "ACC9988776", "SECRETNAMEone77"} < said
    for secret in (*said, "SECRETNAME", "deep", *(p.name for p in source.rglob("*.dcm"))):
        assert secret.encode() not in everything, secret
    assert str(tmp_path).encode() not in b"".join(p.read_bytes() for p in written)

    train, held_out = open_data(config(output), 0), open_data(config(output), 0, "held_out")
    assert train.pixel_mm == 0.46875
    assert len(train.images) == len(held_out.images) > 100


@pytest.mark.all
def test_training_and_others_read_the_same(tmp_path, capfd, two_heads, processes):
    import tensorflow_datasets as tfds

    for form in ("tfds", "npy"):
        flags = f"--input={two_heads}", f"--output={tmp_path / form}", f"--format={form}", f"--salt={tmp_path / 'salt'}"
        assert command(capfd, *flags, jobs=2 if form == "tfds" else 1)[0] == 0
    for split in ("train", "held_out"):
        images, rows = prepared.read(tmp_path / "npy", split)
        assert images.dtype == np.int16
        assert len(images) == len(rows) > 100
        assert len({row["subject"] for row in rows}) == 1
        again, same = prepared.read(tmp_path / "tfds", split)
        np.testing.assert_array_equal(again, images)
        assert same == rows
        segments = list(tfds.builder_from_directory(tmp_path / "tfds").as_dataset(split=split).as_numpy_iterator())
        by_place = {(s["scan"].decode(), s["slice"], round(float(s["angle"]))): s for s in segments}
        for image, row in zip(images, rows, strict=True):
            segment = by_place[row["scan"], row["slice"], round(row["angle"])]
            np.testing.assert_array_equal(segment["image"], image)
            assert segment["thickness_3d_mm"] == np.float32(row["thickness_3d_mm"])
    assert (tmp_path / "tfds" / "skullgan_jax_cache").is_dir()
    assert open_data(config(tmp_path / "tfds"), 0).fingerprint == open_data(config(tmp_path / "npy"), 0).fingerprint


def test_more_scans_are_added_without_cutting_the_old_again(tmp_path, capfd, prepared_heads, volume):
    flags, output, two_heads = prepared_heads, tmp_path / "skulls", tmp_path / "in"
    before = {split: prepared.read(output, split) for split in ("train", "held_out")}
    subjects = {split: {row["subject"] for row in rows} for split, (_, rows) in before.items()}
    cut = {p: p.stat().st_mtime_ns for p in pathlib.Path(f"{output}.pieces").rglob("*.npz")}
    (output / "notes.txt").write_text("mine")
    heads.write_dicom(two_heads / "three", volume[:, ::-1], patient="three")
    status, lines = command(capfd, *flags)
    assert (status, lines[1]) == (0, "cut before: 2 of 3 scans")
    assert all(p.stat().st_mtime_ns == t for p, t in cut.items())
    for split, (images, rows) in before.items():
        now_images, now_rows = prepared.read(output, split)
        place = {(r["scan"], r["slice"], r["angle"]): i for i, r in enumerate(now_rows)}
        np.testing.assert_array_equal(now_images[[place[r["scan"], r["slice"], r["angle"]] for r in rows]], images)
        assert subjects[split] <= {r["subject"] for r in now_rows}
    assert json.loads((output / "summary.json").read_text())["version"] == "1.1.0"
    assert (output / "notes.txt").read_text() == "mine"
    # The folder itself as the only input of a part of the scans: all stay.
    command(capfd, f"--input={two_heads / 'one'}", *flags[1:])
    assert len(json.loads((output / "summary.json").read_text())["scans"]) == 3
    # Without what was cut, nothing may be lost in silence.
    for piece in cut:
        piece.unlink()
    status, lines = command(capfd, f"--input={two_heads / 'three'}", *flags[1:])
    assert (status, "2 of its scans are neither in --input nor in" in lines[-1]) == (2, True)
    assert len(prepared.read(output, "train")[0]) > 100


@pytest.mark.all
def test_a_scan_that_changed_is_cut_again(tmp_path, capfd, two_heads, volume):
    output = tmp_path / "skulls"
    flags = f"--input={two_heads}", f"--output={output}", "--format=npy"
    heads.write_dicom(two_heads / "one", volume[:3], patient="one")
    (two_heads / "one" / "004.dcm").unlink()
    command(capfd, *flags)
    fewer = sum(len(prepared.read(output, s)[0]) for s in ("train", "held_out"))
    heads.write_dicom(two_heads / "one", volume, patient="one")
    command(capfd, *flags)
    assert sum(len(prepared.read(output, s)[0]) for s in ("train", "held_out")) > fewer
    assert len(list(pathlib.Path(f"{output}.pieces").rglob("*.npz"))) == 2


def test_interrupted_it_goes_on_and_ends_the_same(tmp_path, capfd, prepared_heads, monkeypatch):
    """Ctrl-C after the first scan that was cut."""
    write, written = pieces.write, []

    def interrupted(*args):
        if written:
            raise KeyboardInterrupt
        written.append(write(*args))

    flags = prepared_heads[0], f"--output={tmp_path / 'again'}", "--format=npy", f"--salt={tmp_path / 'skulls.salt'}"
    with monkeypatch.context() as patch:
        patch.setattr(pieces, "write", interrupted)
        status, lines = command(capfd, *flags)
    assert status == 130
    assert lines[-1] == "error: interrupted; give the same command again, and it goes on where it was"
    assert not (tmp_path / "again").exists()
    status, lines = command(capfd, *flags)
    assert (status, lines[1]) == (0, "cut before: 1 of 2 scans")
    for name in ("train.npy", "held_out.npy", "segments.json", "report.html"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "skulls" / name).read_bytes(), name


@pytest.mark.all
def test_killed_it_goes_on_and_ends_the_same(tmp_path, capfd, two_heads, volume, processes):
    for i in range(3):
        heads.write_dicom(two_heads / f"more{i}", volume, patient=f"more{i}")
    flags = f"--input={two_heads}", "--format=npy", f"--salt={tmp_path / 'salt'}"
    command(capfd, *flags, f"--output={tmp_path / 'whole'}")
    output = tmp_path / "killed"
    arguments = [sys.executable, "-m", "skullgan_jax.prepare", *flags, "--jobs=1", f"--output={output}"]
    killed = subprocess.Popen(arguments, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(pathlib.Path(f"{output}.pieces").rglob("*.npz")):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not output.exists()
    cut = len(list(pathlib.Path(f"{output}.pieces").rglob("*.npz")))
    assert 0 < cut < 5
    status, lines = command(capfd, *flags, f"--output={output}")
    assert (status, lines[1]) == (0, f"cut before: {cut} of 5 scans")
    for name in ("train.npy", "held_out.npy", "segments.json", "report.html"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_bucket(tmp_path, capfd, two_heads, monkeypatch):
    """ram:// is TensorFlow's file system in memory: no path of this machine, like gs://."""
    from etils.epath import backend, gpath, register

    tf = import_tensorflow()

    for name, value in (("_URI_SCHEMES", {"ram"}), ("_URI_PREFIXES", ("ram://",))):
        monkeypatch.setattr(gpath, name, type(getattr(gpath, name))([*getattr(gpath, name), *value]))
    monkeypatch.setitem(gpath._URI_MAP_ROOT, "ram://", "/ram/")
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "ram", backend.tf_backend)
    register.register_path_cls("ram://")(gpath.PosixGPath)
    copy, remove = tf.io.gfile.copy, tf.io.gfile.remove

    def overwrite(source, target, overwrite):  # ram:// alone appends where it should overwrite
        assert overwrite
        if tf.io.gfile.exists(target):
            remove(target)
        copy(source, target)

    def opened(url):  # TensorStore knows no ram://
        def read(name):
            with tf.io.gfile.GFile(f"{url}/{name}", "rb") as file:
                return file.read(), b""

        return contextlib.nullcontext(SimpleNamespace(read=read))

    monkeypatch.setattr(prepared.places, "opened", opened)
    monkeypatch.setattr(tf.io.gfile, "copy", overwrite)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"ram://{tmp_path.name}/skulls"
    assert command(capfd, f"--input={two_heads / 'one'}", f"--output={url}")[0] == 0
    assert command(capfd, f"--input={two_heads / 'two'}", f"--output={url}/")[0] == 0
    assert {p.name for p in tmp_path.iterdir()} - {"cache"} == {"in", "skulls.pieces", "skulls.salt"}
    images, rows = prepared.read(url, "held_out")
    assert len(images) == len(rows) > 100
    assert open_data(config(url), 0).pixel_mm == 0.46875
    assert len(list((tmp_path / "cache" / "skullgan_jax").iterdir())) == 2


@pytest.mark.parametrize("flag", ["--pixel_mm=0.5", "--salt=other"])
def test_another_way_of_cutting_is_refused(tmp_path, capfd, prepared_heads, flag, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = prepared_heads[0], "--output=skulls", "--format=npy"
    before = pathlib.Path("skulls", "train.npy").read_bytes()
    status, lines = command(capfd, *flags, flag)
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith("error: --output=skulls: was made with other options (")
    assert pathlib.Path("skulls", "train.npy").read_bytes() == before


@pytest.mark.parametrize("flag", [
    *("--angles=0", "--angles=721", "--threshold=nan", "--lean=-3", "--max_hu=inf", "--pixel_mm=0", "--thickness=9,8"),
    *("--thickness=2", "--spacing=1,1", "--region=temporal", "--held_out=1"),
])  # fmt: skip
def test_options_that_make_no_sense_are_exit_2(tmp_path, capfd, flag):
    status, lines = command(capfd, f"--input={tmp_path}", f"--output={tmp_path / 'out'}", flag)
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith(f"error: {flag.split('=')[0]}=")
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_do_is_exit_2(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    status, lines = command(capfd, f"--input={tmp_path / 'empty'}", f"--output={tmp_path / 'out'}")
    assert (status, len(lines)) == (2, 1)
    assert lines[0].startswith("error: --input: no CT")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_somebody_else_stays(tmp_path, capfd, two_heads):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    status, lines = command(capfd, f"--input={two_heads}", f"--output={tmp_path / 'out'}")
    assert (status, len(lines)) == (2, 1)
    assert "is there, and no data set of prepare" in lines[0]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


QUICK = "--format=npy", "--angles=4"


@pytest.fixture
def no_figures(monkeypatch):
    """They take longer to draw than such heads to cut."""
    monkeypatch.setattr(report, "_figure", lambda figure, alt: "")


def write_quick(folder, **tags):
    """A head that takes little time."""
    heads.write_dicom(folder, heads.head(shape=(3, 400, 400))[:, ::2, ::2], **{"PixelSpacing": [1, 1], **tags})


def subjects(output) -> list[str]:
    return [scan["subject"] for scan in json.loads((output / "summary.json").read_text())["scans"].values()]


def test_a_scan_of_which_no_window_is_accepted_is_told_with_the_reasons(tmp_path, capfd, no_figures):
    head = heads.head(shape=(3, 400, 400))[:, ::2, ::2]
    metal = np.where(head > 1400, 3200, head)
    heads.write_dicom(tmp_path / "in" / "odd", metal, patient="odd", PixelSpacing=[1, 1])
    flags = f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", *QUICK
    line = f"left out: {tmp_path}/in/odd (series with 3 files): no window accepted in 3 slices (12 metal); "
    for _ in range(2):  # what was cut then is still there
        status, lines = command(capfd, *flags)
        assert (status, lines[-2].startswith(line)) == (2, True)
        assert lines[-1] == "error: no segment was accepted from any scan; see the lines above"
        assert not (tmp_path / "out").exists()
    write_quick(tmp_path / "in" / "good", patient="good")
    status, lines = command(capfd, *flags)
    assert (status, sum(x.startswith(line) for x in lines)) == (1, 1)
    assert len(subjects(tmp_path / "out")) == 1


def test_a_slice_that_cannot_be_read_costs_itself(tmp_path, capfd, no_figures):
    write_quick(tmp_path / "in")
    path = tmp_path / "in" / "002.dcm"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1000])
    flags = f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", *QUICK
    for _ in range(2):
        status, lines = command(capfd, *flags)
        told = [line for line in lines if line.startswith("left out: ")]
        assert (status, len(told)) == (1, 1)
        assert told[0].startswith(f"left out: {path}: pixel data truncated or not decodable (")
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["slices"] == {"cut": 2, "cannot be read": 1}
        assert "1 slice could not be read: gaps in their scans" in summary["warnings"]
    path.write_bytes(whole)
    assert command(capfd, *flags)[0] == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["slices"] == {"cut": 3}


def test_inside_the_input_and_beside_what_others_keep(tmp_path, capfd, no_figures):
    """Names like those that were once used for what is half-written."""
    write_quick(tmp_path / "a")
    theirs = [tmp_path / name for name in ("skulls.old", "skulls.tmp", ".skulls.partial")]
    for folder in theirs:
        folder.mkdir()
        (folder / "thesis.tex").write_text("mine")
    flags = f"--input={tmp_path}", f"--output={tmp_path / 'skulls'}", *QUICK
    assert command(capfd, *flags)[0] == 0
    (tmp_path / "skulls" / "notes").mkdir()
    (tmp_path / "skulls" / "notes" / "a.txt").write_text("mine")
    write_quick(tmp_path / "b", patient="b")
    status, lines = command(capfd, *flags)
    assert (status, lines[1]) == (0, "cut before: 1 of 2 scans")
    assert len(subjects(tmp_path / "skulls")) == 2
    assert (tmp_path / "skulls" / "notes" / "a.txt").read_text() == "mine"
    assert all((folder / "thesis.tex").read_text() == "mine" for folder in theirs)
    assert {p.name for p in tmp_path.iterdir()} - {p.name for p in theirs} == {
        *("a", "b", "skulls", "skulls.pieces", "skulls.salt")
    }
    with lock.only_writer(tmp_path / "skulls"), futures.ThreadPoolExecutor(1) as pool:
        status, lines = pool.submit(command, capfd, *flags).result()
    assert (status, len(lines)) == (2, 1)
    assert f"process {os.getpid()} on" in lines[0]


def test_what_tells_patients_apart_is_part_of_a_data_set(tmp_path, capfd, no_figures):
    for name in ("one", "two"):
        write_quick(tmp_path / "in" / name, patient="A", KVP=len(name) + ord(name[0]))
    flags = f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", *QUICK
    assert command(capfd, *flags)[0] == 0
    assert len(set(subjects(tmp_path / "out"))) == 1
    status, lines = command(capfd, *flags, "--subject_by=folder")
    assert (status, len(lines)) == (2, 1)
    assert "was made with other options (subject_by id there, folder now); give another" in lines[0]
    shutil.rmtree(tmp_path / "out")  # pieces are of both ways
    status, lines = command(capfd, *flags, "--subject_by=folder")
    assert (status, lines[1]) == (0, "cut before: 2 of 2 scans")
    assert len(set(subjects(tmp_path / "out"))) == 2
    warnings = json.loads((tmp_path / "out" / "summary.json").read_text())["warnings"]
    assert warnings[:2] == [
        "patients are told apart by folder: each of 2 folders right below --input is taken for one",
        "1 PatientID in several folders, in both splits: one patient twice?",
    ]


def test_what_makes_one_patient_of_two_in_different_splits_is_refused(tmp_path, capfd, no_figures):
    for name in "ab":
        write_quick(tmp_path / "in" / name, PatientID="", StudyInstanceUID=f"1.{ord(name)}")
    flags = f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", *QUICK
    assert command(capfd, *flags)[0] == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    write_quick(tmp_path / "in" / "a" / "more", patient="c", StudyInstanceUID=f"1.{ord('b')}")
    status, lines = command(capfd, *flags)
    assert (status, lines[-1].split(": ")[2]) == (2, "1 patient would be in both splits")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


def test_numbers_and_names_of_files_that_are_no_standard(tmp_path, capfd, no_figures):
    """A decimal comma, two voltages, a thickness that is none; a name in Latin-1."""
    write_quick(tmp_path / "in" / "decimal", patient="A", PixelSpacing=[1.5, 1.5])
    for path in (tmp_path / "in" / "decimal").iterdir():
        path.write_bytes(path.read_bytes().replace(b"1.5\\1.5", b"1,5\\1,5"))
    write_quick(tmp_path / "in" / "volts", patient="B", KVP=["80", "140"], SliceThickness="")
    write_quick(tmp_path / "C", PatientID="")
    (tmp_path / "C").rename(os.fsdecode(os.fsencode(tmp_path / "in") + b"/M\xfcller"))
    status, lines = command(capfd, f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", *QUICK)
    assert (status, [line for line in lines if line.startswith("left out")]) == (0, [])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert sorted((s["source_pixel_mm"], s["kvp"]) for s in summary["scans"].values()) == [(1, 0), (1, 120), (1.5, 120)]
    assert summary["warnings"][0].startswith("no PatientID in 1 scan: ")
    for path in (p for name in ("out", "out.pieces") for p in (tmp_path / name).rglob("*") if p.is_file()):
        assert not [name for name in (b"ller", b"decimal", b"volts", b"SECRET") if name in path.read_bytes()]


def test_the_report_in_a_browser(made):
    with browser.opened(made / "skulls" / "report.html") as driver:
        assert browser.complaints(driver) == []
        assert driver.title == "Skull segments"
        text = driver.find_element("tag name", "body").text
        for wanted in ("fewer than 20 subjects (2)", "near duplicates", "windows looked at", "H60"):
            assert wanted in text, wanted
        pictures = driver.find_elements("tag name", "img")
        assert len(pictures) >= 3
        assert all(driver.execute_script("return arguments[0].naturalWidth", p) > 500 for p in pictures)
        wide = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert driver.execute_script(wide)
