"""What the models make of a slice, side by side, and the field in it.

matplotlib is imported where a figure is drawn: who only computes may not have it.
"""

from typing import Any

import numpy as np

from skullgan_jax.acoustics.focus import behind_bone, bone_of, peak
from skullgan_jax.acoustics.maps import MODELS, check_hu, checked_max
from skullgan_jax.errors import InputError
from skullgan_jax.slices.pictures import cropped
from skullgan_jax.slices.size import PIXEL_MM

_SPEEDS, _DENSITIES = (1450, 3800), (950, 2700)


def compare(hu, *, hu_max: float, pixel_mm: float = PIXEL_MM):
    """A figure of what each model makes of one slice: speed of sound and density as maps, and both over HU.

    Args:
      hu: (H, W) HU of one slice.
      hu_max: HU of the densest bone, the calibration's; see medium.
      pixel_mm: edge of a pixel.

    Returns:
      a matplotlib Figure.

    Raises:
      InputError: hu_max is not a number of HU, or the values are not HU.
    """
    from matplotlib.figure import Figure

    hu = np.asarray(hu)
    if hu.ndim != 2:
        raise InputError(f"compare takes one slice, (H, W), not {hu.shape}")
    hu_max = checked_max(hu_max, "compare")
    check_hu(hu)
    shown = cropped(hu[None])[0][0]
    extent = (0, shown.shape[1] * pixel_mm, shown.shape[0] * pixel_mm, 0)
    figure = Figure(figsize=(2.1 * len(MODELS), 5.4), layout="constrained")
    parts: Any = figure.subfigures(2, height_ratios=(2, 2.4))
    above, below = parts
    maps = above.subplots(2, len(MODELS), sharex=True, sharey=True)
    lines = below.subplots(1, 2)
    ramp = np.linspace(0, hu_max, 400)
    for column, (name, law) in zip(maps.T, MODELS.items(), strict=True):
        density, speed = (np.asarray(x) for x in law.maps(shown.astype(np.float32), hu_max))
        drawn = [column[0].imshow(speed, extent=extent, vmin=_SPEEDS[0], vmax=_SPEEDS[1], cmap="viridis")]
        drawn += [column[1].imshow(density, extent=extent, vmin=_DENSITIES[0], vmax=_DENSITIES[1], cmap="magma")]
        column[0].set_title(name, fontsize=10)
        column[1].set_xlabel("mm", fontsize=8)
        for axes in column:
            axes.tick_params(labelsize=7)
        over = law.maps(ramp.astype(np.float32), hu_max)
        for axes, values in zip(lines, (over[1], over[0]), strict=True):
            axes.plot(ramp, np.asarray(values), label=name, lw=1.4)
    for row, image, what, unit in zip(maps, drawn, ("speed", "density"), ("m/s", "kg/m³"), strict=True):
        above.colorbar(image, ax=row, label=unit, fraction=0.02, pad=0.01)
        row[0].set_ylabel(f"{what}\nmm", fontsize=8)
    for axes, label in zip(lines, ("speed of sound, m/s", "density, kg/m³"), strict=True):
        axes.set_xlabel("HU")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    lines[1].legend(fontsize=8, ncols=2)
    return figure


def field(medium, p_max, *, pixel_mm: float, target: tuple[int, int] | None = None):
    """A figure of one slice: density, speed of sound, and pressure with its focus and the contour at -6 dB.

    Args:
      medium: Medium of one slice.
      p_max: (rows, columns) Pa.
      pixel_mm: edge of a pixel.
      target: where the focus was meant to be; row and column.

    Returns:
      a matplotlib Figure.
    """
    from matplotlib.figure import Figure

    p_max = np.asarray(p_max)
    rows, columns = p_max.shape
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    behind = behind_bone(medium, target[0] if target else rows * 5 // 8)
    focus, greatest = peak(p_max, behind)
    shown = ((medium.density, "density, kg/m³", "magma"), (medium.sound_speed, "speed of sound, m/s", "viridis"))
    extent = (0, columns * pixel_mm, rows * pixel_mm, 0)
    for axes, (values, label, colours) in zip(panels, (*shown, (p_max / 1e3, "pressure, kPa", "inferno")), strict=True):
        window = {"vmin": 0, "vmax": greatest / 1e3 * 1.05} if label.startswith("pressure") else {}
        drawn = axes.imshow(np.asarray(values), cmap=colours, extent=extent, **window)
        figure.colorbar(drawn, ax=axes, label=label, shrink=0.85, extend="max" if window else "neither")
        axes.set_xlabel("mm")
    middle = [(np.arange(n) + 0.5) * pixel_mm for n in (columns, rows)]
    panels[2].contour(*middle, bone_of(medium), [0.5], colors="white", linewidths=0.6)
    panels[2].contour(*middle, np.where(behind, p_max, 0), [greatest / 2], colors="cyan", linewidths=1.2)
    panels[2].plot(middle[0][focus[1]], middle[1][focus[0]], "+", color="cyan", label="focus; cyan line: -6 dB")
    if target is not None:
        panels[2].plot(middle[0][target[1]], middle[1][target[0]], "x", color="lime", label="target")
    panels[2].plot([], [], color="white", label="outline of the bone")
    panels[2].legend(fontsize=8, loc="lower right", facecolor="0.35", labelcolor="white")
    panels[0].set_ylabel("mm")
    figure.suptitle(f"{medium.model}; peak behind the bone {greatest / 1e3:.0f} kPa", fontsize=10)
    return figure
