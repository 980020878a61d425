"""Samples in the formats of others: .npy, NIfTI, DICOM, PNG; what they are, and their measures, beside or in them.

Each takes blocks of samples one after the other, so that memory does not grow with their number, writes beside and
renames.

One convention of sides, that of `prepare` and of an axial CT image as radiologists see it: columns run to the patient's
left, rows to the back. For a segment that was cut elsewhere than at the forehead it is the segment turned there.
"""

import contextlib
import csv
import gzip
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError
from skullgan_jax.machine import extras, files
from skullgan_jax.model.draw import Samples
from skullgan_jax.sampling.names import beside
from skullgan_jax.slices import pictures, radiology
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.slices.size import SIZE

_LOOK = 16  # samples in the picture beside the others
_MOST_IN_NIFTI_1 = 32767  # its sizes are 16 bits
_PER_FOLDER = 1000  # DICOM files
_DICOM = "[0-9]" * 6 + "/" + "[0-9]" * 9 + ".dcm"


def about(output: str) -> dict | None:
    """What samples that are there say they are, `complete` by their size (see `undamaged`); None where nothing is.

    Raises:
      InputError: something else is there.
    """
    path, sidecar = pathlib.Path(output), beside(output, ".json")
    try:
        found = json.loads(sidecar.read_text())
        if found["output"] == path.name and isinstance(found["num"], int):
            return found | {"complete": path.exists() and _size(path) == found["bytes"]}
        raise InputError(
            f"--output={output}: {sidecar.name} is there, of {found['output']}; give another name or folder"
        )
    except (OSError, ValueError, KeyError, TypeError):
        pass
    taken = [p.name for p in (path, sidecar, beside(output, ".csv"), beside(output, ".png")) if p.exists()]
    if taken:
        raise InputError(
            f"--output={output}: {taken[0]} is there, and no {sidecar.name} says that it belongs to these samples; "
            "give another name or remove it"
        )
    return None


def undamaged(output: str, about: dict) -> bool:
    """Whether the samples that are there, and what lies beside, are still what was written, by their hashes.

    What was written before there were any is known by its size alone.
    """
    path = pathlib.Path(output)
    try:
        hashes = about.get("files", {})
        return beside(output, ".csv").exists() and all(_sha256(path.with_name(k)) == v for k, v in hashes.items())
    except (OSError, AttributeError):
        return False


def write(form: str, output: str, blocks: Iterable[Samples], about: dict) -> None:
    """Writes about["num"] samples, and beside them what they are (.json), their measures (.csv) and a look (.png).

    Raises:
      OSError: it cannot be written.
    """
    path, first = pathlib.Path(output), []
    with contextlib.ExitStack() as stack:
        # What is entered last comes into place first, the .json: as long as something is not what that says, all is
        # done again.
        made = {path: stack.enter_context(files.whole(path, ours=(_DICOM,)))}
        table = made[beside(output, ".csv")] = stack.enter_context(files.whole(beside(output, ".csv")))
        with table.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["index", *radiology.NAMES])
            packed = {"packed": path.name.lower().endswith(".gz")} if form == "nifti" else {}
            _WRITERS[form](made[path], _noted(blocks, rows, first), about, **packed)
        if form != "png" and extras.there("matplotlib"):
            picture = made[beside(output, ".png")] = stack.enter_context(files.whole(beside(output, ".png")))
            title = f"{about['model']}, seed {about['seed']}: the first {len(first)} of {about['num']} samples"
            scale, pixel_mm = Calibration.from_dict(about["calibration"]), about["pixel_mm"]
            pictures.grid(picture, np.array(first), scale, title=title, pixel_mm=pixel_mm)
        elif form != "png":
            say(f"{beside(output, '.png').name}: left out; {extras.missing('matplotlib')}")
        said = {"output": path.name, "bytes": _size(made[path])}
        said["files"] = {final.name: _sha256(partial) for final, partial in made.items()}
        sidecar = stack.enter_context(files.whole(beside(output, ".json")))
        sidecar.write_text(json.dumps(about | said, indent=1) + "\n")


def _size(path: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in (path.glob(_DICOM) if path.is_dir() else [path]))


def _sha256(path: pathlib.Path) -> str:
    """Of a file; of a folder, of the names and hashes of the samples in it."""
    if not path.is_dir():
        return files.sha256(path)
    parts = (f"{file.relative_to(path).as_posix()} {files.sha256(file)}\n" for file in sorted(path.glob(_DICOM)))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _noted(blocks: Iterable[Samples], rows, first: list) -> Iterator[Samples]:
    """The blocks, whose measures go into the table and the first of whose images into the list."""
    for block in blocks:
        first.extend(block.hu[: _LOOK - len(first)])
        table = np.stack([block.measures[name] for name in radiology.NAMES], 1)
        rows.writerows([i, *(f"{x:.6g}" for x in row)] for i, row in zip(block.index, table, strict=True))
        yield block


