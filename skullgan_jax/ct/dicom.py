"""DICOM series as stacks of planes.

Nothing in a header is believed that the geometry can tell: slices are ordered by where they lie, never by number.
"""

import collections
import hashlib
import os
import re
import warnings

import numpy as np
import pydicom
from pydicom import uid

from skullgan_jax.ct import scans
from skullgan_jax.errors import InputError

_TAGS = [
    *(
        "SOPClassUID",
        "SOPInstanceUID",
        "Modality",
        "ImageType",
        "PatientID",
        "SeriesInstanceUID",
        "FrameOfReferenceUID",
    ),
    *("SliceThickness", "KVP", "ConvolutionKernel", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
    *("Rows", "Columns", "BitsStored", "SamplesPerPixel", "NumberOfFrames", "RescaleSlope", "RescaleIntercept"),
    "RescaleType",
]
_ENHANCED = (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)


class NotDicom(InputError):
    """The file is no DICOM file."""


class NoImage(Exception):
    """A DICOM file that no one expects to be cut: a localiser, a report, a derived page. The message says which."""


def header(path) -> pydicom.Dataset:
    """The elements of a CT slice that are needed, of one file.

    Raises:
      NotDicom: it is not DICOM.
      NoImage: it is DICOM, but none to cut.
      InputError: it should be a slice of a CT, and cannot be used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # values that break rules nobody needs here
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            _check(path, found)
            return found
    except pydicom.errors.InvalidDicomError:
        raise NotDicom(f"{path}: not DICOM; remove it or export it again") from None
    except (InputError, NoImage):
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged header fails in a dozen ways
        raise InputError(f"{path}: damaged DICOM ({type(error).__name__}); export it again") from None


def _check(path, found) -> None:
    sop, modality = found.get("SOPClassUID"), found.get("Modality", "")
    image_type = [str(x).upper() for x in found.get("ImageType") or ()]
    if sop == uid.CTImageStorage and "Rows" not in found:
        raise InputError(f"{path}: cut short, it ends before its pixels; copy it again")
    if sop == uid.MediaStorageDirectoryStorage or "Rows" not in found:
        raise NoImage("reports and others without pixels")
    if {"LOCALIZER", "SCOUT"} & set(image_type):
        raise NoImage("localisers")
    if modality != "CT":
        raise InputError(f"{path}: {modality or 'no modality'} instead of CT; give CT")
    if sop in _ENHANCED or int(found.get("NumberOfFrames") or 1) > 1 or int(found.get("SamplesPerPixel", 1)) > 1:
        raise InputError(f"{path}: colour or multi-frame; export plain CT slices, one per file")
    if "SCREEN SAVE" in " ".join(image_type) or (len(image_type) > 2 and {"MPR", "PROJECTION IMAGE"} & set(image_type)):
        raise NoImage("derived pages")
    if int(found.get("BitsStored") or 16) <= 8:
        raise InputError(f"{path}: 8 bits, a windowed export; give the original CT slices")
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        count = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}[name]
        if len(found.get(name) or ()) != count:
            raise InputError(f"{path}: {name} is missing, so nobody knows where it lies; export it with its geometry")
    if found.get("RescaleSlope") is None or found.get("RescaleIntercept") is None:
        raise InputError(f"{path}: rescale slope and intercept are missing, so it is not HU; export the original")
    if str(found.get("RescaleType", "HU") or "HU").upper() not in ("HU", "HU_MOD", "US"):
        raise InputError(f"{path}: rescaled to {found.RescaleType}, not HU; export the original")


def group(headers: dict[str, pydicom.Dataset]) -> list[list[str]]:
    """The paths of each stack: one series, one orientation, one kernel, one size and spacing."""
    stacks = collections.defaultdict(list)
    for path, h in headers.items():
        stacks[_key(h)].append(path)
    return list(stacks.values())


def _key(h) -> tuple:
    orientation = tuple(round(float(x), 3) for x in h.ImageOrientationPatient)
    spacing = tuple(round(float(x), 4) for x in h.PixelSpacing)
    return str(h.get("SeriesInstanceUID")), orientation, _kernel(h), int(h.Rows), int(h.Columns), spacing


def stack(headers: dict[str, pydicom.Dataset], subject_by_folder: str | None) -> scans.Scan:
    """A Scan of the files of one stack.

    Args:
      headers: path -> header, all of one stack.
      subject_by_folder: the subject, where PatientID is not to be asked.

    Raises:
      InputError: the geometry is no axial head CT's.
    """
    paths = list(headers)
    first = headers[paths[0]]
    cosines = np.array(first.ImageOrientationPatient, float).reshape(2, 3)  # along a row, then down a column
    height, width = (float(x) for x in first.PixelSpacing)
    name = os.path.dirname(paths[0]) or "."
    uids = sorted(str(headers[p].get("SOPInstanceUID") or p) for p in paths)
    others = {float(h.get("SliceThickness") or 0) for h in headers.values()}
    notes = (f"slices of {' and '.join(f'{x:g}' for x in sorted(others))} mm",) if len(others) > 1 else ()
    tilt = np.degrees(np.arccos(np.clip(abs(np.cross(*cosines)[2]), 0, 1)))
    if tilt > 1:
        notes += (f"planes tilted by {tilt:.1f} degrees",)
    patient = str(first.get("PatientID") or "").strip()
    return scans.oriented(
        name=f"{name} (series with {len(paths)} files)",
        subject=subject_by_folder or (f"id {patient}" if patient else f"folder {name}"),
        series=str(_key(first)),
        content=lambda: hashlib.sha256("\n".join(uids).encode()).hexdigest(),
        positions=[[float(x) for x in headers[p].ImagePositionPatient] for p in paths],
        axes=[cosines[1] * height, cosines[0] * width],
        shape=(int(first.Rows), int(first.Columns)),
        read=lambda i: pixels(paths[i]),
        kernel=_kernel(first),
        kvp=float(first.get("KVP") or 0),
        slice_mm=float(first.get("SliceThickness") or 0),
        notes=notes,
    )


def _kernel(h) -> str:
    """Free text, so only what kernels are named with."""
    value = h.get("ConvolutionKernel") or ""
    value = value if isinstance(value, str) else "/".join(map(str, value))
    return re.sub(r"[^A-Za-z0-9+./_-]", "", value)[:24]


def pixels(path) -> np.ndarray:
    """One slice, (rows, columns) float32 HU.

    Raises:
      InputError: its pixels cannot be decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pydicom.dcmread(path)
            stored = found.pixel_array
        padding = found.get("PixelPaddingValue")
        hu = stored.astype(np.float32) * np.float32(found.RescaleSlope) + np.float32(found.RescaleIntercept)
        if padding is not None:
            limit = found.get("PixelPaddingRangeLimit", padding)
            hu[(stored >= min(padding, limit)) & (stored <= max(padding, limit))] = scans.AIR
        return hu
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # pydicom and its decoders raise whatever they run into
        reason = re.sub(r"\s+", " ", str(error)).split(". ")[0][:120]
        raise InputError(f"{path}: pixel data truncated or not decodable ({reason}); export it again") from None
