"""Files and folders are there as wholes or not at all, and nobody else's are touched."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from concurrent import futures

import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.machine import files, lock


def _names(folder: pathlib.Path) -> set[str]:
    return set(os.listdir(folder))


def _folder(path: pathlib.Path, **texts: str) -> pathlib.Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (path / name).write_text(text)
    return path


def _texts(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_a_folder_takes_the_place_of_a_folder_and_bystanders_stay(tmp_path):
    """In it, of names that are not ours, and beside it, of names like ours."""
    _folder(tmp_path / "m", weights="1", stale="1", notes="mine")
    _folder(tmp_path / "m" / "deep", more="mine")
    (tmp_path / "m" / "link").symlink_to("nowhere")
    beside = {_folder(tmp_path / name, a="mine").name for name in ("m.old", "m.tmp", ".m.0123456789abcdef.partial")}
    (tmp_path / ".m.0123456789abcdef.mark").write_text("mine")
    with files.whole(tmp_path / "m", ours=["weights", "stale*"]) as partial:
        _folder(partial, weights="2")
        assert _texts(tmp_path / "m")["weights"] == "1"
    assert _texts(tmp_path / "m") == {"weights": "2", "notes": "mine"}
    assert (tmp_path / "m" / "deep" / "more").read_text() == "mine"
    assert os.readlink(tmp_path / "m" / "link") == "nowhere"
    assert _names(tmp_path) == {"m", ".m.0123456789abcdef.mark", *beside}
    assert all(_texts(tmp_path / name) == {"a": "mine"} for name in beside)


@pytest.mark.parametrize("exchange", [True, False])
def test_what_failed_leaves_what_was_there(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    _folder(tmp_path / "m", a="1")
    with pytest.raises(ZeroDivisionError), files.whole(tmp_path / "m") as partial:
        _folder(_folder(partial, a="2"), b=str(1 / 0))
    assert _texts(tmp_path / "m") == {"a": "1"}
    assert _names(tmp_path) == {"m"}
    with files.whole(tmp_path / "m", ours=["*"]) as partial:
        _folder(partial, b="3")
    assert _texts(tmp_path / "m") == {"b": "3"}
    assert _names(tmp_path) == {"m"}


def test_a_link_leads_to_what_is_replaced(tmp_path):
    _folder(tmp_path / "store", a="1")
    (tmp_path / "m").symlink_to("store")
    with files.whole(tmp_path / "m", ours=["a"]) as partial:
        _folder(partial, a="2")
    assert (tmp_path / "m").is_symlink()
    assert _texts(tmp_path / "store") == {"a": "2"}
    assert _names(tmp_path) == {"m", "store"}


def test_in_a_folder_of_ours_what_is_not_ours_stays(tmp_path):
    _folder(tmp_path / "r" / "figures", **{"a.png": "1", "own.png": "mine"})
    with files.whole(tmp_path / "r", ours=["figures/a.png", "figures/b.png"]) as partial:
        _folder(partial / "figures", **{"b.png": "2"})
    assert _texts(tmp_path / "r" / "figures") == {"b.png": "2", "own.png": "mine"}


def test_the_folder_that_this_runs_in_is_not_replaced(tmp_path, monkeypatch):
    """Whoever is in it would be in one without a name."""
    _folder(tmp_path / "r" / "deep", a="1")
    monkeypatch.chdir(tmp_path / "r" / "deep")
    for place in (".", "..", tmp_path / "r"):
        with pytest.raises(OSError, match="the folder that this runs in"), files.whole(place):
            pass
    with files.whole("new") as partial:
        _folder(partial, b="2")
    assert _names(tmp_path / "r" / "deep") == {"a", "new"}


def test_where_a_disk_is_mounted_nothing_is_exchanged():
    with pytest.raises(OSError, match="a disk is mounted there"), files.whole("/proc"):
        pass


def test_a_path_through_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files.write_text(tmp_path / "file" / "a", "1")


_KILLED = """
import os, pathlib, sys
from skullgan_jax.machine import files
where = sys.argv[2]
def die(*_):
    os.kill(os.getpid(), 9)
if where == "between":
    files._exchange = lambda one, other: False
    rename = pathlib.Path.rename
    pathlib.Path.rename = lambda self, to: die() if self.name.endswith("partial") else rename(self, to)
with files.whole(sys.argv[1], ours=["a"]) as partial:
    partial.mkdir()
    (partial / "a").write_text("2")
    if where == "inside":
        die()
    if where == "waits":
        print("there", flush=True)
        sys.stdin.read()
if where == "after":
    die()
"""


@pytest.mark.parametrize(("where", "there"), [("inside", "1"), ("between", None), ("after", "2")])
def test_the_next_writer_cleans_up_what_a_killed_one_left(where, there, tmp_path):
    _folder(tmp_path / "m", a="1", notes="mine")
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "m", where])
    assert done.returncode == -signal.SIGKILL
    if there:
        assert _texts(tmp_path / "m") == {"a": there, "notes": "mine"}
    else:
        assert not (tmp_path / "m").exists()
    files.clean(tmp_path / "m")
    assert _texts(tmp_path / "m") == {"a": there or "1", "notes": "mine"}
    assert _names(tmp_path) == {"m"}


def test_one_that_lives_is_left_alone(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, tmp_path / "m", "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"there\n"
        with files.whole(tmp_path / "m") as partial:
            _folder(partial, b="3")
        assert len(_names(tmp_path)) == 3  # m, and the other's with its mark
        other.stdin.close()
        assert other.wait() == 0
    assert _texts(tmp_path / "m") == {"a": "2", "b": "3"}
    assert _names(tmp_path) == {"m"}


def test_the_second_writer_is_refused_by_the_name_of_the_first(tmp_path):
    output = tmp_path / "out"
    with lock.only_writer(output):
        with lock.only_writer(output):  # what it calls
            pass
        with futures.ThreadPoolExecutor(1) as pool:
            refused = pool.submit(lock.only_writer(output).__enter__).exception()
        assert isinstance(refused, InputError)
        assert re.match(rf"--output={output}: process {os.getpid()} on .* writes to it", str(refused))
        with lock.only_writer(tmp_path / "other"):
            pass
    assert _names(tmp_path) == set()
    with lock.only_writer(output):
        pass


def test_a_killed_writer_is_in_nobodys_way(tmp_path):
    code = """
import os, sys
from skullgan_jax.machine import lock
with lock.only_writer(sys.argv[1]):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "out"])
    assert _names(tmp_path) == {".out.lock"}
    with lock.only_writer(tmp_path / "out"):
        pass
    assert _names(tmp_path) == set()


def test_somebody_elses_file_of_the_locks_name_is_not_written_to(tmp_path):
    (tmp_path / ".out.lock").write_text("mine")
    with pytest.raises(InputError, match=r"\.out\.lock: is there and not of skullgan_jax"):
        lock.only_writer(tmp_path / "out").__enter__()
    assert (tmp_path / ".out.lock").read_text() == "mine"


def test_of_many_writers_at_once_one_writes(tmp_path):
    """Each holds it for a moment and then counts: no two are in at once."""
    code = """
import pathlib, sys, time
from skullgan_jax.errors import InputError
from skullgan_jax.machine import lock
folder, end = pathlib.Path(sys.argv[1]), time.time() + 1.5
while time.time() < end:
    try:
        with lock.only_writer(folder / "out"):
            (folder / "in").touch(exist_ok=False)
            (folder / "in").unlink()
    except InputError:
        pass
"""
    started = time.time()
    others = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(4)]
    assert [other.wait() for other in others] == [0] * 4
    assert time.time() - started > 1.5
