"""Headers as nobody should write them: odd values in every tag that is read; what lies beside them is cut."""

import json
import random
import struct
from concurrent import futures

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom import datadict, uid

from skullgan_jax import prepare
from skullgan_jax.ct import cut, dataset, dicom, scans
from skullgan_jax.ct.window import Limits
from skullgan_jax.errors import InputError
from tests.ct import heads

SYNTAX = 0x00020010
READ = [SYNTAX] + [
    datadict.tag_for_keyword(name)
    for name in (
        *dicom.TAGS,
        *("PixelPaddingValue", "PixelPaddingRangeLimit", "BitsAllocated", "HighBit", "PixelRepresentation"),
        *("PhotometricInterpretation", "PixelData"),
    )
]
ODD = [
    *(None, b"", b"1,5", b"0,5\\0,5", b"abc", b"1" * 400, b"9" * 70000, b"1e300", b"-3", b"0", b"1.5", b"65535"),
    *(b"nan", b"inf", b"\\\\\\", b"1\\2", b"1\\0\\0\\0\\1\\0\\0", b"\x01\x00", b"\xff\xff", b"\xff\x00\x07\xfe"),
]
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"OF")
TYPES = [b"US", b"SS", b"FD", b"DS", b"IS", b"LO", b"PN", b"UI", b"CS", b"AT", b"QQ", *LONG]
SAID = ("left out: ", "warning: ", "segments: ", "slices: ", "looked at ", "cut ")


def one_thread(jobs, context):
    dataset._opened.clear()
    return futures.ThreadPoolExecutor(1)


def elements(path) -> dict[int, tuple[bytes, bytes]]:
    """Tag -> type and value, as they lie in a file."""
    found = pydicom.dcmread(path)
    raw = {int(tag): found.get_item(tag) for tag in list(found.keys())}
    return {SYNTAX: (b"UI", uid.ExplicitVRLittleEndian.encode())} | {
        t: (e.VR.encode(), e.value) for t, e in raw.items()
    }


def as_file(found: dict[int, tuple[bytes, bytes]]) -> bytes:
    """In explicit little endian, whatever the types and values are."""
    out = bytes(128) + b"DICM"
    for tag, (vr, value) in sorted(found.items()):
        value += b" " * (len(value) % 2)
        wide = vr in LONG
        value = value if wide else value[:65534]
        out += struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
        out += struct.pack("<HI", 0, len(value)) if wide else struct.pack("<H", len(value))
        out += value
    return out


