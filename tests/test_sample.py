"""The sampling command: what it writes, how it goes on, what it refuses."""

import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import nibabel
import numpy as np
import pydicom
import pytest
from matplotlib import pyplot as plt

import skullgan_jax
from skullgan_jax import sample
from skullgan_jax.errors import InputError
from skullgan_jax.model import draw
from skullgan_jax.sampling import names
from skullgan_jax.sampling.store import Store
from skullgan_jax.slices import duplicates, radiology

ROOT = pathlib.Path(__file__).parents[1]
SEED = 3


@pytest.fixture(scope="module")
def hu(small_model):
    """The first samples of the seed."""
    return skullgan_jax.load(small_model).sample(64, seed=SEED)


@pytest.fixture(scope="module")
def measures(small_model):
    return next(skullgan_jax.load(small_model).sampler(seed=SEED).ranges([(0, 64)])).measures


@pytest.fixture
def command(small_model, monkeypatch, capsys):
    """A function of flags: exit status and lines on stderr of the command, in shards of 16."""

    def run(**flags):
        flags = {"model": small_model, "seed": SEED, "shard": 16} | flags
        try:
            sample.run([f"--{name}={value}" for name, value in flags.items()])
            status = 0
        except SystemExit as ended:
            status = ended.code
        return status, capsys.readouterr().err.splitlines()

    return run


def files(folder, *, but="\0"):
    """The bytes of all files below by name, without those whose names begin with `but`."""
    found = {str(p.relative_to(folder)): p.read_bytes() for p in pathlib.Path(folder).rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if not name.startswith(but)}


def test_npy(command, small_model, hu, measures, tmp_path):
    """With what they are, their measures and a picture beside; nothing else but the draws is left."""
    status, lines = command(num=20, output=tmp_path / "s.npy")
    assert status == 0
    assert lines[0].startswith("sampled 20/20, ")
    assert lines[1] == f"wrote 20 samples to {tmp_path}/s.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy", allow_pickle=False), hu[:20])
    about = json.loads((tmp_path / "s.json").read_text())
    expected = {
        "num": 20,
        "seed": 3,
        "start": 0,
        "batch_norm": "standing",
        "dtype": "float32",
        "pixel_mm": 0.46875,
        "calibration": {"hu_min": 0.0, "hu_max": 2500.0},
        "model": "model",
        "model_sha256": skullgan_jax.load(small_model).sha256,
        "version": skullgan_jax.__version__,
        "measures": radiology.DEFINITIONS,
    }
    assert {name: about[name] for name in expected} == expected
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(20))
    for name in radiology.NAMES:
        np.testing.assert_allclose([float(row[name]) for row in rows], measures[name][:20], rtol=1e-5)
    assert plt.imread(tmp_path / "s.png").shape[1] > 500
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.csv", "s.json", "s.npy", "s.npy.draws", "s.png"]


def test_nifti(command, hu, tmp_path):
    command(num=20, output=tmp_path / "s.nii.gz")
    command(num=20, output=tmp_path / "t.nii", start=1)
    for name, start in (("s.nii.gz", 0), ("t.nii", 1)):
        image = nibabel.load(tmp_path / name)
        assert image.shape == (128, 128, 20)
        assert image.get_data_dtype() == np.int16
        assert (image.header["qform_code"], image.header["sform_code"]) == (2, 2)
        assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.header.get_zooms(), [0.46875, 0.46875, 1])
        assert nibabel.aff2axcodes(image.affine) == ("R", "P", "S")
        np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), hu[start : start + 20])
        assert b"synthetic, skullgan_jax" in bytes(image.header["descrip"])
        assert json.loads((tmp_path / f"{name[0]}.json").read_text())["num"] == 20


