"""Where a run or a model lies: a folder of this machine, or a bucket, all that some hosts have in common.

Libraries write files; a bucket has objects, each whole or not there, and no way to rename several at once. So what
is made for a bucket is made in a folder of this process, `local`, and sent when it is ready. A folder of several files
that belong together, a checkpoint, becomes objects under a name of their own, and one more that lists them: NAME.json,
written last and removed first, and nothing is there without it. A folder of this machine is its own `local`, and of it
all is there already.
"""

import contextlib
import fnmatch
import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent import futures

from skullgan_jax.errors import InputError, MachineError, Told, by_cause
from skullgan_jax.machine import files, lock, paths

_AT_ONCE = 8
_RETRIES = {"max_retries": 6}  # a bucket that refuses should say so within a minute


class Folder:
    """A folder of this machine, which need not be there.

    Attributes:
      local: where its files lie on this machine.
      mounted: whether that is the place itself, to all processes of a job.
    """

    mounted = True

    def __init__(self, path: str | os.PathLike):
        self.local = pathlib.Path(path)

    def __str__(self) -> str:
        return str(self.local)

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """What fails in the block names the place, and not `local`."""
        yield

    def read(self, name: str) -> tuple[bytes | None, bytes]:
        """A file, None where there is none, and what `Bucket.write` compares. Raises OSError."""
        try:
            return (self.local / name).read_bytes(), b""
        except (FileNotFoundError, NotADirectoryError):
            return None, b""

    def holds_any(self) -> bool:
        """Whether anything is there."""
        return self.local.exists()

    def folders(self, name: str) -> list[str]:
        """The names in a folder."""
        return os.listdir(self.local / name) if (self.local / name).is_dir() else []

    def exists(self, name: str) -> bool:
        """Whether a folder is there."""
        return (self.local / name).exists()

    def fetch(self, name: str, only: str = "*") -> pathlib.Path:
        """The files of a folder, or those of a pattern of fnmatch, on this machine."""
        return self.local / name

    def bring(self, *names: str) -> None:
        """Have files, and those in folders (NAME/), in `local` if they are there."""

    def put(self, name: str, ready: Callable[[], object]) -> None:
        """Begin to send a folder of `local`, and all else that changed there, once `ready` returns."""

    def wait(self) -> None:
        """Return when it is sent. Raises what `ready` does, InputError, MachineError."""

    def sync(self) -> None:
        """Send what changed in `local` outside of the folders that `put` sends, and remove what is gone from it.

        A .json is sent last, and empty until then, which to `bring` is none. Raises InputError, MachineError.
        """

    def unfinished(self, name: str) -> bool:
        """Whether a .json is as `sync` leaves it where it does not come to its end."""
        return False

    def update(self, name: str, inside: str) -> None:
        """Send a file of a folder that is there, which has changed. Raises InputError, MachineError."""

    def clean(self, name: str, left: re.Pattern) -> None:
        """Remove what killed writers left in a folder, on a disk what is named so. Raises OSError."""
        (self.local / name).mkdir(parents=True, exist_ok=True)
        for entry in (self.local / name).iterdir():
            if left.fullmatch(entry.name):
                files.remove(entry)

    def rename(self, name: str, other: str) -> None:
        """Have a folder under another name, whatever is there. Raises OSError."""
        files.remove(self.local / other)
        (self.local / name).rename(self.local / other)

    def remove(self, name: str) -> None:
        """Remove a folder: who reads it finds it whole or not at all. Raises OSError."""
        gone = self.local / f"{name}.removed"
        with contextlib.suppress(FileNotFoundError):  # somebody was quicker
            (self.local / name).rename(gone)
        files.remove(gone)


