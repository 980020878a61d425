"""The published pair in PyTorch's files, and as a model here: both directions, with the provenance to check it by."""

import datetime
import functools
import os
import pathlib
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from skullgan_jax.command.progress import say
from skullgan_jax.errors import InputError
from skullgan_jax.machine import files, paths, places
from skullgan_jax.model import directory, pytorch_file, pytorch_names
from skullgan_jax.model.trained import Model
from skullgan_jax.nets import networks
from skullgan_jax.nets.networks import Weights
from skullgan_jax.nets.pair import Pair, quick_to_compile
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.slices.size import PIXEL_MM, SIZE
from skullgan_jax.version import __version__

HU_MAX = 2734.531494140625  # "max of real skulls", the release's constant
SCALES = {"signed": Calibration(0, HU_MAX), "unit": Calibration(-HU_MAX, HU_MAX)}
ADVICE = "give --hu_scale=signed, --hu_scale=unit, or --hu_min and --hu_max"
_FILES = {"generator": "netG", "discriminator": "netD"}
_LOOK_AT = 4  # samples
_SLACK = 64 << 20  # bytes that tensors which share memory may need beyond the size of their file


def read(
    *,
    generator: str | os.PathLike,
    discriminator: str | os.PathLike | None = None,
    calibration: Calibration | str = "auto",
    pixel_mm: float = PIXEL_MM,
    verbose: bool = False,
) -> Model:
    """A pair in PyTorch's files as a model.

    Args:
      generator: path of a .pth or .safetensors with the published keys.
      discriminator: the same, or None.
      calibration: the HU of -1 and +1; or "signed" (0 to 2734.53 HU), "unit" (-2734.53 to 2734.53) or "auto", which of
        the two the background of samples fits.
      pixel_mm: of the slices that it makes.
      verbose: print the table of names.

    Returns:
      The model, without standing statistics.

    Raises:
      InputError: a file cannot be read, does not fit, or the scale cannot be told.
    """
    given = {"generator": generator} | ({} if discriminator is None else {"discriminator": discriminator})
    here = {net: _here(path) for net, path in given.items()}
    state_dicts = {}  # views of the mapped files
    for net, path in here.items():
        with places.naming(path, given[net]):
            state_dicts[net] = _state_dict(net, path)
    try:
        pair = pytorch_names.sizes(state_dicts)
    except InputError as error:
        raise InputError(f"{', '.join(map(str, given.values()))}: {error}") from None
    if pair.nc != 1:
        raise InputError(f"{generator}: makes {pair.nc} channels, a slice in HU has one; give a generator of nc=1")
    look = futures.ThreadPoolExecutor(1).submit(_compile_look, pair) if calibration == "auto" else None
    weights, tracked, sources = {}, {}, []
    for net, path in here.items():
        state_dict = state_dicts.pop(net)
        try:
            params, stats, tracked[net] = pytorch_names.from_torch(net, state_dict, pair)
        except InputError as error:
            raise InputError(f"{given[net]}: {error}") from None
        weights[net] = params, stats
        dtypes = sorted({str(a.dtype) for a in state_dict.values() if a.dtype.kind in "fV"})
        name = pathlib.PurePath(given[net]).name
        sources.append({"network": net, "name": name, "sha256": files.sha256(path), "dtype": "/".join(dtypes)})
        if dtypes != ["float32"]:
            say(f"{given[net]}: {', '.join(dtypes)} become float32")
        if verbose:
            _print_table(net, given[net], state_dict, params, stats)
    provenance: dict[str, Any] = {
        "sources": sources,
        "converted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "version": __version__,
    }
    g_params, g_stats = weights["generator"]
    d_params, d_stats = weights.get("discriminator", (None, None))
    if look is not None:
        try:
            calibration, why = _scale_of_background(look.result(), pair, g_params, g_stats)
        except InputError as error:
            raise InputError(f"{generator}: {error}") from None
        say(f"{generator}: {why}")
        provenance["hu_scale"] = why
    return Model(
        pair,
        *(g_params, g_stats, d_params, d_stats),
        calibration if isinstance(calibration, Calibration) else SCALES[calibration],
        pixel_mm,
        provenance,
        tracked,
    )


def _here(path: str | os.PathLike) -> pathlib.Path:
    """The file on this machine. Raises InputError, MachineError."""
    if not paths.is_remote(path):
        return pathlib.Path(path)
    if (file := places.file(path)) is None:
        raise InputError(f"{path}: no such file; give a .pth or a .safetensors")
    return file


