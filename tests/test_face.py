"""The public face: what `import skullgan_jax` shows, how little it takes, and its types."""

import inspect
import pathlib
import pydoc
import subprocess
import sys
import typing

import numpy as np
import pytest

import skullgan_jax

ROOT = pathlib.Path(__file__).parents[1]
NAMES = {"load", "Model", "Calibration", "Generator", "Discriminator", "InputError", "MachineError"}
NAMES |= {"acoustics", "__version__"}


def test_the_names():
    assert set(skullgan_jax.__all__) == NAMES
    assert set(dir(skullgan_jax)) >= NAMES
    assert all(getattr(skullgan_jax, name).__doc__ for name in NAMES)
    with pytest.raises(AttributeError, match="module 'skullgan_jax' has no attribute 'laod'"):
        skullgan_jax.laod  # noqa: B018  to ask for it is the test


def test_the_import_takes_nothing_but_itself():
    """Neither JAX nor numpy, until a name is asked for; then the name is the thing itself."""
    code = """
import sys, skullgan_jax
others = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names) - {"__main__", "skullgan_jax"}
assert not others & {"jax", "numpy", "flax", "tensorflow"}, others
assert "load" not in vars(skullgan_jax)
from skullgan_jax import Calibration
assert "jax" not in sys.modules and vars(skullgan_jax)["Calibration"] is Calibration"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_shows_types():
    said = pydoc.plain(pydoc.render_doc(skullgan_jax.load))
    assert "load(path: str | os.PathLike) -> skullgan_jax.model.trained.Model" in said
    for thing in (skullgan_jax.load, *(_public(skullgan_jax.Model)), *(_public(skullgan_jax.Calibration))):
        signature = inspect.signature(thing)
        assert signature.return_annotation is not inspect.Signature.empty, thing
        parameters = [p for name, p in signature.parameters.items() if name not in ("self", "cls")]
        assert all(p.annotation is not inspect.Parameter.empty for p in parameters), thing
    assert typing.get_type_hints(skullgan_jax.Model.sample)["return"] is np.ndarray
    assert (pathlib.Path(skullgan_jax.__file__).parent / "py.typed").is_file()


def _public(kind):
    """Methods and class methods."""
    found = [member for name, member in inspect.getmembers(kind) if not name.startswith("_")]
    return [member for member in found if inspect.isfunction(member) or inspect.ismethod(member)]
