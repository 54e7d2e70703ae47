"""The images of the synthetic problems: three real handwritten digits side by side.

Source: digits.npz beside this file, 1,797 images of 8 x 8 pixels (UCI, CC BY 4.0; README.md there). Each digit image
belongs to exactly one split. The students' pool and the ORM's training problems share the split "train", because there
are few images: other problems in the same handwriting. The digits of dev, test and orm_held are in no training problem.
"""

from __future__ import annotations

import math
import random
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from mathse.errors import DataError

GLYPH = 28  # pixels; a glyph is exactly a visual token of the tiny backbone (patch 14, merge 2)
FILE = Path(__file__).with_name("digits.npz")
SPLITS = {"train": 1147, "dev": 100, "orm_held": 200, "test": 350}  # digit images, 1,797 in total


@lru_cache(maxsize=1)
def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Load the images (1797, 8, 8) with values 0..16, and their labels (1797,), both uint8."""
    with np.load(FILE) as stored:
        return stored["images"], stored["labels"]


@lru_cache(maxsize=1)
def split_indices() -> dict[str, np.ndarray]:
    """Divide the indices of the digit images into splits, by a fixed permutation for every seed."""
    order = np.random.RandomState(1797).permutation(sum(SPLITS.values()))
    cuts = np.cumsum(list(SPLITS.values()))[:-1]
    return dict(zip(SPLITS, (np.sort(part) for part in np.split(order, cuts)), strict=True))


def label(index: int) -> int:
    """Look up the digit 0..9 in image ``index``."""
    return int(_load_digits()[1][index])


def reference(indices: tuple[int, int, int]) -> str:
    """Make the reference of three digit images for ``Problem.images``: ``digits:0012-0345-0678``."""
    return "digits:" + "-".join(f"{i:04d}" for i in indices)


def jittered(ref: str, draw: random.Random) -> str:
    """Make a reference to the same digits with another position, size and slant: ``digits:0012-0345-0678+4711``."""
    return f"{ref.partition('+')[0]}+{draw.randrange(10_000):04d}"


def parse_reference(ref: str) -> tuple[int, int, int]:
    """Parse the three indices of an image reference. Raises DataError for any other text."""
    indices, plus, jitter = ref.removeprefix("digits:").partition("+")
    valid_jitter = not plus or (jitter.isascii() and jitter.isdigit() and len(jitter) == 4)
    parts = indices.split("-") if valid_jitter else []
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() and len(p) == 4 and int(p) < 1797 for p in parts):
        raise DataError(f"{ref[:80]!r} is no image of a synthetic problem; those look like 'digits:0012-0345-0678'")
    return int(parts[0]), int(parts[1]), int(parts[2])


def render(ref: str) -> Image.Image:
    """The image of a reference: RGB, 84 x 28 pixels, bright ink on black."""
    strip = Image.new("L", (3 * GLYPH, GLYPH))
    indices = parse_reference(ref)
    draw = random.Random(int(ref.partition("+")[2])) if "+" in ref else None
    for k, index in enumerate(indices):
        glyph = _draw_glyph(index) if draw is None else _jitter_glyph(_draw_glyph(index), draw)
        strip.paste(glyph, (k * GLYPH, 0))
    return strip.convert("RGB")


def _jitter_glyph(glyph: Image.Image, draw: random.Random) -> Image.Image:
    """Rotate a glyph by up to 10 degrees, slant it, scale it by up to a tenth, and shift it by up to 2 pixels."""
    angle, slant = math.radians(draw.uniform(-10, 10)), draw.uniform(-0.15, 0.15)
    size, dx, dy = draw.uniform(0.9, 1.1), draw.uniform(-2, 2), draw.uniform(-2, 2)
    # The affine map from a pixel of the new picture to a pixel of the old picture, around the middle.
    a, b = math.cos(angle) / size, (math.sin(angle) + slant) / size
    c, d = -math.sin(angle) / size, math.cos(angle) / size
    middle = (GLYPH - 1) / 2
    x, y = middle - a * (middle + dx) - b * (middle + dy), middle - c * (middle + dx) - d * (middle + dy)
    return glyph.transform(glyph.size, Image.Transform.AFFINE, (a, b, x, c, d, y), Image.Resampling.BILINEAR)


@cache  # all glyphs take 1.4 MB, and a run draws each some hundred times
def _draw_glyph(index: int) -> Image.Image:
    """Draw a digit with 28 x 28 pixels of 0..255; the data set's grey levels are 0..16."""
    ink = Image.fromarray(np.uint8(_load_digits()[0][index] * (255 / 16)))
    return ink.resize((GLYPH, GLYPH), Image.Resampling.BILINEAR)
