"""The plateau schedule against torch's and against a sequence worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from skullgan_jax.train.state import Plateau


def learning_rates(losses, lr, factor, patience):
    """The rate after each loss."""

    def see(plateau, loss):
        plateau = plateau.update(loss, factor=factor, patience=patience)
        return plateau, plateau.lr

    return jax.jit(lambda losses: jax.lax.scan(see, Plateau.create(lr), losses)[1])(jnp.asarray(losses, jnp.float32))


@pytest.mark.parametrize("factor", [0.5, 0.8])
@pytest.mark.parametrize("lr", [3e-4, 1e-7])
def test_plateau_matches_torch(lr, factor):
    """300 random losses that first fall, then wander: the same rate after each, down to the floor of eps 1e-8."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    falling = 3 - 0.02 * np.arange(100) + 0.05 * random.standard_normal(100)
    losses = np.concatenate([falling, random.uniform(0.9, 2, 200)]).astype(np.float32)
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=5, threshold=1e-4)
    expected = []
    for loss in losses:
        schedule.step(float(loss))
        expected.append(optimizer.param_groups[0]["lr"])
    ours = learning_rates(losses, lr, factor, 5)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    assert len(set(expected)) > 3
    # The floor: no rate falls by less than 1e-8.
    if lr == 1e-7:
        assert expected[-1] * (1 - factor) <= 1e-8 < expected[-1] * (1 - factor) / factor
        assert expected[-20:] == [expected[-1]] * 20


def test_plateau_floor_matches_torch_at_the_published_rate():
    """A loss that never improves again: 3e-4 halves 14 times, or falls 39 times by a fifth, then stays."""
    for factor, times in ((0.5, 14), (0.8, 39)):
        ours = np.asarray(learning_rates(np.ones(300), 3e-4, factor, 5), np.float64)
        drops = np.flatnonzero(np.diff(ours)) + 1
        np.testing.assert_array_equal(drops, 6 + 6 * np.arange(times))  # the first loss is an improvement on infinity
        np.testing.assert_allclose(ours[-1], 3e-4 * factor**times, rtol=1e-5)


def test_plateau_by_hand():
    """Patience 2: the third loss in a row that is no improvement by 1e-4 lowers the rate, and counting starts anew."""
    steps = [
        # loss, rate after it
        (1.0, 8.0),  # the first is always an improvement
        (0.99995, 8.0),  # bad 1: better, but by less than 1e-4
        (1.5, 8.0),  # bad 2
        (0.9998, 8.0),  # an improvement just in time
        (1.0, 8.0),  # bad 1
        (1.0, 8.0),  # bad 2
        (1.0, 4.0),  # bad 3
        (2.0, 4.0),  # bad 1
        (2.0, 4.0),  # bad 2
        (np.nan, 2.0),  # bad 3: no number is no improvement
        (0.9998, 2.0),  # bad 1: as good as the best is not better
        (0.5, 2.0),  # better
        (0.6, 2.0),  # bad 1
        (0.6, 2.0),  # bad 2
        (0.6, 1.0),  # bad 3
    ]
    losses, expected = zip(*steps, strict=True)
    np.testing.assert_array_equal(learning_rates(losses, 8.0, 0.5, 2), expected)


def test_plateau_floor_by_hand():
    """A fall by more than 1e-8 happens, one by less does not."""
    for factor, rates in (
        (0.5, [4.4e-8, 2.2e-8, 1.1e-8, 1.1e-8]),
        (0.5, [3.6e-8, 1.8e-8, 1.8e-8]),
        (0.8, [6.0e-8, 4.8e-8, 4.8e-8]),
    ):
        ours = learning_rates(np.ones(len(rates)), rates[0], factor, 0)
        np.testing.assert_allclose(ours, rates, rtol=1e-6)
