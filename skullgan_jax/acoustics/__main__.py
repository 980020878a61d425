"""Map slices from HU to density, speed of sound and attenuation, for k-Wave and others.

  python -m skullgan_jax.acoustics --input=skulls.zarr --medium=tusnet --size=512 --output=medium.h5
  python -m skullgan_jax.acoustics --input=skulls.npy --medium=kwave --attenuation=kplan --output=medium.mat
  python -m skullgan_jax.acoustics --input=data/skulls --medium=aubry --hu_max=2734.53 --output=medium.npz

The input is a sample store, a .npy that `sample` wrote (what lies beside it is read, too), or a folder of `prepare`.
The output is a .h5, .mat (MATLAB 7.3), .npz or .zarr with density (kg/m3), sound_speed (m/s), alpha_coeff
(dB/(MHz^y cm)) and alpha_power. Models differ by half at 1000 HU; --compare=models.png draws them of the first slice,
and writes nothing else. `simulate` goes on to sound: python -m skullgan_jax.acoustics simulate --help
"""

from skullgan_jax.machine import signals

if __name__ == "__main__":
    signals.hold()  # what follows takes a while

import os
import sys

from skullgan_jax.command.flags import GOES_ON, Parser, refusing, typed
from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError, by_cause
from skullgan_jax.machine.paths import is_remote
from skullgan_jax.sampling import share
from skullgan_jax.version import __version__

_SIMULATE = """Simulate the focus of TUSNet's array through slices: what a skull leaves of it; TUSNet's training set.

  python -m skullgan_jax.acoustics simulate --input=skulls.zarr --medium=tusnet --output=fields.zarr
  python -m skullgan_jax.acoustics simulate --input=skulls.zarr --medium=tusnet --targets=tusnet --output=tusnet

Of each slice and target the greatest pressure everywhere, the delays of the 80 elements, the focus, its peak and how
far it is from that in water. Delays by time reversal through each slice, or with --delays=water those of water, which
show what an uncorrected skull does. An output that ends in .zarr is a store; any other name a folder as TUSNet's
training reads it (inputs, inputs_traced, pfields), put together from the store OUTPUT.draws. The numbers are in a .csv,
too.

The same command again goes on where it was. Several processes share a job by --processes=P and --process=0 to P-1, by
default those that launch/ or Slurm started. A pair on the grid of 512 takes minutes on a CPU: try --size=128 first.
"""
_BLOCK = 16  # slices at a time: 48 MiB of maps at 512 x 512
_LARGEST = 4096
_MODELS = "tusnet kwave kplan aubry marsac marsac_prestus bric webb"


def _flags() -> Parser:
    parser = Parser(__doc__, prog="python -m skullgan_jax.acoustics")
    _add_slices(parser)
    parser.add_argument("--medium", metavar="MODEL", help=_MODELS)
    parser.add_argument("--output", metavar="PATH", help=".h5 .mat .npz .zarr")
    parser.add_argument("--size", type=int, help="pixels of the grid along each edge (default: those of the slices)")
    parser.add_argument("--compare", metavar="PNG", help="draw all models of the first slice")
    return parser


def _simulate_flags() -> Parser:
    parser = Parser(_SIMULATE, prog="python -m skullgan_jax.acoustics simulate")
    _add_slices(parser)
    parser.add_argument("--medium", required=True, metavar="MODEL", help=_MODELS)
    parser.add_argument("--output", required=True, metavar="PATH", help=".zarr, or a folder as TUSNet's")
    parser.add_argument(
        "--size", type=int, default=512, help="pixels of the grid along each edge (default %(default)s)"
    )
    parser.add_argument(
        "--targets", choices=["middle", "tusnet"], default="middle", help="one, or TUSNet's 56 (default %(default)s)"
    )
    parser.add_argument(
        "--delays", choices=["reversed", "water"], default="reversed", help="of the elements (default %(default)s)"
    )
    parser.add_argument("--num", type=int, help="how many slices (default: all)")
    parser.add_argument("--shard", type=int, default=16, help="fields per file of a .zarr (default %(default)s)")
    share.add_flags(parser)
    return parser


