"""Cut a training set of skull segments from head CTs.

A folder of DICOM series (nested, mixed), NIfTI files and .npy volumes in HU:

  python -m skullgan_jax.prepare --input=hospital/ --input=more/head.nii.gz --output=data/skulls

writes a tensorflow-datasets directory, data/skulls, that training reads by --config.data.path=data/skulls, and in it
report.html: look at it first. With --format=npy it holds train.npy and held_out.npy instead, each (N, 128, 128) int16
HU. The output may be a bucket, gs://bucket/skulls. Subjects are split, never segments: PatientID tells them apart, and
where there is none study, frame of reference and the folder right below --input. What identifies a subject is stored as
a hash, whose salt is made at the first use and lies beside the output: keep it, and keep it to yourself.

The same command with more scans adds them; interrupted, it goes on where it was: what is cut is kept in
data/skulls.pieces. A scan that cannot be used is told in one line, the others are cut; exit 1 says that there was one,
exit 2 that nothing could be done.
"""

from skullgan_jax.machine import signals

if __name__ == "__main__":
    signals.hold()  # what follows takes a while

import math
import os
import pathlib
import sys

from skullgan_jax.command.flags import GOES_ON, Parser, refusing, typed
from skullgan_jax.errors import InputError
from skullgan_jax.slices.size import PIXEL_MM

REGIONS = ("frontal", "side", "occipital")


def _flags() -> Parser:
    parser = Parser(__doc__, prog="python -m skullgan_jax.prepare", any_name=("input",))
    parser.add_argument("--input", action="append", required=True, metavar="PATH", help="folder or file; may repeat")
    parser.add_argument("--output", required=True, metavar="DIR", help="the folder to make or add to, or gs://")
    parser.add_argument("--format", choices=["tfds", "npy"], default="tfds", help="of the output (default %(default)s)")
    parser.add_argument(
        "--spacing", metavar="Z,Y,X", help="mm from slice to slice, row to row, column to column of .npy"
    )
    parser.add_argument(
        "--subject_by", choices=["id", "folder"], default="id", help="PatientID, or the folder right below --input"
    )
    parser.add_argument("--salt", metavar="FILE", help="default: <output>.salt")
    parser.add_argument("--pixel_mm", type=float, default=PIXEL_MM, help="of the segments (default %(default)s)")
    parser.add_argument("--angles", type=int, default=36, help="windows per slice (default %(default)s)")
    parser.add_argument("--slice_mm", type=float, default=1.0, help="least distance of slices (default %(default)s)")
    parser.add_argument("--threshold", type=float, default=300.0, help="HU of bone (default %(default)s)")
    parser.add_argument("--thickness", default="2,15", metavar="MM,MM", help="mean accepted (default %(default)s)")
    parser.add_argument("--thickest_mm", type=float, default=25.0, help="of any column (default %(default)s)")
    parser.add_argument("--max_hu", type=float, default=3000.0, help="metal is above (default %(default)s)")
    parser.add_argument("--lean", type=float, default=30.0, help="degrees out of the plane (default %(default)s)")
    parser.add_argument(
        "--region", default=",".join(REGIONS), help="side is parietal and temporal (default %(default)s)"
    )
    parser.add_argument("--held_out", type=float, default=0.1, help="part of the subjects (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=_cores(), help="processes (default %(default)s, one per core)")
    return parser


def _cores() -> int:
    """Those that this process may use, which on a cluster are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(argv: list[str] | None = None) -> None:
    """The command; argv, without the program's name, defaults to that of the process."""
    flags = _flags().parse_args(argv)
    with refusing(GOES_ON):
        left_out = _run(flags)
    sys.exit(1 if left_out else 0)


def _run(flags) -> int:
    from skullgan_jax.ct import dataset
    from skullgan_jax.ct.ring import RAYS
    from skullgan_jax.ct.window import Limits

    regions = tuple(flags.region.split(","))
    if not set(regions) <= set(REGIONS):
        raise InputError(f"--region={flags.region}: give some of {','.join(REGIONS)}")
    for name in ("pixel_mm", "angles", "slice_mm", "threshold", "thickest_mm", "max_hu", "lean", "jobs"):
        if not 0 < getattr(flags, name) < math.inf:
            raise InputError(f"--{name}={getattr(flags, name)}: give a number above 0")
    if flags.angles > RAYS:
        raise InputError(f"--angles={flags.angles}: the contour has {RAYS} points; give that or fewer")
    thickness = _numbers("thickness", flags.thickness, 2)
    if not thickness[0] < thickness[1]:
        raise InputError(f"--thickness={flags.thickness}: give the least, then the greatest")
    if not 0 <= flags.held_out < 1:
        raise InputError(f"--held_out={flags.held_out}: give a part from 0 to below 1")
    limits = Limits(
        pixel_mm=flags.pixel_mm,
        angles=flags.angles,
        slice_mm=flags.slice_mm,
        threshold=flags.threshold,
        thickness_mm=thickness,
        thickest_mm=flags.thickest_mm,
        lean_degrees=flags.lean,
        max_hu=flags.max_hu,
        regions=regions,
    )
    return dataset.prepare(
        inputs=[pathlib.Path(p) for p in flags.input],
        output=flags.output.rstrip("/"),
        format=flags.format,
        limits=limits,
        spacing=_numbers("spacing", flags.spacing, 3) if flags.spacing else None,
        by_folder=flags.subject_by == "folder",
        salt_file=pathlib.Path(flags.salt) if flags.salt else None,
        held_out=flags.held_out,
        seed=flags.seed,
        jobs=flags.jobs,
    )


def _numbers(name: str, text: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(x) for x in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or not all(0 < v < 1e4 for v in values):
        raise InputError(f"--{name}={text}: give {count} numbers above 0 with commas between")
    return values


if __name__ == "__main__":
    typed(run, on_cpu=True)
