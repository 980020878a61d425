"""The step for few slices, as one pure function: a relativistic loss with gradient penalties (R3GAN, arXiv 2501.05441).

It has no gates, plateaus, blurred reals or label smoothing, and no BatchNorm in the discriminator. What it has instead:
each fake is compared with a real one, the discriminator is kept smooth about both, may be told how much the slices of a
batch differ, and sees them moved and grainy alone, and reals without the sharp edge that they were cut out by, the
generator minds what it draws where no slice has bone, and the one that is kept is an average of the one that moves.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from skullgan_jax.nets import networks, rng
from skullgan_jax.nets.layout import by_image
from skullgan_jax.nets.pair import Pair
from skullgan_jax.slices.fade import faded
from skullgan_jax.train.recipe import Relativistic
from skullgan_jax.train.state import AverageState

_HUBER = 0.1  # of [-1, 1]: what is further from air counts by its distance, not its square, lest it drown the rest


def relativistic_step(
    state: AverageState, reals, z, noise, view: Callable, stray: Callable, progress, *, graphs, recipe: Relativistic
) -> tuple[AverageState, dict]:
    """One iteration: both nets by the same pass of the discriminator, on pairs of a real and a fake.

    Args:
      state: before the step.
      reals: (B, 128, 128, nc) in [-1, 1], as the discriminator sees them.
      z: (B, nz) latent.
      noise: the generator's pair of texture noise arrays.
      view: from fakes (B, 128, 128, nc) to what the discriminator sees of them, differentiable.
      stray: from fakes to how much of them is where there can be no bone, a float32 scalar, differentiable.
      progress: float32 scalar, the share of the run that is done.
      graphs: the structures of generator and discriminator.
      recipe: the numbers.

    Returns:
      The state after the step and a dict of float32 scalars: loss_d, loss_g (ln 2 where nothing is told apart), d_real
      and d_fake (mean probability that the one is the real one of its pair), r1, r2 (mean squared norm of the logit's
      gradient at reals and at fakes), stray, gamma, lr_d, lr_g, grad_d, grad_g (global norms).
    """
    g_graph, d_graph = graphs
    lr, gamma = learning_rate(recipe, progress), penalty_weight(recipe, progress)

    def generate(params):
        drawn = networks.apply(g_graph, params, state.g_stats, z, noise, train=True)[0]
        return view(drawn), stray(drawn)

    def d_loss(params):
        pairs = jnp.stack((reals, fakes), 1)  # each beside its other, on one device
        logits, backward = discriminated(d_graph, params, pairs)
        real, fake = logits.T
        slopes = backward(jnp.ones_like(logits))
        r1, r2 = squared(slopes[:, 0]), squared(slopes[:, 1])
        loss = pairing(real, fake)
        loss_g, by_fake = jax.value_and_grad(pairing)(fake, real)
        if recipe.batch_std:
            to_fakes = backward(jnp.stack((jnp.zeros_like(by_fake), by_fake), 1))[:, 1]
        else:  # no logit depends on another image, so the slopes are all that is needed
            to_fakes = by_fake[:, None, None, None] * slopes[:, 1]
        return loss + gamma / 2 * (r1 + r2), (loss, loss_g, real, fake, to_fakes, r1, r2)

    def step(params, adam, gradients):
        directions, adam = recipe.adam.update(gradients, adam)
        return jax.tree.map(lambda p, d: p - lr * d, params, directions), adam

    (fakes, astray), g_backward = jax.vjp(generate, state.g_iterate)
    d_gradients, (loss_d, loss_g, real, fake, to_fakes, r1, r2) = jax.grad(d_loss, has_aux=True)(state.d_params)
    d_params, d_adam = step(state.d_params, state.d_adam, d_gradients)
    (g_gradients,) = g_backward((to_fakes, jnp.float32(recipe.air)))
    g_iterate, g_adam = step(state.g_iterate, state.g_adam, g_gradients)

    kept = average_decay(recipe, state.step, len(reals))
    d_real = jnp.mean(jax.nn.sigmoid(real - fake))
    metrics = {
        "loss_d": loss_d,
        "loss_g": loss_g,
        "d_real": d_real,
        "d_fake": 1 - d_real,
        "r1": r1,
        "r2": r2,
        "stray": astray,
        "gamma": gamma,
        "lr_d": lr,
        "lr_g": lr,
        "grad_d": optax.tree.norm(d_gradients),
        "grad_g": optax.tree.norm(g_gradients),
    }
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        g_params=jax.tree.map(lambda a, p: p + kept * (a - p), state.g_params, g_iterate),
        g_iterate=g_iterate,
        g_adam=g_adam,
        d_params=d_params,
        d_adam=d_adam,
    )
    return state, metrics


def pairing(better, worse):
    """softplus(-(better - worse)) of logits (B,), the i-th with the i-th: the mean, a float32 scalar (1807.00734)."""
    return jnp.mean(jax.nn.softplus(worse - better))


def discriminated(d_graph, params, batches):
    """Logits (B, K) of K batches, (B, K, H, W, C), and what gives the gradient of their sum by all images.

    Each batch is discriminated alone. The sum is weighted by what is given, (B, K).
    """

    def logits(x):
        x = x.reshape(-1, *x.shape[2:])
        found, _ = networks.apply(d_graph, params, {}, x, train=True, batches=batches.shape[1])
        return found.reshape(batches.shape[:2])

    found, backward = jax.vjp(logits, batches)
    return found, lambda weights: backward(weights)[0]


def squared(slopes):
    """The mean over images of |d logits / d image|^2: R1 of reals, R2 of fakes (Mescheder et al., arXiv 1801.04406).

    That of the sum of the batch's logits, as in 1912.04958: with the standard deviation over the batch one image moves
    all of them.
    """
    return jnp.mean(jnp.sum(jnp.square(slopes), (1, 2, 3)))


def strays(images, air, floor):
    """How much of images is not air where no slice has bone: a float32 scalar, the mean over images.

    The sum over pixels of Huber's loss of what lies higher than half way from air to the floor. A discriminator hardly
    sees a pixel in a corner, where a generator's convolutions, which see zeros beyond the edge, draw air least well.

    Args:
      images: (B, H, W, C) in [-1, 1].
      air: (H, W) bool, where no slice has bone.
      floor: of [-1, 1], the value below which samples are air.
    """
    over = jax.nn.relu(images - (floor - 1) / 2) * air[:, :, None]
    return jnp.mean(jnp.sum(optax.losses.huber_loss(over, delta=_HUBER), (1, 2, 3)))


def learning_rate(recipe: Relativistic, progress):
    """From lr along half a cosine to lr_end of it."""
    return recipe.lr * (recipe.lr_end + (1 - recipe.lr_end) * (1 + jnp.cos(jnp.pi * progress)) / 2)


def penalty_weight(recipe: Relativistic, progress):
    """From gamma in a line to gamma_end, which it stays at from gamma_until of the run on."""
    done = jnp.minimum(progress / recipe.gamma_until, 1)
    return recipe.gamma + (recipe.gamma_end - recipe.gamma) * done


def average_decay(recipe: Relativistic, step, batch: int):
    """What the average keeps of itself in a step: half in average_images, or in average_share of what was seen."""
    half_life = jnp.minimum(recipe.average_images, recipe.average_share * batch * step.astype(jnp.float32))
    return jnp.where(step > 0, 0.5 ** (batch / jnp.maximum(half_life, 1e-3)), 0.0)


def with_open_tail(g_params, seed: int):
    """A generator's first weights, `g_params`, so that its last two layers hand single pixels on.

    conv3 and conv4, which alone follow the last texture noise, are linear. Beginning from small weights they learn to
    hand on what is coarse, and end as a low pass that no noise gets through. To the middle of each kernel a sign is
    added, over the root of the channels that come in.
    """
    opened = dict(g_params)
    for name in ("conv3", "conv4"):
        kernel = g_params[name]["kernel"]  # 3 3 Cin Cout
        signs = jax.random.rademacher(rng.stream(seed, f"init {name}"), kernel.shape[2:], kernel.dtype)
        opened[name] = g_params[name] | {"kernel": kernel.at[1, 1].add(signs * kernel.shape[2] ** -0.5)}
    return opened


def augment(images, key, recipe: Relativistic):
    """What the discriminator sees of images (B, 128, 128, nc): some moved, all with noise; -1, air, moves in.

    Nothing that would change anatomy or HU, and nothing that the generator could come to draw: what is not moved is the
    larger part, and noise has one effect on reals and fakes, whose exact -1 of air it hides. Image i depends on the key
    and i alone.
    """
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 3))(jnp.arange(len(images)))

    def offset(key):
        whether, by = jax.random.split(key)
        by = jax.random.randint(by, (2,), -recipe.shift, recipe.shift + 1)
        return jnp.where(jax.random.bernoulli(whether, recipe.shift_share), by, 0)

    grain = rng.normal(keys[:, 1], images.shape[1:])
    return shifted(images, jax.vmap(offset)(keys[:, 0]), recipe.shift) + recipe.grain * grain


def shifted(images, offsets, most: int):
    """Each of images (B, H, W, C) moved by its (down, right) of offsets (B, 2), up to `most` pixels; -1 moves in."""
    edges = ((most, most), (most, most), (0, 0))

    def moved(x, by):
        x = jnp.pad(x, edges, constant_values=-1.0)
        return lax.dynamic_slice(x, (most - by[0], most - by[1], 0), images.shape[1:])

    return by_image(jax.vmap(moved), images, offsets)


def mirrored(images, key, share: float):
    """Images (B, H, W, C), each mirrored left to right with probability `share`."""
    chosen = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(key, i), share))(jnp.arange(len(images)))
    return jnp.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def make_train_step(pair: Pair, recipe: Relativistic, *, seed: int, steps: int, floor: float | None, air):
    """`train_step(state, batch) -> (state, metrics)` with all that is random drawn from (seed, step).

    batch is a dict with `real`, (B, 128, 128, nc) float32 in [-1, 1]; steps are those of the whole run; samples are air
    below the floor, of [-1, 1], and None is none; air is where no slice has bone, (128, 128) bool, or None. The
    discriminator, a seventh of the work at full size, computes in float32 whatever the generator does: squares of
    gradients, and gradients of those, are no place for eight bits.
    """
    graphs = pair.graphs()[0], dataclasses.replace(pair, dtype="float32").graphs()[1]

    def train_step(state: AverageState, batch: dict):
        def key(name: str):
            return jax.random.fold_in(rng.stream(seed, name), state.step)

        z, noise = rng.latents(key("train latent"), jnp.arange(len(batch["real"])), pair.nz, pair.ngf)
        reals = batch["real"] if floor is None else faded(batch["real"], floor)
        reals = augment(mirrored(reals, key("mirror"), recipe.mirror), key("augment reals"), recipe)

        def view(fakes):
            return augment(fakes, key("augment fakes"), recipe)

        def stray(fakes):
            return jnp.float32(0) if air is None else strays(fakes, air, floor)

        progress = state.step.astype(jnp.float32) / steps
        return relativistic_step(state, reals, z, noise, view, stray, progress, graphs=graphs, recipe=recipe)

    return train_step
