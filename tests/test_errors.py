"""Whose an error of the system or of a library is to mend, and what a command exits with."""

import errno
import os
import socket
import types

import numpy as np
import pytest
import tensorstore as ts

from skullgan_jax.command.flags import refusing
from skullgan_jax.ct import dataset, publish
from skullgan_jax.errors import InputError, MachineError, by_cause
from skullgan_jax.machine.tensorflow import import_tensorflow
from skullgan_jax.processes import distributed
from skullgan_jax.sampling import rows
from skullgan_jax.sampling.store import Store
from tests import bucket
from tests.processes import test_distributed
from tests.sampling.test_store import ABOUT, fill, some


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EIO", "ESTALE", "ETIMEDOUT", "EHOSTUNREACH"])
def test_the_machine_fails(name):
    error = OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
    assert type(by_cause(error, "line")) is MachineError
    assert type(by_cause(error, "line", otherwise=MachineError)) is MachineError


@pytest.mark.parametrize("name", ["EACCES", "EPERM", "EROFS", "ENOTDIR", "EISDIR"])
def test_the_user_can_mend_it(name):
    error = OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
    assert type(by_cause(error, "line", otherwise=MachineError)) is InputError


def test_nobody_can_tell():
    assert type(by_cause(OSError("strange"), "line")) is InputError
    assert type(by_cause(FileNotFoundError(errno.ENOENT, "gone"), "line")) is InputError
    assert type(by_cause(ValueError("strange"), "line", otherwise=MachineError)) is MachineError


def test_the_reason_may_lie_deeper():
    error = RuntimeError("a save failed")
    error.__cause__ = OSError(errno.ESTALE, os.strerror(errno.ESTALE))
    assert type(by_cause(error, "line")) is MachineError


def test_tensorstore_on_a_disk(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="FAILED_PRECONDITION") as caught:
        ts.KvStore.open(f"file://{tmp_path}/file/").result().write("a", b"").result()
    assert type(by_cause(caught.value, "line", otherwise=MachineError)) is InputError
    written = "Error writing \"a\": No space left on device [os_error_code='28' path='a']"
    assert type(by_cause(ValueError(written), "line")) is MachineError


@pytest.mark.parametrize(("name", "kind"), [("Unavailable", MachineError), ("PermissionDenied", InputError)])
def test_tensorflow_in_a_bucket(name, kind, monkeypatch):
    tf = import_tensorflow()

    def fails(*_, **__):
        raise getattr(tf.errors, f"{name}Error")(None, None, "what the bucket said")

    monkeypatch.setattr(tf.io.gfile, "exists", fails)
    with pytest.raises(kind, match="what the bucket said"):
        publish.summary("gs://bucket/skulls")
    monkeypatch.setattr(tf.io.gfile, "makedirs", fails)
    with pytest.raises(kind, match="what the bucket said"), publish.replacing("gs://bucket/skulls", None) as folder:
        folder.mkdir()


@pytest.mark.parametrize("name", ["ENOSPC", "EACCES"])
def test_a_scan_is_left_out_for_what_is_its_own_alone(name, monkeypatch, tmp_path):
    """A full disk is not: all of `prepare` ends, and goes on from what is cut."""

    def fails(path, *_):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    scan = types.SimpleNamespace(name="a.nii", kernel="", kvp=0.0, slice_mm=1.0, pixel_mm=np.ones(2), notes=[])
    monkeypatch.setattr(dataset.scans, "check_hu", lambda scan: None)
    monkeypatch.setattr(dataset.cut, "cut", lambda *_: None)
    monkeypatch.setattr(dataset.pieces, "write", fails)
    monkeypatch.setattr(dataset, "_opened", {})
    line = f"a.nii: what was cut cannot be written to {tmp_path} ({os.strerror(getattr(errno, name))})"
    part = (lambda: scan, (), None, [], tmp_path / "0123456789abcdef.npz", 0, 1)
    if name == "ENOSPC":
        with pytest.raises(MachineError) as caught:
            dataset._cut_part(*part)
        assert str(caught.value) == line
    else:
        assert dataset._cut_part(*part) == line


@pytest.mark.parametrize(("answer", "status"), [(503, 75), (429, 75), (403, 2)])
def test_a_bucket_that_does_not_answer(answer, status, monkeypatch, capsys):
    """For as long as it is asked: here moments, as it is a minute."""
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    soon = {"max_retries": 2, "initial_delay": "1ms", "max_delay": "1ms"}
    monkeypatch.setattr(rows, "_CONTEXT", ts.Context({"gcs_request_retries": soon}))
    with bucket.serving(lambda *_: answer):
        for call in (Store, Store.attributes, lambda path: Store.create(path, ABOUT, rows=20, shard=16)):
            with pytest.raises(SystemExit) as ended, refusing():
                call(f"gs://bucket-{answer}/s.zarr")
            assert ended.value.code == status
            assert capsys.readouterr().err.startswith(f"error: gs://bucket-{answer}/s.zarr: cannot be ")


def hang_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def test_a_bucket_that_stops_answering_is_not_damaged(monkeypatch):
    """What it has is neither missing nor to be drawn again."""
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    soon = {"max_retries": 2, "initial_delay": "1ms", "max_delay": "1ms"}
    monkeypatch.setattr(rows, "_CONTEXT", ts.Context({"gcs_request_retries": soon}))
    with bucket.serving():
        store = Store.create("gs://somebody/s.zarr", ABOUT, rows=16, shard=16)
        fill(store, [0])
        assert store.finished(0)
        for name in ("do_GET", "do_POST"):
            monkeypatch.setattr(bucket._Handler, name, hang_up)
        for call in (store.finished, store.uncommitted, store.read, store.write):
            of = {"finished": [0], "write": [0, some(0, 16)]}.get(call.__name__, [0, 1])
            with pytest.raises(MachineError, match="cannot be"):
                call(*of)
        with pytest.raises(MachineError, match="cannot be"):
            store.complete(16)


def test_of_one_process_it_ends_all(monkeypatch):
    """With its own status: a folder that one host does not have for now is no reason to stay away."""

    def fails():
        raise MachineError("stale")

    monkeypatch.setattr(distributed.global_state, "client", test_distributed.Store())
    with pytest.raises(MachineError, match="stale"):
        distributed.agree(fails)