def _add_slices(parser: Parser) -> None:
    parser.add_argument("--input", required=True, metavar="PATH", help="slices in HU")
    parser.add_argument("--attenuation", metavar="MODEL", help="take attenuation from another model")
    parser.add_argument("--hu_max", type=float, metavar="HU", help="densest bone (default: the calibration's)")
    parser.add_argument("--split", choices=["train", "held_out"], default="train", help="of a folder of prepare")
    parser.add_argument("--pixel_mm", type=float, help="of a .npy beside which nothing says it")


def run(argv: list[str] | None = None) -> None:
    """The command; argv, without the program's name, defaults to that of the process."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["simulate"]:
        flags = _simulate_flags().parse_args(argv[1:])
        with refusing(GOES_ON):
            _simulate(flags)
        return
    flags = _flags().parse_args(argv)
    with refusing("interrupted; nothing was written"):
        _run(flags)


def _run(flags) -> None:
    if not flags.compare and not (flags.medium and flags.output):
        raise InputError("give --medium and --output, or --compare; see --help")

    slices, hu_max = _open(flags)
    if flags.compare:
        return _compare(flags.compare, slices, hu_max)
    _map(flags, slices, hu_max)


def _open(flags):
    """The slices, and the HU of the densest bone, None where nobody says it."""
    if flags.pixel_mm is not None and not 0 < flags.pixel_mm < 100:
        raise InputError(f"--pixel_mm={flags.pixel_mm}: give the edge of a pixel in mm")

    from skullgan_jax.acoustics import inputs  # not for --help

    slices = inputs.open_slices_of(flags.input, split=flags.split, pixel_mm=flags.pixel_mm)
    return slices, flags.hu_max if flags.hu_max is not None else slices.hu_max


def _simulate(flags) -> None:
    process, processes = share.of(flags)
    output = flags.output.rstrip("/")
    form = "zarr" if output.endswith(".zarr") else "tusnet"
    for name, least, most in (("size", 64, _LARGEST), ("num", 1, None), ("shard", 1, None)):
        value = getattr(flags, name)
        if value is not None and (value < least or (most and value > most)):
            raise InputError(f"--{name}={value}: give {least} " + (f"to {most}" if most else "or more"))
    if form == "tusnet" and is_remote(output):
        raise InputError(f"--output={output}: a bucket takes a .zarr; write a folder of TUSNet's to a disk")
    if form == "tusnet" and flags.size != 512:
        raise InputError(f"--size={flags.size}: TUSNet's grid is of 512; give that, or an --output that ends in .zarr")
    if not os.path.basename(output):
        raise InputError(f"--output={flags.output}: give the name of a store or folder to be made")
    _check_beside(output, form)
    slices, hu_max = _open(flags)
    if flags.num is not None and flags.num > slices.num:
        raise InputError(f"--num={flags.num}: {flags.input} has {slices.num} slices")

    import numpy as np

    from skullgan_jax.acoustics import focus, tusnet
    from skullgan_jax.acoustics.fields import FieldSource
    from skullgan_jax.sampling import job, run

    edge = slices.read(0, 1).shape[-1]
    if flags.size < edge:
        raise InputError(f"--size={flags.size}: give {edge} (that of the slices) to {_LARGEST}")
    middle = np.array([[flags.size * 5 // 8, flags.size // 2]])
    targets = focus.targets(flags.size) if flags.targets == "tusnet" else middle
    law = {"model": flags.medium, "hu_max": hu_max, "attenuation": flags.attenuation}
    layout = tusnet.Layout(slices, focus.flat_array(flags.size))
    source = FieldSource(slices, law, flags.size, targets, flags.delays, layout)
    wanted = job.Job(
        None,
        num=(flags.num or slices.num) * len(targets),
        output=output,
        form=form,
        shard=flags.shard,
        process=process,
        processes=processes,
    )
    say(f"{wanted.num} fields of {source.about['steps']} steps, {source.about['dt'] * 1e9:.2f} ns each, twice")
    run.run(source, wanted)
    _tell(output, form, source, slices)


def _check_beside(output: str, form: str) -> None:
    """Refuses a new store where somebody's files have the names of what comes to lie beside it."""
    from skullgan_jax.acoustics.fields import FieldStore
    from skullgan_jax.sampling.names import beside

    if form != "zarr" or is_remote(output) or FieldStore.attributes(output):
        return
    for path in (beside(output, ".csv"), beside(output, ".png")):
        if os.path.lexists(path):
            raise InputError(f"--output={output}: {path.name} is there and would be replaced; give another name")


