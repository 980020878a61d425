"""SkullGAN as published, on your slices or on the built-in phantom.

The published training, 1000 epochs at batch 16:

    python -m skullgan_jax.main --config=configs/skull.py --workdir=runs/skull --config.data.path=slices.npy

From a pair pretrained on CelebA (configs/celeba.py):

    ... --config.pretrained=runs/celeba

A laptop-size run on the phantom, under 5 minutes on 2 CPU cores (`make demo`):

    python -m skullgan_jax.main --config=configs/skull.py:demo --workdir=runs/demo
"""

import dataclasses

from ml_collections import ConfigDict

from skullgan_jax.train.step import Recipe


def get_config(size: str = "published") -> ConfigDict:
    """`size` is what follows the colon of --config: nothing for the published run, or demo."""
    config = ConfigDict()
    config.seed = 111
    config.epochs = 1000
    config.batch_size = 16
    config.data = ConfigDict(
        {
            "name": "skull",  # or celeba
            "path": "",  # .npy or .npz of (N, 128, 128) HU, or the word phantom
            "num": 2000,  # phantom slices
            "pixel_mm": 0.46875,  # 60 mm / 128
        }
    )
    config.model = ConfigDict(
        {
            "nc": 1,
            "nz": 200,
            "ngf": 256,
            "ndf": 64,
            "dtype": "auto",  # what convolutions compute in: bfloat16 on GPUs and TPUs, float32 on CPUs
        }
    )
    config.recipe = ConfigDict(dataclasses.asdict(Recipe()))
    config.pretrained = ""  # a model or a workdir to take the weights of
    config.checkpoint = ""  # a workdir to continue from in this one, optimizer and all
    config.shard_state = False  # weights and optimizer divided over the devices, not a copy on each
    config.log_every = 10  # steps
    config.sample_every = 5  # epochs, a grid from fixed latents
    config.checkpoint_every = 5  # epochs; each is judged by swd on this many samples:
    config.judge_slices = 128
    config.final_slices = 1000  # HU slices written at the end
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
        raise ValueError(f"configs/skull.py:{size}: there is only configs/skull.py and configs/skull.py:demo")
    return config