def test_dicom(command, hu, tmp_path):
    """As DOMAIN asks of synthetic images: nobody's, and said so in every way."""
    command(num=3, output=tmp_path / "s", format="dicom")
    found = [pydicom.dcmread(p) for p in sorted((tmp_path / "s").rglob("*.dcm"))]
    assert len(found) == 3
    for i, ds in enumerate(found):
        np.testing.assert_array_equal(pydicom.pixels.apply_rescale(ds.pixel_array, ds), hu[i])
        assert ds[0x0008, 0x001C].value == "YES"
        assert list(ds.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
        assert ds.PatientName == f"SYNTHETIC^{i}"
        assert (ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType) == (1, -1024, "HU")
        assert (ds.BurnedInAnnotation, ds.RecognizableVisualFeatures) == ("NO", "NO")
        assert list(ds.PixelSpacing) == [0.46875, 0.46875]
        assert ds.DerivationDescription.startswith("synthetic, skullgan_jax")
        assert ds.DerivationDescription.endswith("-1 to +1 is 0 to 2500 HU")
        assert not ds.KVP
        assert "ConvolutionKernel" not in ds
        assert not ds.StudyDate
    for uid in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({ds[uid].value for ds in found}) == 3
    (tmp_path / "s" / "notes.txt").write_text("mine")  # stays when samples are added
    before = files(tmp_path / "s")
    assert command(num=4, output=tmp_path / "s", format="dicom")[0] == 0
    assert files(tmp_path / "s").items() > before.items()
    assert command(num=4, output=f"{tmp_path}/s/", format="dicom")[1] == [f"{tmp_path}/s: has 4 samples already"]


def test_a_sheet(command, hu, tmp_path):
    command(num=5, output=tmp_path / "s.png")
    page = plt.imread(tmp_path / "s.png")[..., 0]
    assert page.shape == (2 * 130 - 2, 3 * 130 - 2)
    np.testing.assert_allclose(page[130:, 130:258], np.clip(hu[4] / 2000, 0, 1), atol=2 / 255)
    assert b'"seed": 3' in (tmp_path / "s.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.csv", "s.json", "s.png", "s.png.draws"]


def test_a_store(command, hu, measures, tmp_path):
    """Drawn into in place."""
    command(num=40, output=tmp_path / "s.zarr")
    store = Store(tmp_path / "s.zarr")
    assert (store.about["complete"], store.about["num"], store.about["seed"]) == (True, 40, 3)
    found = store.read(0, 40)
    np.testing.assert_array_equal(found.hu, hu[:40])
    np.testing.assert_array_equal(found.index, range(40))
    np.testing.assert_allclose(found.measures["mean_hu"], measures["mean_hu"][:40], rtol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("name", ["s.npy", "s.zarr"])
def test_more_are_added(command, hu, tmp_path, name):
    """Shards that are there stay as they are; the result is that of one go."""
    command(num=20, output=tmp_path / name)
    draws = tmp_path / (name if name == "s.zarr" else f"{name}.draws")
    first = draws / "hu" / "c" / "0" / "0" / "0"
    written = first.stat().st_mtime_ns
    status, lines = command(num=40, output=tmp_path / name)
    assert (status, lines[0]) == (0, f"{draws}: 1 of 3 shards are there already")
    assert lines[1].startswith("sampled 24/24, ")
    assert first.stat().st_mtime_ns == written
    (tmp_path / "once").mkdir()
    command(num=40, output=tmp_path / "once" / name)
    whole = files(tmp_path / "once")
    assert files(tmp_path, but="once/") == whole
    status, lines = command(num=30, output=tmp_path / name)
    assert (status, lines) == (0, [f"{tmp_path / name}: has 40 samples already"])
    assert files(tmp_path, but="once/") == whole


def test_damage_is_mended(command, hu, tmp_path):
    """A truncated shard, and a truncated output."""
    command(num=40, output=tmp_path / "s.npy")
    before = files(tmp_path)
    (tmp_path / "s.npy").write_bytes(before["s.npy"][:-1000])
    shard = tmp_path / "s.npy.draws" / "hu" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-50])
    status, lines = command(num=40, output=tmp_path / "s.npy")
    assert (status, lines[0]) == (0, f"{tmp_path}/s.npy.draws: 2 of 3 shards are there already")
    assert files(tmp_path) == before


def test_damage_in_a_complete_store_is_mended(command, hu, tmp_path):
    command(num=40, output=tmp_path / "s.zarr")
    before = files(tmp_path)
    shard = tmp_path / "s.zarr" / "hu" / "c" / "1" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-50])
    status, lines = command(num=40, output=f"{tmp_path}/s.zarr/")
    assert (status, lines[0]) == (0, f"{tmp_path}/s.zarr: 2 of 3 shards are there already")
    assert files(tmp_path) == before
    assert command(num=40, output=tmp_path / "s.zarr")[1] == [f"{tmp_path}/s.zarr: has 40 samples already"]


def test_fewer_than_a_copy_was_begun_for(command, measures, tmp_path):
    """A selection whose copy was interrupted is completed, as a store without one is."""
    flags = {"output": tmp_path / "s.zarr", "where": f"mean_hu<{float(np.median(measures['mean_hu']))}"}
    command(num=20, **flags)
    before = files(tmp_path)
    Store(tmp_path / "s.zarr")._put_about(complete=False)
    (tmp_path / "s.zarr" / "crc32" / "c" / "1").unlink()
    status, lines = command(num=10, **flags)
    assert (status, lines[0]) == (0, f"{tmp_path}/s.zarr: is one of 20 samples; they are completed")
    assert files(tmp_path) == before


