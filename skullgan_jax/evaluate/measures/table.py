"""The distances that a fake set is tested by: what each is called, what it tests, how it is written."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Measure:
    """A line of the table: its name, what it tests (simple, structure or diversity), and how it is written."""

    label: str
    group: str
    digits: int
    unit: str = ""
    percent: bool = False
    falls_short: bool = False  # whether less is worse, and so what is missing to one is tested


# Of the distances that compare.judge looks at.
MEASURES = {
    "sdr_ks": Measure("SDR, KS", "simple", 3),
    "sdr_wasserstein": Measure("SDR, Wasserstein", "simple", 3),
    "thickness_mm_ks": Measure("thickness, KS", "simple", 3),
    "thickness_mm_wasserstein": Measure("thickness, Wasserstein", "simple", 2, "mm"),
    "mean_hu_ks": Measure("mean intensity, KS", "simple", 3),
    "mean_hu_wasserstein": Measure("mean intensity, Wasserstein", "simple", 0, "HU"),
    "spectrum": Measure("power spectrum, RMS", "structure", 2, "dB"),
    "precision": Measure("precision", "structure", 0, "%", True, True),
    "density": Measure("density", "structure", 2, "", False, True),
    "kid": Measure("KID x 1000, these features", "structure", 2),
    "recall": Measure("recall", "diversity", 0, "%", True, True),
    "coverage": Measure("coverage", "diversity", 0, "%", True, True),
    "duplicates": Measure("near duplicates, less those of the reals", "diversity", 1, "points", True),
}
SIMPLE = tuple(name for name, m in MEASURES.items() if m.group == "simple")
OTHERS = tuple(name for name, m in MEASURES.items() if m.group == "structure")


def shown(name: str, distance: float) -> float:
    """A distance of MEASURES as it is written: precision, not what it falls short of one; percent."""
    value = 1 - distance if MEASURES[name].falls_short else distance
    return 100 * value if MEASURES[name].percent else value


def written(name: str, distance: float) -> str:
    """A distance of MEASURES as people read it, with its unit."""
    m, value = MEASURES[name], shown(name, distance)
    digits = m.digits if abs(value) < 100 else 0
    return f"{value:,.{digits}f}{' ' + m.unit if m.unit else ''}"
