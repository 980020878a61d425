"""The relativistic step against the PyTorch statement of it in float64, its schedules by hand, and its augmentation."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax.data import phantom
from skullgan_jax.model import pytorch_names
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices import radiology
from skullgan_jax.slices.calibration import Calibration
from skullgan_jax.train import relativistic, state
from skullgan_jax.train.recipe import Relativistic
from tests import support

BATCH = 4
NAMES = {"kernel": "weight", "bias": "bias"}  # ours and torch's
AIR, FLOOR = np.arange(128)[:, None] >= np.full(128, 70), -0.8  # the lower rows
RECIPE = Relativistic(air=0.5, lr=1e-3, gamma=3.0, gamma_end=1.0, gamma_until=0.5, average_images=8, average_share=0.5)


def view(fakes):
    """Some fixed differentiable change of the fakes."""
    return 0.9 * jnp.roll(fakes, 3, axis=1) - 0.05


def stray(fakes):
    """What of them lies higher than -0.9 in the lower rows."""
    return relativistic.strays(fakes, AIR, FLOOR)


@pytest.fixture(scope="module", params=[0, 3], ids=["alone", "batch_std"])
def pair(request):
    """With a discriminator that is told of its batch, or is not."""
    return Pair(nz=4, ngf=16, ndf=4, d_norm="none", d_batch_std=request.param)


@pytest.fixture(scope="module")
def discriminator(pair):
    """Its first weights."""
    return support.quick_jit(lambda: pair.init(0)[2])()


@pytest.fixture(scope="module")
def stepped(pair, discriminator):
    """The states before and after a second step, its metrics and inputs; the generator has weights of a formula."""
    weights = (*support.pair_weights(Pair(nz=4, ngf=16, ndf=4))[:2], discriminator, {})
    recipe = dataclasses.replace(RECIPE, batch_std=pair.d_batch_std)
    run = support.quick_jit(
        lambda now, x: relativistic.relativistic_step(
            now, x["real"], x["z"], x["noise"], view, stray, 0.25, graphs=pair.graphs(), recipe=recipe
        )
    )
    sizes = {"nc": 1, "nz": 4, "ngf": 16}
    before, _ = run(state.create(*weights, recipe=RECIPE), support.inputs("0", BATCH, sizes))
    # Of six inputs this and the next have no ReLU and no mask of texture noise so near its edge that rounding decides.
    x = support.inputs("3", BATCH, sizes)
    return before, *run(before, x), x


@pytest.mark.all
def test_losses_and_gradients_match_torch(pair, stepped):
    """By double backward in float64; of the decay rate 0, Adam's mean is the gradient itself."""
    torch = pytest.importorskip("torch")
    from benchmarks import torch_peer

    before, after, metrics, x = stepped

    def nchw(array):
        return torch.from_numpy(np.array(np.moveaxis(np.asarray(array, np.float64), -1, 1)))

    g = torch_peer.Generator(nz=pair.nz, ngf=pair.ngf).double()
    arrays = pytorch_names.to_torch("generator", before.g_iterate, before.g_stats)
    g.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in arrays.items()})
    d = {
        layer: {theirs: torch.from_numpy(oihw(leaves[ours])) for ours, theirs in NAMES.items() if ours in leaves}
        for layer, leaves in before.d_params.items()
    }
    for leaf in (leaf for leaves in d.values() for leaf in leaves.values()):
        leaf.requires_grad_()

    def discriminate(images):
        for i in range(1, 6):
            images = torch.nn.functional.conv2d(images, **d[f"conv{i}"], stride=2, padding=1)
            images = torch.nn.functional.leaky_relu(images, 0.2)
        if not pair.d_batch_std:
            return torch.nn.functional.conv2d(images, **d["conv6"])[:, 0, 0, 0]
        numbers = torch.nn.functional.conv2d(images, **d["numbers"])[:, :, 0, 0]
        deviation = torch.sqrt(numbers.var(0, correction=0) + 1e-6)
        told = torch.nn.functional.conv2d(deviation[None, :, None, None], **d["std"])
        hidden = torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(images, **d["conv6"]) + told, 0.2)
        return torch.nn.functional.conv2d(hidden, **d["conv7"])[:, 0, 0, 0]

    drawn = g(nchw(x["z"][:, None, None]), [nchw(n) for n in x["noise"]])
    over = torch.relu(drawn + 0.9)[:, :, 70:]
    astray = torch.nn.functional.huber_loss(over, torch.zeros_like(over), reduction="sum", delta=0.1) / BATCH
    fakes = 0.9 * torch.roll(drawn, 3, dims=2) - 0.05
    reals, seen = nchw(x["real"]).requires_grad_(), fakes.detach().requires_grad_()
    real, fake = discriminate(reals), discriminate(seen)
    penalties = [
        torch.autograd.grad(logits.sum(), images, create_graph=True)[0].square().sum((1, 2, 3)).mean()
        for logits, images in ((real, reals), (fake, seen))
    ]
    loss_d = torch.nn.functional.softplus(fake - real).mean()
    loss_g = torch.nn.functional.softplus(real.detach() - discriminate(fakes)).mean()
    expected = {"loss_d": loss_d, "loss_g": loss_g, "r1": penalties[0], "r2": penalties[1], "stray": astray}
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value.item(), rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(metrics["d_real"], float(torch.sigmoid(real - fake).mean()), rtol=1e-4)
    np.testing.assert_allclose(metrics["gamma"], 2.0)  # half way from 3 to 1

    for net in d.values():
        for leaf in net.values():
            leaf.grad = None
    (loss_g + 0.5 * astray).backward(retain_graph=True)
    g_gradients = pytorch_names.to_torch("generator", after.g_adam.mu, before.g_stats)
    for key, leaf in g.named_parameters():
        close(g_gradients[key], leaf.grad.numpy(), key)
    for leaf in (leaf for leaves in d.values() for leaf in leaves.values()):
        leaf.grad = None
    (loss_d + sum(penalties)).backward()  # gamma / 2 is 1
    assert ("std" in d) == (pair.d_batch_std > 0)
    for layer, leaves in after.d_adam.mu.items():
        for ours, gradient in leaves.items():
            close(oihw(gradient), d[layer][NAMES[ours]].grad.numpy(), (layer, ours))


