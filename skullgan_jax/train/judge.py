"""What the loop looks at: samples from fixed latents, and the metric that chooses the best checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np

from skullgan_jax.model import draw
from skullgan_jax.nets import rng
from skullgan_jax.train import swd


def grid_and_judge(config, pair, data):
    """Two functions of the generator's weights: a grid of samples from fixed latents, and the checkpoint metric."""
    generate = draw.generator(pair)
    num = -(-min(config.judge_slices, len(data.images)) // draw.BATCH) * draw.BATCH
    chosen = np.linspace(0, len(data.images) - 1, num).astype(int)
    reals = data.calibration.to_unit(np.stack([data.images[i] for i in chosen]))
    distance = jax.jit(swd.swd)

    def drawn(params, stats, stream, start):
        indices = start + jnp.arange(draw.BATCH)
        return generate(params, stats, rng.stream(config.seed, stream), indices)

    def grid(params, stats):
        return drawn(params, stats, "grid", 0)

    def judge(params, stats):
        fakes = [drawn(params, stats, "judge", i)[..., 0] for i in range(0, num, draw.BATCH)]
        return distance(rng.stream(config.seed, "swd"), reals, jnp.concatenate(fakes))

    return grid, judge
