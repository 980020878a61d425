"""Maps of many slices on disk, for k-Wave in MATLAB and k-wave-python: HDF5, MAT 7.3, npz and Zarr.

Each is written a few slices at a time, beside, and renamed. All hold density, sound_speed and alpha_coeff, (N, rows,
columns) float32, and alpha_power; row 0 is outside of the head. In a .mat MATLAB sees (rows, columns, N), as k-Wave's
x goes down the rows.
"""

import json
import pathlib
import zipfile
from collections.abc import Callable, Collection, Iterator

import numpy as np

from skullgan_jax.errors import InputError
from skullgan_jax.machine import files

FORMATS = (".h5", ".mat", ".npz", ".zarr")
UNITS = {"density": "kg/m3", "sound_speed": "m/s", "alpha_coeff": "dB/(MHz^y cm)"}
_AXES = ["slice", "row", "column"]
Blocks = Callable[[], Iterator[dict[str, np.ndarray]]]


def form(output: str) -> str:
    """The format by the ending of the output; InputError where it has none of FORMATS."""
    ending = pathlib.Path(output).suffix.lower()
    if ending not in FORMATS:
        raise InputError(f"--output={output}: ends in none of {', '.join(FORMATS)}")
    return ending


def passes(output: str) -> int:
    """How often `write` asks for all blocks."""
    return len(UNITS) if form(output) == ".npz" else 1


def about(output: str) -> dict | None:
    """What maps that are there say they are; None where nothing is.

    Raises:
      InputError: something else is there.
    """
    path = pathlib.Path(output)
    if not path.exists() and not path.is_symlink():
        return None
    try:
        return json.loads(_READERS[form(output)](path))
    except Exception:  # libraries fail in a dozen ways on what is not theirs
        raise InputError(f"--output={output}: is there, and holds no maps; give another name or remove it") from None


def check_same(there: dict, about: dict, path: str, *, of: str, free: Collection[str] = ()) -> None:
    """InputError where what is there says that it is of another kind, naming both; `free` may differ."""
    free = ("version", *free)
    differing = [f"{k} was {there.get(k)} now {v}" for k, v in about.items() if k not in free and there.get(k) != v]
    if differing:
        what = ", ".join(each if len(each) < 120 else f"{each.split()[0]} differs" for each in differing)
        raise InputError(f"{path}: holds other {of}: {what}; give another or remove it")


def write(output: str, blocks: Blocks, shape: tuple[int, int, int], about: dict) -> None:
    """Writes the maps, as a whole.

    Args:
      output: its ending tells the format.
      blocks: gives them from the first slice on, name -> (n, rows, columns) float32; a .npz asks once for each name.
      shape: (N, rows, columns).
      about: what they are, ready for JSON, with alpha_power and pixel_mm.

    Raises:
      OSError: it cannot be written.
    """
    with files.whole(output, ours=("*",)) as partial:
        _WRITERS[form(output)](partial, blocks, shape, about)


def _h5(path: pathlib.Path, blocks: Blocks, shape, about: dict) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        made = {name: file.create_dataset(name, shape, "f4", chunks=(1, *shape[1:])) for name in UNITS}
        for name, dataset in made.items():
            dataset.attrs.update({"units": UNITS[name], "axes": " ".join(_AXES)})
        _fill(made, blocks)
        file.create_dataset("alpha_power", data=np.float32(about["alpha_power"]))
        file.create_dataset("pixel_mm", data=about["pixel_mm"])
        file.attrs["about"] = json.dumps(about)


def _mat(path: pathlib.Path, blocks: Blocks, shape, about: dict) -> None:
    """MAT 7.3: HDF5 behind 512 bytes of MATLAB's own, each dataset with its class, axes in the reverse order."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        made = {name: file.create_dataset(name, (shape[0], shape[2], shape[1]), "f4", chunks=(1, shape[2], shape[1]))
                for name in UNITS}  # fmt: skip
        _fill(made, lambda: ({k: v.transpose(0, 2, 1) for k, v in block.items()} for block in blocks()))
        for name, dataset in made.items():
            dataset.attrs["MATLAB_class"] = np.bytes_("single")
            dataset.attrs["units"] = UNITS[name]
        for name in ("alpha_power", "pixel_mm"):
            file.create_dataset(name, data=np.array([[about[name]]], "f8")).attrs["MATLAB_class"] = np.bytes_("double")
        text = file.create_dataset("about", data=np.array([[ord(c)] for c in json.dumps(about)], "u2"))
        text.attrs["MATLAB_class"], text.attrs["MATLAB_int_decode"] = np.bytes_("char"), np.int32(2)
    with path.open("r+b") as file:
        head = f"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created by: skullgan_jax {about['version']} HDF5 schema 1.00 ."
        file.write(head.encode("ascii").ljust(124) + (0x0200).to_bytes(2, "little") + b"IM")


def _npz(path: pathlib.Path, blocks: Blocks, shape, about: dict) -> None:
    with zipfile.ZipFile(path, "w", allowZip64=True) as archive:
        for name in UNITS:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for block in blocks():
                    file.write(np.ascontiguousarray(block[name], "<f4").data)
        small = {"alpha_power": about["alpha_power"], "pixel_mm": about["pixel_mm"], "about": json.dumps(about)}
        for name, value in small.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)


def _zarr(path: pathlib.Path, blocks: Blocks, shape, about: dict) -> None:
    import tensorstore as ts

    path.mkdir()
    group = {"zarr_format": 3, "node_type": "group", "attributes": about}
    (path / "zarr.json").write_text(json.dumps(group, indent=1), encoding="utf-8")
    made = {}
    for name, unit in UNITS.items():
        metadata = {
            "shape": list(shape),
            "data_type": "float32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, *shape[1:]]}},
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "zstd", "configuration": {"level": 1}},
            ],
            "dimension_names": _AXES,
            "attributes": {"units": unit},
        }
        store = {"driver": "file", "path": str(path / name)}
        made[name] = ts.open({"driver": "zarr3", "kvstore": store, "metadata": metadata}, create=True).result()
    _fill(made, blocks)


def _fill(made: dict, blocks: Blocks) -> None:
    at = 0
    for block in blocks():
        for name, values in block.items():
            made[name][at : at + len(values)] = values
        at += len(values)


def _read_h5(path: pathlib.Path) -> str:
    import h5py

    with h5py.File(path, "r") as file:
        if "about" in file.attrs:
            return file.attrs["about"]
        return "".join(chr(c) for c in file["about"][:, 0])


def _read_npz(path: pathlib.Path) -> str:
    with np.load(path, allow_pickle=False) as file:
        return str(file["about"])


def _read_zarr(path: pathlib.Path) -> str:
    found = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["attributes"]
    found["alpha_power"]
    return json.dumps(found)


_WRITERS = {".h5": _h5, ".mat": _mat, ".npz": _npz, ".zarr": _zarr}
_READERS = {".h5": _read_h5, ".mat": _read_h5, ".npz": _read_npz, ".zarr": _read_zarr}