class Bucket:
    """A place in a bucket; methods are those of Folder, and of a lease.

    Attributes:
      local: a folder of this process, in TMPDIR; a `with` removes it, or, after a kill, the next Bucket does.
      guard: is called before anything is said to be there; raises InputError where this job may not say so.
    """

    mounted = False

    def __init__(self, url: str):
        self._url = url.rstrip("/")
        path = _path(self._url)
        import tensorstore

        self._range = tensorstore.KvStore.KeyRange
        self._kv = self._asked("opened", tensorstore.KvStore.open, f"{self._url}/", context=context())
        self.guard: Callable[[], object] = lambda: None
        self._open = contextlib.ExitStack()
        try:
            base = pathlib.Path(tempfile.gettempdir(), f"skullgan_jax-{os.getuid()}")
            mine = self._open.enter_context(files.beside(base))
            mine.mkdir(0o700)  # others use this machine, too
            self.local = mine / path.rpartition("/")[2]
            self.local.mkdir()
        except OSError as error:
            raise InputError(f"{tempfile.gettempdir()}: cannot be written ({error.strerror}); set TMPDIR") from None
        self._sent: dict[str, tuple[int, int]] = {}
        self._apart: set[str] = set()  # folders of what goes on its own
        self._pool = futures.ThreadPoolExecutor(1)
        self._sending: futures.Future | None = None

    def __str__(self) -> str:
        return self._url

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown()
        shutil.rmtree(self.local, ignore_errors=True)  # after an error a library may be writing there still
        self._open.close()

    def naming(self) -> contextlib.AbstractContextManager[None]:
        return naming(self.local, self._url)

    def read(self, name: str) -> tuple[bytes | None, bytes]:
        found = self._asked(f"{name}: read", self._kv.read, name)
        return (found.value if found.state == "value" else None), found.stamp.generation

    def write(self, name: str, value: bytes | None, if_equal: bytes | None = None) -> bytes | None:
        """Write an object, or remove it where `value` is None.

        Args:
          name: of the object.
          value: its bytes.
          if_equal: what `read` gave: only where the object is still that.

        Returns:
          What `read` would give now; None where another has written in the meantime.

        Raises:
          InputError: the bucket refuses it.
          MachineError: the bucket or the network failed.
        """
        return self._asked(f"{name}: written", self._kv.write, name, value, if_equal=if_equal).generation or None

    def generation(self, name: str) -> bytes | None:
        """What `read` gives with an object, without the object; None where there is none."""
        found = self._asked(f"{name}: read", self._kv.read, name, byte_range=slice(0, 1))
        return found.stamp.generation if found.state == "value" else None

    def holds_any(self) -> bool:
        return bool(self._asked("listed", self._kv.list))

    def folders(self, name: str) -> list[str]:
        found = (key[len(name) + 1 :] for key in self._list(f"{name}/"))
        return [key.removesuffix(".json") for key in found if "/" not in key and key.endswith(".json")]

    def exists(self, name: str) -> bool:
        return self.read(f"{name}.json")[0] is not None

    def fetch(self, name: str, only: str = "*") -> pathlib.Path:
        self._apart.add(name.partition("/")[0])
        folder, inside = self._listed(name)
        for each in inside:
            target = self.local / name / each
            if fnmatch.fnmatchcase(each, only) and not target.exists():
                self._download(f"{folder}/{each}", target)
        return self.local / name

    def bring(self, *names: str) -> None:
        wanted = [key for name in names for key in (self._list(name) if name.endswith("/") else [name])]
        with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda key: self._download(key, self.local / key), wanted))
        self._sent |= {key: _stamp(self.local / key) for key in wanted if (self.local / key).exists()}

    def put(self, name: str, ready: Callable[[], object]) -> None:
        self._apart.add(name.partition("/")[0])

        def send():
            ready()
            self.sync()  # first: what led to a checkpoint is there when it is
            folder = f"{name}.{uuid.uuid4().hex[:8]}"  # of a job that lost its lease nothing gets among it
            inside = _files(self.local / name)
            for each in inside:
                self.write(f"{folder}/{each}", (self.local / name / each).read_bytes())
            self.guard()
            old = self._listed(name)
            self.write(f"{name}.json", json.dumps({"folder": folder, "files": inside}).encode())
            self._forget(*old)

        self._sending = self._pool.submit(send)

    def wait(self) -> None:
        if self._sending is not None:
            sending, self._sending = self._sending, None
            sending.result()

    def sync(self) -> None:
        found = (each for each in _files(self.local) if each.partition("/")[0] not in self._apart)
        now = {each: _stamp(self.local / each) for each in found}
        changed = [each for each in now if self._sent.get(each) != now[each]]
        gone = [each for each in self._sent if not (self.local / each).exists()]
        if changed or gone:
            self.guard()
        # A .json says what the files beside it are: it is empty while they change.
        about = [each for each in changed if each.endswith(".json")]
        for each in about:
            self.write(each, b"")
        with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
            others = [each for each in changed if each not in about]
            list(pool.map(lambda each: self.write(each, (self.local / each).read_bytes()), others))
            list(pool.map(lambda each: self.write(each, None), gone))
        for each in about:
            self.write(each, (self.local / each).read_bytes())
        self._sent |= {each: now[each] for each in changed}
        for each in gone:
            del self._sent[each]

    def unfinished(self, name: str) -> bool:
        return self.read(name)[0] == b""

    def update(self, name: str, inside: str) -> None:
        folder, there = self._listed(name)
        if inside in there:
            self.write(f"{folder}/{inside}", (self.local / name / inside).read_bytes())

    def clean(self, name: str, left: re.Pattern) -> None:
        self._apart.add(name)
        (self.local / name).mkdir(parents=True, exist_ok=True)
        known = {self._listed(f"{name}/{each}")[0] for each in self.folders(name)}
        for key in self._list(f"{name}/"):
            inside = key[len(name) + 1 :]
            if "/" in inside and f"{name}/{inside.partition('/')[0]}" not in known:
                self.write(key, None)

    def rename(self, name: str, other: str) -> None:
        self.guard()
        old, (value, _) = self._listed(other), self.read(f"{name}.json")
        self.write(f"{other}.json", value)
        self.write(f"{name}.json", None)
        self._forget(*old)
        files.remove(self.local / name)

    def remove(self, name: str) -> None:
        self.guard()
        old = self._listed(name)
        self.write(f"{name}.json", None)
        self._forget(*old)
        files.remove(self.local / name)

    def _listed(self, name: str) -> tuple[str, list[str]]:
        """Under which name the objects of a folder lie, and which files they are: none where it is not there."""
        value, _ = self.read(f"{name}.json")
        if value is None:
            return "", []
        try:
            listed = json.loads(value)
            return str(listed["folder"]), [str(each) for each in listed["files"]]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self._url}/{name}.json: is damaged; remove it") from None

    def _forget(self, folder: str, inside: list[str]) -> None:
        for each in inside:
            self.write(f"{folder}/{each}", None)

    def _list(self, prefix: str) -> list[str]:
        wanted = self._range(prefix, f"{prefix[:-1]}0")  # "0" comes after "/"
        return [key.decode() for key in self._asked(f"{prefix}: listed", self._kv.list, wanted)]

    def _download(self, key: str, target: pathlib.Path) -> None:
        """Have an object as a file, whole, if it is there; its name may be anybody's."""
        if ".." in target.parts or not target.is_relative_to(self.local):
            raise InputError(f"{self._url}/{key}: leads out of its folder; remove it")
        value, _ = self.read(key)
        if value is not None and not (key.endswith(".json") and not value):  # see sync
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.partial")
            partial.write_bytes(value)
            partial.replace(target)

    def _asked(self, be: str, ask: Callable, *args, **options):
        """What TensorStore answers, which raises ValueError for anything at all."""
        try:
            return ask(*args, **options).result()
        except Exception as error:
            name, _, be = be.rpartition(": ")
            reason = " ".join(re.split(r" \[[a-z_ ]+=", str(error))[0].split())[:200]
            line = f"{self._url}/{name}".rstrip("/") + f": cannot be {be} ({reason})"
            if be == "opened" or str(error).startswith("NOT_FOUND:"):
                raise InputError(f"{line}; give a bucket that is there") from None
            raise by_cause(error, f"{line}; see to the bucket and the network", MachineError) from None


