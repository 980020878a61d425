"""One judgement of real against real, with everything that there is, asserted by many tests."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

import skullgan_jax
from skullgan_jax.data import fingerprint, phantom
from skullgan_jax.evaluate import __main__ as command
from skullgan_jax.evaluate.measures import classify, embedding
from skullgan_jax.slices import radiology
from tests.support import QUICK, quick_jit

_SOME_STEPS = QUICK | {"xla_backend_optimization_level": 1}  # half the time of a step without any


@pytest.fixture(scope="session", autouse=True)
def _quick(compiled):
    """Programs that compile fast, few steps of the classifier, as what it has to find here is plain to see, and few
    points of the map.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "STEPS", 20)
        patch.setattr(embedding, "SHOWN", 20)
        patch.setattr(radiology, "_program", functools.partial(quick_jit, static_argnums=1)(radiology.measure))
        classify._compiled.cache_clear()
        with pytest.MonkeyPatch.context() as while_made:
            while_made.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=_SOME_STEPS))
            classify._compiled()
        yield
    classify._compiled.cache_clear()


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """The folder of real.npy and fake.npy, 200 phantoms each, and train.npy, 120."""
    folder = tmp_path_factory.mktemp("sets")
    hu = phantom.segments(400, 5)
    for name, x in (("real", hu[:200]), ("fake", hu[200:]), ("train", phantom.segments(120, 4))):
        np.save(folder / f"{name}.npy", x)
    return folder


@pytest.fixture(scope="session")
def model(small_model, sets, tmp_path_factory):
    """The folder of a model that says to be trained on train.npy."""
    hu = np.load(sets / "train.npy")
    data = {"name": "skull", "num": len(hu), "fingerprint": fingerprint.of(hu)}
    about = {"workdir": "run", "step": 3, "data": data}
    folder = tmp_path_factory.mktemp("models") / "run"
    dataclasses.replace(skullgan_jax.load(small_model), provenance=about, folder=None).save(folder)
    return folder


@pytest.fixture(scope="session")
def report(sets, model, tmp_path_factory):
    """The folder of a whole report, with everything that there is."""
    output = tmp_path_factory.mktemp("report") / "out"
    output.mkdir()
    (output / "turing.key.json").write_text("{}")
    command.run(
        [
            *(f"--{name}={sets}/{name}.npy" for name in ("real", "fake", "train")),
            *(f"--model={model}", f"--output={output}", "--pixel_mm=0.46875", "--seed=1"),
        ]
    )
    return output


@pytest.fixture(scope="session")
def same(report):
    """Its numbers."""
    return json.loads((report / "metrics.json").read_text())
