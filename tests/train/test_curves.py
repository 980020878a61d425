"""The figures of a run, without touching what draws the caller's own."""

import matplotlib
import numpy as np
import pytest

from skullgan_jax.slices import pictures
from skullgan_jax.train import curves
from skullgan_jax.train.recipe import Recipe

NAMES = ("loss_d", "loss_g", "d_real", "d_fake", "lr_d", "lr_g")
RECORDS = [
    *({"step": s, **dict.fromkeys(NAMES, 0.5)} for s in (10, 20, 30)),
    *(
        {"step": s, "kid": kid, "coverage": 0.5, "spread": spread, "swd": swd, "collapse": int(spread < 0.5)}
        for s, kid, spread, swd in ((10, 0.5, 1.0, 9.0), (20, 0.25, 0.9, 7.25), (30, 4.0, 0.25, 6.0))
    ),
]


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """A function of records and the best step: the six axes of their figure."""

    def draw(records, best=None):
        saved = []
        monkeypatch.setattr(pictures, "save", lambda figure, path: saved.append(figure))
        curves.curves(tmp_path / "curves.png", records, Recipe(gate_loss=0.75, gate_epoch=3), best)
        return saved[0].axes

    return draw


def test_every_line_has_a_name_and_the_best_checkpoint_is_marked(drawn):
    axes = drawn(RECORDS, 20)
    names = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in axes]
    assert names == [
        [
            "discriminator (D)",
            "generator (G)",
            "gate, 0.75: from epoch 3 on a net below it does not step",
            "best checkpoint",
        ],
        ["of real slices, D(x)", "of synthetic slices, D(G(z))"],
        ["discriminator (D)", "generator (G)"],
        ["checkpoints", "best: step 20, 0.25"],
        [
            "coverage (higher is better)",
            "best: step 20, 0.5",
            "spread, of reals 1",
            "best: step 20, 0.9",
            "spread of a collapse, 0.7",
            "collapse, from step 30 on",
        ],
        ["checkpoints", "best: step 20, 7.25"],
    ]
    assert [axis.get_ylabel() for axis in axes] == [
        "loss",
        "mean output of D",
        "learning rate (log scale)",
        "KID (lower is better)",
        "coverage and spread",
        "SWD x 1000 (lower is better)",
    ]
    assert [axis.get_yscale() for axis in axes] == ["linear", "linear", "log", "symlog", "linear", "linear"]
    assert axes[0].get_lines()[2].get_ydata()[0] == 0.75
    star = axes[3].get_lines()[1]
    assert (list(star.get_xdata()), list(star.get_ydata()), star.get_marker()) == ([20], [0.25], "*")
    cross = axes[4].get_lines()[-2]
    assert (list(cross.get_xdata()), list(cross.get_ydata()), cross.get_marker()) == ([30], [0.25], "x")


def test_a_run_of_before_has_swd_alone(drawn):
    axes = drawn([*RECORDS[:3], {"step": 20, "swd": 7.25}], 20)
    assert list(axes[5].get_lines()[1].get_ydata()) == [7.25]
    assert not axes[3].get_lines()[0].get_xdata().size


def test_before_the_first_checkpoint_none_is_the_best(drawn):
    names = [text.get_text() for axis in drawn(RECORDS[:3]) for text in axis.get_legend().get_texts()]
    assert not [name for name in names if "best" in name]


def test_both_are_pngs_and_no_backend_is_chosen(tmp_path):
    before = matplotlib.rcParams._get_backend_or_none()
    curves.curves(tmp_path / "curves.png", RECORDS, Recipe(), 20)
    for i in range(3):
        matplotlib.image.imsave(tmp_path / f"{i}.png", np.zeros((8, 16)))
    curves.progress(tmp_path / "progress.png", sorted(tmp_path.glob("[0-9].png")), most=2)
    shapes = [matplotlib.image.imread(tmp_path / f"{name}.png").shape for name in ("curves", "progress")]
    assert shapes == [(1540, 880, 4), (220, 880, 4)]
    assert matplotlib.rcParams._get_backend_or_none() == before