def made_odd(draw: random.Random, found: dict) -> dict:
    """With one tag, sometimes two, of an odd value or type."""
    found = dict(found)
    for tag in draw.sample(READ, draw.choice([1, 1, 1, 2])):
        odd, (vr, value) = draw.choice(ODD), found.get(tag, (b"LO", b""))
        kind = draw.random()
        if odd is None and tag != SYNTAX:
            found.pop(tag, None)
        elif kind < 0.2:
            found[tag] = draw.choice(TYPES), value
        elif kind < 0.3:
            found[tag] = vr, b"\\".join([value] * 3)
        elif kind < 0.4:
            found[tag] = draw.choice(TYPES), odd or b""
        else:
            found[tag] = vr, odd or b""
    return found


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with two patients, and what a run says of them alone: salt, and accepted windows by scan."""
    folder = tmp_path_factory.mktemp("good")
    for name in ("one", "two"):
        heads.write_dicom(folder / "in" / name, heads.head(shape=(3, 400, 400))[:, ::2, ::2], patient=name,
                          PixelSpacing=[1, 1], StudyInstanceUID=f"1.2.{len(name)}.{ord(name[0])}")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(futures, "ProcessPoolExecutor", one_thread)
        assert run(folder / "in", folder / "out", folder / "salt") == 0
    return folder, accepted(folder / "out")


def run(source, output, salt) -> int:
    flags = ["--format=npy", "--angles=4", "--jobs=1", f"--salt={salt}"]
    with pytest.raises(SystemExit) as ended:
        prepare.run([f"--input={source}", f"--output={output}", *flags])
    return ended.value.code


def accepted(output) -> dict[str, int]:
    scans = json.loads((output / "summary.json").read_text())["scans"]
    return {name: scan["windows"]["accepted"] for name, scan in scans.items()}


def check(good, folder, capfd, seed: int, series: int):
    """One run over the two patients and so many odd series of three files each."""
    alone, expected = good
    draw = random.Random(seed)
    source = folder / f"in{seed}"
    source.mkdir()
    for name in ("one", "two"):
        (source / name).symlink_to(alone / "in" / name)
    base = [elements(p) for p in sorted((alone / "in" / "one").iterdir())]
    instance, name_of = (datadict.tag_for_keyword(k) for k in ("SOPInstanceUID", "SeriesInstanceUID"))
    for i in range(series):
        own = source / f"odd{i}" if draw.random() < 0.7 else source
        own.mkdir(exist_ok=True)
        state = draw.getstate()
        for k, found in enumerate(base):
            draw.setstate(state)  # the three are odd in one way
            found = found | {name_of: (b"UI", b"1.9.%d" % i), instance: (b"UI", b"1.9.%d.%d" % (i, k))}
            found[datadict.tag_for_keyword("PatientID")] = b"LO", b"odd%d" % i
            (own / f"{i}.{k}.dcm").write_bytes(as_file(made_odd(draw, found)))
    assert run(source, folder / f"out{seed}", alone / "salt") in (0, 1)
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if not line.startswith(SAID)] == []
    now = accepted(folder / f"out{seed}")
    assert {name: now.get(name) for name in expected} == expected
    known = json.loads((folder / f"out{seed}" / "summary.json").read_text())["scans"]
    assert len({known[name]["subject"] for name in expected}) == 2
    return said, now


def test_odd_headers(good, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(futures, "ProcessPoolExecutor", one_thread)
    said, now = check(good, tmp_path, capfd, 0, 25)
    assert 10 < len([line for line in said if line.startswith("left out")]) < 30
    assert len(now) > 5  # much that is odd does no harm


@pytest.mark.all
@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(k, marks=pytest.mark.slow) for k in range(3, 11))])
def test_two_thousand_odd_files(good, tmp_path, capfd, monkeypatch, seed):
    monkeypatch.setattr(futures, "ProcessPoolExecutor", one_thread)
    check(good, tmp_path, capfd, seed, 67)


@pytest.mark.all
@pytest.mark.filterwarnings("error")
def test_odd_headers_of_nifti(tmp_path):
    """Numbers changed anywhere in the 352 bytes of a header: one line, or segments."""
    draw, path, cut_of, refused = random.Random(0), tmp_path / "head.nii", 0, []
    volume = heads.head(shape=(3, 400, 400))[:, ::3, ::3]
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([-1.5, -1.5, 3, 1])), path)
    good = path.read_bytes()
    for _ in range(400):
        raw = bytearray(good)
        for _ in range(draw.choice([1, 1, 2, 3])):
            number = draw.choice([
                draw.randbytes(1),
                struct.pack("<h", draw.choice([0, -1, 32767, 2, 8, 16, 64, 256, 512])),
                struct.pack("<f", draw.choice([0, -1, float("nan"), float("inf"), 1e30, 1e-30, 0.5])),
            ])  # fmt: skip
            at = draw.randrange(0, 352, len(number))
            raw[at : at + len(number)] = number
        path.write_bytes(raw)
        try:
            scan = scans.nifti(path, ())
            scans.check_hu(scan)
            cut_of += len(cut.cut(scan, Limits(angles=2)).windows) > 0
        except InputError as error:
            refused.append(str(error))
    assert 100 < cut_of < 350
    assert all(line.startswith(f"{path}: ") for line in refused)