def test_processes_share_a_job(command, hu, tmp_path):
    """The last one completes it; a dead one's part is done by any other."""
    flags = {"num": 60, "output": tmp_path / "s.npy", "processes": 3}
    assert command(**flags, process=1)[1][-1].startswith(
        "process 1 of 3 has done its part; 3 shards of others are not there yet"
    )
    assert not (tmp_path / "s.npy").exists()
    status, lines = command(**flags, process=2)
    assert status == 0
    assert not any(line.startswith("sampled") for line in lines)  # process 0 alone tells how far it is
    status, lines = command(num=60, output=tmp_path / "s.npy")
    assert lines[0] == f"{tmp_path}/s.npy.draws: 2 of 4 shards are there already"
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[:60])


def test_slurm_says_which_process(command, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert command(num=20, output=tmp_path / "s.zarr")[1][-1].startswith("process 1 of 2 has done its part; 1 shards")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert command(num=20, output=tmp_path / "s.zarr")[1][-1] == f"wrote 20 samples to {tmp_path}/s.zarr"


def test_a_condition(command, hu, measures, tmp_path):
    """Against numpy on the same draws."""
    limit = float(np.median(measures["mean_hu"]))
    fits = np.flatnonzero(measures["mean_hu"] < limit)
    status, lines = command(num=10, output=tmp_path / "s.npy", where=f"mean_hu<{limit}")
    draws = fits[9] + 1
    assert status == 0
    assert f"kept 10 of {draws} draws ({1000 / draws:.3g} %), {1000 / draws:.3g} % fit" in lines
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[fits[:10]])
    about = json.loads((tmp_path / "s.json").read_text())
    assert (about["draws"], about["kept"], about["where"]) == (draws, 10, f"mean_hu<{limit}")
    with (tmp_path / "s.csv").open() as file:
        assert [int(row["index"]) for row in csv.DictReader(file)] == fits[:10].tolist()


def test_distinct_ones(command, hu, tmp_path):
    """By one process, by two, into an array and a store, in one go and in two: the same, and brute force's."""
    seen, kept = (hu[:, :50] > 1200).reshape(64, -1), []
    distances = (seen[:, None] != seen).sum(-1)
    least = int(np.quantile(distances[np.triu_indices(64, 1)], 0.03))
    for i in range(64):
        if all(distances[i, j] >= least for j in kept):
            kept.append(i)
    assert 8 < len(kept) < 60
    num = len(kept) - 1
    wanted = hu[kept[:num]]
    command(num=num, output=tmp_path / "s.npy", unique=least)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), wanted)
    command(num=num // 2, output=tmp_path / "t.zarr", unique=least)
    command(num=num, output=tmp_path / "t.zarr", unique=least)
    np.testing.assert_array_equal(Store(tmp_path / "t.zarr").read(0, num).hu, wanted)
    np.testing.assert_array_equal(Store(tmp_path / "t.zarr").read(0, num).index, kept[:num])
    for process in (1, 0, 1, 0):
        command(num=num, output=tmp_path / "u.npy", unique=least, process=process, processes=2)
    np.testing.assert_array_equal(np.load(tmp_path / "u.npy"), wanted)
    assert duplicates.Distinct(least).add(np.load(tmp_path / "u.npy")).all()


def test_the_share_that_fits_is_known_before_the_first_shard(command, measures, tmp_path):
    """A process that is ahead goes by its own draws: here a tenth or so fits, and one shard would not do."""
    limit = float(np.quantile(measures["mean_hu"], 0.1))
    command(num=10, output=tmp_path / "s.npy", where=f"mean_hu<{limit}", process=1, processes=2)
    draws = Store(tmp_path / "s.npy.draws")
    there = np.setdiff1d(np.arange(40), draws.uncommitted(0, 40))
    assert (there % 2 == 1).all()
    found = np.concatenate([draws.read(*draws.rows(shard)).measures["mean_hu"] for shard in there])
    # The last one may be on its way to the disk while it is decided whether to go on.
    assert (found < limit).sum() >= 10 > (found[:-32] < limit).sum()


def test_both_together(command, hu, measures, tmp_path):
    limit = float(np.median(measures["mean_hu"]))
    fits = np.flatnonzero(measures["mean_hu"] < limit)
    kept = fits[duplicates.Distinct(700).add(hu[fits])]
    assert 10 < len(kept) < len(fits)
    command(num=10, output=tmp_path / "s.npy", where=f"mean_hu<{limit}", unique=700)
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), hu[kept[:10]])