def oihw(leaf):
    """A kernel as torch has it, or a bias as it is; float64."""
    leaf = np.float64(leaf)
    return np.ascontiguousarray(np.moveaxis(leaf, (3, 2), (0, 1)) if leaf.ndim == 4 else leaf)


def close(found, expected, name):
    """Within 2e-3 of the largest element: the mask of the texture noise and float32 leave no more."""
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max(), err_msg=name)


@pytest.mark.all
def test_what_a_step_moves(stepped):
    """Both nets, always; the average follows the weights that move, and statistics are left alone."""
    before, after, metrics, _ = stepped
    assert int(after.step) == int(after.g_adam.count) == int(after.d_adam.count) == 2
    kept = 0.5 ** (BATCH / 2)  # half in half of the 4 images before this step
    for layer in ("main1", "conv4"):
        mean = kept * before.g_params[layer]["kernel"] + (1 - kept) * after.g_iterate[layer]["kernel"]
        np.testing.assert_allclose(after.g_params[layer]["kernel"], mean, rtol=1e-5, atol=1e-8)
        assert np.abs(after.g_iterate[layer]["kernel"] - before.g_iterate[layer]["kernel"]).max() > 1e-4
    np.testing.assert_array_equal(before.g_params["main1"]["kernel"], before.g_iterate["main1"]["kernel"])
    jax.tree.map(np.testing.assert_array_equal, after.g_stats, before.g_stats)
    assert after.d_stats == {}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(after)} == {"float32", "int32"}
    assert all(value.dtype == jnp.float32 and value.shape == () for value in metrics.values())


def test_slopes_are_differences(pair, discriminator):
    """Upwards a batch's sum of logits changes as its slopes say: central differences of 1e-5, within 1 %."""
    _, graph = pair.graphs()
    images = support.uniform("a", (3, 2, 128, 128, 1))  # two batches of three

    @support.quick_jit
    def run(params, images):
        logits, backward = relativistic.discriminated(graph, params, images)
        return logits, backward(jnp.ones_like(logits))

    _, slopes = run(discriminator, images)
    direction = np.sign(slopes) * np.abs(support.uniform("direction", images.shape))
    more, less = (run(discriminator, images + h * direction)[0].sum(0) for h in (1e-5, -1e-5))
    along = np.sum(slopes * direction, (0, 2, 3, 4))
    assert along.min() > 1
    np.testing.assert_allclose((more - less) / 2e-5, along, rtol=1e-2)
    np.testing.assert_allclose(relativistic.squared(slopes[:, 0]), np.sum(np.square(slopes[:, 0])) / 3, rtol=1e-5)


