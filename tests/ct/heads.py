"""Heads of known shape, as scans and as DICOM files."""

import functools

import numpy as np
import pydicom
from pydicom import uid

from skullgan_jax.ct import scans

SPACING = (3.0, 0.5, 0.5)  # mm
SHELL_MM, TABLE_MM = 7.0, 2.0
TABLE_HU, DIPLOE_HU = 1500, 900


@functools.cache
def head(*, tilt=0.0, hole=False, holder=True, shape=(24, 400, 400)):
    """(N, rows, columns) int16 HU: a shell about an ellipsoid, the vault in its upper half; tilt in degrees.

    Not to be written to: it is drawn once.
    """
    z, y, x = ((np.arange(n, dtype=np.float32) - c) * s for n, s, c in zip(shape, SPACING, (0, 200, 200), strict=True))
    out = np.full(shape, -1000, np.int16)
    sub = (np.arange(2) - 0.5) / 2  # the mean of four points makes the partial volume of an edge
    for i, height in enumerate(z):
        total = np.zeros(shape[1:], np.float32)
        for dy in sub * SPACING[1]:
            for dx in sub * SPACING[2]:
                yy, xx = np.meshgrid(y + dy, x + dx, indexing="ij")
                up, back = height + np.sin(np.radians(tilt)) * yy, np.cos(np.radians(tilt)) * yy
                u, v, w = xx / 75, back / 85, up / 120
                level = np.sqrt(u**2 + v**2 + w**2)
                # First-order distance to the ellipsoid, exact enough for a few mm.
                depth = level * (1 - level) / np.sqrt((u / 75) ** 2 + (v / 85) ** 2 + (w / 120) ** 2)
                hu = np.where(depth > -6, 40, -1000)  # scalp and brain
                table = np.minimum(depth, SHELL_MM - depth)
                bone = (table > 0) & ~(hole & (xx > 0) & (abs(yy) < 4))
                hu = np.where(bone, np.where(table < TABLE_MM, TABLE_HU, DIPLOE_HU), hu)
                ring = np.hypot(xx, yy + 5)
                if holder:
                    hu = np.where((ring > 100) & (ring < 104) & (yy > 40), 800, hu)
                total += hu
        out[i] = np.rint(total / 4)
    out.flags.writeable = False
    return out


def write_dicom(folder, volume, *, patient="SECRETNAME", **tags):
    """One file per slice, named against their order, with an identity that must not leak."""
    folder.mkdir(parents=True, exist_ok=True)
    series = uid.generate_uid(entropy_srcs=[str(folder)])[:55]
    for i, pixels in enumerate(volume):
        ds = pydicom.Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = uid.CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"{series}.{i + 1}"
        ds.SeriesInstanceUID, ds.Modality, ds.ImageType = series, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        ds.PatientName, ds.PatientID, ds.StudyDate = f"{patient}^A", f"{patient}77", "19700102"
        ds.PatientBirthDate, ds.StudyTime, ds.AccessionNumber = "19310203", "142536.123456", "ACC9988776"
        ds.InstitutionName, ds.SeriesDescription = "SECRETHOSPITAL", f"HEAD OF {patient}"
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0, 0, i * SPACING[0]], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.KVP, ds.ConvolutionKernel = list(SPACING[1:]), SPACING[0], 120, "H60"
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = (pixels.astype(np.int32) + 1024).astype("<u2").tobytes()
        for name, value in tags.items():
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)
        ds.save_as(folder / f"{len(volume) - i:03d}.dcm", enforce_file_format=True)


def plane(shape=(400, 400)):
    """(rows, columns) mm x and y of the pixels of a slice, from its middle; the head's own of `head`."""
    y, x = np.indices(shape, np.float32)
    return (x - shape[1] / 2) * SPACING[2], (y - shape[0] / 2) * SPACING[1]


def scan(volume, slice_mm=SPACING[0]):
    """A volume as `Scan`, without a file."""
    return scans.oriented(
        name="head",
        told_by=(),
        series="",
        content=str,
        positions=np.arange(len(volume))[:, None] * [[0, 0, slice_mm]],
        axes=[[0, SPACING[1], 0], [SPACING[2], 0, 0]],
        shape=volume.shape[1:],
        read=lambda i: volume[i].astype(np.float32),
    )