def test_nothing_fits(command, measures, tmp_path):
    status, lines = command(num=5, output=tmp_path / "s.npy", where="mean_hu<0", max_draws=40)
    assert status == 2
    assert lines[-1].startswith(
        "error: --num=5: 0 of 40 draws (0 %), 0 % fit; ask for less, or give --max_draws above 40"
    )
    seen = measures["mean_hu"][:40]
    assert lines[-1].endswith(f"they have mean_hu {seen.min():.4g} to {seen.max():.4g}, median {np.median(seen):.4g}")
    assert not (tmp_path / "s.npy").exists()
    hu = Store(tmp_path / "s.npy.draws").read(0, 40).hu
    assert not hu.any()  # what does not fit takes no room
    for process in (1, 0):
        again = command(
            num=5, output=tmp_path / "s.npy", where="mean_hu<0", max_draws=120, process=process, processes=2
        )
    assert again[1][-1].startswith("error: --num=5: 0 of 120 draws (0 %), 0 % fit; ask for less")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 4}, "seed was 3 now 4"),
        ({"start": 5}, "start was 0 now 5"),
        ({"batch_norm": "running"}, "batch_norm was standing now running"),
        ({"batch": 4}, "batch was 16 now 4"),
        ({"dtype": "bfloat16"}, "dtype was float32 now bfloat16"),
        ({"where": "sdr<1"}, "where was None now sdr<1"),
        ({"unique": 7}, "unique was None now 7"),
    ],
)
def test_other_samples_are_refused(command, tmp_path, changed, said):
    for name in ("s.npy", "s.zarr"):
        command(num=5, output=tmp_path / name)
        before = files(tmp_path)
        status, lines = command(**{"num": 9, "output": tmp_path / name} | changed)
        assert (status, lines) == (
            2,
            [f"error: {tmp_path / name}: holds other samples: {said}; give another --output or remove it"],
        )
        assert files(tmp_path) == before