def _tell(output: str, form: str, source, slices) -> None:
    """Beside a store that is complete: its numbers, and a picture of the first field."""
    if form != "zarr" or is_remote(output) or not source.store(output).about["complete"]:
        return
    from skullgan_jax.acoustics import fields, maps, pictures
    from skullgan_jax.machine import extras, files
    from skullgan_jax.sampling.names import beside
    from skullgan_jax.slices.pictures import save

    store, about = source.store(output), source.about
    try:
        with files.whole(beside(output, ".csv")) as partial:
            fields.write_table(partial, (store.numbers(*store.rows(i)) for i in range(store.shards(len(store)))))
        if not extras.there("matplotlib"):
            return
        first, hu = store.read(0, 1), slices.read(0, 1)
        medium = maps.medium(maps.upsample(hu, about["size"])[0], **source.law)
        target = tuple(map(int, first["target"][0]))
        figure = pictures.field(medium, first["field"][0], pixel_mm=about["pixel_mm"], target=target)
        save(figure, beside(output, ".png"))
    except OSError as error:
        line = f"--output={output}: beside it nothing can be written ({error.strerror or error})"
        raise by_cause(error, line) from None


def _compare(path: str, slices, hu_max: float | None) -> None:
    from skullgan_jax.acoustics.pictures import compare
    from skullgan_jax.machine.extras import need
    from skullgan_jax.slices import pictures

    need("matplotlib")
    figure = compare(slices.read(0, 1)[0], hu_max=hu_max, pixel_mm=slices.pixel_mm)
    try:
        pictures.save(figure, path)
    except OSError as error:
        raise by_cause(error, f"--compare={path}: cannot be written ({error.strerror or error})") from None
    say(f"wrote {path}")


def _map(flags, slices, hu_max: float | None) -> None:
    import jax
    import numpy as np

    from skullgan_jax.acoustics import formats, maps
    from skullgan_jax.machine import programs
    from skullgan_jax.machine.lock import only_writer

    formats.form(flags.output)
    edge = slices.read(0, 1).shape[-1]
    size = flags.size if flags.size is not None else edge
    if not edge <= size <= _LARGEST:
        raise InputError(f"--size={size}: give {edge} (that of the slices) to {_LARGEST}")
    law = {"model": flags.medium, "hu_max": hu_max, "attenuation": flags.attenuation}
    empty = maps.medium(np.zeros((1, 1), np.int16), **law)  # refuses what is no model
    about = {
        "use": "synthetic or research data; not for treatment",
        "medium": empty.model,
        "hu_max": empty.hu_max,
        "alpha_power": empty.alpha_power,
        "size": size,
        "pixel_mm": slices.pixel_mm * edge / size,
        "units": formats.UNITS,
        "axes": "slice, row from outside of the head inwards, column",
        "upsampled": "HU, linear between pixel centres" if size > edge else "",
        "input": slices.name,
        "num": slices.num,
        "samples": slices.about,
        "version": __version__,
    }

    @jax.jit
    def mapped(hu):
        found = maps.medium(maps.upsample(hu, size) if size > edge else hu, **law)
        return {name: getattr(found, name) for name in formats.UNITS}

    progress, done = Progress("mapped", slices.num * formats.passes(flags.output), "slices"), 0

    def blocks():
        nonlocal done
        for first in range(0, slices.num, _BLOCK):
            last = min(first + _BLOCK, slices.num)
            hu = np.asarray(slices.read(first, last), np.float32)
            try:
                maps.check_hu(hu)
            except InputError as error:
                raise InputError(f"--input={flags.input}: slices {first} to {last - 1}: {error}") from None
            yield {name: np.asarray(values) for name, values in mapped(hu).items()}
            done += last - first
            progress(done)

    with programs.kept(), only_writer(flags.output):
        there = formats.about(flags.output)
        if there is not None:
            formats.check_same(there, about, f"--output={flags.output}", of="maps")
            say(f"{flags.output}: is there already")
            return
        try:
            formats.write(flags.output, blocks, (slices.num, size, size), about)
        except OSError as error:
            line = f"--output={flags.output}: cannot be written ({error.strerror or error})"
            raise by_cause(error, line) from None
    say(f"wrote {flags.output}: {slices.num} slices of {size} x {size}, {about['pixel_mm']:g} mm, by {about['medium']}")


if __name__ == "__main__":
    typed(run)