def test_strays_by_hand():
    """Of two images: 0.04 and 0.3 higher than half way to the floor, -0.9; not what is lower, or where bone may be."""
    images = np.full((2, 128, 128, 1), -1, np.float32)
    images[0, 90, 5], images[1, 127, 127], images[1, 100, 100], images[0, 20, 20] = -0.86, -0.6, -0.91, 0.9
    np.testing.assert_allclose(stray(images), (0.04**2 / 2 + 0.1 * (0.3 - 0.05)) / 2, rtol=1e-5)


def test_pairing_by_hand():
    """Log 2 where nothing is told apart; by the difference of each pair alone."""
    loss = relativistic.pairing(jnp.array([3.0, 0.0]), jnp.array([3.0, 2.0]))
    np.testing.assert_allclose(loss, (math.log(2) + math.log1p(math.exp(2))) / 2, rtol=1e-6)
    np.testing.assert_allclose(relativistic.pairing(jnp.array([105.0]), jnp.array([100.0])), 0.0067153, rtol=1e-4)


@pytest.mark.parametrize(("progress", "lr", "gamma"), [(0, 8, 3), (0.25, 7.087, 2), (0.5, 4.8833, 1), (1, 1.7667, 1)])
def test_schedules_by_hand(progress, lr, gamma):
    """A cosine from 8 to a fifth less or so of it, and a line from 3 to 1 by half time."""
    recipe = Relativistic(lr=8.0, lr_end=1.7667 / 8, gamma=3.0, gamma_end=1.0, gamma_until=0.5)
    np.testing.assert_allclose(relativistic.learning_rate(recipe, progress), lr, rtol=1e-4)
    np.testing.assert_allclose(relativistic.penalty_weight(recipe, progress), gamma, rtol=1e-6)


def test_average_by_hand():
    """Nothing of the first weights stays; then half in 5 % of the images so far, at last half in 5,000."""
    decay = functools.partial(relativistic.average_decay, Relativistic(), batch=16)
    assert float(decay(step=jnp.int32(0))) == 0
    np.testing.assert_allclose(decay(step=jnp.int32(100)), 0.5 ** (16 / 80), rtol=1e-6)
    np.testing.assert_allclose(decay(step=jnp.int32(10**6)), 0.5 ** (16 / 5000), rtol=1e-6)


