import io
import os
import zipfile
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from skullgan_jax.data.arrays import open_slices
from skullgan_jax.errors import InputError

HU = np.random.default_rng(0).integers(-1000, 3000, (3, 128, 128)).astype(np.int16)


def problem(path) -> str:
    """The line that `path` is refused with."""
    with pytest.raises(InputError) as caught:
        open_slices(path)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 250 + len(str(path)) * 2
    assert str(path) in line
    return line.replace(str(path), "FILE")


def npy(header: str, data: bytes = b"") -> bytes:
    """A .npy file with the header that we choose."""
    header = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def claim(shape, dtype="<i2") -> str:
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "u2", "i4", ">u4", "i8", "f2", ">f2", "<f4", ">f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_mapped_in_its_own_dtype(tmp_path, dtype, order):
    hu = np.asarray(HU // 32, dtype, order=order)
    np.save(tmp_path / "hu.npy", hu)
    images = open_slices(tmp_path / "hu.npy")
    assert isinstance(images, np.memmap)
    assert images.dtype == np.dtype(dtype)
    assert not images.flags.writeable
    np.testing.assert_array_equal(images, hu)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npz(tmp_path, save, order):
    path = tmp_path / "hu.npz"
    other = np.zeros(5)
    wanted = np.asarray(HU, ">i2", order=order)
    for arrays in (
        {"x": wanted},
        {"images": wanted, "x": other},
        {"hu": wanted, "images": other, "x": other},
    ):
        save(path, **arrays)
        images = open_slices(path)
        assert images.dtype == np.dtype(">i2")
        assert not images.flags.writeable
        np.testing.assert_array_equal(images, HU)


def test_channel_axis_is_dropped(tmp_path):
    np.save(tmp_path / "hu.npy", HU[..., None])
    np.savez(tmp_path / "hu.npz", HU[..., None])
    for name in ("hu.npy", "hu.npz"):
        np.testing.assert_array_equal(open_slices(tmp_path / name), HU)


def test_home_is_expanded(tmp_path, monkeypatch):
    np.save(tmp_path / "hu.npy", HU)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_slices("~/hu.npy").shape == (3, 128, 128)


def test_missing_file(tmp_path):
    path = tmp_path / "slices.npy"
    assert problem(path) == f"FILE: no such file: give a .npy or .npz file (there is none in {tmp_path})"
    np.save(tmp_path / "other_name.npz.npy", HU)
    assert problem(path).endswith(f"give a .npy or .npz file (other_name.npz.npy in {tmp_path})")
    np.save(tmp_path / "slice.npy", HU)
    assert problem(path) == "FILE: no such file: did you mean slice.npy?"
    assert problem(tmp_path / "no" / "x.npy").endswith(f"nor is there a folder {tmp_path}/no: check the path")
    assert problem("ftp://bucket/x.npy") == (
        "FILE: is no place that is known; give a folder or file, or gs://BUCKET/NAME, s3://BUCKET/NAME"
    )


def test_not_a_file(tmp_path):
    assert problem(tmp_path) == "FILE is a directory: give one .npy or .npz file (there is none in it)"
    np.save(tmp_path / "a.npy", HU)
    assert problem(tmp_path) == "FILE is a directory: give one .npy or .npz file (a.npy in it)"
    os.mkfifo(tmp_path / "pipe.npy")
    assert problem(tmp_path / "pipe.npy") == "FILE is not a regular file: give a .npy or .npz file"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "FILE is empty (0 bytes): write or copy it again"),
        (
            b"\x89PNG\r\n",
            "FILE is neither a .npy nor a .npz file: write (N, 128, 128) in HU with numpy.save(path",
        ),
        (b"\x93NUMPY", "FILE has a damaged .npy header ("),
        (b"\x93NUMPY\x03\x00", "FILE has a damaged .npy header (format version 3.0): write or copy it again"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "FILE has a damaged .npy header ("),
        (npy("(" * 100), "FILE has a damaged .npy header ("),
        (npy("{'descr': 7}"), "FILE has a damaged .npy header ("),
        (npy(claim(f"({10**50}, 128, 128)")), "FILE has a damaged .npy header (impossible shape)"),
        (
            npy(claim("(1000000000, 128, 128)"), b"12"),
            "FILE is cut short: 130 bytes where shape (1000000000, 128, 128) int16 takes 32,768,",
        ),
        (
            npy(claim("(1, 128, 128)"), bytes(32769)),
            "FILE does not add up: 32,897 bytes where shape (1, 128, 128) ",
        ),
        (npy(claim("(-3, 128, 128)")), "FILE holds no slices (shape (-3, 128, 128)): give at least one"),
        (npy(claim("(0, 128, 128)")), "FILE holds no slices (shape (0, 128, 128)): give at least one"),
        (
            npy(claim("(3, 128, 128)", "|O")),
            "FILE holds Python objects, which are never unpickled: save a plain",
        ),
        (npy(claim("(3, 128, 128)", "|b1")), "FILE has dtype bool: save HU as int16 or float32"),
        (npy(claim("(3, 128, 128)", "<c8")), "FILE has dtype complex64: save HU as int16 or float32"),
        (npy(claim("(3, 128, 128)", "<U4")), "FILE has dtype <U4: save HU as int16 or float32"),
        (npy(claim("(3, 128, 128)", "<m8[s]")), "FILE has dtype timedelta64[s]: save HU as int16 or float32"),
        (
            npy("{'descr': [('a', '<i2')], 'fortran_order': False, 'shape': (3, 128, 128), }"),
            "FILE has dtype [('a', '<i2')]: save HU as int16 or float32",
        ),
        (b"PK\x03\x04nothing", "FILE is damaged or no .npz (File is not a zip file): write or copy it again"),
        (
            b"PK\x05\x06" + bytes(18),
            "FILE holds no array: write (N, 128, 128) in HU with numpy.savez(path, hu=array)",
        ),
    ],
)
def test_damaged_or_unfit(tmp_path, content, expected):
    path = tmp_path / "hu.npy"
    path.write_bytes(content)
    assert problem(path).startswith(expected)


