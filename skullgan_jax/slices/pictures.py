"""Sheets of slices: as they are, and as a figure with a colour bar.

matplotlib is imported where a figure is drawn: who only samples may not have it.
"""

import struct
import zlib

import numpy as np

from skullgan_jax.machine import files
from skullgan_jax.slices.size import PIXEL_MM

_BONE_HU = 200  # what is cropped to, and
_MARGIN = 6  # pixels about it
_SCALE_MM = 20


def save(figure, path) -> None:
    """Write a figure as a whole PNG."""
    with files.whole(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def sheet(hu, columns: int):
    """(N, H, W) -> one image, rows of `columns` with a gap of two pixels, which is NaN."""
    n, h, w = hu.shape
    rows = -(-n // columns)
    sheet = np.full((rows * (h + 2) - 2, columns * (w + 2) - 2), np.nan, np.float32)
    for i, slice_ in enumerate(hu):
        r, c = divmod(i, columns)
        sheet[r * (h + 2) : r * (h + 2) + h, c * (w + 2) : c * (w + 2) + w] = slice_
    return sheet


def png(hu, columns: int, *, window: tuple[float, float], text: str = "") -> bytes:
    """Slices (N, H, W) in HU as an 8-bit PNG, a pixel for a pixel.

    Args:
      hu: of any real dtype; NaN is white, like the gaps.
      columns: slices in a row.
      window: the HU that are black and white.
      text: its description in the file, ASCII.
    """
    low, high = window
    page = sheet(np.asarray(hu, np.float32), columns)
    grey = np.rint(255 * np.clip((np.nan_to_num(page, nan=high) - low) / (high - low), 0, 1)).astype(np.uint8)
    rows = np.pad(np.repeat(grey, 3, 1), ((0, 0), (1, 0)))  # RGB; each row begins with its filter, none
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 2, 0, 0, 0)),
        (b"tEXt", b"Description\0" + text.encode("ascii")),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
              for name, data in parts)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _units(calibration) -> str:
    return "grey level" if (calibration.hu_min, calibration.hu_max) == (0, 255) else "HU"


def cropped(hu):
    """The rows of the largest piece of bone of each slice with a margin, and how many slices have bone elsewhere."""
    from scipy import ndimage

    held = np.zeros(hu.shape[:2], bool)
    for has_bone, bone in zip(held, hu > _BONE_HU, strict=True):
        pieces, count = ndimage.label(bone)
        if count:
            has_bone[:] = (pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])).any(1)
    rows = np.flatnonzero(held.any(0))
    if not len(rows):
        return hu, 0
    shown = slice(max(rows[0] - _MARGIN, 0), rows[-1] + 1 + _MARGIN)
    elsewhere = (np.delete(hu, np.arange(hu.shape[1])[shown], 1) > _BONE_HU).any((1, 2))
    return hu[:, shown], int(elsewhere.sum())


def grid(path, hu, calibration, *, title: str, columns: int = 4, pixel_mm: float = PIXEL_MM) -> None:
    """Slices (N, 128, 128) in HU, cropped to the bone, with a colour bar and a scale; below 0 HU is black."""
    import matplotlib
    from matplotlib.figure import Figure

    hu, is_ct = np.asarray(hu, np.float32), _units(calibration) == "HU"
    shown, strays = cropped(hu) if is_ct else (hu, 0)
    if strays:
        title += f"\n{strays} of {len(hu)} exceed {_BONE_HU} HU in rows that are not shown"
    page = sheet(shown, columns)
    figure = Figure(figsize=(8, 7.0 * page.shape[0] / page.shape[1] + 0.7), layout="constrained")
    axes = figure.subplots()
    colours = matplotlib.colormaps["gray"].with_extremes(bad="white")
    drawn = axes.imshow(page, cmap=colours, vmin=max(0, calibration.hu_min), vmax=calibration.hu_max)
    if is_ct:
        below, length = page.shape[0] + 6, _SCALE_MM / pixel_mm
        axes.plot([0, length], [below, below], color="black", lw=2, solid_capstyle="butt")
        axes.text(length + 6, below, f"{_SCALE_MM} mm", va="center", fontsize=9)
        axes.set_xlim(-0.5, page.shape[1] - 0.5)
        axes.set_ylim(below + 8, -0.5)
    axes.set(xticks=(), yticks=())  # which would be measured, although they are not drawn
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    figure.colorbar(drawn, ax=axes, label=_units(calibration), fraction=0.03, pad=0.01)
    save(figure, path)
