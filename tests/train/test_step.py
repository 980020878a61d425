"""The adversarial step against the PyTorch statement of it, gates, schedules and blurred reals included."""

import itertools

import numpy as np
import pytest

from skullgan_jax.model import pytorch_names
from skullgan_jax.nets.pair import Pair
from skullgan_jax.train import state, step
from tests import support

torch = pytest.importorskip("torch")
from benchmarks import torch_peer  # noqa: E402  (needs torch)

PAIR = Pair(nz=20, ngf=16, ndf=8)
PATIENCE = 3


@pytest.fixture(autouse=True)
def _one_thread():
    """Those of torch wait by spinning: wherever something else runs too, two take ten times as long as one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def networks():
    """The same small pair, published initialisation, in both frameworks; torch's in float64.

    In float32 torch's own gradients are off by up to 4e-2 of their largest element here, ours by 1e-2, and Adam's first
    steps turn the sign of a rounding error into a full step: only against float64 does 1e-3 mean something.
    """
    torch.manual_seed(0)
    g = torch_peer.init_weights(torch_peer.Generator(nz=PAIR.nz, ngf=PAIR.ngf))
    d = torch_peer.init_weights(torch_peer.Discriminator(ndf=PAIR.ndf))
    weights = []
    for net, module in (("generator", g), ("discriminator", d)):
        arrays = {k: v.numpy() for k, v in module.state_dict().items()}
        weights += pytorch_names.from_torch(net, arrays, PAIR)[:2]
    return g.double(), d.double(), weights


def nchw(x):
    return torch.from_numpy(np.array(np.moveaxis(x, -1, 1))).double()


@pytest.mark.parametrize(
    ("batch", "lr", "gates"),
    [
        (4, 1e-5, (0.9, 2.0)),  # at the published rate so small a batch drifts apart: 1e-4 after 15 steps
        pytest.param(16, 3e-4, (0.9,), marks=pytest.mark.all),
        pytest.param(16, 3e-4, (2.0,), marks=pytest.mark.all),
    ],
)
def test_twenty_steps_match_torch(batch, lr, gates):
    """Losses over 20 steps that cross the gates, plateau drops and the blurred branch.

    At the published gate the discriminator's opens and shuts; at 2.0 the generator's does.
    """
    g, d, weights = networks()
    peer = torch_peer.Trainer(g, d, lr=lr, patience=PATIENCE)
    ours = state.create(*weights, recipe=step.Recipe(lr=lr))
    advance = support.advance(PAIR, PATIENCE)
    random = np.random.default_rng(0)
    epochs = [0, 8, 9, 9, 10, 10, 11, 12, 14, 15, 15, 16, 16, 16, 17, 17, 18, 25, 100, 999]
    seen = []
    for epoch, gate_loss in zip(epochs, itertools.cycle(gates), strict=False):
        reals, blur = np.tanh(random.standard_normal((2, batch, 128, 128, 1), np.float32))
        z = random.uniform(-1, 1, (batch, PAIR.nz)).astype(np.float32)
        noise = [random.standard_normal((batch, 128, 128, c), np.float32) for c in (PAIR.ngf // 2, PAIR.ngf // 8)]
        peer.gate_loss = gate_loss
        theirs = peer.step(nchw(reals), nchw(blur), nchw(z[:, None, None]), [nchw(n) for n in noise], epoch)
        x = {"real": reals, "blur": blur, "z": z, "noise": noise}
        ours, metrics = advance(ours, x, epoch, gate_loss)
        metrics = {k: float(v) for k, v in metrics.items()}
        for name in ("loss_d", "loss_g", "lr_d", "lr_g", "d_real", "d_fake"):
            np.testing.assert_allclose(metrics[name], theirs[name], rtol=1e-4, err_msg=f"{name}, epoch {epoch}")
        assert (metrics["open_d"], metrics["open_g"]) == (theirs["d_stepped"], theirs["g_stepped"])
        if not seen:  # later ones follow weights that Adam has moved apart, and so does the mean of what a bias shifts:
            # biases ahead of BatchNorm have gradient 0, and Adam makes full steps of its rounding.
            for net, params, stats, module in (
                ("generator", ours.g_params, ours.g_stats, g),
                ("discriminator", ours.d_params, ours.d_stats, d),
            ):
                mine = pytorch_names.to_torch(net, params, stats)
                for key, value in module.state_dict().items():
                    if "running" in key and (net, key[-4:]) != ("discriminator", "mean"):
                        scale = np.abs(value.numpy()).max()
                        np.testing.assert_allclose(mine[key], value.numpy(), atol=1e-4 * scale, err_msg=key)
        seen.append(metrics)
    for gate, name in ((0.9, "open_d"), (2.0, "open_g")):
        assert gate not in gates or {m[name] for m in seen} == {0.0, 1.0}
    assert len({m["lr_d"] for m in seen}) > 1
    assert len({m["lr_g"] for m in seen}) > 1
