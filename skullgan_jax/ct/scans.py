"""Head CTs on disk as stacks of planes: DICOM, NIfTI and .npy.

Coordinates are DICOM's: mm, x to the patient's left, y to the back, z to the head. A stack may be sheared (gantry tilt)
and unevenly spaced: every slice has its own position, and is a true plane whatever the others are.
"""

import dataclasses
import gzip
import hashlib
import re
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from skullgan_jax.errors import InputError

AIR = -1024  # HU; padding outside the field of view is stored as anything below, or NaN
_AT_ONCE = 16  # slices of a compressed volume; each is unpacked from where the last one ended
_PIECE = 1 << 20  # bytes of one that are unpacked at a time
FEWEST = 3  # slices; the lean of the surface needs neighbours
SAME_MM = 0.01  # slices nearer than this lie at one place
AXIAL = float(np.cos(np.radians(45)))  # least cosine of the planes' normal to the body's axis
_UNITS = {1: 1e3, 2: 1, 3: 1e-3}  # of NIfTI, in mm; with others, and those of time in the higher bits, files are mm
LOSSY, SAME_PLACES = "compressed with loss", "at repeated positions"  # in notes
_FINEST_MM, _NARROWEST_MM = 0.05, 30.0  # of a pixel and of a plane; what is below is a mistake in the header
_NOTHING = int(np.iinfo(np.int16).min)  # where a compressed volume has NaN


