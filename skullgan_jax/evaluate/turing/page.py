"""The page of the visual Turing test: real and synthetic slices, blinded, in one file that needs no network."""

import base64
import hashlib
import json
import pathlib
import zlib

import numpy as np

from skullgan_jax.errors import InputError
from skullgan_jax.evaluate.turing import files
from skullgan_jax.machine.files import write_text

WINDOW = (300.0, 2300.0)  # HU, level 1300, width 2000
_MARGIN = 8  # rows above and below what is shown of any image


def write_page(path, real, fake, *, pixel_mm: float, num: int = 100, seed: int = 0, window=WINDOW) -> pathlib.Path:
    """Writes a blinded reading test as one HTML file that needs no network, and its key beside it.

    What could tell the classes apart without looking at bone is not in the page. Images are stored as 8-bit steps of
    the window, plain, in one block: each takes the same number of bytes and there is no file format to differ.
    Everything at or below the window's lower end is 0, so that no setting of the page can bring out that real segments
    are exactly 0 outside bone, or are cut at a threshold (300 HU by default in `prepare`), and fakes are not;
    everything at or above its upper end is 255, so that neither the clipping of a scanner nor the greatest value of a
    generator shows. All images have the same rows. Ids, their order and the name of the test come from the seed and
    from the chosen slices in full, so a reader who knows the seed and this code cannot compute the order.

    Args:
      path: of the page, ending in .html; the key is written beside it as <stem>.key.json, not to be given to readers.
      real: (N, H, W) HU, real dtype.
      fake: (M, H, W) HU, real dtype.
      pixel_mm: the edge of a pixel, for the scale bar.
      num: images in the test, even; half of them are real. Drawn without replacement.
      seed: >= 0.
      window: (low, high) HU: what is kept of the images, and shown first; level and width can be changed within it.

    Returns:
      The path of the key.

    Raises:
      InputError: too few images, none in the window, different sizes, NaN, or the key of another test is in the way.
      OSError: it cannot be written.
    """
    path = pathlib.Path(path)
    low, high = map(float, window)
    if path.suffix != ".html":
        raise InputError(f"{path}: the reading test is a page: give a name that ends in .html")
    if not high - low >= 100:
        raise InputError(f"window {low:g} to {high:g} HU: give the lower end first, and at least 100 HU")
    if num < 2 or num % 2:
        raise InputError(f"num is {num}: half of the images are real, so give an even number of 2 or more")
    if not pixel_mm > 0:
        raise InputError(f"pixel_mm is {pixel_mm:g}: give the edge of a pixel in mm")
    picks, chosen = [], []
    for name, images in (("real", real), ("fake", fake)):
        if len(images) < num // 2:
            raise InputError(
                f"{len(images)} {name} images for a test of {num}: give at least {num // 2}, or a lower num"
            )
        if images.ndim != 3 or images.shape[1:] != real.shape[1:]:
            raise InputError(f"{name} images of shape {images.shape} beside real ones of {real.shape}: give (N, H, W)")
        rng = np.random.default_rng((seed, zlib.crc32(f"turing {name}".encode())))
        picks.append(np.sort(rng.choice(len(images), num // 2, replace=False)))
        hu = np.asarray(images[picks[-1]], np.float32)
        if not np.isfinite(hu).all():
            raise InputError(f"{name} images hold NaN or infinity: write them again without")
        if not (hu > low).any():
            raise InputError(f"{name} images hold nothing above {low:g} HU (greatest: {hu.max():g}): give slices in HU")
        chosen.append(hu)
    hu, index = np.concatenate(chosen), np.concatenate(picks)

    digest = hashlib.sha256(hu.tobytes() + repr((seed, pixel_mm, low, high)).encode()).digest()
    rng = np.random.default_rng(list(digest))
    order = rng.permutation(num)
    test, *ids = (f"{n:08x}" for n in rng.choice(2**32, num + 1, replace=False))
    pixels = np.rint(255 * (np.clip(hu[order], low, high) - low) / (high - low)).astype(np.uint8)
    rows = np.flatnonzero(pixels.any((0, 2)))
    pixels = pixels[:, max(0, rows[0] - _MARGIN) : rows[-1] + 1 + _MARGIN]

    page = {"id": test, "ids": ids, "pixel_mm": pixel_mm, "window": [low, high], "shape": pixels.shape[1:]}
    page["pixels"] = base64.b64encode(pixels.tobytes()).decode()
    truth = [{"truth": "real" if i < num // 2 else "fake", "index": int(index[i])} for i in order]
    key = {"format": files.KEY, "test": test, "seed": seed, "num": num, "pixel_mm": pixel_mm, "window": [low, high]}
    key["images"] = dict(zip(ids, truth, strict=True))

    key_path = path.with_name(f"{path.stem}.key.json")
    if key_path.exists() and files.read(key_path, files.KEY)["test"] != test:
        raise InputError(
            f"{key_path}: is the key of another test, whose answers need it: move it away, or give another path"
        )
    template = pathlib.Path(__file__).with_name("turing.html").read_text(encoding="utf-8")
    write_text(key_path, json.dumps(key, indent=1))
    write_text(path, template.replace("@TEST@", json.dumps(page)))
    return key_path
