"""The numbers of the adversarial step, apart from it, so that a config and --help need no JAX."""

import dataclasses


def _number(default, meaning: str):
    return dataclasses.field(default=default, metadata={"meaning": meaning})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The published numbers. Epochs count from 0, as the original's loop variable does."""

    lr: float = _number(3e-4, "learning rate of both nets, to begin with")
    b1: float = _number(0.5, "of Adam: decay of the mean of gradients")
    b2: float = _number(0.999, "of Adam: decay of the mean of their squares")
    eps: float = _number(1e-8, "of Adam: added to the root of that")
    g_factor: float = _number(0.5, "the generator's rate times this where its loss gets no better")
    d_factor: float = _number(0.8, "the discriminator's rate times this where its loss gets no better")
    patience: int = _number(1000, "steps without a better loss before that")
    real_target: float = _number(0.9, "what the discriminator is to say of a real slice (label smoothing)")
    gate_epoch: int = _number(10, "up to this epoch both nets step always, from then on only")
    gate_loss: float = _number(0.9, "where their loss is above this")
    blur_epoch: int = _number(15, "after this epoch blurred reals enter the fake batch")

    @property
    def adam(self):
        """What turns gradients into directions: an optax.GradientTransformation."""
        import optax

        return optax.scale_by_adam(self.b1, self.b2, self.eps)
