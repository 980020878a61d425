"""A few hundred to a few thousand slices: the published generator, trained so that it keeps drawing bone.

    python -m skullgan_jax.main --config=configs/small_data.py --workdir=runs/skull --config.data.path=slices.npy

From weights that know something already, as the released ones; a generator is enough:

    ... --config.pretrained=models/skullgan

Slices of many heads, which differ in more than one head's do; or where the log warns of a collapse:

    ... --config.recipe.batch_std=8

The size of a laptop, on the phantom or on your own slices, from scratch or from the starter model:

    python -m skullgan_jax.main --config=configs/small_data.py:demo --workdir=runs/small
    python -m skullgan_jax.main --config=configs/small_data.py:demo --workdir=runs/small --config.pretrained=starter

What it does in another way than configs/skull.py, and what that is worth: docs/training.md. Its generator is the
published one, and converts to PyTorch; its discriminator has no BatchNorm, and does not.
"""

import dataclasses
import importlib.util
import pathlib

from ml_collections import ConfigDict

from skullgan_jax.train.recipe import Relativistic

_spec = importlib.util.spec_from_file_location("skull_config", pathlib.Path(__file__).with_name("skull.py"))
_skull = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_skull)

# name: (value, what it is), as in skull.py; some are changed below
FIELDS = {name: about for name, about in _skull.FIELDS.items() if not name.startswith("recipe.")}
FIELDS |= {f"recipe.{f.name}": (f.default, f.metadata["meaning"]) for f in dataclasses.fields(Relativistic)}


def get_config(size: str = "published") -> ConfigDict:
    """`size` is what follows the colon of --config: nothing for the published generator, or demo."""
    if size not in ("published", "demo"):
        raise ValueError("there is only configs/small_data.py and configs/small_data.py:demo")
    config = _skull.get_config(size)
    config.recipe = ConfigDict(dataclasses.asdict(Relativistic()))
    # An epoch of few slices is short, and the statistics of the average take as long as a few steps.
    config.sample_every = config.checkpoint_every = 10
    if size == "demo":
        config.epochs = 200  # of 253 slices 3,000 steps
        config.recipe.lr = 5e-4
    return config
