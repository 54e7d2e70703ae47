"""The images of the synthetic problems: three real handwritten digits side by side.

Source: digits.npz beside this file, 1,797 images of 8 x 8 pixels (UCI, CC BY 4.0; README.md there). Each digit image
belongs to exactly one split. For want of data the students' pool and the ORM's training problems share one (other
problems, the same handwriting); the digits of dev, test and orm_held are in no training problem.
"""

from __future__ import annotations

import math
import random
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from mathse.errors import DataError

GLYPH = 28  # pixels; one glyph is exactly one visual token of the tiny backbone (patch 14, merge 2)
FILE = Path(__file__).with_name("digits.npz")
SPLITS = {"train": 1147, "dev": 100, "orm_held": 200, "test": 350}  # digit images; together 1,797


@lru_cache(maxsize=1)
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 8, 8) with values 0..16, and their labels (1797,), both uint8."""
    with np.load(FILE) as stored:
        return stored["images"], stored["labels"]


@lru_cache(maxsize=1)
def split_indices() -> dict[str, np.ndarray]:
    """Indices of the digit images of each split: one fixed permutation, the same for every seed."""
    order = np.random.RandomState(1797).permutation(sum(SPLITS.values()))
    cuts = np.cumsum(list(SPLITS.values()))[:-1]
    return dict(zip(SPLITS, (np.sort(part) for part in np.split(order, cuts)), strict=True))


def label(index: int) -> int:
    """The digit 0..9 that image ``index`` shows."""
    return int(_digits()[1][index])


def reference(indices: tuple[int, int, int]) -> str:
    """The image reference of three digit images, as ``Problem.images`` holds it: ``digits:0012-0345-0678``."""
    return "digits:" + "-".join(f"{i:04d}" for i in indices)


def jittered(ref: str, draw: random.Random) -> str:
    """The reference of the same digits in another position, size and slant: ``digits:0012-0345-0678+4711``."""
    return f"{ref.partition('+')[0]}+{draw.randrange(10_000):04d}"


def parse_reference(ref: str) -> tuple[int, int, int]:
    """The three indices of an image reference; a DataError if it is not one."""
    indices, plus, jitter = ref.removeprefix("digits:").partition("+")
    parts = indices.split("-") if not plus or (jitter.isascii() and jitter.isdigit() and len(jitter) == 4) else []
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) == 4 and int(p) < 1797 for p in parts):
        raise DataError(f"{ref[:80]!r} is no image of a synthetic problem; those look like 'digits:0012-0345-0678'")
    return int(parts[0]), int(parts[1]), int(parts[2])


def render(ref: str) -> Image.Image:
    """The image of a reference: RGB, 84 x 28 pixels, bright ink on black."""
    strip = Image.new("L", (3 * GLYPH, GLYPH))
    indices = parse_reference(ref)
    draw = random.Random(int(ref.partition("+")[2])) if "+" in ref else None
    for k, index in enumerate(indices):
        glyph = _glyph(index) if draw is None else _moved(_glyph(index), draw)
        strip.paste(glyph, (k * GLYPH, 0))
    return strip.convert("RGB")


def _moved(glyph: Image.Image, draw: random.Random) -> Image.Image:
    """The glyph turned by up to 10 degrees, slanted, up to a tenth larger or smaller, and moved by up to 2 pixels."""
    angle, slant = math.radians(draw.uniform(-10, 10)), draw.uniform(-0.15, 0.15)
    size, dx, dy = draw.uniform(0.9, 1.1), draw.uniform(-2, 2), draw.uniform(-2, 2)
    # from a pixel of the new picture to one of the old, about the middle
    a, b = math.cos(angle) / size, (math.sin(angle) + slant) / size
    c, d = -math.sin(angle) / size, math.cos(angle) / size
    middle = (GLYPH - 1) / 2
    x, y = middle - a * (middle + dx) - b * (middle + dy), middle - c * (middle + dx) - d * (middle + dy)
    return glyph.transform(glyph.size, Image.Transform.AFFINE, (a, b, x, c, d, y), Image.Resampling.BILINEAR)


@cache  # all of them are 1.4 MB, and a run draws each some hundred times
def _glyph(index: int) -> Image.Image:
    """One digit, 28 x 28 pixels of 0..255; the data set's grey levels are 0..16."""
    ink = Image.fromarray(np.uint8(_digits()[0][index] * (255 / 16)))
    return ink.resize((GLYPH, GLYPH), Image.Resampling.BILINEAR)
