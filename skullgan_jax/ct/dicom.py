"""DICOM series as stacks of planes.

Nothing in a header is believed that the geometry can tell: slices are ordered by where they lie, never by number. And
no header is expected to keep the standard: what is needed is read here, once, as plain numbers and words.
"""

import collections
import dataclasses
import hashlib
import math
import os
import re
import struct
import warnings

import numpy as np
import pydicom
from pydicom import uid

from skullgan_jax.ct import scans
from skullgan_jax.errors import InputError

TAGS = [
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "StudyInstanceUID", "SeriesInstanceUID"),
    *("FrameOfReferenceUID", "AcquisitionNumber", "InstanceNumber", "SliceThickness", "KVP", "ConvolutionKernel"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "BitsStored"),
    *("SamplesPerPixel", "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "RescaleType", "LossyImageCompression"),
]
NO_DICOM = "not DICOM; remove it or export it again"
_ENHANCED = (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
_LOSSY = (
    *(uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless),
    *(uid.JPEG2000, uid.HTJ2K),  # these may be lossless, too, and then nothing but the tag tells
)
_SURVEYS = {"LOCALIZER", "SCOUT", "SURVEY", "SURVIEW", "TOPOGRAM", "SCANOGRAM"}
_PAGES = ("SR", "OT", "DOC", "PR", "KO", "SC", "SEG", "REG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE")
_FAR = 1e5  # mm and HU beyond which a number is none of a head
_TURNED = 2e-3  # of direction cosines; scanners round them differently from slice to slice
_CHUNK = 1 << 16


class NotDicom(InputError):
    """The file is no DICOM file."""


class NoImage(Exception):
    """A DICOM file that no one expects to be cut: a localiser, a report, a derived page. The message says which."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What is needed of a CT slice; words are "" and numbers 0 where a header has none that can be read.

    Attributes:
      patient, study, series, frame, instance: what DICOM tells them apart by.
      acquisition, number: as the scanner counts acquisitions and images.
      position: (3,) mm. orientation: (6,) direction cosines. spacing: (2,) mm, height and width of a pixel.
      rows, columns: of the image.
      slope, intercept: from stored values to HU.
      kernel, kvp, slice_mm: as of scans.Scan.
      lossy: whether it was compressed with loss.
      derived: whether it was reformatted from other slices.
      size: of the file in bytes.
      part: which part of a series it is, where that holds several stacks at the same places.
      before: what versions up to 0.1 told its stack by.
    """

    patient: str
    study: str
    series: str
    frame: str
    instance: str
    acquisition: str
    number: float
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    rows: int
    columns: int
    slope: float
    intercept: float
    kernel: str
    kvp: float
    slice_mm: float
    lossy: bool
    derived: bool
    size: int
    before: str
    part: str = ""

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit normal of the plane."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return normal / max(np.linalg.norm(normal), 1e-9)


def header(path) -> Header:
    """What is needed of one file.

    Raises:
      NotDicom: it is not DICOM.
      NoImage: it is DICOM, but none to cut.
      InputError: it should be a slice of a CT, and cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that break rules nobody needs here
            found = _read(path, stop_before_pixels=True, specific_tags=TAGS)
            _check(path, found)
            return _header(path, found)
    except pydicom.errors.InvalidDicomError:
        raise NotDicom(f"{path}: {NO_DICOM}") from None
    except (InputError, NoImage):
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged header fails in a dozen ways
        raise InputError(f"{path}: damaged DICOM ({type(error).__name__}); export it again") from None


def _read(path, **options) -> pydicom.Dataset:
    """A data set; one without preamble or file header, too, if its first bytes are a DICOM header's."""
    try:
        found = pydicom.dcmread(path, **options)
    except pydicom.errors.InvalidDicomError:
        if not _begins_with_a_header(path):
            raise
        found = pydicom.dcmread(path, force=True, **options)
    if "TransferSyntaxUID" not in found.file_meta:
        implicit, little = found.original_encoding
        plain = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        found.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else plain
    return found


def _begins_with_a_header(path) -> bool:
    """Whether the first element of a file is one of groups 2 or 8, of a length that the file has room for."""
    with open(path, "rb") as file:
        first, size = file.read(8), os.fstat(file.fileno()).st_size
    if len(first) < 8:
        return False
    explicit = first[4:6].isalpha() and first[4:6].isupper()
    elements = (struct.unpack(f"{order}HHI", first) for order in "<>")
    return any(g in (2, 8) and e <= 0x100 and (explicit or length < size) for g, e, length in elements)


def _values(found, name: str) -> list:
    """The values of an element: none if it is missing, empty, or cannot be read."""
    try:
        value = found.get(name)
        several = isinstance(value, (list, tuple, pydicom.multival.MultiValue))
        return [v for v in (value if several else [value]) if isinstance(v, (str, int, float)) and str(v).strip(" \0")]
    except Exception:  # pydicom raises whatever it runs into
        return []


def _text(found, name: str) -> str:
    return "\\".join(str(v).strip(" \0") for v in _values(found, name))


def _number(value) -> float | None:
    """A number, also with a comma in the place of the point."""
    try:
        number = float(str(value).strip(" \0").replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _optional(found, name: str, least: float, most: float) -> float:
    """A number that a scan can do without: 0 where there is none, or several."""
    values = [_number(v) for v in _values(found, name)]
    return values[0] if len(values) == 1 and values[0] is not None and least <= values[0] <= most else 0.0


def _needed(path, found, name: str, count: int, missing: str) -> tuple[float, ...]:
    values = _values(found, name)
    if not values:
        raise InputError(f"{path}: {missing}")
    numbers = tuple(_number(v) for v in values)
    if len(numbers) != count or any(n is None or abs(n) > _FAR for n in numbers):
        wanted = f"{count} numbers" if count > 1 else "a number"
        raise InputError(f"{path}: {name} is {_text(found, name)[:60]!r}, not {wanted}; export it again")
    return numbers


def _check(path, found) -> None:
    sop, modality = _text(found, "SOPClassUID"), _text(found, "Modality")
    image_type = _text(found, "ImageType").upper().split("\\")
    positioned = bool(_values(found, "ImagePositionPatient"))
    if sop == uid.CTImageStorage and "Rows" not in found:
        raise InputError(f"{path}: cut short, it ends before its pixels; copy it again")
    if sop == uid.MediaStorageDirectoryStorage or "Rows" not in found:
        raise NoImage("reports and others without pixels")
    if _SURVEYS & set(image_type):
        raise NoImage("localisers")
    several = max(_optional(found, n, 0, _FAR) for n in ("NumberOfFrames", "SamplesPerPixel")) > 1
    captured = sop.startswith(uid.SecondaryCaptureImageStorage) or image_type[:2] == ["DERIVED", "SECONDARY"]
    if modality in _PAGES or "SCREEN SAVE" in " ".join(image_type) or (captured and (several or not positioned)):
        raise NoImage("derived pages")
    if {"PROJECTION IMAGE", "MIP"} & set(image_type[2:]):
        raise NoImage("derived pages")
    if modality != "CT":
        raise InputError(f"{path}: {modality[:20] or 'no modality'} instead of CT; give CT")
    if sop in _ENHANCED or several:
        raise InputError(f"{path}: colour or multi-frame; export plain CT slices, one per file")
    if 0 < _optional(found, "BitsStored", 0, 64) <= 8:
        raise InputError(f"{path}: 8 bits, a windowed export; give the original CT slices")
    if (_text(found, "RescaleType") or "HU").upper() not in ("HU", "HU_MOD", "US"):
        raise InputError(f"{path}: rescaled to {_text(found, 'RescaleType')[:20]}, not HU; export the original")


def _header(path, found) -> Header:
    nowhere = "{} is missing, so nobody knows where it lies; export it with its geometry"
    position, orientation, spacing = (
        _needed(path, found, name, count, nowhere.format(name))
        for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    )
    unscaled = "rescale slope and intercept are missing, so it is not HU; export the original"
    slope, intercept = (_needed(path, found, f"Rescale{x}", 1, unscaled)[0] for x in ("Slope", "Intercept"))
    rows, columns = (_needed(path, found, x, 1, f"{x} is empty; export it again")[0] for x in ("Rows", "Columns"))
    directions = np.reshape(orientation, (2, 3))
    if abs(directions @ directions.T - np.eye(2)).max() > 0.01:
        raise InputError(f"{path}: ImageOrientationPatient is no two directions at right angles; export it again")
    if slope <= 0 or not (0 < rows < 65536 and 0 < columns < 65536 and rows % 1 == columns % 1 == 0):
        raise InputError(f"{path}: {rows:g} x {columns:g} pixels, slope {slope:g}; export it again")
    kernel = re.sub(r"[^A-Za-z0-9+./_-]", "", _text(found, "ConvolutionKernel").replace("\\", "/"))[:24]
    lossy = _text(found, "LossyImageCompression") == "01"
    syntax = str(getattr(found.file_meta, "TransferSyntaxUID", ""))
    image_type = _text(found, "ImageType").upper().split("\\")
    rounded = tuple(round(x, 3) for x in orientation), tuple(round(x, 4) for x in spacing)
    series = _text(found, "SeriesInstanceUID")
    return Header(
        patient=_text(found, "PatientID"),
        study=_text(found, "StudyInstanceUID"),
        series=series,
        frame=_text(found, "FrameOfReferenceUID"),
        instance=_text(found, "SOPInstanceUID"),
        acquisition=_text(found, "AcquisitionNumber"),
        number=_optional(found, "InstanceNumber", -_FAR, _FAR),
        position=position,
        orientation=orientation,
        spacing=spacing,
        rows=int(rows),
        columns=int(columns),
        slope=slope,
        intercept=intercept,
        # Free text, so only what kernels are named with.
        kernel=kernel,
        kvp=_optional(found, "KVP", 0, 1000),
        slice_mm=_optional(found, "SliceThickness", 0, 1000),
        lossy=lossy or (syntax in _LOSSY and _text(found, "LossyImageCompression") != "00"),
        derived=image_type[0] == "DERIVED" or "MPR" in image_type,
        size=os.stat(path).st_size,
        before=str((series, rounded[0], kernel, int(rows), int(columns), rounded[1])),
    )


def is_survey(headers: dict[str, Header]) -> bool:
    """Whether a stack is a localiser that does not say so: a plane or two, and none axial."""
    return len(headers) < scans.FEWEST and not _is_axial(headers)


def is_reformatted(headers: dict[str, Header]) -> bool:
    """Whether a stack was computed from an axial one, in another direction."""
    return all(h.derived for h in headers.values()) and not _is_axial(headers)


def _is_axial(headers: dict[str, Header]) -> bool:
    return abs(next(iter(headers.values())).normal[2]) >= scans.AXIAL


def group(headers: dict[str, Header]) -> list[dict[str, Header]]:
    """The files of each stack: one patient, study and series, one kernel and size, one direction of the planes.

    Where a series has no name of its own, its folder is it; where there are several slices at one place, what tells
    them apart makes stacks of them.
    """
    stacks = collections.defaultdict(dict)
    for path, h in headers.items():
        stacks[_series(path, h), h.kernel, h.rows, h.columns][path] = h
    found = [turned for same in stacks.values() for turned in _alike(same)]
    for field in ("study", "frame"):
        found = [part for same in found for part in _parted(same, lambda path, h, field=field: getattr(h, field))]
    return [part for same in found for part in _passes(same)]


def _series(path: str, h: Header) -> tuple[str, ...]:
    return h.patient, h.series or f"folder {_folder(path)}"


def _parted(found: dict[str, Header], tell) -> list[dict[str, Header]]:
    """Parts of which `tell` says the same; one part where each would be too small, as of programs that number files."""
    parts = collections.defaultdict(dict)
    for path, h in found.items():
        parts[tell(path, h)][path] = h
    return list(parts.values()) if all(len(p) >= scans.FEWEST for p in parts.values()) else [found]


def _folder(path: str) -> str:
    return os.path.realpath(os.path.dirname(path))


def _alike(found: dict[str, Header]) -> list[dict[str, Header]]:
    """Parts of one direction and spacing, but for rounding."""
    out = []
    for path, h in found.items():
        geometry = np.array([*h.orientation, *(np.log(np.maximum(h.spacing, 1e-9)))])
        for first, members in out:
            if abs(first - geometry).max() < _TURNED:
                members[path] = h
                break
        else:
            out.append((geometry, {path: h}))
    return [members for _, members in out]


def _passes(found: dict[str, Header]) -> list[dict[str, Header]]:
    """A series as stacks that have one slice at each place, as far as anything tells its slices apart."""
    found = _without_copies(dict(sorted(found.items(), key=lambda each: each[1].number)))
    if not _repeated(found):
        return [found]
    for what, tell in (
        ("folder", lambda path, h: _folder(path)),
        ("acquisition", lambda path, h: h.acquisition),
        ("voltage", lambda path, h: f"{h.kvp:g}"),
    ):
        parts = _parted({p: dataclasses.replace(h, part=f"{what} {tell(p, h)}") for p, h in found.items()}, tell)
        if not any(map(_repeated, parts)):
            return parts
    # The first of each place by number, the second of each, and so on; a few alone are no pass.
    parts, seen = collections.defaultdict(dict), collections.Counter()
    for path, place in _places(found).items():
        seen[place] += 1
        parts[seen[place]][path] = dataclasses.replace(found[path], part=f"pass {seen[place]}" * (seen[place] > 1))
    few = [k for k, p in parts.items() if k > 1 and len(p) < scans.FEWEST]
    for k in few:
        parts[1] |= {path: dataclasses.replace(h, part="") for path, h in parts.pop(k).items()}
    return list(parts.values())


def _without_copies(found: dict[str, Header]) -> dict[str, Header]:
    """Without files that are there twice; the name of an image alone does not make two of them one."""
    seen, out = collections.defaultdict(list), {}
    for path, h in found.items():
        alike = seen[h.instance, h.position, h.size] if h.instance else []
        if not any(_chunk(other, h.size) == _chunk(path, h.size) for other in alike):
            alike.append(path)
            out[path] = h
    return out


def _chunk(path: str, size: int) -> bytes:
    """From the middle of a file, which is the middle of its image; nothing where it can no longer be read."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, (size - _CHUNK) // 2))
            return file.read(_CHUNK)
    except OSError:
        return b""


def _places(found: dict[str, Header]) -> dict[str, int]:
    """For each file the number of the place along the normal where it lies."""
    normal = next(iter(found.values())).normal
    heights = np.array([h.position for h in found.values()]) @ normal
    order = np.argsort(heights, kind="stable")
    number = np.empty(len(order), int)
    number[order] = np.cumsum(np.diff(heights[order], prepend=heights[order[0]]) > scans.SAME_MM)
    return dict(zip(found, number.tolist(), strict=True))


def _repeated(found: dict[str, Header]) -> bool:
    return len(set(_places(found).values())) < len(found)


def stack(headers: dict[str, Header], told_by: tuple[str, ...] = ()) -> scans.Scan:
    """A Scan of the files of one stack.

    Args:
      headers: path -> header, one stack of `group`.
      told_by: what tells whose it is beside the headers, as of Scan.

    Raises:
      InputError: the geometry is no axial head CT's.
    """
    paths, each = list(headers), list(headers.values())
    first = each[0]
    cosines = np.array(first.orientation).reshape(2, 3)  # along a row, then down a column
    height, width = first.spacing
    name = os.path.dirname(paths[0]) or "."
    thick = {h.slice_mm for h in each}
    notes = (f"slices of {' and '.join(f'{x:g}' for x in sorted(thick))} mm",) if len(thick) > 1 else ()
    tilt = np.degrees(np.arccos(np.clip(abs(first.normal[2]), 0, 1)))
    if tilt > 1:
        notes += (f"planes tilted by {tilt:.1f} degrees",)
    if any(h.lossy for h in each):
        notes += (scans.LOSSY,)
    if first.part:
        what = first.part.split()[0]
        notes += (f"one of several stacks at the same places, told apart by {'number' if what == 'pass' else what}",)
    known = {f"{what} {getattr(h, field)}" for h in each for what, field in _TELLING if getattr(h, field)}
    common = [said.pop() if len(said) == 1 else "" for said in ({h.study for h in each}, {h.frame for h in each})]
    size = first.rows, first.columns
    geometry = [round(float(x), 2) + 0.0 for x in (*np.mean([h.orientation for h in each], 0), height, width)]

    def content() -> str:
        names = sorted(f"{h.instance or p} {h.size}" for p, h in headers.items())
        middle = sorted(headers, key=lambda p: headers[p].position @ first.normal)[len(paths) // 2]
        said = "\n".join(names).encode(errors="surrogateescape")
        return hashlib.sha256(said + _chunk(middle, headers[middle].size)).hexdigest()

    return scans.oriented(
        name=f"{name} (series with {len(paths)} files)",
        told_by=(*sorted(known), *told_by),
        series=str((*_series(paths[0], first), *common, *size, *geometry, first.kernel, first.part)),
        before=tuple(sorted({h.before for h in each if h.series})),
        content=content,
        positions=[h.position for h in each],
        axes=[cosines[1] * height, cosines[0] * width],
        shape=size,
        read=lambda i: pixels(paths[i], each[i]),
        kernel=first.kernel,
        kvp=first.kvp,
        slice_mm=first.slice_mm,
        notes=notes,
    )


_TELLING = (("id", "patient"), ("study", "study"), ("frame", "frame"))


def pixels(path, about: Header) -> np.ndarray:
    """One slice, (rows, columns) float32 HU.

    Raises:
      InputError: its pixels cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _read(path)
            stored = found.pixel_array
            padding = [_number(v) for n in ("Value", "RangeLimit") for v in _values(found, f"PixelPadding{n}")[:1]]
        if stored.shape != (about.rows, about.columns):
            raise ValueError(f"{' x '.join(map(str, stored.shape))} pixels")
        hu = stored.astype(np.float32) * np.float32(about.slope) + np.float32(about.intercept)
        if padding and None not in padding:
            hu[(stored >= min(padding)) & (stored <= max(padding))] = scans.AIR
        return hu
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # pydicom and its decoders raise whatever they run into
        reason = re.sub(r"\s+", " ", str(error)).split(". ")[0][:120]
        raise InputError(f"{path}: pixel data truncated or not decodable ({reason}); export it again") from None
