"""The parts of the adversarial step: blur, the table of blurred places, the loss, and a shut gate."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from skullgan_jax.nets.pair import Pair
from skullgan_jax.train import state, step
from tests import support

PAIR = Pair(nz=4, ngf=16, ndf=8)
SIZES = {"nc": 1, "nz": 4, "ngf": 16, "ndf": 8}
BATCH = 4  # all as in test_networks.py, so that the programs are compiled once


@pytest.mark.parametrize("sigma", [0.5, 15 / 16, 15 / 17, 3.0])
def test_gaussian_blur_matches_scipy(sigma):
    """Against scipy's filter of radius 1 with edges mirrored about the outermost pixel, along rows and columns only."""
    x = np.random.default_rng(0).standard_normal((2, 12, 9, 3), np.float32)
    ours = jax.jit(step.gaussian_blur)(x, sigma)
    theirs = ndimage.gaussian_filter(x.astype(np.float64), sigma, radius=1, mode="mirror", axes=(1, 2))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_gaussian_blur_by_hand():
    """A single bright pixel: weights 1 : exp(-1/2) : exp(-1) at sigma 1; a constant stays."""
    x = np.zeros((1, 5, 5, 1), np.float32)
    x[0, 2, 2, 0] = 1
    taps = np.array([np.exp(-0.5), 1, np.exp(-0.5)]) / (1 + 2 * np.exp(-0.5))
    np.testing.assert_allclose(step.gaussian_blur(x, 1.0)[0, 1:4, 1:4, 0], np.outer(taps, taps), rtol=1e-6)
    np.testing.assert_allclose(step.gaussian_blur(jnp.ones((1, 4, 4, 1)), 0.7), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("batch", "table"),
    [
        (1, {0: 0, 15: 0, 16: 0, 999: 0}),
        (4, {0: 0, 4: 0, 15: 0, 16: 2, 17: 2, 999: 2}),
        (16, {0: 0, 15: 0, 16: 1, 17: 8, 18: 8, 31: 8, 999: 8}),
        (32, {0: 0, 15: 0, 16: 1, 17: 2, 20: 5, 31: 16, 32: 17, 33: 16, 34: 16, 999: 16}),
    ],
)
def test_blurred_places(batch, table):
    """0 up to epoch 15, epoch - 15 while epoch <= batch, then half the batch: the published table."""
    run = jax.jit(functools.partial(step.blurred_places, batch=batch, blur_epoch=15))
    assert {epoch: int(run(epoch)) for epoch in table} == table


@pytest.mark.parametrize(
    ("logits", "target", "expected"),
    [
        ([0.0], 0.9, np.log(2)),
        ([0.0], 0.0, np.log(2)),
        ([2.0], 1.0, 0.12692801),  # log(1 + exp(-2))
        ([2.0], 0.9, 0.32692801),  # and a tenth of 2
        ([-1.0, 3.0], 0.0, (0.31326169 + 3.04858735) / 2),
        ([np.log(9)], 0.9, 0.32508297),  # the floor: the entropy of 0.9, at probability 0.9
        ([60.0], 1.0, 0.0),  # exp(-60) is less than float32's rounding
        ([60.0, -60.0], 0.0, 30.0),
    ],
)
def test_bce_by_hand(logits, target, expected):
    loss = step.bce(jnp.array(logits, jnp.float32), target)
    assert loss.shape == ()
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-6, atol=1e-12)


def test_bce_gradient_by_hand():
    """(sigmoid(logit) - target) / batch."""
    logits = jnp.array([0.0, 2.0, -30.0, 30.0])
    gradient = jax.grad(step.bce)(logits, 0.9)
    expected = (1 / (1 + np.exp(-np.asarray(logits, np.float64))) - 0.9) / 4
    np.testing.assert_allclose(gradient, expected, atol=3e-8)


def identical(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


@pytest.fixture(scope="module")
def steps():
    """before, and after one step with both gates shut and with both open: (state, metrics) each."""
    before = state.create(*support.pair_weights(PAIR), recipe=step.Recipe(lr=1e-5))
    run = support.advance(PAIR, 0)
    # Adam has something to lose: the second step is looked at.
    before, _ = run(before, support.inputs("0", BATCH, SIZES), 0, 0.9)
    x = support.inputs("1", BATCH, SIZES)
    return before, run(before, x, 30, 1e9), run(before, x, 9, 1e9)


def test_shut_gate_keeps_weights_and_adam(steps):
    """Bit for bit, the count included; the gradients' norms are 0."""
    before, (shut, metrics), (opened, open_metrics) = steps
    for net in "gd":
        for part in ("params", "adam"):
            name = f"{net}_{part}"
            assert identical(getattr(before, name), getattr(shut, name)), name
            assert not identical(getattr(before, name), getattr(opened, name)), name
        assert int(getattr(shut, f"{net}_adam").count) == 1
        assert int(getattr(opened, f"{net}_adam").count) == 2
        assert float(metrics[f"open_{net}"]) == 0 == float(metrics[f"grad_{net}"])
        assert float(open_metrics[f"open_{net}"]) == 1
        assert float(open_metrics[f"grad_{net}"]) > 1e-3
    assert int(shut.step) == int(opened.step) == 2


def test_shut_gate_moves_statistics_and_schedule(steps):
    """The generator's statistics move once; the discriminator's three times: reals, fakes, the same fakes again."""
    before, (shut, metrics), _ = steps
    x = support.inputs("1", BATCH, SIZES)
    fakes, g_stats = support.forward(PAIR, "generator", True)(before.g_params, before.g_stats, x["z"], x["noise"])
    # epoch 30 at batch 4: the last two places hold blurred reals, sigma 0.5
    fakes = jnp.concatenate([fakes[:2], step.gaussian_blur(x["blur"], 0.5)[2:]])
    d_stats, d = before.d_stats, support.forward(PAIR, "discriminator", True)
    logits = []
    for images in (x["real"], fakes, fakes):
        out, d_stats = d(before.d_params, d_stats, images)
        logits.append(out)
    for ours, expected in ((shut.g_stats, g_stats), (shut.d_stats, d_stats)):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), ours, expected)
    assert not identical(before.g_stats, shut.g_stats)
    assert not identical(before.d_stats, shut.d_stats)
    expected = {
        "loss_d": step.bce(logits[0], 0.9) + step.bce(logits[1], 0.0),
        "loss_g": step.bce(logits[2], 1.0),
        "d_real": jax.nn.sigmoid(logits[0]).mean(),
        "d_fake": jax.nn.sigmoid(logits[1]).mean(),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    # Patience 0: a worse loss than the first step's lowers the rate, stepped or not.
    for net, factor in (("g", 0.5), ("d", 0.8)):
        was, now = (getattr(s, f"{net}_plateau") for s in (before, shut))
        loss = float(metrics[f"loss_{net}"])
        worse = not loss < float(was.best) * (1 - 1e-4)
        np.testing.assert_allclose(now.lr, was.lr * (factor if worse else 1), rtol=1e-6)
        np.testing.assert_allclose(now.best, min(loss, float(was.best)), rtol=1e-6)
