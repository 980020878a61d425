"""The names of formats and files, which a command knows before anything else is imported."""

import pathlib

from skullgan_jax.errors import InputError
from skullgan_jax.machine.paths import is_remote

FORMATS = ("npy", "zarr", "nifti", "dicom", "png")
_ENDINGS = {".npy": "npy", ".zarr": "zarr", ".nii": "nifti", ".nii.gz": "nifti", ".png": "png"}
_MOST_ON_A_SHEET = 400


def form(output: str, name: str | None) -> str:
    """The format that is asked for, by name or by the ending of the output.

    Raises:
      InputError: neither tells.
    """
    by_ending = next((form for ending, form in _ENDINGS.items() if output.lower().endswith(ending)), None)
    if not pathlib.Path(output).name:
        raise InputError(f"--output={output}: give the name of a file or folder to be made")
    if name is None and by_ending is None:
        raise InputError(f"--output={output}: ends in none of {', '.join(_ENDINGS)}; give --format={'|'.join(FORMATS)}")
    if name in ("npy", "nifti", "png") and by_ending != name:
        wanted = " or ".join(ending for ending, form in _ENDINGS.items() if form == name)
        raise InputError(f"--output={output}: --format={name} needs a name that ends in {wanted}")
    return name or by_ending


def check(form: str, num: int, output: str) -> None:
    """Refuses what a format cannot hold, before anything is drawn.

    Raises:
      InputError: it cannot.
    """
    if form == "png" and num > _MOST_ON_A_SHEET:
        raise InputError(f"--num={num}: a sheet holds {_MOST_ON_A_SHEET} at most; give fewer, or another format")
    if form != "zarr" and is_remote(output):
        raise InputError(f"--output={output}: a bucket takes --format=zarr; write {form} to a disk")


def beside(output: str, ending: str) -> pathlib.Path:
    """skulls.nii.gz, .json -> skulls.json."""
    path = pathlib.Path(output)
    own = next((e for e in sorted(_ENDINGS, key=len, reverse=True) if path.name.lower().endswith(e)), "")
    return path.with_name(path.name[: len(path.name) - len(own)] + ending)