def test_another_model_is_refused(command, small_model, tmp_path):
    command(num=5, output=tmp_path / "s.zarr")
    other = skullgan_jax.load(small_model)
    other.g_params["conv4"]["kernel"] = -other.g_params["conv4"]["kernel"]
    other.save(tmp_path / "other")
    status, lines = command(num=9, output=tmp_path / "s.zarr", model=tmp_path / "other")
    hashes = [skullgan_jax.load(path).sha256[:12] for path in (small_model, tmp_path / "other")]
    assert status == 2
    assert f"model was model ({hashes[0]}) now other ({hashes[1]})" in lines[0]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"num": 0}, "--num=0: give 1 or more"),
        ({"num": "x"}, "argument --num: invalid int value: 'x'; see python -m skullgan_jax.sample --help"),
        ({"model": "nothing"}, "nothing: no model here (model.json is missing); give a model directory"),
        ({"output": "s.txt"}, "--output=s.txt: ends in none of .npy, .zarr, .nii, .nii.gz, .png; give --format="),
        ({"output": "s", "format": "npy"}, "--output=s: --format=npy needs a name that ends in .npy"),
        ({"output": "s.png", "num": 500}, "--num=500: a sheet holds 400 at most; give fewer, or another format"),
        ({"output": "gs://b/s.npy"}, "--output=gs://b/s.npy: a bucket takes --format=zarr"),
        ({"where": "sdr~1"}, '--where="sdr~1": invalid syntax; compare sdr, '),
        ({"unique": 0}, "--unique=0: give 1 or more"),
        ({"batch": 0}, "--batch=0: give 1 or more"),
        ({"seed": -1}, "--seed=-1: give 0 or more"),
        ({"start": 1 << 32}, "indices end at 2^32 - 1"),
        ({"num": 1 << 33}, "--start=0 --num=8589934592: indices end at 2^32 - 1"),
        ({"output": ".", "format": "dicom"}, "--output=.: give the name of a file or folder to be made"),
        ({"process": 2}, "--process and --processes belong together; give both"),
        ({"process": 2, "processes": 2}, "--process=2 --processes=2: give 0 to 1 of 1 or more"),
        ({"batch_norm": "none"}, "argument --batch_norm: invalid choice: 'none'"),
    ],
)
def test_wrong_flags(command, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    status, lines = command(**{"num": 5, "output": "s.npy"} | flags)
    assert (status, len(lines)) == (2, 1), lines
    assert lines[0].startswith(f"error: {said}") or said in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_one_name_for_two_formats(command, tmp_path):
    """They would share what lies beside."""
    command(num=5, output=tmp_path / "s.npy")
    status, lines = command(num=5, output=tmp_path / "s.nii")
    assert (status, len(lines)) == (2, 1)
    assert "s.json is there, of s.npy; give another name or folder" in lines[0]


@pytest.mark.parametrize("taken", ["s.npy", "s.json", "s.csv", "s.png"])
def test_files_of_others_stay(command, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    status, lines = command(num=5, output=tmp_path / "s.npy")
    assert (status, len(lines)) == (2, 1)
    assert f"{taken} is there, and no s.json says that it belongs to these samples" in lines[0]
    assert files(tmp_path) == {taken: b"mine"}


def test_no_room(command, small_model, compiled, tmp_path):
    """The kernel refuses to write on: one line, exit 2, and with room the same command ends as if nothing had been."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": compiled, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}
    flags = [f"--model={small_model}", "--num=20", "--shard=16", f"--seed={SEED}", f"--output={tmp_path}/s.npy"]
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from skullgan_jax import sample\n"
        "from skullgan_jax.model import trained\n"  # the compile cache may be written, the samples not
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))\n"
        "sample.run(sys.argv[1:])"
    )
    lines = []
    for limit in (100_000, 600_000):
        process = [sys.executable, "-c", code, str(limit), *flags]
        done = subprocess.run(process, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        lines.append((done.returncode, done.stderr.splitlines()[-1]))
    assert lines[0][0] == lines[1][0] == 2, lines
    assert lines[0][1].startswith(f"error: {tmp_path}/s.npy.draws: cannot be written (")
    assert lines[1][1].startswith(f"error: --output={tmp_path}/s.npy: cannot be written (File too large)")
    assert command(num=20, output=tmp_path / "s.npy")[0] == 0
    assert len(np.load(tmp_path / "s.npy")) == 20
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


def test_as_users_type_it():
    code = "import sys; sys.argv[1:] = ['sample', '--help']\nfrom skullgan_jax.cli import main\ntry: main()\n"
    code += "finally: assert not {'jax', 'numpy', 'tensorflow'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (
        "python -m skullgan_jax.sample --model=models/skullgan --num=1000 --seed=0 --output=skulls.npy" in done.stdout
    )


def _start(model, output, num, compiled, processes):
    """The processes of a job."""
    command = [
        sys.executable,
        "-m",
        "skullgan_jax.sample",
        f"--model={model}",
        f"--num={num}",
        "--shard=16",
        "--seed=3",
    ]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",  # set, the process does not start itself again
    }
    return [
        subprocess.Popen(
            [*command, f"--output={output}", f"--process={process}", f"--processes={processes}"],
            env=environment,
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        for process in range(processes)
    ]


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment(kills, command, small_model, compiled, tmp_path):
    """Both processes are killed soon after a shard was written, again and again: the bytes are those of one go."""
    chance, num, output = random.Random(0), 300 + 120 * kills, tmp_path / "killed.zarr"

    def shards():
        return len(list(output.glob("hu/c/*/0/0")))

    for _ in range(kills):
        before, running = shards(), _start(small_model, output, num, compiled, 2)
        deadline = time.monotonic() + 120
        while shards() == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.15))  # a few shards long
        chance.shuffle(running)
        for process in running:
            assert process.poll() is None  # there is work left
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert not Store(output).about["complete"]
    for process in _start(small_model, output, num, compiled, 2):
        assert process.wait(timeout=300) == 0
    assert command(num=num, output=tmp_path / "whole.zarr")[0] == 0
    for path in (output, tmp_path / "whole.zarr"):
        assert Store(path).about["complete"]
    assert files(output) == files(tmp_path / "whole.zarr")


def test_formats_are_told_by_the_ending():
    assert [names.form(f"x/s{e}", None) for e in (".npy", ".ZARR", ".nii", ".nii.gz", ".png")] == [
        *("npy", "zarr", "nifti", "nifti", "png")
    ]
    assert names.form("x/s", "dicom") == "dicom"
    assert names.form("gs://b/s", "zarr") == "zarr"
    with pytest.raises(InputError, match="ends in none of"):
        names.form("x/s.jpg", None)
    assert draw.INDICES == 2**32
