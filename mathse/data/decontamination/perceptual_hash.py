"""Perceptual hashes of images, which find copies after scaling, compression, greying, framing or a small cut.

A perceptual hash (Zauner 2010) has a bit for each of the 255 low frequencies of an image at 32 x 32: whether it is
above their median. An image has several: of all of it, and of what is left without its margins; one to be kept out of
training also has hashes with its edges cut, so that a cut copy has a hash in common with it. Hashes that differ in a
few bits may still be of two diagrams of one kind, so the parts behind them are then laid over each other: copies
correlate, however faintly printed, and different drawings in the same frame do not. Figures:
experiments/decontamination/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, LOW = 32, 16  # pixels a side; frequencies kept a side
BITS = LOW * LOW - 1  # without the first frequency, which is the brightness
OVERLAY, SHIFT = 64, 2  # pixels a side of a part that is laid over another one; pixels it is moved by
MARGIN = 48  # grey levels by which a margin may differ from the edge
FLAT = 16  # grey levels between the darkest and the lightest pixel; an image with fewer is blank
FRAMES = 3  # margins inside margins that are taken off: padding, a frame, the paper's own margin
LEAST = 8  # pixels a side; a smaller part is not hashed
CUTS = (  # shares of an image cut off at its left, top, right and bottom
    *((c, c, c, c) for c in (0.025, 0.05)),
    *((0.05, 0, 0, 0), (0, 0.05, 0, 0), (0, 0, 0.05, 0), (0, 0, 0, 0.05)),
    *((0.04, 0.04, 0, 0), (0, 0.04, 0.04, 0), (0.04, 0, 0, 0.04), (0, 0, 0.04, 0.04)),
)

Grey = NDArray[np.uint8]  # (height, width)
Bits = NDArray[np.uint64]  # (4,)
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels

_K = np.arange(SIDE)
_COSINES = np.cos(np.pi * (2 * _K[None] + 1) * _K[:LOW, None] / (2 * SIDE))  # (LOW, SIDE), DCT-II


@dataclass(frozen=True, eq=False)
class PerceptualHash:
    """The bits, and the part of the image that they are of."""

    bits: Bits
    box: Box


def grey(image: Image.Image) -> Grey:
    return np.asarray(image.convert("L"))


def perceptual_hashes(image: Grey, cut: bool = False) -> list[PerceptualHash]:
    """Compute the different hashes of an image; ``cut`` adds hashes with its edges cut. [] for a blank image."""
    if min(image.shape) < LEAST or int(image.max()) - int(image.min()) < FLAT:
        return []
    hashes: dict[bytes, PerceptualHash] = {}
    for box in dict.fromkeys(_boxes(image, cut)):
        small = _scaled(_part(image, box), SIDE).astype(np.float64)
        low = (_COSINES @ small @ _COSINES.T).ravel()[1:]  # (BITS,): without the first, which is the brightness
        bits = np.packbits(np.append(low > np.partition(low, BITS // 2)[BITS // 2], False)).view(np.uint64)  # 256 bits
        hashes.setdefault(bits.tobytes(), PerceptualHash(bits, box))
    return list(hashes.values())


def overlay(image: Grey, box: Box) -> NDArray[np.float32]:
    """Scale a part of an image to (OVERLAY, OVERLAY), for the correlation with a part of another image."""
    return _scaled(_part(image, box), OVERLAY).astype(np.float32)


def correlation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Compute the Pearson correlation of two overlays, the maximum over shifts by up to SHIFT pixels."""
    inner = left[SHIFT:-SHIFT, SHIFT:-SHIFT]
    inner = inner - inner.mean()
    size = OVERLAY - 2 * SHIFT
    # The inner part of one against every window of its size in the other.
    windows = np.lib.stride_tricks.sliding_window_view(right, (size, size))  # (5, 5, size, size)
    centred = windows - windows.mean(axis=(2, 3), keepdims=True)
    scale = np.sqrt((centred**2).sum(axis=(2, 3)) * (inner**2).sum()) + 1e-6
    return float(((centred * inner).sum(axis=(2, 3)) / scale).max())


def _boxes(image: Grey, cut: bool) -> Iterator[Box]:
    """Yield the box of the whole image, its boxes without outer and inner margins, and with ``cut`` its cut parts."""
    height, width = image.shape
    box = (0, 0, width, height)
    # From the whole image inwards, until there is no margin left to take off.
    for _ in range(1 + FRAMES):
        yield box
        inside = _without_margins(image, box)
        if inside == box:
            break
        box = inside
    for left, top, right, bottom in CUTS if cut else ():
        low = width - round(width * right), height - round(height * bottom)
        yield _without_margins(image, (round(width * left), round(height * top), *low))


def _without_margins(image: Grey, box: Box) -> Box:
    """Shrink a box to the part that differs from the grey of its edge; keep the box if that part is too small."""
    part = _part(image, box)
    edge = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
    median = int(np.partition(edge, edge.size // 2)[edge.size // 2])
    low, high = max(0, median - MARGIN), min(255, median + MARGIN)
    # The edge's median grey is the paper; the part is what surrounds every pixel that differs from it.
    drawn = (part < low) | (part > high)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not rows.size or rows[-1] - rows[0] < LEAST or columns[-1] - columns[0] < LEAST:
        return box
    left, top = box[0] + int(columns[0]), box[1] + int(rows[0])
    return left, top, box[0] + int(columns[-1]) + 1, box[1] + int(rows[-1]) + 1


def _part(image: Grey, box: Box) -> Grey:
    left, top, right, bottom = box
    return image[top:bottom, left:right]


def _scaled(part: Grey, side: int) -> Grey:
    resampling = Image.Resampling.BOX if min(part.shape) >= side else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize((side, side), resampling))
