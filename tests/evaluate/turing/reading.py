"""Reading tests that are written, and readers who answer them."""

import base64
import json
import re

import numpy as np

from skullgan_jax.evaluate.turing.page import write_page

PIXEL_MM = 60 / 128


def write(folder, slices, **changes):
    """The page's text, what it shows as {id: (rows, 128) uint8}, and the key."""
    path = folder / "t.html"
    key_path = write_page(path, *slices, **{"pixel_mm": PIXEL_MM, "num": 40} | changes)
    text = path.read_text()
    test = json.loads(re.search(r'<script type="application/json" id="test">(.*?)</script>', text, re.S)[1])
    pixels = np.frombuffer(base64.b64decode(test["pixels"]), np.uint8).reshape(-1, *test["shape"])
    return text, dict(zip(test["ids"], pixels, strict=True)), json.loads(key_path.read_text())


def write_answers(path, key, answers, name="A"):
    """answers: {id: (answer, confidence)} or a rating per image of the key, fake positive, None for unanswered."""
    if not isinstance(answers, dict):
        pairs = zip(key["images"], answers, strict=True)
        answers = {i: ("fake" if r > 0 else "real", abs(r)) for i, r in pairs if r is not None}
    answers = {i: {"answer": a, "confidence": c, "seconds": 2.5} for i, (a, c) in answers.items()}
    reader = {"name": name, "role": "Radiologist", "years": 12}
    path.write_text(
        json.dumps(
            {"format": "skullgan_jax turing answers 1", "test": key["test"], "reader": reader, "answers": answers}
        )
    )
    return path


def truth(key):
    return np.array([image["truth"] == "fake" for image in key["images"].values()])


def rated(key, wrong, seed=0):
    """Ratings with the first `wrong` images of each class answered wrongly."""
    fake = truth(key)
    rating = np.where(fake, 1, -1) * np.random.default_rng(seed).integers(1, 4, len(fake))
    for side in (fake, ~fake):
        rating[np.flatnonzero(side)[:wrong]] *= -1
    return rating.tolist()
