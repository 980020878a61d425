"""PyTorch's files: what is read, what is written, and all that is refused without being run."""

import os
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.model import pytorch_file, pytorch_names
from skullgan_jax.nets.pair import Pair
from tests import support
from tests.model import watched

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "pth"
PAIR = Pair(nz=4, ngf=16, ndf=8)
SMALL = Pair(nz=4, ngf=16, ndf=2)
HEAD = b"\x80\x02"
FLOATS = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"  # 4 of data/0
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def refusal(path) -> str:
    """The one line that a file is refused with, in time and memory, after nothing was done."""
    for limit in watched.limits(2, 200):
        with limit, watched.nothing_done(), pytest.raises(InputError) as caught:
            pytorch_file.read(path)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line


def zipped(path, members, compression=zipfile.ZIP_STORED):
    """A zip file of (name, bytes)."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, compression)
    return path


def pickled(path, data, storage=b"\0" * 16):
    """A file as of torch.save with this pickle and one storage."""
    return zipped(path, [("archive/data.pkl", data), ("archive/data/0", storage), ("archive/version", b"3\n")])


@pytest.mark.parametrize(
    ("name", "net", "pair", "dtype"),
    [
        ("netG.pth", "generator", PAIR, np.float32),
        ("netG_half.pth", "generator", PAIR, np.float16),
        ("netD.pth", "discriminator", PAIR, np.float32),
        ("small/netD.pth", "discriminator", SMALL, np.float32),
        ("small/netD_views.pth", "discriminator", SMALL, np.float64),
    ],
)
def test_files_of_torch(name, net, pair, dtype):
    """Every number of every tensor, whatever prefix, nesting, dtype, strides and storage."""
    found = pytorch_names.find(net, pytorch_file.read(FOLDER / name))
    expected = support.weights(pytorch_names.shapes(net, pair))
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == (np.int64 if key.endswith("tracked") else dtype), key
        assert not found[key].flags.writeable
        np.testing.assert_array_equal(found[key], array.astype(found[key].dtype), err_msg=key)


def test_what_else_a_checkpoint_holds():
    tree = pytorch_file.read(FOLDER / "netG_half.pth")
    assert (tree["epoch"], tree["losses"], tree["best"]) == (7, [[0.7, 1.5]], None)
    assert tree["optimizer"]["param_groups"][0]["betas"] == (0.5, 0.999)


def test_written_and_read_again(tmp_path):
    random = np.random.default_rng(0)
    arrays = {
        "a": random.standard_normal((2, 3, 4, 5)).astype(np.float32),
        "b.ü": np.float64(random.standard_normal((3, 4)).T),
        "c": np.asarray(2**40, np.int64),
        "empty": np.zeros((0, 3), np.float16),
        "flags": np.array([True, False]),
    }
    pytorch_file.write(tmp_path / "x.pth", arrays)
    found = pytorch_file.read(tmp_path / "x.pth")
    assert list(found) == list(arrays)
    for key, array in arrays.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[key], array)
    pytorch_file.write(tmp_path / "y.pth", found)
    assert (tmp_path / "x.pth").read_bytes() == (tmp_path / "y.pth").read_bytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "int32", "uint8", "bool"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_torch_agrees(dtype, protocol, tmp_path):
    """Both ways, with parameters, strides, an offset and a shared storage among the tensors."""
    torch = pytest.importorskip("torch")
    whole = (torch.arange(24).reshape(2, 3, 4) % 2).to(getattr(torch, dtype))
    saved = {"whole": whole, "part": whole[1, 1:, ::2], "turned": whole.permute(2, 0, 1), "none": whole[:0]}
    if whole.is_floating_point():
        saved["parameter"] = torch.nn.Parameter(whole)
    torch.save(saved, tmp_path / "x.pth", pickle_protocol=protocol)
    found = pytorch_file.read(tmp_path / "x.pth")
    assert found.keys() == saved.keys()
    for key, tensor in saved.items():
        assert found[key].dtype.name == dtype
        np.testing.assert_array_equal(found[key].astype(np.float64), tensor.detach().double().numpy())
    assert np.shares_memory(found["whole"], found["part"])
    pytorch_file.write(tmp_path / "y.pth", found)
    for options in ({}, {"mmap": True}):
        back = torch.load(tmp_path / "y.pth", weights_only=True, **options)
        assert back.keys() == saved.keys()
        for key, tensor in saved.items():
            assert back[key].dtype == tensor.dtype
            assert torch.equal(back[key], tensor), key


def test_big_endian(tmp_path):
    array = np.arange(4, dtype=">f4")
    data = HEAD + b"}X\x01\x00\x00\x00a" + TENSOR + b"(" + FLOATS + b"K\x00K\x04\x85K\x01\x85\x89}tRs."
    path = pickled(tmp_path / "x.pth", data, array.tobytes())
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("archive/byteorder", "big")
    np.testing.assert_array_equal(pytorch_file.read(path)["a"], array)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; copy it again"),
        (b"hello", "not a zip file, so not from torch.save of PyTorch 1.6 or later"),
        (b"\n<!DOCTYPE html><title>Sign in", "a web page or a pointer in place of the weights; download the file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a web page or a pointer in place of the weights"),
        (b"PK\3\4" + 100 * b"x", "a damaged or truncated zip file (File is not a zip file)"),
        (b"\0" * 257 + b"ustar\0", "in the format of PyTorch before 1.6, which is not read; re-save it with PyTorch: "),
    ],
)
def test_what_is_no_zip(content, expected, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    assert expected in refusal(tmp_path / "x.pth")


def test_the_old_format_says_how_to_save_again():
    line = refusal(FOLDER / "small" / "netD_old.pth")
    assert "torch.save(torch.load('old.pth', map_location='cpu', weights_only=True), 'new.pth')" in line


def test_no_such_file(tmp_path):
    assert "cannot be read (No such file or directory)" in refusal(tmp_path / "x.pth")
    assert "cannot be read (Is a directory)" in refusal(tmp_path)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.99, -1])
def test_truncated(at, tmp_path):
    data = (FOLDER / "netD.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(data[: int(at * len(data)) if at > 0 else at])
    assert "damaged or truncated zip file" in refusal(tmp_path / "x.pth")


def test_a_flipped_bit_in_the_weights(tmp_path):
    data = bytearray((FOLDER / "netD.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    assert "damaged: the checksum of data/" in refusal(tmp_path / "x.pth")


VERSION = ("archive/version", b"3\n")
EMPTY = ("archive/data.pkl", HEAD + b"}.")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([VERSION], "a zip file without data.pkl, so not from torch.save"),
        ([EMPTY], "a zip file without version"),
        ([EMPTY, VERSION, ("archive/constants.pkl", b"")], "a TorchScript program, which is not read"),
        (
            [EMPTY, VERSION, ("archive/../../evil", b"x")],
            "holds a member 'archive/../../evil', which torch.save does not",
        ),
        ([EMPTY, VERSION, ("/etc/passwd", b"x")], "holds a member '/etc/passwd'"),
        ([EMPTY, VERSION, ("archive\\..\\evil", b"x")], "holds a member"),
        ([EMPTY, VERSION, EMPTY], "holds 'data.pkl' twice"),
        ([EMPTY, VERSION, ("other/data.pkl", b"x")], "holds 'data.pkl' twice"),
        ([EMPTY, VERSION, ("evil.py", b"x")], "holds a member 'evil.py'"),
        ([VERSION, ("archive/data.pkl", HEAD + 600_000 * b")")], "its pickle has 600002 bytes, more than a state dict"),
        ([EMPTY, VERSION, *((f"archive/data/{i}", b"") for i in range(20_000))], "table of contents is larger"),
        ([EMPTY, VERSION, ("archive/byteorder", b"middle")], "its byte order is neither little nor big"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_torch_does_not_zip(members, expected, tmp_path):
    assert expected in refusal(zipped(tmp_path / "x.pth", members))
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_a_zip_bomb(tmp_path):
    """A gigabyte of zeros in a megabyte is refused before it is inflated."""
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr(*EMPTY)
        file.writestr(*VERSION)
        with file.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(bytes(1 << 24))
    assert "is compressed or encrypted, which torch.save never does" in refusal(path)


def directory_changed(path, name, offset, format, value):
    """Overwrite a field of a member's entry in the table of contents."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2", 0, data.rindex(name.encode()))
    struct.pack_into(format, data, entry + offset, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("offset", "format", "value", "expected"),
    [
        (20, "<II", (1 << 30, 1 << 30), "truncated: 'archive/data/0' goes on after the end of the file"),
        (24, "<I", (1 << 30,), "is compressed or encrypted"),
        (42, "<I", (0,), "its members overlap"),
        (42, "<I", (17,), "'archive/data/0' is not where the table of contents says"),
        (42, "<I", (1 << 31,), "is not where the table of contents says"),
        (8, "<H", (1,), "is compressed or encrypted"),
        (16, "<I", (0,), "the checksum of data/0 does not hold"),
    ],
)
def test_a_table_of_contents_that_lies(offset, format, value, expected, tmp_path):
    data = HEAD + b"}X\x01\x00\x00\x00a" + TENSOR + b"(" + FLOATS + b"K\x00K\x04\x85K\x01\x85\x89}tRs."
    path = pickled(tmp_path / "x.pth", data, b"1234" * 4)
    assert pytorch_file.read(path)["a"].shape == (4,)
    for i, v in enumerate(value):
        directory_changed(path, "archive/data/0", offset + 4 * i, "<" + format[1 + i], v)
    assert expected in refusal(path)


