"""SkullGAN as published, on your slices or on the built-in phantom.

The published training, 1000 epochs at batch 16:

    python -m skullgan_jax.main --config=configs/skull.py --workdir=runs/skull --config.data.path=slices.npy

From a pair pretrained on CelebA (configs/celeba.py):

    ... --config.pretrained=runs/celeba

A laptop-size run on the phantom, two minutes on 2 CPU cores:

    python -m skullgan_jax.main --config=configs/skull.py:demo --workdir=runs/demo
"""

import dataclasses

from ml_collections import ConfigDict

from skullgan_jax.slices.size import PIXEL_MM
from skullgan_jax.train.recipe import Recipe

# name: (as published, what it is)
FIELDS = {
    "seed": (111, "of the first weights, latents, noise, the order of the slices and the phantom"),
    "epochs": (1000, "how often each slice is seen"),
    "batch_size": (16, "slices of a step, on all devices together"),
    "data.name": ("skull", "skull or celeba"),
    "data.path": ("", ".npy or .npz of (N, 128, 128) HU, a folder or gs:// of prepare, or the word phantom"),
    "data.num": (2000, "how many phantom slices, or CelebA images"),
    "data.pixel_mm": (PIXEL_MM, "edge of a pixel in mm; what prepare made knows its own"),
    "model.nc": (1, "channels of an image"),
    "model.nz": (200, "numbers of a latent vector"),
    "model.ngf": (256, "width of the generator"),
    "model.ndf": (64, "width of the discriminator"),
    "model.dtype": ("auto", "of convolutions: float32, bfloat16 or auto, bfloat16 on GPUs and TPUs, float32 on CPUs"),
    **{f"recipe.{f.name}": (f.default, f.metadata["meaning"]) for f in dataclasses.fields(Recipe)},
    "pretrained": ("", "a model or a workdir to take the first weights of"),
    "checkpoint": ("", "a workdir to go on from in this one, optimizer and all"),
    "skip_damaged": (False, "where the latest checkpoint is damaged, go on from the one before"),
    "shard_state": (False, "weights and optimizer divided over the devices, not a copy on each"),
    "log_every": (10, "steps from record to record"),
    "sample_every": (5, "epochs from picture to picture, of the same latents"),
    "checkpoint_every": (5, "epochs from checkpoint to checkpoint"),
    "judge_slices": (128, "samples that a checkpoint is judged by, and as many real slices"),
    "patience": (0, "epochs in which no checkpoint is better than the best, after which the run ends; 0: never"),
    "final_slices": (1000, "HU slices that are written at the end"),
}


def get_config(size: str = "published") -> ConfigDict:
    """`size` is what follows the colon of --config: nothing for the published run, or demo."""
    fields = {}
    for name, (default, _) in FIELDS.items():
        group, _, field = name.rpartition(".")
        (fields.setdefault(group, {}) if group else fields)[field] = default
    config = ConfigDict(fields)
    if size == "demo":
        config.epochs = 20
        config.data.path = "phantom"
        config.data.num = 512
        config.model.ngf, config.model.ndf, config.model.nz = 16, 16, 64
        # At the published rates the discriminator of so small a pair wins before the gates of epoch 10 hold it back.
        config.recipe.lr = 1e-3
        config.recipe.gate_epoch = 1
        config.judge_slices = 64
    elif size != "published":
        raise ValueError("there is only configs/skull.py and configs/skull.py:demo")
    return config
