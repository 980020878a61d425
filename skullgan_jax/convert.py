"""Convert PyTorch's released weights to a model, and a model back.

The released pair, a model written for PyTorch, and a model's files hashed again:

  python -m skullgan_jax.convert --generator=netG_SkullGAN.pth --discriminator=netD_SkullGAN.pth --output=models/pair
  python -m skullgan_jax.convert --model=models/pair --output=for_torch --to=torch
  python -m skullgan_jax.convert --verify=models/pair

A model directory samples, fine-tunes (--config.pretrained of the training command) and evaluates. PyTorch is not
needed, and nothing that a .pth holds is executed. A .pth does not say what HU its values are: with --hu_scale=auto a
few samples are drawn, whose background tells.
"""

from skullgan_jax.machine import signals

if __name__ == "__main__":
    signals.hold()  # what follows takes a while

import json
import pathlib

from skullgan_jax.command.flags import Parser, refusing, typed
from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError, by_cause
from skullgan_jax.machine import files, lock, paths, places
from skullgan_jax.slices.size import PIXEL_MM


def _flags() -> Parser:
    parser = Parser(__doc__, prog="python -m skullgan_jax.convert", bare=("generator", "output"))
    parser.add_argument("--generator", metavar="PTH", help="netG.pth, or .safetensors with the same keys")
    parser.add_argument("--discriminator", metavar="PTH", help="netD.pth; needed to go on training")
    parser.add_argument(
        "--model", metavar="DIR", help="a model directory, training workdir or .pth, to write with --to"
    )
    parser.add_argument("--verify", metavar="DIR", help="hash a model's files again (and --generator, --discriminator)")
    parser.add_argument("--output", metavar="DIR", help="the folder to make")
    parser.add_argument("--to", choices=["torch", "safetensors"], help="with --model: netG and netD, published keys")
    parser.add_argument(
        "--hu_scale", choices=["auto", "signed", "unit"], help="HU of -1 and +1: auto looks at samples (default)"
    )
    parser.add_argument("--hu_min", type=float, metavar="HU", help="of -1, in place of --hu_scale")
    parser.add_argument("--hu_max", type=float, metavar="HU", help="of +1")
    parser.add_argument("--pixel_mm", type=float, default=PIXEL_MM, help="pixel size (default %(default)s)")
    parser.add_argument("--standing", action="store_true", help="compute the BatchNorm statistics for sampling now")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the table of names")
    return parser


def run(argv: list[str] | None = None) -> None:
    """The command; argv, without the program's name, defaults to that of the process."""
    flags = _flags().parse_args(argv)
    with refusing():
        _run(flags)


def _run(flags) -> None:
    sources = {net: getattr(flags, net) for net in ("generator", "discriminator") if getattr(flags, net)}
    if flags.verify:
        return verify(pathlib.Path(flags.verify), sources)
    if not flags.output:
        raise InputError("--output is missing; see --help")
    output = paths.of_here("--output", flags.output)
    if not 0 < flags.pixel_mm < 100:
        raise InputError(f"--pixel_mm={flags.pixel_mm}: give the size of a pixel in mm")
    if flags.model and flags.to and not sources:
        convert = _to_pytorch
    elif flags.generator and not flags.model and not flags.to:
        convert = _from_pytorch
    else:
        raise InputError("give --generator and --output, or --model, --to and --output, or --verify; see --help")
    _refuse_what_is_there(output)  # before a lock is written beside it
    with lock.only_writer(output):
        _refuse_what_is_there(output)
        convert(flags, output)


def _refuse_what_is_there(output: pathlib.Path) -> None:
    if output.exists():
        raise InputError(f"--output={output}: is there already; give another folder or remove it")


def _to_pytorch(flags, output: pathlib.Path) -> None:
    from skullgan_jax.model import pytorch_pair  # not for --help
    from skullgan_jax.model.load import load

    trained = load(flags.model)
    written = _writing(output, lambda: pytorch_pair.write(trained, output, flags.to))
    say(f"wrote {', '.join(map(str, written))}")


def _from_pytorch(flags, output: pathlib.Path) -> None:
    from skullgan_jax.model import pytorch_pair

    converted = pytorch_pair.read(
        generator=flags.generator,
        discriminator=flags.discriminator,
        calibration=_calibration(flags),
        pixel_mm=flags.pixel_mm,
        verbose=flags.verbose,
    )
    if flags.standing:
        converted.compute_standing(verbose=True)
    _writing(output, lambda: converted.save(output))
    later = "" if flags.standing else "; the first sampling computes its standing statistics (--standing: now)"
    sizes = " ".join(f"{k}={getattr(converted.pair, k)}" for k in ("nc", "nz", "ngf"))
    say(f"wrote {output}, {sizes}, {'with' if flags.discriminator else 'without'} a discriminator{later}")


def verify(folder: pathlib.Path, sources: dict[str, str]) -> None:
    """Hash the files of a model directory again, and the .pth that it came from where they are given.

    Args:
      folder: the model directory.
      sources: network -> path.

    Raises:
      InputError: a file is missing, or another than model.json says.
    """
    from skullgan_jax.model import directory
    from skullgan_jax.model.load import load

    if not (folder / "model.json").is_file():
        raise InputError(f"{folder}: no model here (model.json is missing); give a model directory")
    model = load(folder)  # hashes its files, and says what is wrong with one
    about = json.loads((folder / "model.json").read_bytes())
    if about.get("sha256", model.sha256) != model.sha256:
        raise InputError(
            f"{folder}/model.json: was changed: its generator and calibration have sha256 {model.sha256}, it says "
            f"{about['sha256']}; copy, convert or export it again"
        )
    for path, word in directory.verify(folder):
        print(f"{path}: {word}")
    known = {}
    match about["provenance"]:
        case {"sources": [*converted]}:
            known = {s.get("network"): s.get("sha256") for s in converted if isinstance(s, dict)}
    for net, path in sources.items():
        if net not in known:
            raise InputError(f"{folder}: its {net} was not converted from a file, so --{net} has nothing to check")
        try:
            found = files.sha256(places.file(path) or path)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        if found != known[net]:
            what = f"the model's {net} came from another file"
            raise InputError(f"{path}: {what}: sha256 {found}, model.json says {known[net]}; convert it again")
        print(f"{path}: ok, sha256 {found}")


def _calibration(flags):
    """A Calibration, or the name of a scale."""
    from skullgan_jax.slices.calibration import Calibration

    if (flags.hu_min is None) != (flags.hu_max is None):
        raise InputError("--hu_min and --hu_max belong together; give both")
    if flags.hu_min is None:
        return flags.hu_scale or "auto"
    if flags.hu_scale:
        raise InputError("--hu_scale and --hu_min say the same thing; give one of them")
    return Calibration(flags.hu_min, flags.hu_max)


def _writing(output: pathlib.Path, write_it):
    try:
        return write_it()
    except OSError as error:
        line = f"--output={output}: cannot be written ({error.strerror or error}); free some space, or give another"
        raise by_cause(error, line) from None


if __name__ == "__main__":
    typed(run, keep_memory=True)