def _state_dict(net: str, path: pathlib.Path) -> dict:
    if path.suffix == ".safetensors":
        try:
            path.stat()  # safetensors would not name the file
            tree = safetensors.numpy.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"{path}: cannot be read ({error}); give a .pth or a .safetensors") from None
    else:
        tree = pytorch_file.read(path)
    try:
        found = pytorch_names.find(net, tree)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    needed = sum(value.nbytes for value in found.values() if isinstance(value, np.ndarray))
    if needed > path.stat().st_size + _SLACK:
        raise InputError(f"{path}: its tensors are views of one memory, {needed} bytes in all; save each by itself")
    return found


def _print_table(net: str, path: str | os.PathLike, state_dict: dict, params: Weights, stats: Weights) -> None:
    print(f"{net}: {path}")
    for key, (layer, leaf), _ in pytorch_names.table(net):
        array = (stats if leaf in ("mean", "var") else params)[layer][leaf]
        print(f"  {key:24} {state_dict[key].shape!s:22} -> {f'{layer}.{leaf}':16} {array.shape}")


def _compile_look(pair: Pair) -> jax.stages.Compiled:
    """Compile what draws the samples to look at: it takes as long as reading the files, beside which it runs."""
    graph, _ = pair.graphs()
    like = jax.eval_shape(lambda: pair.init(0)[:2])
    run = quick_to_compile(functools.partial(networks.apply, graph, train=False))
    return run.lower(*like, *_latents(pair)).compile()


def _latents(pair: Pair) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """A few z and noise; which ones does not matter, and numpy's need no compiling."""
    random = np.random.default_rng(0)
    shapes = [(pair.nz,)] + [(SIZE, SIZE, pair.ngf // k) for k in (2, 8)]
    z, *noise = (random.standard_normal((_LOOK_AT, *shape), np.float32) for shape in shapes)
    return z, tuple(noise)


def _scale_of_background(look: Callable, pair: Pair, params: Weights, stats: Weights) -> tuple[Calibration, str]:
    """The HU scale by the value that most pixels of samples have, and why.

    Slices of the skull are air for more than half: a network trained on (0, max) -> [-1, 1] makes it -1, one trained on
    HU / max makes it 0 and hardly anything below.

    Raises:
      InputError: most pixels are neither.
    """
    x = np.asarray(look(params, stats, *_latents(pair))[0])[..., 0]
    at_minus_1, at_0 = np.mean(x < -0.9), np.mean(abs(x) < 0.1)
    below, above = np.mean(x < -0.2), np.mean(x > 0.2)
    measured = f"{100 * at_minus_1:.0f} % of the pixels of {_LOOK_AT} samples are near -1, {100 * at_0:.0f} % near 0"
    if at_minus_1 > 0.4 and np.mean(x > -0.7) > 0.02:
        return SCALES["signed"], f"HU scale signed, -1 to +1 is 0 to {HU_MAX:.2f} HU: {measured}"
    if at_0 > 0.4 and below < 0.05 and above > 0.02:
        return SCALES["unit"], f"HU scale unit, 0 to +1 is 0 to {HU_MAX:.2f} HU: {measured}"
    raise InputError(f"the HU scale cannot be told from the background ({measured}); {ADVICE}")


def write(trained: Model, folder: pathlib.Path, to: str) -> list[pathlib.Path]:
    """Write the published networks' state dicts: netG and netD, .pth or .safetensors, into a new folder.

    A discriminator of another kind than the published is left out, and so is a floor of HU, which is said.

    Args:
      trained: the model.
      folder: where to; written beside, then renamed.
      to: "torch" or "safetensors".

    Returns:
      The files.
    """
    networks = {"generator": (trained.g_params, trained.g_stats), "discriminator": (trained.d_params, trained.d_stats)}
    if trained.d_params is not None and trained.pair.d_norm != "batch":
        say("netD is not written: this discriminator has no BatchNorm, and PyTorch's, the published one, has")
        del networks["discriminator"]
    if (floor := trained.calibration.hu_floor) is not None:
        say(f"netG draws below {floor:g} HU, too: set that to {trained.calibration.hu_min:g}, as is done here")
    names = []
    with files.whole(folder) as partial:
        partial.mkdir()
        for net, (params, stats) in networks.items():
            if params is None or stats is None:
                continue
            state_dict = pytorch_names.to_torch(net, params, stats, trained.batches_tracked[net])
            if to == "torch":
                names.append(f"{_FILES[net]}.pth")
                pytorch_file.write(partial / names[-1], state_dict)
            else:
                names.append(f"{_FILES[net]}.safetensors")
                directory.write_safetensors(partial / names[-1], state_dict)
    return [folder / name for name in names]
