"""Conditions on measures, and what is kept."""

import numpy as np
import pytest

from skullgan_jax.errors import InputError
from skullgan_jax.model.draw import Samples
from skullgan_jax.model.select import Selection, Where, in_words
from skullgan_jax.slices import radiology

NAN = np.nan
MEASURES = {name: np.zeros(4, np.float32) for name in radiology.NAMES} | {
    "sdr": np.float32([0.3, 0.5, 0.7, NAN]),
    "thickness_mm": np.float32([7, 5, 6, NAN]),
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("sdr<0.4", [1, 0, 0, 0]),
        ("sdr < 0.4 and thickness_mm>6", [1, 0, 0, 0]),
        ("sdr>.4 or thickness_mm >= 7", [1, 1, 1, 0]),
        ("not sdr<0.4", [0, 1, 1, 1]),
        ("0.4<=sdr<=0.6", [0, 1, 0, 0]),
        ("(sdr>0.4 and thickness_mm<6) or mean_hu != 0", [0, 1, 0, 0]),
        ("thickness_mm==6", [0, 0, 1, 0]),
        ("-1 < -sdr", [1, 1, 1, 0]),
        ("1e3 > thickness_mm > sdr", [1, 1, 1, 0]),
        ("0 < 1 < thickness_mm", [1, 1, 1, 0]),
    ],
)
def test_conditions(text, fits):
    np.testing.assert_array_equal(Where(text).fits(MEASURES), np.array(fits, bool))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "invalid syntax"),
        ("sdr<", "invalid syntax"),
        ("sdr", "'sdr' is no comparison"),
        ("sdr<0.4 and 1", "'1' is no comparison"),
        ("density<0.4", "no measure is called 'density'"),
        ("1<2", "compares no measure"),
        ("sdr<1 and 1<2", "'1 < 2' compares no measure"),
        ("not 1<2", "compares no measure"),
        (f"sdr<{'9' * 400}", "too large a number"),
        ("sdr+1<2", "'sdr + 1' is neither a measure nor a number"),
        ("sdr<True", "'True' is neither"),
        ("sdr in (1,2)", "is no comparison"),
        ("__import__('os').system('x')", "is no comparison"),
        ("sdr.__class__<1", "is neither a measure nor a number"),
        ("sdr<(lambda: 1)()", "is neither"),
        ("sdr\0<1", ""),
        ("(" * 5000 + "sdr<1" + ")" * 5000, ""),
        ("not " * 20000 + "sdr<1", ""),
    ],
)
def test_what_is_not_understood(text, why):
    with pytest.raises(InputError) as caught:
        Where(text)
    line = str(caught.value)
    assert why in line
    assert line.startswith('--where="')
    assert 'e.g. --where="sdr<0.4' in line


def samples(values):
    """One per value, whose SDR it is and which has that many pixels of bone."""
    hu = np.zeros((len(values), 128, 128), np.int16)
    for image, value in zip(hu, values, strict=True):
        image.reshape(-1)[:value] = 1500
    measures = {name: np.float32(values) for name in radiology.NAMES}
    return Samples(np.arange(len(values)), hu, measures)


def test_a_selection_does_not_depend_on_how_it_is_cut():
    """The condition goes first: what does not fit is nobody's duplicate."""
    values = [500, 505, 100, 1000, 995, 300, 511, 1020]
    for sizes in ([8], [1] * 8, [3, 5]):
        selection, at = Selection(Where("sdr>=300"), 10), 0
        for size in sizes:
            selection.add(samples(values[at : at + size]))
            at += size
        assert len(selection) == 5
        np.testing.assert_array_equal(selection.first(4), [0, 3, 5, 6])
        assert selection.counts(7) == {"draws": 7, "fitting": 6, "kept": 4}
    said = in_words(selection.counts(8), "sdr>=300", 10)
    assert said == "5 of 8 draws (62.5 %), 87.5 % fit, 71.4 % of these are distinct"


def test_without_conditions_all_are_kept():
    selection = Selection(None, None)
    selection.add(samples([1, 1, 1]))
    np.testing.assert_array_equal(selection.first(3), [0, 1, 2])


def test_the_measures_of_a_condition_are_told():
    """Of all draws, with what has no such measure left out."""
    selection = Selection(Where("sdr<0.1 or mean_hu>sdr or 3<area_mm2"), None)
    values = {name: np.full(3, NAN, np.float32) for name in radiology.NAMES}
    for sdr in ([0.25, NAN, 0.5], [0.75, 1, NAN]):
        measures = values | {"sdr": np.float32(sdr), "mean_hu": np.float32([1, 2, 3])}
        selection.add(Samples(np.arange(3), np.zeros((3, 128, 128), np.int16), measures))
    assert selection.seen() == "area_mm2 none; mean_hu 1 to 3, median 2; sdr 0.25 to 1, median 0.625"