def _npy(path: pathlib.Path, blocks: Iterator[Samples], about: dict) -> None:
    header = {"descr": "<i2", "fortran_order": False, "shape": (about["num"], SIZE, SIZE)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(block.hu.astype("<i2").tobytes())


def _nifti(path: pathlib.Path, blocks: Iterator[Samples], about: dict, *, packed: bool) -> None:
    """One volume of unrelated slices, a millimetre apart."""
    import nibabel

    kind = nibabel.Nifti1Header if about["num"] <= _MOST_IN_NIFTI_1 else nibabel.Nifti2Header
    header, edge = kind(), about["pixel_mm"]
    header.set_data_shape((SIZE, SIZE, about["num"]))
    header.set_data_dtype(np.int16)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    header["descrip"] = _in_short(about).encode()[:79]
    affine = np.diag([-edge, -edge, 1, 1])  # its x runs to the right, its y to the front
    for place in (header.set_qform, header.set_sform):
        place(affine, code="aligned")
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("wb"))
        if packed:  # without name and time, so that the same samples are the same file
            file = stack.enter_context(gzip.GzipFile("", "wb", 4, file, mtime=0))
        header.write_to(file)
        for block in blocks:
            file.write(block.hu.astype("<i2").tobytes())


def _dicom(path: pathlib.Path, blocks: Iterator[Samples], about: dict) -> None:
    """A file per sample, each a patient and a study of its own, in folders of a thousand."""
    path.mkdir()
    for block in blocks:
        for index, hu in zip(block.index, block.hu, strict=True):
            folder = path / f"{index // _PER_FOLDER:06}"
            folder.mkdir(exist_ok=True)
            _slice(int(index), hu, about).save_as(folder / f"{index:09}.dcm", enforce_file_format=True)


def _slice(index: int, hu: np.ndarray, about: dict):
    """A CT image that says in every way the standard has that nobody was scanned."""
    import pydicom
    from pydicom import uid

    made_of = [str(about[name]) for name in ("model_sha256", "seed", "batch_norm", "batch", "dtype")] + [str(index)]

    def fresh(what: str) -> str:
        """The same for the same sample, and for nothing else."""
        return uid.generate_uid(entropy_srcs=[*made_of, what])

    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = uid.CTImageStorage, fresh("instance")
    ds.SyntheticData = "YES"
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "skullgan_jax", about["model"][:64]
    ds.SoftwareVersions = about["version"]
    ds.DerivationDescription = f"{_in_short(about)}, -1 to +1 is {Calibration.from_dict(about['calibration'])} HU"
    ds.PatientName, ds.PatientID = f"SYNTHETIC^{index}", _patient(index, about)
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "nobody was scanned: generated"
    # Of a skull no side has to be told, and the position is the one in which heads are scanned.
    ds.BodyPartExamined, ds.PatientPosition = "SKULL", "HFS"
    ds.SliceThickness = ds.KVP = None
    ds.StudyInstanceUID, ds.SeriesInstanceUID = fresh("study"), fresh("series")
    ds.FrameOfReferenceUID = fresh("frame")
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber, ds.AcquisitionNumber = "", 1, 1, None
    ds.SeriesDescription = "synthetic skull segment, research use only"
    ds.PositionReferenceIndicator = ""
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.PixelSpacing = [about["pixel_mm"]] * 2
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "NO", "NO"
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 1000, 2000
    ds.PixelData = np.minimum(hu.astype(np.int32) + 1024, 32767).astype("<i2").tobytes()
    return ds


def _patient(index: int, about: dict) -> str:
    """Whose image it is: nobody's, and of each model, seed and mode another nobody's. 64 characters are the most."""
    group = f"batch{about['batch']}" if about["batch_norm"] == "batch" else about["batch_norm"]
    return f"SYNTHETIC-{about['model_sha256'][:12]}-{about['seed']}-{group}-{about['dtype']}-{index}"


def _png(path: pathlib.Path, blocks: Iterator[Samples], about: dict) -> None:
    """One sheet, pixel by pixel, 0 HU black and 2000 HU white, with what it is as text in the file."""
    hu = np.concatenate([block.hu for block in blocks])
    columns = int(np.ceil(np.sqrt(len(hu))))
    path.write_bytes(pictures.png(hu, columns, window=(0, 2000), text=json.dumps(about)))


def _in_short(about: dict) -> str:
    """Within the 80 characters of a NIfTI header."""
    seed = f"seed {about['seed']} {about['batch_norm']}"
    return f"synthetic, skullgan_jax {about['version']}, model {about['model_sha256'][:12]}, {seed}"


_WRITERS = {"npy": _npy, "nifti": _nifti, "dicom": _dicom, "png": _png}
