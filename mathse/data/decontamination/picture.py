"""Pictures as bits, so that copies that were scaled, compressed, greyed, framed or cut a little are found.

A look is a perceptual hash (Zauner 2010): which of the 255 low frequencies of a picture at 32 x 32 are above their
median. A picture has several: of all of it, and of what is left without its margins; one to be kept out of training
also has looks with its edges cut, so that a cut copy has a look in common with it. Looks that differ in a few bits may
still be two diagrams of one kind, so the parts behind them are then laid over each other: copies correlate, however
faintly printed, and different drawings in the same frame do not. Figures: experiments/decontamination/.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE, LOW = 32, 16  # pixels a side; frequencies kept a side
BITS = LOW * LOW - 1  # the first says only how bright it is
OVERLAY, SHIFT = 64, 2  # pixels a side of a part that is laid over another one; pixels it is moved by
MARGIN = 48  # grey levels from the edge's that still are margin
FLAT = 16  # grey levels between a picture's darkest and lightest from which there is something to see
FRAMES = 3  # margins inside margins that are taken off: padding, a frame, the paper's own margin
LEAST = 8  # pixels a side of a part that says anything
CUTS = (  # shares of a picture cut off at its left, top, right and bottom
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
class Look:
    """Bits, and the part of the picture that they are of."""

    bits: Bits
    box: Box


def grey(image: Image.Image) -> Grey:
    return np.asarray(image.convert("L"))


def exact(image: Image.Image) -> str:
    """Hash of the decoded pixels and their shape: equal for files that show the same picture, pixel by pixel."""
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()


def looks(picture: Grey, cut: bool = False) -> list[Look]:
    """The looks of a picture, ``cut``: those with its edges cut too. None of a picture without contents."""
    if min(picture.shape) < LEAST or int(picture.max()) - int(picture.min()) < FLAT:
        return []
    found: dict[bytes, Look] = {}
    for box in dict.fromkeys(_boxes(picture, cut)):
        look = Look(_bits(_part(picture, box)), box)
        found.setdefault(look.bits.tobytes(), look)
    return list(found.values())


def overlay(picture: Grey, box: Box) -> NDArray[np.float32]:
    """(OVERLAY, OVERLAY): a part of a picture, to be laid over another one's."""
    return _scaled(_part(picture, box), OVERLAY).astype(np.float32)


def correlation(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """How much two parts show the same, at most 1: the best of all moves by up to SHIFT pixels."""
    inner = left[SHIFT:-SHIFT, SHIFT:-SHIFT]
    inner = inner - inner.mean()
    size = OVERLAY - 2 * SHIFT
    windows = np.lib.stride_tricks.sliding_window_view(right, (size, size))  # (5, 5, size, size)
    centred = windows - windows.mean(axis=(2, 3), keepdims=True)
    scale = np.sqrt((centred**2).sum(axis=(2, 3)) * (inner**2).sum()) + 1e-6
    return float(((centred * inner).sum(axis=(2, 3)) / scale).max())


def _boxes(picture: Grey, cut: bool) -> Iterator[Box]:
    """Parts of a picture: all of it, without margins, without what then are margins; and cut parts without margins."""
    height, width = picture.shape
    box = (0, 0, width, height)
    for _ in range(1 + FRAMES):
        yield box
        inside = _without_margins(picture, box)
        if inside == box:
            break
        box = inside
    for left, top, right, bottom in CUTS if cut else ():
        low = width - round(width * right), height - round(height * bottom)
        yield _without_margins(picture, (round(width * left), round(height * top), *low))


def _without_margins(picture: Grey, box: Box) -> Box:
    """The part of a box that is not of its edge's grey; the box itself where there is none, or next to nothing."""
    part = _part(picture, box)
    edge = np.concatenate([part[0], part[-1], part[:, 0], part[:, -1]])
    middle = int(np.partition(edge, edge.size // 2)[edge.size // 2])
    low, high = max(0, middle - MARGIN), min(255, middle + MARGIN)
    drawn = (part < low) | (part > high)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not rows.size or rows[-1] - rows[0] < LEAST or columns[-1] - columns[0] < LEAST:
        return box
    left, top = box[0] + int(columns[0]), box[1] + int(rows[0])
    return left, top, box[0] + int(columns[-1]) + 1, box[1] + int(rows[-1]) + 1


def _part(picture: Grey, box: Box) -> Grey:
    left, top, right, bottom = box
    return picture[top:bottom, left:right]


def _bits(part: Grey) -> Bits:
    small = _scaled(part, SIDE).astype(np.float64)
    low = (_COSINES @ small @ _COSINES.T).ravel()[1:]
    packed = np.packbits(np.append(low > np.partition(low, BITS // 2)[BITS // 2], False))  # 256 bits
    return packed.view(np.uint64)


def _scaled(part: Grey, side: int) -> Grey:
    way = Image.Resampling.BOX if min(part.shape) >= side else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize((side, side), way))