class _Reduced:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


EVIL = "touch {marker}"


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda marker: _Reduced(os.system, (EVIL.format(marker=marker),)), "posix.system|nt.system"),
        (lambda marker: _Reduced(eval, (f"open({str(marker)!r}, 'w')",)), "builtins.eval|__builtin__.eval"),
        (lambda marker: _Reduced(exec, ("import os",)), "builtins.exec|__builtin__.exec"),
        (lambda marker: _Reduced(getattr, (_Reduced(__import__, ("os",)), "system")), "getattr"),
        (lambda marker: {"a": [_Reduced(pathlib.Path.touch, (marker,))]}, "pathlib|getattr"),
        (lambda marker: _Reduced(pickle.loads, (pickle.dumps(1),)), "loads"),
    ],
)
def test_malicious_pickles_are_refused_by_name(make, named, protocol, tmp_path):
    marker = tmp_path / "ran"
    path = pickled(tmp_path / "x.pth", pickle.dumps(make(marker), protocol=protocol))
    line = refusal(path)
    assert not marker.exists()
    if protocol >= 2:  # the text opcodes of older ones are refused before the name
        assert "its pickle asks for " in line
        assert "and nothing of it was run" in line
        assert any(name in line for name in named.split("|"))


U = b"X\x01\x00\x00\x00a"
DEEP = 100_000


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "its pickle is damaged"),
        (b"cos\nsystem\n(X\x02\x00\x00\x00idtR.", "its pickle asks for os.system"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93(U\x02idtR.", "its pickle asks for os.system"),
        (b"(ios\nsystem\n.", "its pickle does INST"),
        (b"(cos\nsystem\nX\x02\x00\x00\x00ido.", "its pickle asks for os.system"),
        (b"ccollections\nOrderedDict\n)R}X\x09\x00\x00\x00__class__K\x01sb.", None),
        (b"ccollections\nOrderedDict\n}b.", "its pickle sets attributes"),
        (TENSOR + b"}b.", "its pickle sets attributes"),
        (b"ccollections\nOrderedDict\n)\x81.", "its pickle does NEWOBJ"),
        (b"ccollections\nOrderedDict\n(K\x01tR.", "its pickle calls what no state dict needs"),
        (TENSOR + b"(K\x01tR.", "its pickle calls what no state dict needs"),
        (b"ctorch\nFloatStorage\n)R.", "its pickle calls what no state dict needs"),
        (U + b")R.", "its pickle calls what no state dict needs"),
        (b"\x82\x01.", "its pickle does EXT1"),
        (b"r\xff\xff\xff\xff.", "its pickle is damaged"),
        (U + b"r\xff\xff\xff\xff.", None),
        (b"h\x05.", "its pickle is damaged"),
        (b"X\xff\xff\xff\xffabc.", "its pickle is damaged"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.", "its pickle is damaged"),
        (b"\x8b\xff\xff\xff\x7f.", "its pickle is damaged"),
        (b"(" * DEEP + b"t" * DEEP + b".", None),
        (b"]" * DEEP + b"a" * (DEEP - 1) + b".", None),
        (b"}}}s.", "has a dict with keys that are neither names nor numbers"),
        (b"})K\x01s.", "has a dict with keys that are neither names nor numbers"),
        (U, "its pickle is damaged"),
        (U + U + b".", "its pickle is damaged"),
        (b"(" + FLOATS[1:], "its pickle is damaged"),
        (FLOATS.replace(b"0X\x03", b"7X\x03") + b".", "its record 'data/7' is missing"),
        (FLOATS.replace(b"K\x04tQ", b"K\x05tQ") + b".", "the sizes of data/0 disagree"),
        (FLOATS.replace(b"Float", b"Doubl") + b".", "its pickle asks for torch.DoublStorage"),
        (FLOATS.replace(b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n") + b".", "is no tensor"),
    ],
)
def test_other_pickles(data, expected, tmp_path):
    path = pickled(tmp_path / "x.pth", HEAD + data)
    if expected is None:  # odd, but harmless
        for limit in watched.limits(2, 200):
            with limit, watched.nothing_done():
                pytorch_file.read(path)
    else:
        assert expected in refusal(path)


BIG = b"\x8a\x08" + struct.pack("<q", 1 << 40)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (b"K\x01", b"K\x04\x85", b"K\x01\x85"),  # one element past the end
        (b"K\x00", b"K\x04K\x04\x86", b"K\x00K\x01\x86"),  # rows that are all the same one
        (b"K\x00", BIG + b"\x85", b"K\x00\x85"),  # a terabyte that is one number
        (b"K\x00", BIG + BIG + b"\x86", b"K\x00K\x00\x86"),
        (BIG, b"K\x01\x85", b"K\x01\x85"),
        (b"K\x00", b"K\x02\x85", BIG + b"\x85"),
        (b"\x8a\x01\xff", b"K\x01\x85", b"K\x01\x85"),  # -1
        (b"K\x02", b"K\x02\x85", b"\x8a\x01\xff\x85"),  # backwards
        (b"K\x00", b"\x8a\x01\xff\x85", b"K\x01\x85"),
        (b"K\x00", b"K\x04\x85", b")"),
        (b"K\x00", b"\x88\x85", b"K\x01\x85"),  # True is no size
        (b"K\x00", b"(" + 9 * b"K\x01" + b"t", b"(" + 9 * b"K\x01" + b"t"),
        (U, b"K\x04\x85", b"K\x01\x85"),
        (b"K\x00", b"K\x00" + BIG + BIG + b"\x87", b"K\x01K\x01K\x01\x87"),  # empty, and absurd
    ],
)
def test_absurd_tensors(offset, shape, strides, tmp_path):
    data = TENSOR + b"(" + FLOATS + offset + shape + strides + b"\x89}tR."
    line = refusal(pickled(tmp_path / "x.pth", HEAD + data))
    assert "tensor" in line or "its pickle is damaged" in line


def test_a_dict_a_billion_times(tmp_path):
    """Dicts of the same dict cost nothing to read and nothing to search."""
    deep, inner = {}, {i: {} for i in range(5000)}
    for _ in range(30):
        deep = {"a": deep, "b": deep}
    for tree in (deep, {i: inner for i in range(5000)}):
        path = pickled(tmp_path / "x.pth", pickle.dumps(tree, protocol=2))
        for limit in watched.limits(2, 200):
            with limit, watched.nothing_done():
                found = pytorch_file.read(path)
                with pytest.raises(InputError, match="holds no generator"):
                    pytorch_names.find("generator", found)
            del found
