"""Compiled programs stay for the next process, whatever becomes of their folder."""

import os
import pathlib
import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest
from jax import monitoring

from skullgan_jax.errors import MachineError
from skullgan_jax.machine import memory, places, programs
from tests import bucket
from tests.conftest import ROOT, cache_in

# A program that is compiled, and how often XLA was asked to, from Python.
COMPILES = """
import jax, jax.numpy as jnp
from jax import monitoring
from skullgan_jax.machine import programs
seen = []
monitoring.register_event_listener(lambda name, **_: seen.append(name))
with programs.kept():
    assert int(jax.jit(lambda x: (x * 3).sum())(jnp.arange(4))) == 18
print(sum(name.endswith("/cache_hits") for name in seen), jax.config.jax_compilation_cache_dir)
"""


def compiles(home: pathlib.Path, **environment) -> tuple[int, str]:
    """How many programs a new process found, and what it says on stderr."""
    clean = {k: v for k, v in os.environ.items() if k not in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", COMPILES],
        env=clean | {"HOME": str(home), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    hits, folder = done.stdout.split()
    assert folder == environment.get("JAX_COMPILATION_CACHE_DIR", "None")  # as it was
    return int(hits), done.stderr


def test_the_second_process_compiles_nothing_and_a_cut_entry_is_written_again(tmp_path):
    assert compiles(tmp_path) == (0, "")
    entries = list((tmp_path / ".cache" / "skullgan_jax" / "compiled" / memory.kind()).glob("*-cache"))
    hits, said = compiles(tmp_path)
    assert (hits, said) == (len(entries), "")
    whole = max(entries, key=lambda entry: entry.stat().st_size)
    whole.write_bytes(whole.read_bytes()[:100])
    assert compiles(tmp_path) == (hits - 1, "")
    assert compiles(tmp_path) == (hits, "")


def test_where_nothing_can_be_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for home in (tmp_path / "nowhere", tmp_path / "file"):
        (tmp_path / "file").touch()
        monkeypatch.setenv("HOME", str(home))
        assert programs.folder() is None
    assert os.listdir(tmp_path) == ["file"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert programs.folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = programs.folder()
    assert path == str(tmp_path / "cache" / "skullgan_jax" / "compiled" / memory.kind())
    os.chmod(path, 0o777)  # somebody else may have put a program there
    assert programs.folder() is None


def test_a_folder_that_was_named_is_left_to_jax(tmp_path, compiled):
    before = dict(jax.config.values)
    with programs.kept():
        assert dict(jax.config.values) == before
    assert before["jax_compilation_cache_dir"] == compiled


def test_one_folder_for_as_long_as_one_of_several_needs_it(tmp_path, compiled, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_in(None)
    try:
        before, kept = dict(jax.config.values), programs.kept()
        with kept:
            with programs.kept(), pytest.raises(KeyError), programs.kept():
                raise KeyError
            assert jax.config.jax_compilation_cache_dir == programs.folder()
            programs.note("step", 41.26)
            assert programs.took("step") == 41.3
        assert dict(jax.config.values) == before
        assert programs.took("step") is None
    finally:
        cache_in(compiled)


def test_programs_of_a_bucket(compiled, monkeypatch, capfd):
    """The next process finds what this one compiled, in a folder of another name; without the bucket it compiles."""
    seen, faults, before = [], [], jax.config.jax_persistent_cache_enable_xla_caches
    monitoring.register_event_listener(seen.append)
    monkeypatch.setattr(places, "_RETRIES", {"max_retries": 1, "initial_delay": "1ms"})

    def process():
        """How many programs of two were found by one that begins, and how it went for the second of them."""
        monkeypatch.setattr(programs, "_bucket", None)
        cache_in("gs://somebody/compiled")
        seen.clear()
        for factor in (3, 5):
            with programs.kept():
                assert int(jax.jit(lambda x, by=factor: (x * by).sum())(np.arange(4))) == 6 * factor
                programs.note(f"step-{factor}", 41.26)
                assert programs.took(f"step-{factor}") == 41.3
        return sum(name.endswith("/cache_hits") for name in seen), jax.config.jax_compilation_cache_dir

    try:
        with bucket.serving(lambda method, _: 503 if method in faults else None) as objects:
            found, folders = zip(process(), process(), strict=True)
            assert found == (0, 2)
            assert folders[0] != folders[1]
            names = {name.removeprefix(f"compiled/{memory.kind()}/") for name in objects}
            assert {"step-3.seconds", "step-5.seconds"} < names
            assert sum(name.endswith("-cache") for name in names) == 2
            faults.append("POST")
            objects.clear()
            assert process()[0] == 0
            faults.append("GET")
            with pytest.raises(MachineError, match="gs://somebody/compiled"):
                process()
    finally:
        jax.config.update("jax_persistent_cache_enable_xla_caches", before)
        cache_in(compiled)
        monitoring.unregister_event_listener(seen.append)


def test_what_was_not_read_for_longest_goes_first(tmp_path):
    packed = zlib.compress(bytes(100))
    for day, name in enumerate(("old", "read", "new")):
        (tmp_path / f"{name}-cache").write_bytes(packed)
        os.utime(tmp_path / f"{name}-cache", (86400 * (9 if name == "read" else day), 86400 * day))
    (tmp_path / "other").write_bytes(bytes(1000))
    programs.tidy(tmp_path, limit=2 * len(packed))
    assert {p.name for p in tmp_path.iterdir()} == {"read-cache", "new-cache", "other", ".tidied"}
    programs.tidy(tmp_path, limit=len(packed))
    assert {p.name for p in tmp_path.glob("*-cache")} == {"read-cache"}
