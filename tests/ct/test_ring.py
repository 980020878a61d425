"""Rings that are open, framed or cut off, and slices beside wrong ones: what it costs, and the reason given."""

import collections
import functools

import numpy as np
import pytest

from skullgan_jax.ct import cut
from skullgan_jax.ct.window import Limits
from tests.ct import heads

X, Y = heads.plane()
R = np.hypot(X, Y)
SQUARE = np.maximum(abs(X), abs(Y))
ANGLES = 18
more = functools.partial(pytest.param, marks=pytest.mark.all)  # of the same kind


def head(slices=3, *, empty=False, holder=True):
    """(slices, 400, 400) HU; `empty` without brain and scalp."""
    volume = heads.head(holder=holder, shape=(slices, 400, 400)).astype(np.float32)
    return np.where(volume == 40, -1000, volume) if empty else volume


def opened(volume, *where):
    """No bone of the vault at these places."""
    volume = volume.copy()
    place = np.logical_or.reduce(where) & (R < 93)
    volume[:, place] = np.minimum(volume[:, place], 40)
    return volume


def changed(volume, where, hu):
    volume = volume.copy()
    volume[:, where] = hu
    return volume


def found_in(volume, slice_mm=3.0, angles=ANGLES):
    """What came of it: cut.Cut, windows by their reason, and the accepted ones' thickness in mm."""
    found = cut.cut(heads.scan(volume, slice_mm), Limits(angles=angles))
    reasons = collections.Counter(k["reason"] for k in found.known)
    return found, reasons, np.array([k["thickness_3d_mm"] for k in found.known if not k["reason"]])


def around(known, reason, half_width):
    """Whether exactly the windows whose middle is that many degrees from angle 0, or less, have a reason."""
    off = np.array([abs((k["angle"] + 180) % 360 - 180) for k in known])
    return np.array_equal(off <= half_width, [k["reason"] == reason for k in known])


@pytest.mark.parametrize(("half_mm", "degrees", "empty"), [
    (7, 20, False), (55, 60, False), (30, 40, True),
    more(30, 40, False), more(7, 20, True), more(55, 60, True),
])  # fmt: skip
def test_an_opening_costs_the_windows_over_it(half_mm, degrees, empty):
    volume = opened(head(empty=empty), (abs(Y) < half_mm) & (X > 0))
    if empty:
        volume[volume == 40] = -1000
    found, _, thickness = found_in(volume)
    assert found.fates == {"cut": 3}
    assert around(found.known, "bone missing in a column", degrees)
    np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.2)


@pytest.mark.parametrize("volume", [
    opened(head(), (abs(abs(Y) - 30) < 2) & (X > 0)),
    opened(head(), (abs(Y) < 7) & (X > 0), abs(X + Y / 1.73) * 0.87 < 5, abs(X - Y / 1.73) * 0.87 < 5),
    opened(head(), (abs(Y) < 10)),
    changed(opened(head(holder=False), abs(Y) < 10), (R > 94) & (R < 98) & (abs(X) > 15), 900),
], ids=["flap", "five holes", "two halves", "two halves in two of a holder"])  # fmt: skip
def test_a_ring_in_pieces(volume):
    found, reasons, thickness = found_in(volume)
    assert found.fates == {"cut": 3}
    assert set(reasons) == {"", "bone missing in a column"}
    assert len(thickness) >= 9
    np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.2)


@pytest.mark.parametrize("empty", [False, more(True)])
@pytest.mark.parametrize(("where", "hu"), [
    ((SQUARE > 92) & (SQUARE < 97), 800),
    ((R > 90) & (R < 99), 1200),
    ((R > 94) & (R < 98) & (abs(Y) > 15), 900),
    ((R > 94) & (R < 98) & (Y > -50), 900),
], ids=["box", "cylinder", "two halves", "a holder open in front"])  # fmt: skip
def test_what_goes_round_a_head_is_not_its_ring(where, hu, empty):
    found, reasons, thickness = found_in(changed(head(holder=False, empty=empty), where, hu))
    assert (found.fates, reasons) == ({"cut": 3}, {"": 3 * ANGLES})
    np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.2)


def test_a_frame_without_a_head_in_it():
    volume = head(6)
    volume[4:] = np.where((R > 94) & (R < 98), 900, -1000)
    found, reasons, _ = found_in(volume)
    assert found.fates == {"cut": 4, "air inside (no head)": 2}
    assert reasons == {"": 4 * ANGLES}


