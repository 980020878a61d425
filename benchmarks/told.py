"""By what a linear classifier tells samples from real slices, and where along the columns their power lies.

    python benchmarks/told.py --real=few/bone/held_out.npy --fake=slices.npy [--fake=others.npy ...]
    python benchmarks/told.py --model=starter

First the share of cases in which evaluation's linear classifier is right, a half is chance, on all features and on
those of one kind alone: shape, and texture by wavelength and by the direction of the waves. Then the power of rows over
that of the real ones, in dB, by waves along a row of 128 pixels: 64 of them have a period of 2 pixels, 32 of 4. The
layer of the generator that doubles 32 to 64 pixels draws with a period of 4, the one before with one of 8.

Of a model: what its last two layers, which are linear, hand on of such waves, over what they do of a constant, in dB.
"""

import argparse

import numpy as np

from skullgan_jax.command.flags import refusing
from skullgan_jax.data.arrays import open_slices
from skullgan_jax.evaluate.measures import embedding
from skullgan_jax.model.load import load
from skullgan_jax.slices import features
from skullgan_jax.slices.size import SIZE

WAVES = (8, 14, 16, 18, 24, 30, 32, 34, 40, 48, 56, 63)
DIRECTIONS = ("along rows", "down right", "down columns", "down left")


def blocks():
    """Name -> columns of the features."""
    shape, texture = features.columns()
    yield "all", slice(None)
    yield "shape", shape
    for level, pixels in enumerate((4, 8, 16)):
        yield f"waves of {pixels} pixels", texture[level].ravel()
    for direction, name in enumerate(DIRECTIONS):
        yield f"waves of 4 pixels {name}", texture[0, :, direction]


def power(hu: np.ndarray) -> np.ndarray:
    """(65,): mean power of the rows of slices (N, 128, 128), whose ends are faded (Hann)."""
    size = hu.shape[-1]
    faded = hu * (0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size))
    return np.mean(np.abs(np.fft.rfft(faded)) ** 2, (0, 1))


def handed_on(params) -> np.ndarray:
    """(65,): gain of conv3 and conv4 for waves along rows over that for a constant, all channels together."""
    taps = [np.asarray(params[name]["kernel"], np.float64).sum(0) for name in ("conv3", "conv4")]  # along rows alone
    first, second = (np.moveaxis(np.fft.rfft(k, SIZE, axis=0), 0, -1) for k in taps)  # Cin Cout 65
    gain = np.linalg.norm(np.einsum("abw,bcw->acw", first, second), axis=(0, 1))
    return gain / gain[0]


def tell(decibel: np.ndarray) -> None:
    """Print a number for each of WAVES."""
    print("  waves ", *(f"{wave:5d}" for wave in WAVES))
    print("  dB    ", *(f"{decibel[wave]:+5.1f}" for wave in WAVES))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", help=".npy of HU")
    parser.add_argument("--fake", default=[], action="append", help=".npy of HU; may be given again")
    parser.add_argument("--model", default=[], action="append", help="a model; may be given again")
    args = parser.parse_args()
    if bool(args.real) != bool(args.fake) or not (args.fake or args.model):
        parser.error("give --real with --fake, or --model")
    for place in args.model:
        gain = handed_on(load(place).g_params)
        print(f"{place}: what the last two layers hand on")
        tell(20 * np.log10(gain))
    if not args.real:
        return
    real = np.asarray(open_slices(args.real), np.float32)
    described = features.describe(real)
    for path in args.fake:
        fake = np.asarray(open_slices(path), np.float32)
        ours, theirs = features.scaled(described, [features.describe(fake)])
        print(f"{path}: {len(fake)} slices against {len(real)}")
        for name, columns in blocks():
            found = embedding.tell_apart(ours[:, columns], theirs[:, columns], None)
            print(f"  {name:32} {100 * found['value']:4.0f} %")
        tell(10 * np.log10(power(fake) / power(real)))


if __name__ == "__main__":
    with refusing():
        main()
