"""Draw synthetic skull slices in HU, from a few to a million.

  python -m skullgan_jax.sample --model=models/skullgan --num=1000 --seed=0 --output=skulls.npy
  python -m skullgan_jax.sample --model=runs/skull --num=1000000 --output=gs://bucket/skulls.zarr
  python -m skullgan_jax.sample --model=runs/skull --num=500 --output=thick.npy --where="sdr<0.4 and thickness_mm>6"

Sample i is a function of the model, the seed, i and the BatchNorm mode alone: whatever --num, --start, devices, hosts
and interruptions. The same command again goes on where it was; with a greater --num it adds. Beside the samples lie
what they are (.json, or the attributes of a .zarr), SDR, thickness and intensity (.csv, or arrays) and a picture.

Several processes, on one host or many, share a job by --processes=P and --process=0 to P-1, by default those that
launch/ or Slurm started (JAX_NUM_PROCESSES, JAX_PROCESS_ID); none waits for another to draw. Synthetic slices are for
research use only.
"""

from skullgan_jax.machine import signals

if __name__ == "__main__":
    signals.hold()  # what follows takes a while

import os

from skullgan_jax.command.flags import GOES_ON, Parser, refusing, typed
from skullgan_jax.errors import InputError
from skullgan_jax.sampling import names, share


def _flags() -> Parser:
    parser = Parser(__doc__, prog="python -m skullgan_jax.sample")
    parser.add_argument("--model", required=True, metavar="PATH", help="starter, model directory, workdir or netG.pth")
    parser.add_argument("--num", required=True, type=int, help="how many to write")
    parser.add_argument("--output", required=True, metavar="PATH", help=".npy .zarr .nii .nii.gz .png, or any")
    parser.add_argument("--format", choices=names.FORMATS, help="default: by the ending of --output; dicom is a folder")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--start", type=int, default=0, help="index of the first (default %(default)s)")
    parser.add_argument(
        "--batch_norm",
        choices=["standing", "running", "batch"],
        default="standing",
        help="statistics: of these weights, of training, or of each --batch samples as published (default %(default)s)",
    )
    parser.add_argument(
        "--batch", type=int, help="samples of --batch_norm=batch (default 16 on a CPU, else 64); no other depends on it"
    )
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto", help="of convolutions")
    parser.add_argument("--where", metavar="TEXT", help="keep what fits, e.g. 'sdr<0.4 and thickness_mm>6'")
    parser.add_argument(
        "--unique",
        type=int,
        nargs="?",
        const=200,
        metavar="T",
        help="keep what differs from all kept before in T (alone: 200) pixels or more of the first 50 rows at 1200 HU",
    )
    parser.add_argument("--max_draws", type=int, help="where a selection gives up (default 100 --num, at least 10,000)")
    parser.add_argument("--shard", type=int, default=512, help="samples per file of a .zarr (default %(default)s)")
    share.add_flags(parser)
    return parser


def run(argv: list[str] | None = None) -> None:
    """The command; argv, without the program's name, defaults to that of the process."""
    flags = _flags().parse_args(argv)
    with refusing(GOES_ON):
        _run(flags)


def _run(flags) -> None:
    from skullgan_jax.model import draw, select  # not for --help
    from skullgan_jax.model.load import load
    from skullgan_jax.sampling import job, run
    from skullgan_jax.sampling.source import SampleSource

    process, processes = share.of(flags)
    for name, value, least in (
        *(("num", flags.num, 1), ("start", flags.start, 0), ("seed", flags.seed, 0), ("shard", flags.shard, 1)),
        *(("batch", flags.batch, 1), ("unique", flags.unique, 1), ("max_draws", flags.max_draws, 1)),
    ):
        if value is not None and value < least:
            raise InputError(f"--{name}={value}: give {least} or more")
    if flags.seed >= 1 << 32:
        raise InputError(f"--seed={flags.seed}: give one below 2^32")
    most = draw.INDICES - flags.start
    max_draws = flags.max_draws or select.give_up_after(flags.num, flags.start)
    if max(flags.num, flags.max_draws or 0) > most:
        asked = f"--start={flags.start} --num={flags.num}"
        raise InputError(f"{asked}: indices end at 2^32 - 1; give less, or another --seed")
    output = flags.output.rstrip("/")
    form = names.form(output, flags.format)
    names.check(form, flags.num, output)
    samples = job.Identity(
        model=os.path.basename(os.path.abspath(flags.model)),
        seed=flags.seed,
        start=flags.start,
        batch_norm=flags.batch_norm,
        batch=flags.batch,
        dtype=flags.dtype,
        where=select.Where(flags.where) if flags.where is not None else None,
        unique=flags.unique,
    )
    wanted = job.Job(
        samples,
        num=flags.num,
        output=output,
        form=form,
        max_draws=max_draws,
        shard=flags.shard,
        process=process,
        processes=processes,
    )
    run.run(SampleSource(load(flags.model), samples), wanted)


if __name__ == "__main__":
    typed(run, keep_memory=True)
