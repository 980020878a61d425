"""Write tests/data/torch_facts.npz: what the PyTorch statement of the pair answers, for machines without torch.

python -m tests.data.make_torch_facts

Weights, inputs and noise come from tests/support.py; everything is computed in float64. The file holds

- settled/<step>/<i>: flat places of the generator's noise array i that are set to 0 (see `settle`), step by step;
- g/<mode>: IMAGE of the first batch with BatchNorm in that mode; g_mean/<mode>: the mean of each image of the batch;
- d/<mode>: the logits of the real images;
- stats/<net>/<key>: running statistics after one training batch;
- steps/<name>: for each training step of EPOCHS its losses, mean probabilities, next learning rates and gates;
- grads/<net>/<key>: in the first step, the gradient's norm and its inner product with
  support.uniform("direction <key>").
"""

import pathlib

import numpy as np
import torch

from benchmarks import torch_peer
from tests import support

PATH = pathlib.Path(__file__).with_name("torch_facts.npz")
SIZES = {"nc": 1, "nz": 4, "ngf": 16, "ndf": 8}
BATCH, IMAGE = 4, 1
EPOCHS = (0, 9, 10, 15, 30)
PATIENCE = 0
LR = 1e-5  # at 3e-4 and with these weights, float32 and float64 part by a percent within three steps
GATE_LOSS = 1.3  # each gate opens and shuts
NAMES = ("loss_d", "loss_g", "d_real", "d_fake", "lr_d", "lr_g", "d_stepped", "g_stepped")


def build(nc, nz, ngf, ndf):
    """The pair with the weights of tests/support.py, float32."""
    g, d = torch_peer.Generator(nc, nz, ngf), torch_peer.Discriminator(nc, ndf)
    for module in (g, d):
        shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        module.load_state_dict({key: torch.from_numpy(v) for key, v in support.weights(shapes).items()})
    return g, d


def nchw(x, dtype):
    """B H W C -> B C H W."""
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(dtype)


@torch.no_grad()
def generate(g, z, noise):
    """Images B H W C of z (B, nz) and noise B H W C, in the module's dtype and mode."""
    dtype = next(g.parameters()).dtype
    return np.moveaxis(g(nchw(z[:, None, None], dtype), [nchw(n, dtype) for n in noise]).numpy(), 1, -1)


def settle(g, z, noise, margin=1e-4):
    """Places where the texture noise must be 0 for two computations to agree: flat indices of both noise arrays.

    There, in training or standing mode, the activation is within margin of an edge of the mask (in units of its
    channel's largest element), so that rounding decides whether noise is added. The module is left as it was.
    """
    mode, before = g.training, {key: value.clone() for key, value in g.state_dict().items()}
    noise, flat = list(noise), []
    for i, layer in enumerate((g.main6, g.conv2)):
        places = np.zeros(noise[i].shape, bool)

        def look(module, args, x, places=places):
            top = x.amax(dim=(2, 3), keepdim=True)
            near = torch.minimum((x + top / 2).abs(), (x - top / 4).abs()) < margin * top
            places[:] |= np.moveaxis(near.numpy(), 1, -1)

        hook = layer.register_forward_hook(look)
        for train in (True, False):
            generate(g.train(train), z, noise)
            g.load_state_dict(before)
        g.train(mode)
        hook.remove()
        noise[i] = np.where(places, np.float32(0), noise[i])
        flat.append(np.flatnonzero(places))
    return flat


def silence(noise, flat):
    """The noise arrays with 0 at the flat places."""
    noise = [n.copy() for n in noise]
    for n, places in zip(noise, flat, strict=True):
        n.ravel()[places] = 0
    return noise


def forward_facts():
    """Both networks in both modes, and their statistics after the batch in training mode."""
    g, d = (module.double() for module in build(**SIZES))
    x = support.inputs("0", BATCH, SIZES)
    noise, facts = silence(x["noise"], settle(g, x["z"], x["noise"])), {}
    for mode in ("eval", "train"):  # in this order: training moves the statistics
        images = generate(g.train(mode == "train"), x["z"], noise)
        facts[f"g/{mode}"], facts[f"g_mean/{mode}"] = images[IMAGE], images.mean((1, 2, 3))
        with torch.no_grad():
            facts[f"d/{mode}"] = d.train(mode == "train").logits(nchw(x["real"], torch.float64)).numpy()
    for net, module in (("generator", g), ("discriminator", d)):
        facts |= {f"stats/{net}/{k}": v.numpy() for k, v in module.state_dict().items() if "running" in k}
    return facts


def step_facts():
    """Training steps through both gates, plateau drops and blurred reals; each with inputs of its own."""
    g, d = (module.double() for module in build(**SIZES))
    trainer = torch_peer.Trainer(g, d, lr=LR, patience=PATIENCE, gate_loss=GATE_LOSS)
    rows, facts = [], {}
    for i, epoch in enumerate(EPOCHS):
        x = support.inputs(str(i), BATCH, SIZES)
        images = [nchw(x[k], torch.float64) for k in ("real", "blur")]
        settled = settle(g, x["z"], x["noise"])
        facts |= {f"settled/{i}/{j}": places.astype(np.int32) for j, places in enumerate(settled)}
        noise = [nchw(n, torch.float64) for n in silence(x["noise"], settled)]
        rows.append(trainer.step(*images, nchw(x["z"][:, None, None], torch.float64), noise, epoch))
        if i:
            continue
        for net, module in (("generator", g), ("discriminator", d)):
            for key, p in module.named_parameters():
                gradient = p.grad.numpy()
                along = np.vdot(gradient, support.uniform(f"direction {key}", gradient.shape).astype(np.float64))
                facts[f"grads/{net}/{key}"] = np.array([np.linalg.norm(gradient), along])
    return facts | {f"steps/{name}": np.array([row[name] for row in rows], np.float64) for name in NAMES}


def compute():
    """All facts: name -> array."""
    facts = forward_facts() | step_facts()
    return {k: v.astype(np.float32) if k.startswith(("g/", "stats/")) else v for k, v in facts.items()}


if __name__ == "__main__":
    np.savez_compressed(PATH, **compute())
    print(f"{PATH}: {PATH.stat().st_size} bytes")