def test_truncated(tmp_path):
    np.save(tmp_path / "hu.npy", HU)
    np.savez(tmp_path / "hu.npz", HU)
    for name in ("hu.npy", "hu.npz"):
        path = tmp_path / name
        os.truncate(path, path.stat().st_size - 100)
    assert problem(tmp_path / "hu.npy") == (
        "FILE is cut short: 98,332 bytes where shape (3, 128, 128) int16 takes 98,432: copy it again"
    )
    assert problem(tmp_path / "hu.npz") == (
        "FILE is damaged or no .npz (File is not a zip file): write or copy it again"
    )


@pytest.mark.parametrize(
    ("shape", "fix"),
    [
        (
            (2, 1, 128, 128),
            "drop the channel axis with numpy.squeeze(array, 1), or numpy.moveaxis(array, 1, -1)",
        ),
        ((128, 128, 5), "put the slice axis first with numpy.moveaxis(array, -1, 0)"),
        ((128, 128), "add the slice axis with array[None]"),
        ((2, 64, 64), "cut or resample the slices"),
        ((2, 128, 128, 3), "cut or resample the slices"),
        ((), "cut or resample the slices"),
    ],
)
def test_wrong_shape(tmp_path, shape, fix):
    np.save(tmp_path / "hu.npy", np.zeros(shape, np.int16))
    assert problem(tmp_path / "hu.npy") == f"FILE has shape {shape}, expected (N, 128, 128) in HU: {fix}"
    np.savez(tmp_path / "hu.npz", np.zeros(shape, np.int16))
    assert problem(tmp_path / "hu.npz").endswith(f"has shape {shape}, expected (N, 128, 128) in HU: {fix}")


def test_the_fixes_we_name_work(tmp_path):
    array = HU[:, None]
    for fixed in (
        np.squeeze(array, 1),
        np.moveaxis(array, 1, -1),
        np.moveaxis(np.moveaxis(HU, 0, -1), -1, 0),
    ):
        np.save(tmp_path / "hu.npy", fixed)
        np.testing.assert_array_equal(open_slices(tmp_path / "hu.npy"), HU)


def test_npz_with_several_arrays_lists_them(tmp_path):
    np.savez(tmp_path / "hu.npz", a=HU, b=HU)
    assert problem(tmp_path / "hu.npz") == "FILE holds 2 arrays (a, b): call the one to use hu"


def test_npz_object_array_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "hu.npz", hu=np.array([print], dtype=object))
    assert problem(tmp_path / "hu.npz").startswith("FILE['hu'] holds Python objects, which are never unpickled")


def test_npz_sizes_are_not_believed(tmp_path, monkeypatch):
    path = tmp_path / "hu.npz"

    def write(content: bytes):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("hu.npy", content)

    # The header against the directory of the zip.
    write(npy(claim("(1000000000, 128, 128)"), bytes(32768)))
    assert problem(path).startswith("FILE['hu'] is cut short: 32,896 bytes where shape (1000000000, 128, 128) int16")
    # Header and directory agree on 3 GB, the data ends early.
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1 << 40))
    write(npy(claim("(100000, 128, 128)"), bytes(32768)))
    real, promised = (n.to_bytes(4, "little") for n in (128 + 32768, 128 + 100_000 * 32768))
    path.write_bytes(path.read_bytes().replace(real, promised))
    assert problem(path).startswith("FILE['hu'] is cut short: 3,276,767,232 of 3,276,800,000 bytes missing")


def test_npz_larger_than_memory(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "hu.npz", hu=HU)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=98_303))
    assert problem(tmp_path / "hu.npz") == (
        "FILE['hu'] needs 0.0 GB of memory, 0.0 GB are available: save it as .npy, which is read in place"
    )


def test_damage_anywhere_is_told_or_harmless(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, hu=HU[:1] // 100)
    whole, rng = buffer.getvalue(), np.random.default_rng(0)
    path, lines = tmp_path / "hu.npz", []
    for _ in range(300):
        damaged = bytearray(whole)
        at = rng.integers(len(whole)) if rng.random() < 0.3 else rng.choice([rng.integers(60), -rng.integers(1, 120)])
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            images = open_slices(path)
        except InputError as error:
            lines.append(str(error))
        else:
            np.testing.assert_array_equal(images, HU[:1] // 100)
    assert len(lines) > 100
    assert all(str(path) in line and "\n" not in line for line in lines)