def test_half_a_head_and_a_holder_are_no_ring():
    volume = opened(head(4), Y < 10)
    volume[2:, R < 93] = -1000
    assert found_in(volume)[0].fates == {"no ring of bone (open over more than a third)": 4}
    assert found_in(head(4)[:, :, 200:])[0].fates == {"cut off by the field of view": 4}


def test_marrow_that_parts_the_tables_all_around():
    volume = head()
    _, reasons, thickness = found_in(np.where(volume == heads.DIPLOE_HU, 80, volume))
    assert reasons == {"": 3 * ANGLES}
    np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.1)


@pytest.mark.parametrize("padding", [-2000, 0, more(-1024), more(-1000), more(np.nan)])
def test_bone_that_meets_padding(padding):
    for where, lost in ((R > 79, 16), (X > 71, 5)):
        found, reasons, thickness = found_in(changed(head(), where, padding))
        assert found.fates == {"cut": 3}
        assert reasons == {"": 3 * (ANGLES - lost), "cut off by the field of view": 3 * lost}
        np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.1)
    assert around(found.known, "cut off by the field of view", 40)


@pytest.mark.parametrize("crop", [np.s_[:, :, 58:], *map(more, (np.s_[:, :, :342], np.s_[:, 40:], np.s_[:, :360]))])
def test_bone_that_meets_the_edge_of_the_image(crop):
    _, reasons, thickness = found_in(head()[crop])
    assert set(reasons) == {"", "cut off by the field of view"}
    assert 3 * 4 <= reasons["cut off by the field of view"] <= 3 * 6
    np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.1)


def test_padding_that_was_interpolated():
    volume = changed(head(), R > 79, -2000)
    _, reasons, thickness = found_in((volume[:, 1:] + volume[:, :-1]) / 2)
    assert reasons == {"": 3 * 2, "cut off by the field of view": 3 * (ANGLES - 2)}
    np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.1)


WRONG = {
    "empty": lambda hu: 0 * hu,
    "clipped": lambda hu: 0 * hu + 3000,
    "noise": lambda hu: np.random.default_rng(0).uniform(-1000, 3000, hu.shape),
    "filled": lambda hu: np.where((hu == 40) & (R < 80), 1000, hu),
    "a block": lambda hu: np.where(SQUARE < 78, 1000, -1000),
    "a box": lambda hu: np.where(SQUARE < 78, np.where(SQUARE > 70, 1000, 40), -1000),
    "moved": lambda hu: np.roll(hu, 30, 0),
    "open": lambda hu: np.where((Y > 0) & (hu > 100), 40, hu),
    "face": lambda hu: np.where((abs(X) < 20) & (hu > -500) & (R < 95), 1000, hu),
}


@pytest.mark.parametrize("wrong", [w if w in ("noise", "a box", "moved") else more(w) for w in WRONG])
def test_a_wrong_slice_changes_nothing_beside_it(wrong):
    volume = head(5)
    volume[2] = WRONG[wrong](volume[2])
    known = [k for k in found_in(volume)[0].known if k["slice"] != 2]
    assert [k["reason"] for k in known] == [""] * 4 * ANGLES
    np.testing.assert_allclose([k["thickness_3d_mm"] for k in known], heads.SHELL_MM, atol=0.25)
    assert max(k["lean_degrees"] for k in known) < 17


def test_slices_above_open_ones():
    """Both temples open in the lower slices: no slice is lost, and no window for their sake."""
    volume = np.repeat(head(5), 2, 0)
    below = np.concatenate([opened(volume[:5], (abs(Y) < 10) & (abs(X) > 60)), volume[5:]])
    found, reasons, thickness = found_in(below, 1.5, 12)
    assert found.fates == {"cut": 10}
    assert reasons == {"": 10 * 12 - 5 * 2, "bone missing in a column": 5 * 2}
    np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.25)


def test_a_slice_alone_has_no_normals():
    volume = head(6)
    volume[[1, 2, 4]] = 0
    found, reasons, thickness = found_in(volume)
    assert found.fates == {"no ring of bone": 3, "no ring in the slices beside it": 1, "cut": 2}
    assert reasons == {"": 2 * ANGLES}
    np.testing.assert_allclose(thickness, heads.SHELL_MM, atol=0.1)
