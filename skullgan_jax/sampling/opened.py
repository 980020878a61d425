"""Sample stores as others read them: whole."""

import pathlib

from skullgan_jax.data import prepared
from skullgan_jax.errors import InputError
from skullgan_jax.machine.paths import is_remote
from skullgan_jax.sampling.store import Store


def is_store(path) -> bool:
    """Whether what is there, or in a bucket is to be there, is a store and no data set of `prepare`."""
    if is_remote(path):
        return not str(path).endswith((".npy", ".npz")) and not prepared.is_prepared(path)
    return pathlib.Path(path, "zarr.json").is_file()


def open_store(path) -> Store:
    """A store, whose samples are read when they are chosen.

    Raises:
      InputError: there is none, it is damaged, or not all of its samples are there.
    """
    store = Store(path)
    if not store.about["complete"]:
        raise InputError(f"{path}: not all of its samples are there; give the sampling command again to complete it")
    return store
