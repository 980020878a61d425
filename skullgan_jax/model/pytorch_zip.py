"""The zip container of PyTorch's files: which members it has, as views of the mapped file.

No size that the file states is believed: a record lies inside the file, apart from the others, and its CRC-32 holds.
"""

import itertools
import struct
import zipfile
import zlib
from typing import BinaryIO, NamedTuple

RESAVE = "open it in PyTorch and torch.save(net.state_dict(), 'new.pth')"
_MAX_DIRECTORY = 1 << 20  # bytes; that of a state dict of the pair has about 5,000
_OLD = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "ustar")  # the magic number of torch < 1.6, and of its tar files


class Refused(Exception):
    """What is wrong with the file, to be told with its name."""


class Record(NamedTuple):
    """A member of the zip."""

    data: memoryview
    crc: int

    def checked(self, name: str) -> memoryview:
        if zlib.crc32(self.data) != self.crc:
            raise Refused(f"damaged: the checksum of {name} does not hold; copy or download it again")
        return self.data


def recognise(data: memoryview) -> None:
    """Say what else than the zip format it is."""
    if bytes(data[:4]) == b"PK\3\4":
        return
    if bytes(data[: len(_OLD[0])]) == _OLD[0] or bytes(data[257:262]) == _OLD[1].encode():
        raise Refused(
            "in the format of PyTorch before 1.6, which is not read; re-save it with PyTorch: "
            "torch.save(torch.load('old.pth', map_location='cpu', weights_only=True), 'new.pth')"
        )
    if bytes(data[:512]).lstrip().lower().startswith((b"<!doctype", b"<html", b"version https://git-lfs")):
        raise Refused("a web page or a pointer in place of the weights; download the file itself")
    raise Refused("not a zip file, so not from torch.save of PyTorch 1.6 or later; give a .pth file, or copy it again")


def records(file: BinaryIO, data: memoryview) -> dict[str, Record]:
    """The zip's members without their common folder. torch.save compresses nothing, so neither may they."""
    if _directory_bytes(data) > _MAX_DIRECTORY:
        raise Refused("its table of contents is larger than that of any state dict; give a .pth of the pair")
    try:
        members = zipfile.ZipFile(file).infolist()
    except Exception as error:  # zipfile meets damage with a dozen types
        raise Refused(f"a damaged or truncated zip file ({error}); copy or download it again") from None
    records, spans = {}, []
    for member in members:
        name = member.orig_filename
        root, slash, rest = name.partition("/")
        if not (root and slash and rest) or ".." in name.split("/") or "\\" in name or "\0" in name:
            raise Refused(f"holds a member {name[:80]!r}, which torch.save does not write; give a .pth of PyTorch")
        if (
            member.compress_type != zipfile.ZIP_STORED
            or member.flag_bits & 1
            or member.compress_size != member.file_size
        ):
            raise Refused(f"its member {name[:80]!r} is compressed or encrypted, which torch.save never does; {RESAVE}")
        if rest in records:
            raise Refused(f"holds {rest[:80]!r} twice; {RESAVE}")
        start = member.header_offset
        header = bytes(data[start : start + 30]) if start >= 0 else b""
        if len(header) < 30 or not header.startswith(b"PK\3\4"):
            raise Refused(f"damaged: {name[:80]!r} is not where the table of contents says; copy or download it again")
        begin = start + 30 + sum(struct.unpack("<HH", header[26:]))
        end = begin + member.file_size
        if end > len(data):
            raise Refused(f"truncated: {name[:80]!r} goes on after the end of the file; copy or download it again")
        spans.append((start, end))
        records[rest] = Record(data[begin:end], member.CRC)
    spans.sort()
    if any(end > start for (_, end), (start, _) in itertools.pairwise(spans)):
        raise Refused(f"its members overlap; {RESAVE}")
    return records


def _directory_bytes(data: memoryview) -> int:
    """The size of the table of contents by either of the records at the file's end, whichever states more."""
    tail = bytes(data[-(22 + 65535 + 20 + 56) :])
    end = tail.rfind(b"PK\5\6")
    stated = [0]
    if 0 <= end <= len(tail) - 22:
        stated.append(struct.unpack_from("<L", tail, end + 12)[0] % 0xFFFFFFFF)  # all ones: see the record of zip64
    end64 = tail.rfind(b"PK\6\6")
    if 0 <= end64 <= len(tail) - 56:
        stated.append(struct.unpack_from("<Q", tail, end64 + 40)[0])
    return max(stated)
