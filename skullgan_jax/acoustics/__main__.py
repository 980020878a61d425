"""Map slices from HU to density, speed of sound and attenuation, for k-Wave and others.

  python -m skullgan_jax.acoustics --input=skulls.zarr --medium=tusnet --size=512 --output=medium.h5
  python -m skullgan_jax.acoustics --input=skulls.npy --medium=kwave --attenuation=kplan --output=medium.mat
  python -m skullgan_jax.acoustics --input=data/skulls --medium=aubry --hu_max=2734.53 --output=medium.npz

The input is a sample store, a .npy that `sample` wrote (what lies beside it is read, too), or a folder of `prepare`.
The output is a .h5, .mat (MATLAB 7.3), .npz or .zarr with density (kg/m3), sound_speed (m/s), alpha_coeff
(dB/(MHz^y cm)) and alpha_power. Models differ by half at 1000 HU; --compare=models.png draws them of the first slice,
and writes nothing else.
"""

from skullgan_jax.machine import signals

if __name__ == "__main__":
    signals.hold()  # what follows takes a while

from skullgan_jax.command.flags import Parser, refusing, typed
from skullgan_jax.command.progress import Progress, say
from skullgan_jax.errors import InputError
from skullgan_jax.version import __version__

_BLOCK = 16  # slices at a time: 48 MiB of maps at 512 x 512
_LARGEST = 4096


def _flags() -> Parser:
    parser = Parser(__doc__, prog="python -m skullgan_jax.acoustics")
    parser.add_argument("--input", required=True, metavar="PATH", help="slices in HU")
    parser.add_argument("--medium", metavar="MODEL", help="tusnet kwave kplan aubry marsac marsac_prestus bric webb")
    parser.add_argument("--attenuation", metavar="MODEL", help="take attenuation from another model")
    parser.add_argument("--output", metavar="PATH", help=".h5 .mat .npz .zarr")
    parser.add_argument("--size", type=int, help="pixels of the grid along each edge (default: those of the slices)")
    parser.add_argument("--hu_max", type=float, metavar="HU", help="densest bone (default: the calibration's)")
    parser.add_argument("--split", choices=["train", "held_out"], default="train", help="of a folder of prepare")
    parser.add_argument("--pixel_mm", type=float, help="of a .npy beside which nothing says it")
    parser.add_argument("--compare", metavar="PNG", help="draw all models of the first slice")
    return parser


def run(argv: list[str] | None = None) -> None:
    """The command; argv, without the program's name, defaults to that of the process."""
    flags = _flags().parse_args(argv)
    with refusing("interrupted; nothing was written"):
        _run(flags)


def _run(flags) -> None:
    if flags.pixel_mm is not None and not 0 < flags.pixel_mm < 100:
        raise InputError(f"--pixel_mm={flags.pixel_mm}: give the edge of a pixel in mm")
    if not flags.compare and not (flags.medium and flags.output):
        raise InputError("give --medium and --output, or --compare; see --help")

    from skullgan_jax.acoustics import inputs  # not for --help

    slices = inputs.open_slices_of(flags.input, split=flags.split, pixel_mm=flags.pixel_mm)
    hu_max = flags.hu_max if flags.hu_max is not None else slices.hu_max
    if flags.compare:
        return _compare(flags.compare, slices, hu_max)
    _map(flags, slices, hu_max)


def _compare(path: str, slices, hu_max: float | None) -> None:
    from skullgan_jax.acoustics.pictures import compare
    from skullgan_jax.machine.extras import need
    from skullgan_jax.slices import pictures

    need("matplotlib")
    figure = compare(slices.read(0, 1)[0], hu_max=hu_max, pixel_mm=slices.pixel_mm)
    try:
        pictures.save(figure, path)
    except OSError as error:
        raise InputError(f"--compare={path}: cannot be written ({error.strerror or error})") from None
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
            _check_same(flags.output, there, about)
            say(f"{flags.output}: is there already")
            return
        try:
            formats.write(flags.output, blocks, (slices.num, size, size), about)
        except OSError as error:
            raise InputError(f"--output={flags.output}: cannot be written ({error.strerror or error})") from None
    say(f"wrote {flags.output}: {slices.num} slices of {size} x {size}, {about['pixel_mm']:g} mm, by {about['medium']}")


def _check_same(output: str, there: dict, about: dict) -> None:
    differing = [f"{k} was {there.get(k)} now {v}" for k, v in about.items() if k != "version" and there.get(k) != v]
    if differing:
        raise InputError(f"--output={output}: holds other maps: {', '.join(differing)}; give another or remove it")


if __name__ == "__main__":
    typed(run)
