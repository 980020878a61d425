"""Seconds and peak memory of cutting one scan: python benchmarks/prepare.py [FOLDER]

FOLDER holds the files of one DICOM series; without it a 512 x 512 x 600 volume is made, a shell of 7 mm in air and soft
tissue, 0.6 mm from slice to slice.
"""

import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

from skullgan_jax.ct import cut, dicom, scans


def _made(folder: str) -> scans.Scan:
    path = pathlib.Path(folder, "head.npy")
    volume = np.lib.format.open_memmap(path, "w+", np.int16, (600, 512, 512))
    y, x = np.meshgrid((np.arange(512) - 256) * 0.45, (np.arange(512) - 256) * 0.45, indexing="ij")
    for i in range(600):
        level = np.sqrt((x / 75) ** 2 + (y / 90) ** 2 + (i * 0.6 / 300) ** 2) * 80
        volume[i] = np.where(level > 86, -1000, np.where((level < 80) & (level > 73), 1500, 40))
    volume.flush()
    return scans.npy(path, "made", (0.6, 0.45, 0.45))


def main():
    with tempfile.TemporaryDirectory() as folder:
        if sys.argv[1:]:
            headers = {str(p): dicom.header(p) for p in sorted(pathlib.Path(sys.argv[1]).glob("*.dcm"))}
            scan = dicom.stack(headers, None)
        else:
            scan = _made(folder)
        started = time.perf_counter()
        _, known, fates = cut.cut(scan, cut.Limits())
        seconds = time.perf_counter() - started
    accepted = sum(not k["reason"] for k in known)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(scan.positions)} slices, {fates['cut']} cut, {accepted} of {len(known)} windows accepted")
    print(f"{seconds:.1f} s, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
