"""Damaged and made-up files against the reader of PyTorch's format.

The corpus is tests/data/pth/small. A few hundred files here; many more by name, with the counts:

    pytest -m slow -s tests/model/test_fuzz.py
"""

import collections
import io
import pathlib
import pickletools
import resource
import struct
import time
import zipfile

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from skullgan_jax.errors import InputError
from skullgan_jax.model import pytorch_file, pytorch_names
from tests.model import watched

CORPUS = sorted((pathlib.Path(__file__).parents[1] / "data" / "pth" / "small").glob("*.pth"))
ZIPS = [path for path in CORPUS if path.read_bytes().startswith(b"PK")]
SECONDS, MEGABYTES = 2, 200
FRAGMENTS = [
    b"cos\nsystem\n(X\x02\x00\x00\x00idtR",
    b"cbuiltins\neval\n(X\x01\x00\x00\x001tR",
    b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93",
    b"(ios\nsystem\n",
    b"ccollections\nOrderedDict\n)R",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch\nFloatStorage\n",
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ",
    *(bytes([ord(op.code)]) for op in pickletools.opcodes),
    *(b"\x8a\x08" + struct.pack("<q", n) for n in (-1, 1 << 31, 1 << 40, -(1 << 63))),
]
FIELDS = [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7"]
counts = collections.Counter()


def read(data: bytes, folder: pathlib.Path):
    """Read as a command would, watched; the state dict, or None if it was refused."""
    path = folder / "x.pth"
    path.write_bytes(data)
    began = time.process_time()
    try:
        with watched.nothing_done():
            found = pytorch_names.find("discriminator", pytorch_file.read(path))
        pair = pytorch_names.sizes({"discriminator": found})
        pytorch_names.from_torch("discriminator", found, pair)
        counts["read"] += 1
        return found
    except InputError:
        counts["refused"] += 1
        return None
    finally:
        took = time.process_time() - began  # the machine may be busy with other things
        counts["slowest, ms"] = max(counts["slowest, ms"], round(1000 * took))
        assert took < SECONDS
        assert list(folder.iterdir()) == [path]


def damaged(source, data: bytes) -> bytes:
    """Flips, overwritten numbers, cuts, insertions and doublings of a file."""
    data = bytearray(data)
    for _ in range(source.draw(st.integers(1, 6))):
        if not data:
            break
        # Half of the damage goes where the zip format has its fields.
        at = source.draw(st.integers(0, len(data) - 1))
        if source.draw(st.booleans()):
            place = data.find(source.draw(st.sampled_from(FIELDS)), at)
            at = min(place + source.draw(st.integers(0, 60)), len(data) - 1) if place >= 0 else at
        match source.draw(st.sampled_from(["flip", "number", "cut", "insert", "double"])):
            case "flip":
                data[at] ^= source.draw(st.integers(1, 255))
            case "number":
                number = source.draw(st.sampled_from([0, 1, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data)]))
                data[at : at + 4] = struct.pack("<I", number)
            case "cut":
                del data[at : source.draw(st.integers(at, len(data)))]
            case "insert":
                data[at:at] = source.draw(st.binary(max_size=40))
            case "double":
                data[at:at] = data[at : at + source.draw(st.integers(0, 4096))]
    return bytes(data)


def repickled(source, data: bytes) -> bytes:
    """A file with another pickle under a good checksum: opcodes cut out, put in, exchanged, bytes changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = [(i.filename, file.read(i)) for i in file.infolist()]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in members:
            if name.endswith("data.pkl"):
                starts = [at for _, _, at in pickletools.genops(content)]
                content = bytearray(content)
                for _ in range(source.draw(st.integers(1, 4))):
                    at = source.draw(st.sampled_from(starts))
                    match source.draw(st.sampled_from(["insert", "exchange", "cut", "flip"])):
                        case "insert":
                            content[at:at] = source.draw(st.sampled_from(FRAGMENTS))
                        case "exchange":
                            content[at : at + 1] = source.draw(st.sampled_from(FRAGMENTS))
                        case "cut":
                            del content[at : source.draw(st.sampled_from(starts))]
                        case "flip" if content:
                            content[at % len(content)] ^= source.draw(st.integers(1, 255))
            file.writestr(name, bytes(content))
    return out.getvalue()


def fuzz(examples: int, folder: pathlib.Path) -> None:
    """That many files of either kind, each read in a folder of its own."""
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )

    @settings
    @hypothesis.given(st.data())
    def damage(source):
        original = source.draw(st.sampled_from(CORPUS))
        found = read(damaged(source, original.read_bytes()), folder)
        if found is not None:  # what was damaged is not part of any number
            expected = pytorch_names.find("discriminator", pytorch_file.read(original))
            assert found.keys() == expected.keys()
            for key, array in expected.items():
                np.testing.assert_array_equal(found[key], array)

    @settings
    @hypothesis.given(st.data())
    def repickle(source):
        read(repickled(source, source.draw(st.sampled_from(ZIPS)).read_bytes()), folder)

    for path in ZIPS:  # and everything that is imported when it is needed
        read(path.read_bytes(), folder)
    counts.clear()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    damage()
    repickle()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    counts["memory, MB more"] = round(grown)
    assert grown < MEGABYTES
    assert counts["refused"] > examples / 2


def test_some(tmp_path):
    fuzz(90, tmp_path)


@pytest.mark.slow
def test_many(tmp_path):
    began = time.monotonic()
    fuzz(2_500, tmp_path)
    print(f"{dict(counts)} in {time.monotonic() - began:.0f} s")
