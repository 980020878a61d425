"""The published adversarial step, as one pure function. It knows nothing of loops, devices or files."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from skullgan_jax.nets import networks, rng
from skullgan_jax.nets.pair import Pair
from skullgan_jax.train.recipe import Recipe
from skullgan_jax.train.state import PlateauState


def blurred_places(epoch, batch: int, blur_epoch: int):
    """How many of the last places of the fake batch hold blurred reals in an epoch.

    None up to blur_epoch, then one more each epoch, half the batch once the epoch exceeds the batch size.
    """
    ramp = jnp.minimum(epoch - blur_epoch, batch)
    return jnp.where(epoch <= blur_epoch, 0, jnp.where(epoch <= batch, ramp, batch // 2))


def gaussian_blur(x, sigma):
    """3x3 Gaussian, reflect padding; x (B, H, W, C), sigma a scalar in pixels."""
    side = jnp.exp(-0.5 / sigma**2)
    side, centre = side / (1 + 2 * side), 1 / (1 + 2 * side)
    for axis in (1, 2):
        padded = jnp.pad(x, [(1, 1) if a == axis else (0, 0) for a in range(4)], mode="reflect")
        before, middle, after = (lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(3))
        x = side * (before + after) + centre * middle
    return x


def bce(logits, target: float):
    """Binary cross-entropy of logits (B,) against one target in [0, 1]: a float32 scalar, the mean over the batch.

    The original applies BCE to sigmoid outputs in float32, which saturate beyond |logit| of about 15; this is the same
    number without the saturation.
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, jnp.float32(target)))


def adversarial_step(
    state: PlateauState, reals, blur_source, z, noise, epoch, *, graphs, recipe: Recipe
) -> tuple[PlateauState, dict]:
    """One iteration: the discriminator on reals and fakes, then the generator through the updated discriminator.

    G runs forward once. A gate that is shut skips the backward pass and the update, not the BatchNorm statistics and
    not the schedule.

    Args:
      state: before the step.
      reals: (B, 128, 128, nc) in [-1, 1].
      blur_source: an independent draw of the same shape; its last places are used blurred.
      z: (B, nz) latent.
      noise: the generator's pair of texture noise arrays.
      epoch: int32 scalar, from 0.
      graphs: the structures of generator and discriminator.
      recipe: the numbers.

    Returns:
      The state after the step and a dict of float32 scalars: loss_d, loss_g, d_real (mean D(x)), d_fake (mean D on the
      fake batch before D's update), lr_d, lr_g (for the next step), grad_d, grad_g (global norms, 0 if the gate was
      shut), open_d, open_g (1 where the net stepped).
    """
    g_graph, d_graph = graphs
    batch = reals.shape[0]

    fakes, g_backward, g_stats = jax.vjp(
        lambda p: networks.apply(g_graph, p, state.g_stats, z, noise, train=True), state.g_params, has_aux=True
    )
    replaced = jnp.arange(batch) >= batch - blurred_places(epoch, batch, recipe.blur_epoch)
    replaced = replaced[:, None, None, None]
    sigma = jnp.maximum(0.5, 15.0 / jnp.maximum(epoch, 1))
    fakes = jnp.where(replaced, gaussian_blur(blur_source, sigma), fakes)

    def d_loss(params):
        # In one pass: half as many operations. A real is followed by a fake, so that both are on one device.
        pairs = jnp.stack((reals, fakes), 1).reshape(-1, *reals.shape[1:])
        logits, stats = networks.apply(d_graph, params, state.d_stats, pairs, train=True, batches=2)
        real_logits, fake_logits = logits.reshape(-1, 2).T
        loss = bce(real_logits, recipe.real_target) + bce(fake_logits, 0.0)
        return loss, (stats, real_logits, fake_logits)

    def update(is_open, params, adam, lr, gradients):
        """Step where the gate is open; only then are the gradients computed.

        By a loop of one turn or none: XLA's CPU backend runs the branches of a conditional on one core.
        """
        zeros = jax.tree.map(jnp.zeros_like, params)
        _, grads = lax.while_loop(lambda c: c[0], lambda c: (jnp.bool_(False), gradients()), (is_open, zeros))
        directions, moved = recipe.adam.update(grads, adam)
        stepped = jax.tree.map(lambda p, d: p - lr * d, params, directions), moved
        new = jax.tree.map(lambda new, old: jnp.where(is_open, new, old), stepped, (params, adam))
        return *new, optax.tree.norm(grads)

    def gate(loss):
        return (epoch < recipe.gate_epoch) | (loss > recipe.gate_loss)

    loss_d, d_backward, (d_stats, real_logits, fake_logits) = jax.vjp(d_loss, state.d_params, has_aux=True)
    open_d = gate(loss_d)
    d_params, d_adam, grad_d = update(
        open_d, state.d_params, state.d_adam, state.d_plateau.lr, lambda: d_backward(jnp.float32(1))[0]
    )

    def g_loss(x):
        logits, stats = networks.apply(d_graph, d_params, d_stats, x, train=True)
        return bce(logits, 1.0), stats

    loss_g, x_backward, d_stats = jax.vjp(g_loss, fakes, has_aux=True)
    open_g = gate(loss_g)
    g_params, g_adam, grad_g = update(
        open_g,
        state.g_params,
        state.g_adam,
        state.g_plateau.lr,
        lambda: g_backward(jnp.where(replaced, 0.0, x_backward(jnp.float32(1))[0]))[0],
    )

    d_plateau = state.d_plateau.update(loss_d, factor=recipe.d_factor, patience=recipe.patience)
    g_plateau = state.g_plateau.update(loss_g, factor=recipe.g_factor, patience=recipe.patience)
    metrics = {
        "loss_d": loss_d,
        "loss_g": loss_g,
        "d_real": jnp.mean(jax.nn.sigmoid(real_logits)),
        "d_fake": jnp.mean(jax.nn.sigmoid(fake_logits)),
        "lr_d": d_plateau.lr,
        "lr_g": g_plateau.lr,
        "grad_d": grad_d,
        "grad_g": grad_g,
        "open_d": open_d.astype(jnp.float32),
        "open_g": open_g.astype(jnp.float32),
    }
    state = PlateauState(
        step=state.step + 1,
        g_params=g_params,
        g_stats=g_stats,
        g_adam=g_adam,
        g_plateau=g_plateau,
        d_params=d_params,
        d_stats=d_stats,
        d_adam=d_adam,
        d_plateau=d_plateau,
    )
    return state, metrics


def make_train_step(pair: Pair, recipe: Recipe, *, seed: int, steps_per_epoch: int):
    """`train_step(state, batch) -> (state, metrics)` with latents and noise drawn from (seed, step).

    batch is a dict of `real` and `blur`, each (B, 128, 128, nc) float32 in [-1, 1].
    """
    graphs = pair.graphs()

    def train_step(state: PlateauState, batch: dict):
        key = jax.random.fold_in(rng.stream(seed, "train latent"), state.step)
        z, noise = rng.latents(key, jnp.arange(batch["real"].shape[0]), pair.nz, pair.ngf)
        epoch = state.step // steps_per_epoch
        return adversarial_step(state, batch["real"], batch["blur"], z, noise, epoch, graphs=graphs, recipe=recipe)

    return train_step
