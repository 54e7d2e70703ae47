"""Comparison of two similar pictures in every small region, labels included.

Drawings of the same template differ in a few characters, a small share of all pixels, so a hash or a correlation of
whole pictures takes them for copies. The two parts are therefore registered to a fraction of a pixel and compared
window by window: compression and scaling disturb each window a little, another label disturbs a few windows much.
Figures: experiments/decontamination/.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mathse.data.decontamination.perceptual_hash import Box, Grey

DIFFERENCE = 0.1  # of two windows, in [0, 2]; copies stay below it
LONG_SIDE = 512  # pixels of the compared parts, at most
WINDOW = 9  # pixels a side, about the height of a small label
NOISE = 600.0  # squared grey levels: the variance that compression may add to a blank window
MARGIN = 0.1  # share of a part's side that is added around a picture, so that registration may move beyond its edge
LEVELS = (64, 128, LONG_SIDE)  # pixels of the long side at which parts are registered, one after the other
STEPS, MOVE = 6, 0.03  # Gauss-Newton steps a level; share of a side that an edge moves by in a step, at most
OUTLIER = 40.0  # grey levels from which a pixel's difference weighs little in the registration

Floats = NDArray[np.float32]  # (height, width)
Frame = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def local_difference(left: Grey, left_box: Box, right: Grey, right_box: Box) -> float:
    """Compute the greatest difference of two parts in any window: 1 - structural similarity (Wang 2004)."""
    if _area(left_box) > _area(right_box):  # the smaller part gives the pixels
        left, left_box, right, right_box = right, right_box, left, left_box
    sides = [min(left_box[k + 2] - left_box[k], right_box[k + 2] - right_box[k]) for k in (0, 1)]
    scale = min(1.0, LONG_SIDE / max(sides))
    width, height = (max(WINDOW + 4, round(scale * side)) for side in sides)

    image, frame = _with_margin(left, left_box)
    other, other_frame = _with_margin(right, right_box)
    shrink = [level / max(width, height) for level in LEVELS]
    sizes = [(max(8, round(width * s)), max(8, round(height * s))) for s in shrink if s < 1] + [(width, height)]
    for size in sizes:
        other_frame = _registered(_sampled(image, frame, size), other, other_frame)

    base, moved = (_smooth(_sampled(*part, (width, height))) for part in ((image, frame), (other, other_frame)))
    centred = moved - moved.mean()
    gain = float((centred * base).sum() / max(1e-6, float((centred**2).sum())))
    return _greatest_difference(base, gain * centred)


def _greatest_difference(left: Floats, right: Floats) -> float:
    """Compute 1 - the least structural similarity of two windows, with the best shift of the right one by a pixel."""
    inner = left[1:-1, 1:-1]
    mean, squares = _window_means(inner), _window_means(inner**2)
    variance = squares - mean**2
    best = np.full(mean.shape, -1.0)
    for y in range(3):
        for x in range(3):
            moved = right[y : y + inner.shape[0], x : x + inner.shape[1]]
            other = _window_means(moved)
            covariance = _window_means(inner * moved) - mean * other
            total = variance + _window_means(moved**2) - other**2
            best = np.maximum(best, (2 * covariance + NOISE) / (total + NOISE))
    return float(1 - best.min())


def _registered(base: Floats, other: Image.Image, frame: Frame) -> Frame:
    """Register ``other`` to ``base``: find the frame with the closest pixels by Gauss-Newton, from ``frame``."""
    height, width = base.shape
    u, v = (np.arange(width) + 0.5) / width, ((np.arange(height) + 0.5) / height)[:, None]
    edges = np.array(frame)
    for _ in range(STEPS):
        sampled = _sampled(other, _frame(edges), (width, height))
        along_y, along_x = np.gradient(sampled)
        sides = np.array([edges[2] - edges[0], edges[3] - edges[1]] * 2)
        along_x, along_y = along_x * (width / sides[0]), along_y * (height / sides[1])
        # (pixels, 6): the slope by each edge of the frame, by contrast and by brightness
        slopes = (along_x * (1 - u), along_y * (1 - v), along_x * u, along_y * v, sampled, np.ones_like(sampled))
        jacobian = np.stack([slope.ravel() for slope in slopes], axis=1).astype(np.float64)
        residual = (base - sampled).ravel()
        weighted = jacobian / (1 + (residual / OUTLIER) ** 2)[:, None]
        step = np.linalg.solve(weighted.T @ jacobian + 1e-3 * np.eye(6), weighted.T @ residual)[:4]
        moved = np.clip(edges + np.clip(step, -MOVE * sides, MOVE * sides), 0, np.array(other.size * 2))
        if min(moved[2] - moved[0], moved[3] - moved[1]) < WINDOW:
            return frame
        edges = moved
        if np.abs(step / sides).max() * max(width, height) < 0.02:  # pixels
            break
    return _frame(edges)


def _frame(edges: NDArray[np.float64]) -> Frame:
    left, top, right, bottom = edges.tolist()
    return left, top, right, bottom


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _with_margin(grey: Grey, box: Box) -> tuple[Image.Image, Frame]:
    """Put a picture on a larger sheet with the grey of its edge; return the sheet and the place of the part."""
    x, y = (max(2, int(MARGIN * (box[k + 2] - box[k]))) for k in (0, 1))
    paper = int(np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])))
    sheet = np.pad(grey, ((y, y), (x, x)), constant_values=paper)
    return Image.fromarray(sheet), (box[0] + x, box[1] + y, box[2] + x, box[3] + y)


def _sampled(image: Image.Image, frame: Frame, size: tuple[int, int]) -> Floats:
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=frame), dtype=np.float32)


def _smooth(part: Floats) -> Floats:
    """Blur by 1 2 1 in both directions, which removes the differences between resampling filters."""
    padded = np.pad(part, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return np.asarray((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4, dtype=np.float32)


def _window_means(part: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute the mean of every window of WINDOW x WINDOW pixels by an integral image."""
    sums = np.pad(part, ((1, 0), (1, 0))).cumsum(0, dtype=np.float64).cumsum(1)
    k = WINDOW
    return np.asarray((sums[k:, k:] - sums[:-k, k:] - sums[k:, :-k] + sums[:-k, :-k]) / k**2)
