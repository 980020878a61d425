"""What the loop looks at: samples from fixed latents, and the numbers that choose the best checkpoint."""

import jax.numpy as jnp
import numpy as np

from skullgan_jax.command.progress import say
from skullgan_jax.data.open import open_held_out
from skullgan_jax.model import checkpoint, draw
from skullgan_jax.nets import rng
from skullgan_jax.slices import features, fidelity
from skullgan_jax.train import swd

LEAST = 50  # held-out slices; with fewer, KID and coverage say more of the slices than of the samples


def grid_and_judge(config, pair, data):
    """Two functions of the generator's weights and statistics: a grid of samples from fixed latents, and the judgement.

    The judgement is of as many samples as real slices: `kid`, `coverage` and `spread` of fidelity.Gram on the features
    of the evaluation, against held-out slices where there are any, and `swd` against the training slices. All processes
    of a job compute it together.
    """
    generate = draw.generator(pair)
    num = -(-min(config.judge_slices, len(data.images)) // draw.BATCH) * draw.BATCH
    trained_on = data.calibration.to_unit(_spread_over(data.images, num))
    held_out, what = _held_out(config, data, num)
    reals = features.describe(_spread_over(held_out, max(min(num, len(held_out)), draw.BATCH)))
    equal = len(reals[0])
    say(f"checkpoints are judged by {equal} samples against as many {what}")
    levels, projected = swd.reference(rng.stream(config.seed, "swd"), trained_on)

    def drawn(params, stats, stream, start):
        indices = start + jnp.arange(draw.BATCH)
        return generate(params, stats, rng.stream(config.seed, stream), indices)

    def grid(params, stats):
        return drawn(params, stats, "grid", 0)

    def judge(params, stats) -> dict[str, float]:
        fakes = jnp.concatenate([drawn(params, stats, "judge", i)[..., 0] for i in range(0, num, draw.BATCH)])
        apart = swd.projected(levels, fakes)  # on its way while the host looks
        hu = np.rint(data.calibration.to_hu(np.asarray(checkpoint.whole(fakes))[:equal]))
        gram = fidelity.Gram(np.concatenate(features.scaled(reals, [features.describe(hu)])))
        fake, real = np.arange(equal, 2 * equal), np.arange(equal)
        found = gram.compare(fake, real)
        return {
            "kid": found["kid"],
            "coverage": found["coverage"],
            "spread": gram.spread(fake, real),
            "swd": swd.distance(projected, checkpoint.whole(apart)),
        }

    return grid, judge


def _held_out(config, data, num: int) -> tuple[np.ndarray, str]:
    """The slices to judge by, and what they are."""
    held_out = open_held_out(config.data, num, config.seed)
    if held_out is None:
        return data.images, "training slices: the data have no held-out ones"
    if len(held_out) < min(num, LEAST):
        return data.images, f"training slices: there are but {len(held_out)} held-out ones, fewer than {LEAST}"
    return held_out, "held-out slices"


def _spread_over(images: np.ndarray, num: int) -> np.ndarray:
    """`num` of the slices, evenly spread; some more than once where there are fewer."""
    return np.stack([images[i] for i in np.linspace(0, len(images) - 1, num).astype(int)])
