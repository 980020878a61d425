"""What the tests of a whole run share: one tiny configuration, its compiled programs, one finished run."""

import functools
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from skullgan_jax.nets.pair import Pair

ROOT = pathlib.Path(__file__).resolve().parents[1]
# One set of shapes for all tests, so that each program is compiled once: 4 steps an epoch, 12 in all.
TINY = {
    "epochs": 3,
    "batch_size": 4,
    "data.num": 16,
    "model.ngf": 16,
    "model.ndf": 4,
    "model.nz": 8,
    "log_every": 1,
    "sample_every": 3,
    "checkpoint_every": 1,
    "judge_slices": 4,
    "final_slices": 4,
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """For pytest -n: the tests of a file stay in one process, and so do all files that share an expensive fixture."""
    from xdist.scheduler import LoadFileScheduling

    class BySharedFixture(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = ROOT / nodeid.partition("::")[0]
            return _sharing(file)

    return BySharedFixture(config, log)


@functools.cache
def _sharing(file: pathlib.Path) -> str:
    """What files have in common that are tested in one process."""
    if any(fixture in file.read_text() for fixture in ("finished", "tiny")):
        return "a run"
    return "a report" if "evaluate" in file.parts else str(file)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The folder of compiled programs, for this process and those it starts: as everywhere, or one for the session."""
    from skullgan_jax.machine import programs

    folder = (
        os.environ.get("JAX_COMPILATION_CACHE_DIR") or programs.folder() or str(tmp_path_factory.mktemp("compiled"))
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    cache_in(folder)
    return folder


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """The home of the user, whose cache is in it, is a folder of this test."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path


def cache_in(folder: str | None) -> None:
    """Where JAX keeps compiled programs from now on."""
    jax.config.update("jax_compilation_cache_dir", folder)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def load_config():
    """A function of ("skull", "demo"): what --config=configs/skull.py:demo gives."""

    def load(name, *size):
        spec = importlib.util.spec_from_file_location(f"{name}_config", ROOT / "configs" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.get_config(*size)

    return load


@pytest.fixture(scope="session")
def tiny(compiled, load_config, _programs_traced_once):
    """A function of changes, e.g. **{"recipe.lr": 1}: the tiny configuration with them."""

    def make(**changes):
        config = load_config("skull", "demo")
        config.update_from_flattened_dict(TINY | changes)
        return config

    return make


@pytest.fixture(scope="session")
def tiny_small(tiny, load_config):
    """The same with the recipe for few slices."""

    def make(**changes):
        config = tiny()
        config.recipe = load_config("small_data", "demo").recipe
        config.update_from_flattened_dict(changes)
        return config

    return make


@pytest.fixture(scope="session")
def start(compiled):
    """A function of a workdir, flags, Python code to run before and a command to run it by: training as a process."""

    def popen(workdir, *flags, config="skull", code=None, env=(), by=()):
        flags = [*(f"--config.{k}={v}" for k, v in TINY.items()), *flags]
        args = [f"--config={ROOT}/configs/{config}.py:demo", f"--workdir={workdir}", *flags]
        command = ["-m", "skullgan_jax.main", *args]
        if code:
            command = [
                "-c",
                f"{code}\nfrom skullgan_jax.command.flags import typed\nfrom skullgan_jax.main import run\ntyped(run)",
                *args,
            ]
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": compiled,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # set, the process does not start itself again
        }
        environment = {k: v for k, v in (environment | dict(env)).items() if v is not None}
        return subprocess.Popen(
            [*by, sys.executable, *command],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return popen


@pytest.fixture(scope="session")
def _programs_traced_once():
    """The loop makes its programs anew at each call; tests of the same one need not trace it again."""
    from skullgan_jax.train import judge, program

    patch = pytest.MonkeyPatch()
    steps, make_step = {}, program.make_train_step

    def make_train_step(*networks, air, **about):
        key = (*networks, air is not None and air.tobytes(), *about.items())
        if key not in steps:
            steps[key] = make_step(*networks, air=air, **about)
        return steps[key]

    patch.setattr(program, "make_train_step", make_train_step)
    known, make = {}, judge.grid_and_judge

    def grid_and_judge(config, pair, data):
        key = (pair, config.seed, config.judge_slices, config.batch_size, data.fingerprint)
        if key not in known:
            known[key] = make(config, pair, data)
        return known[key]

    patch.setattr(judge, "grid_and_judge", grid_and_judge)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def finished(tiny, tmp_path_factory):
    """The workdir of an uninterrupted run; not to be written to."""
    from skullgan_jax.train.loop import train

    workdir = tmp_path_factory.mktemp("finished") / "run"
    train(tiny(), workdir)
    return workdir


@pytest.fixture
def finished_copy(finished, tmp_path):
    """A copy of it to go on from."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="session")
def old(tmp_path_factory):
    """The folder of a model, a workdir (run) and a store that were written before the modules moved into rooms."""
    return _unpacked("before_rooms.tar.xz", tmp_path_factory)


@pytest.fixture(scope="session")
def old_skulls(tmp_path_factory):
    """A folder with a data set that prepare wrote before folders told whose a scan is, and its salt."""
    return _unpacked("before_subjects.tar.xz", tmp_path_factory)


def _unpacked(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(ROOT / "tests" / "data" / name) as archive:
        archive.extractall(folder, filter="data")
    return folder / "old"


@pytest.fixture(scope="session")
def small_model(compiled, tmp_path_factory):
    """The folder of a small model, with weights from a formula: its samples differ, and are far from skulls."""
    from skullgan_jax.model import trained
    from skullgan_jax.slices.calibration import Calibration
    from tests import support

    pair = Pair(nz=8, ngf=16, ndf=4)
    g_params, g_stats, d_params, d_stats = support.pair_weights(pair)
    trained = trained.Model(
        pair,
        *(g_params, g_stats, d_params, d_stats),
        calibration=Calibration(0, 2500),
        pixel_mm=0.46875,
        provenance={},
        batches_tracked={"generator": [1] * 5, "discriminator": [1] * 4},
        standing=jax.tree.map(lambda x: np.float32(1.1) * x, g_stats),
    )
    folder = tmp_path_factory.mktemp("small") / "model"
    trained.save(folder)
    return folder


@pytest.fixture(scope="session")
def final_state():
    """A function of a workdir: step and {name: array} of its newest checkpoint, every array of it."""

    def read(workdir):
        import orbax.checkpoint as ocp

        checkpoints = (pathlib.Path(workdir) / "checkpoints").absolute()
        step = max(int(p.name) for p in checkpoints.iterdir() if p.name.isdigit())
        with ocp.PyTreeCheckpointer() as reader:  # as numpy, whatever devices it was written from
            tree = reader.metadata(checkpoints / str(step) / "state").item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            found = reader.restore(checkpoints / str(step) / "state", restore_args=as_numpy)
        flat, _ = jax.tree.flatten_with_path(found)
        return step, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}

    return read


@pytest.fixture(scope="session")
def records():
    """A function of a workdir: its metrics.jsonl, parsed strictly."""
    return lambda workdir: [
        json.loads(line) for line in (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    ]