@pytest.mark.parametrize("ngf", [16, 64])
def test_first_weights_hand_single_pixels_on(ngf):
    """Nearly all energy of a pixel in any channel before conv3 comes out where it was, by published weights little."""
    published = support.quick_jit(lambda: Pair(nz=4, ngf=ngf, ndf=4).init(0)[0])()
    opened = relativistic.with_open_tail(published, 0)

    def conv(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def central(params):
        pixels = np.zeros((ngf // 8, 9, 9, ngf // 8), np.float32)
        pixels[:, 4, 4] = np.eye(ngf // 8)
        out = np.square(conv(conv(pixels, params["conv3"]["kernel"]), params["conv4"]["kernel"]))
        return np.sum(out[:, 4, 4]) / np.sum(out)

    assert central(opened) > 0.95
    assert central(published) < 0.2
    for name, layer in published.items():
        added = {k: np.array(opened[name][k] - v) for k, v in layer.items()}
        if name in ("conv3", "conv4"):
            middle = added["kernel"][1, 1].copy()
            np.testing.assert_allclose(np.abs(middle), len(middle) ** -0.5, rtol=1e-5)
            added["kernel"][1, 1] = 0
        assert not any(np.any(v) for v in added.values())


def test_shifts_by_hand():
    """Down and right; what moves in is air."""
    x = np.arange(2 * 5 * 5, dtype=np.float32).reshape(2, 5, 5, 1)
    moved = np.asarray(relativistic.shifted(x, jnp.array([[2, -1], [0, 0]]), 2))[..., 0]
    np.testing.assert_array_equal(moved[0, 2:, :4], x[0, :3, 1:, 0])
    assert np.all(moved[0, :2] == -1)
    assert np.all(moved[0, :, 4] == -1)
    np.testing.assert_array_equal(moved[1], x[1, ..., 0])


def leaks(hu, reals) -> dict[str, float]:
    """What moved slices would show and sound ones do not: by how much, in the terms of the slices themselves.

    Args:
      hu: (N, 128, 128) slices to look at.
      reals: (N, 128, 128) what they are to be like.

    Returns:
      columns: how much rarer bone reaches both edges of the slice; apex: by how many standard deviations of the reals'
      the spread of the row of the outermost bone is wider; background: how much more of the top row is bone.
    """

    def of(hu):
        bone = np.asarray(hu) > radiology.BONE_HU
        return bone.any(1)[:, [0, -1]].all(1).mean(), bone.any(2).argmax(1).std(), bone[:, 0].mean()

    (edges, apex, top), (real_edges, real_apex, real_top) = of(hu), of(reals)
    return {"columns": real_edges - edges, "apex": apex / real_apex - 1, "background": top - real_top}


@pytest.fixture(scope="module")
def phantoms():
    return phantom.segments(256, 3)


@pytest.fixture(scope="module")
def augment():
    """Compiled (256 images, grain, how likely a shift is) -> what the discriminator sees."""

    def run(images, grain, shift_share):
        recipe = Relativistic(grain=grain, shift_share=shift_share)
        return relativistic.augment(images, jax.random.key(0), recipe)

    return support.quick_jit(run)


def test_augmented_slices_are_known_by_their_leaks(phantoms, augment):
    """The detector of a generator that draws what only the discriminator is to see: it passes sound slices."""
    scale = Calibration(0, 2649)
    images = scale.to_unit(phantoms)[..., None]
    seen = augment(images, Relativistic.grain, Relativistic.shift_share)
    found = leaks(scale.to_hu(np.asarray(seen)[..., 0]), phantoms)
    assert found["columns"] > 0.15
    assert found["apex"] > 0.2
    halves = leaks(phantoms[:128], phantoms[128:])
    assert abs(halves["columns"]) < 0.05
    assert abs(halves["apex"]) < 0.2
    assert halves["background"] == 0


def test_augmentation_can_be_undone(augment):
    """More stay than move, each image for itself, and HU change by noise alone: no other law of slices looks so.

    The law of where things are is convolved with that of the shifts, which can be undone where its Fourier transform
    has no zero: 1 - p + p times a mean of cosines that is at least -0.23, so 0.38 at p = 0.5, of 256 images 0.06 less.
    """
    dot = np.full((256, 128, 128, 1), -1, np.float32)
    dot[:, 8, 8] = 1
    seen = np.asarray(augment(dot, 0.0, 0.5))[..., 0]
    assert set(np.unique(seen)) == {-1, 1}
    assert np.all(seen.max((1, 2)) == 1)
    law = np.mean(seen > 0, 0)
    assert 0.4 < law[8, 8] < 0.6
    assert law[4:13, 4:13].sum() == pytest.approx(1)
    assert np.abs(np.fft.fft2(law)).min() > 0.2
    grain = np.asarray(augment(np.zeros_like(dot), 0.02, 0.0))
    np.testing.assert_allclose(grain.std((1, 2, 3)), 0.02, rtol=0.03)
    assert np.abs(grain.mean((1, 2, 3))).max() < 1e-3
    assert len(np.unique(grain[:, 0, 0])) == 256


def test_reals_are_mirrored_half_the_time(phantoms):
    x = phantoms[..., None].astype(np.float32)
    seen = np.asarray(relativistic.mirrored(x, jax.random.key(0), 0.5))
    turned = np.array([np.array_equal(a, b[:, ::-1]) for a, b in zip(seen, x, strict=True)])
    same = np.array([np.array_equal(a, b) for a, b in zip(seen, x, strict=True)])
    assert np.all(turned ^ same)
    assert 0.4 < turned.mean() < 0.6