@contextlib.contextmanager
def naming(local: str | os.PathLike, given: str | os.PathLike) -> Iterator[None]:
    """What fails in the block names what the user gave, and not what it is on this machine."""
    try:
        yield
    except Told as error:
        error.args = (str(error).replace(str(local), str(given)),)
        raise


Place = Folder | Bucket


def at(path: "str | os.PathLike | Place") -> Place:
    """The place of a path or URL, for a `with`. Raises InputError."""
    if isinstance(path, Folder | Bucket):
        return path
    return Bucket(str(path)) if paths.is_remote(path) else Folder(path)


def context():
    """The tensorstore.Context of all that reads and writes buckets."""
    import tensorstore

    return tensorstore.Context({"gcs_request_retries": _RETRIES, "s3_request_retries": _RETRIES})


@contextlib.contextmanager
def opened(path: "str | os.PathLike | Place") -> Iterator[Place]:
    """The same for the length of a block, whose errors name it; one that was opened before stays open."""
    place = at(path)
    with place.naming(), contextlib.nullcontext() if place is path else place:
        yield place


def file(path: "str | os.PathLike | Place") -> pathlib.Path | None:
    """A path or URL as a file on this machine, or None where it is none.

    One of a bucket is fetched once, by one process of a host, and kept in paths.cache().

    Raises:
      InputError, MachineError: it cannot be read or kept.
    """
    if not paths.is_remote(path):
        return pathlib.Path(str(path)) if pathlib.Path(str(path)).is_file() else None
    url = str(path).rstrip("/")
    if "/" not in _path(url):  # a bucket
        return None
    parent, _, name = url.rpartition("/")
    with Bucket(parent) as place:
        try:
            generation = place.generation(name)
            if generation is None:
                return None
            kept = hashlib.sha256(url.encode() + generation).hexdigest()[:16]
            target = paths.at_home(paths.cache()) / f"{kept}-{name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            with lock.in_turn(target, lambda: None):
                if not target.exists():
                    value, now = place.read(name)
                    if value is None or now != generation:
                        raise MachineError(f"{url}: changed while it was read; give the same command again")
                    with files.whole(target) as partial:
                        partial.write_bytes(value)
            return target
        except OSError as error:
            line = f"{target}: a copy of {url} cannot be kept there ({error.strerror or error})"
            raise by_cause(error, line) from None


def _path(url: str) -> str:
    """Bucket and name of a URL. Raises InputError: it is none of those that are known."""
    scheme, _, path = url.partition("://")
    if scheme not in ("gs", "s3") or not path or path.startswith("/"):
        raise InputError(
            f"{url}: is no place that is known; give a folder or file, or gs://BUCKET/NAME, s3://BUCKET/NAME"
        )
    return path


def _files(folder: pathlib.Path) -> list[str]:
    """Of a folder by their names in it, but for what is hidden."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def _stamp(path: pathlib.Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size