@dataclasses.dataclass(frozen=True)
class Scan:
    """One stack of parallel planes, seen as radiologists see them: columns to the left, rows to the back, slices up.

    Attributes:
      name: where it lies; for messages, never for outputs.
      told_by: what tells whose it is, see subjects.py; leaves this process only as hashes.
      series: what stays the same when slices are added to the scan, "" if nothing does.
      before: what versions up to 0.1 had as `series`; several, where they took one scan for several.
      content: function that gives the hash of what was read; it may have to read the file.
      positions: (N, 3) mm, the centre of the first pixel of each slice.
      axes: (2, 3) mm, the step from row to row and from column to column.
      read: function of i -> (rows, columns) float32 HU, not clipped; raises InputError.
      kernel: name of the reconstruction kernel, or "".
      kvp: tube voltage in kV, or 0.
      slice_mm: nominal slice thickness, or 0.
      notes: what a person should know of it.
    """

    name: str
    told_by: tuple[str, ...]
    series: str
    content: Callable[[], str]
    positions: np.ndarray
    axes: np.ndarray
    read: Callable[[int], np.ndarray]
    kernel: str = ""
    kvp: float = 0.0
    slice_mm: float = 0.0
    notes: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    @property
    def pixel_mm(self) -> np.ndarray:
        """(2,) height and width of a pixel."""
        return np.linalg.norm(self.axes, axis=1)

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit normal of the planes, to the head."""
        normal = np.cross(self.axes[1], self.axes[0])
        return normal / np.linalg.norm(normal)

    @property
    def heights(self) -> np.ndarray:
        """(N,) mm along the normal."""
        return self.positions @ self.normal

    def slice(self, i: int) -> np.ndarray:
        """Slice i, (rows, columns) float32 HU; padding, NaN and anything below air is -1024.

        Raises:
          InputError: it cannot be read.
        """
        hu = self.read(i)
        if not np.isfinite(hu).all():
            hu = self._padded(hu, i)
        return np.maximum(hu, AIR, dtype=np.float32)

    def _padded(self, hu: np.ndarray, i: int) -> np.ndarray:
        """Without the NaN that some programs write outside the field of view."""
        nothing = np.isnan(hu)
        labels, _ = ndimage.label(np.pad(nothing, 1, constant_values=True))
        if np.isinf(hu).any() or (nothing & (labels != labels[0, 0])[1:-1, 1:-1]).any():
            raise InputError(
                f"{self.name}: NaN or infinite values inside the slice at {self.heights[i]:.1f} mm; export it again"
            )
        return np.where(nothing, np.float32(AIR), hu)


def oriented(*, positions, axes, shape, read, **about) -> Scan:
    """A Scan in the orientation that `Scan` promises, from one in any: transposed, mirrored and sorted as it takes.

    Args:
      positions: (N, 3) mm, of the first pixel of each slice, in any order.
      axes: (2, 3) mm, steps along the rows' and the columns' index.
      shape: rows and columns.
      read: function of i -> (rows, columns).
      about: the other fields of Scan.

    Raises:
      InputError: geometry that no axial head CT has.
    """
    name, axes, positions = about["name"], np.array(axes, float), np.array(positions, float)
    pixel = np.linalg.norm(axes, axis=1)
    if not (np.isfinite(positions).all() and np.isfinite(axes).all() and (pixel > 0).all()):
        raise InputError(f"{name}: its geometry is not finite; export it again")
    if abs(axes[0] @ axes[1]) > 1e-3 * pixel.prod():
        raise InputError(f"{name}: rows and columns are not at right angles; export it without shear in the plane")
    if pixel.max() > 1.5 or min(shape) < 64:
        raise InputError(
            f"{name}: pixels of {pixel.max():.2g} mm, {shape[0]} x {shape[1]}: too coarse, give 1.5 mm or finer"
        )
    high, wide = shape * pixel
    if pixel.min() < _FINEST_MM or min(high, wide) < _NARROWEST_MM:
        raise InputError(f"{name}: {shape[0]} x {shape[1]} pixels that show {high:.3g} x {wide:.3g} mm; give a head")
    if abs(np.cross(*axes)[2]) < AXIAL * pixel.prod():
        raise InputError(f"{name}: its planes are not axial; give the axial series")
    transpose = abs(axes[0, 0]) > abs(axes[1, 0])
    if transpose:
        axes, shape = axes[::-1], shape[::-1]
    flips = [axes[0, 1] < 0, axes[1, 0] < 0]
    for k in range(2):
        if flips[k]:
            positions = positions + (shape[k] - 1) * axes[k]
            axes = axes * np.where(np.arange(2) == k, -1, 1)[:, None]
    step = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    normal = np.cross(axes[1], axes[0])
    heights = positions @ (normal / np.linalg.norm(normal) * np.sign(normal[2]))
    order, repeated = _sort(heights)
    if len(order) < FEWEST:
        raise InputError(f"{name}: {_count(len(order), 'slice')}, at least {FEWEST} are needed; give the whole series")

    def read_oriented(i: int) -> np.ndarray:
        pixels = read(int(order[i]))
        return (pixels.T if transpose else pixels)[step]

    notes = about.pop("notes", ()) + _spacing_notes(heights[order], repeated)
    return Scan(positions=positions[order], axes=axes, read=read_oriented, notes=notes, **about)


def _sort(heights: np.ndarray) -> tuple[np.ndarray, int]:
    """Indices from the feet up, one for each height, and how many were left out."""
    order = np.argsort(heights, kind="stable")
    keep = np.diff(heights[order], prepend=-np.inf) > SAME_MM
    return order[keep], int(np.sum(~keep))


def _spacing_notes(heights: np.ndarray, repeated: int) -> tuple[str, ...]:
    notes = []
    if repeated:
        notes.append(f"{_count(repeated, 'slice')} {SAME_PLACES}")
    gaps = np.diff(heights)
    usual = np.median(gaps)
    missing = int(np.sum(np.rint(gaps[gaps > 1.9 * usual] / usual) - 1))
    if missing and np.allclose(gaps / usual, np.rint(gaps / usual), atol=0.1):
        notes.append(f"{_count(missing, 'slice')} missing")
    elif np.ptp(gaps) > 0.1 * usual:
        notes.append(f"uneven spacing, {gaps.min():.2f} to {gaps.max():.2f} mm")
    return tuple(notes)


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def check_hu(scan: Scan) -> None:
    """Looks at the middle slices for what calibrated HU of a head have: air around -1000.

    Raises:
      InputError: one line on what the values look like instead.
    """
    hu = np.stack(_middle(scan))
    low, high = hu.min(), hu.max()
    if low == high:
        raise InputError(f"{scan.name}: every value is {low:g}; export it again")
    if low >= 0 and high <= 255:
        raise InputError(f"{scan.name}: values {low:g} to {high:g} are an 8-bit windowed export; give the original HU")
    seen = hu[hu > AIR]
    low = seen.min(initial=np.inf)
    # Where all but the head is padding there may be no air, but then most of what there is is soft tissue.
    masked = len(seen) < hu.size and -200 < np.median(seen) < 300 if len(seen) else False
    if low > -500 and not masked:
        raise InputError(
            f"{scan.name}: values {low:g} to {high:g} hold no air near -1000, so they are not HU; "
            "give CT (not MR) with its rescale slope and intercept applied"
        )


def _middle(scan: Scan) -> list[np.ndarray]:
    """The slices nearest to the middle that can be read, three where there are so many.

    Raises:
      InputError: there is none.
    """
    count, out, problems = len(scan.positions), [], []
    for i in sorted(range(count), key=lambda i: abs(i - count // 2)):
        if len(out) == FEWEST:
            break
        try:
            out.append(scan.slice(i))
        except InputError as error:
            problems.append(error)
    if not out:
        raise problems[0]
    return out


def nifti(path, told_by: tuple[str, ...]) -> Scan:
    """A NIfTI volume, .nii or .nii.gz, in any orientation, with its slope and intercept.

    Raises:
      InputError: it cannot be read or is no axial CT volume.
    """
    import nibabel

    try:
        open(path, "rb").close()  # nibabel would not say why it cannot
        image = nibabel.load(path, keep_file_open=True)
        shape, affine, dtype = image.shape, image.affine, image.get_data_dtype()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged header fails in a dozen ways
        raise InputError(f"{path}: damaged or no NIfTI ({_one_line(error)}); export it again") from None
    shape = shape[:3] if shape[3:] == (1,) else shape
    if len(shape) != 3 or dtype.kind not in "iuf":
        raise InputError(f"{path}: shape {shape}, {dtype}; give one volume of grey values")
    header = image.header
    if "sform_code" in header and not (header["sform_code"] or header["qform_code"]):
        raise InputError(f"{path}: says nowhere how it lies in space (sform and qform codes are 0); convert it again")
    unit = _UNITS.get(int(header["xyzt_units"]) & 7, 1) if "xyzt_units" in header else 1
    with np.errstate(all="ignore"):  # what is not finite is told by `oriented`
        affine = np.diag([-unit, -unit, unit, 1]) @ affine  # RAS to LPS
        along = int(np.argmax(abs(affine[2, :3]) / np.maximum(np.linalg.norm(affine[:3, :3], axis=0), 1e-9)))
        positions = affine[:3, 3] + np.arange(shape[along])[:, None] * affine[:3, along]
    rows, columns = (k for k in range(3) if k != along)
    volume = []  # read when the first slice is asked for: a .gz has no random access

    def read(i: int) -> np.ndarray:
        if not volume:
            try:
                volume.extend(_volume(image, shape))
            except InputError as error:
                volume.append(f"{path}: {error}")
            except Exception as error:
                volume.append(f"{path}: truncated or damaged ({_one_line(error)}); copy it again")
        if len(volume) == 1:
            raise InputError(volume[0])
        stored, slope, intercept, nothing = volume
        # Not np.take: of a volume in Fortran order, as NIfTI's are, it copies the whole for every slice.
        plane = np.moveaxis(stored, along, 0)[i]
        with np.errstate(over="ignore"):
            hu = plane.astype(np.float32) * np.float32(slope) + np.float32(intercept)
        return hu if nothing is None else np.where(plane == nothing, np.float32(np.nan), hu)

    return oriented(
        name=str(path),
        told_by=told_by,
        series="",
        content=lambda: _hash_file(path),
        positions=positions,
        axes=[affine[:3, rows], affine[:3, columns]],
        shape=(shape[rows], shape[columns]),
        read=read,
    )


def _volume(image, shape: tuple[int, ...]) -> tuple[np.ndarray, float, float, int | None]:
    """Stored values, slope, intercept and what stands for NaN: plain files as a memory map, compressed ones in int16.

    A compressed volume has to be held whole; in float64, as some tools write it, it would take gigabytes per process.

    Raises:
      InputError: infinite values, without the name of the file.
    """
    proxy = image.dataobj
    if not str(proxy.file_like).endswith(".gz"):
        return np.asanyarray(proxy.get_unscaled()).reshape(shape), proxy.slope, proxy.inter, None
    if proxy.dtype.itemsize <= 2:
        return _unpacked(proxy).reshape(shape), proxy.slope, proxy.inter, None
    hu, limits = np.empty(shape, np.int16, "F"), np.iinfo(np.int16)
    for first in range(0, shape[2], _AT_ONCE):
        part = np.asarray(proxy[:, :, first : first + _AT_ONCE]).reshape(*shape[:2], -1)
        if np.isinf(part).any():
            raise InputError("infinite values; export it again")
        stored = np.where(np.isnan(part), _NOTHING, np.rint(part).clip(limits.min + 1, limits.max))
        hu[:, :, first : first + _AT_ONCE] = stored
    return hu, 1.0, 0.0, _NOTHING


def _unpacked(proxy) -> np.ndarray:
    """The stored values of a compressed NIfTI, read in pieces: in one, Python 3.12 holds them three times.

    Raises:
      EOFError: the file is too short.
    """
    stored = np.empty(proxy.shape, proxy.dtype, "F")
    rest = stored.T.reshape(-1).view(np.uint8).data
    with gzip.open(proxy.file_like) as file:
        file.seek(proxy.offset)
        while rest:
            read = file.readinto(rest[:_PIECE])
            if not read:
                raise EOFError(f"{len(rest)} bytes are missing")
            rest = rest[read:]
    return stored


def npy(path, told_by: tuple[str, ...], spacing: tuple[float, float, float] | None) -> Scan:
    """A .npy volume (slices, rows, columns) in HU: axial, slices from the neck up, rows from front to back.

    Args:
      path: the file, memory-mapped.
      told_by: as of Scan.
      spacing: mm from slice to slice, row to row, column to column.

    Raises:
      InputError: it cannot be read, or no spacing is given.
    """
    if spacing is None:
        raise InputError(f"{path}: a .npy has no geometry; give --spacing=SLICE,ROW,COLUMN in mm")
    try:
        volume = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:
        raise InputError(f"{path}: damaged or no .npy ({_one_line(error)}); write it again") from None
    if volume.ndim != 3 or volume.dtype.kind not in "iuf":
        raise InputError(f"{path}: shape {volume.shape}, {volume.dtype}; give (slices, rows, columns) in HU")
    return oriented(
        name=str(path),
        told_by=told_by,
        series="",
        content=lambda: _hash_file(path) + repr(spacing),
        positions=np.arange(len(volume))[:, None] * np.array([0, 0, spacing[0]]),
        axes=[[0, spacing[1], 0], [spacing[2], 0, 0]],
        shape=volume.shape[1:],
        read=lambda i: volume[i].astype(np.float32),
    )


def _hash_file(path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:120] or type(error).__name__
