"""Pretraining as published: the same pair on 100,000 CelebA images, grey, 128 x 128.

    python -m skullgan_jax.main --config=configs/celeba.py --workdir=runs/celeba --config.data.path=DIR

DIR is a TFDS data_dir or version directory that holds celeb_a, or a folder of JPEGs; empty, the TFDS default. Then
train on skulls with --config=configs/skull.py --config.pretrained=runs/celeba.
"""

import importlib.util
import pathlib

from ml_collections import ConfigDict


def get_config(size: str = "published") -> ConfigDict:
    """The skull config with other data."""
    path = pathlib.Path(__file__).with_name("skull.py")
    spec = importlib.util.spec_from_file_location("skull_config", path)
    skull = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(skull)
    config = skull.get_config(size)
    config.data.name = "celeba"
    config.data.path = ""
    config.data.num = 100_000
    config.epochs = 10
    config.sample_every = config.checkpoint_every = 1
    return config
