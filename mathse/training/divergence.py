"""Divergence of a training: a loss or gradient that is not finite, or exploding gradients.

A healthy training has single steps with a large gradient (a hard row, data of a new kind), and clipping makes them
harmless. So a gradient norm counts as exploding only above the clip, relative to the median of earlier steps, and over
several steps. Exploding norms are not part of that median: it would follow an explosion and hide it.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

MEDIAN_STEPS = 100  # steps in the median
MIN_STEPS = 10  # steps in the median before a norm is compared with it
MAX_EXPLODING_STEPS = 10  # exploding steps in a row that stop training


class Divergence:
    """Checks the steps of a training.

    Args:
        ratio: a norm of more than this many medians is exploding; None: no norm is.
        clip: the norm to which gradients are clipped.
    """

    def __init__(self, ratio: float | None, clip: float) -> None:
        self.ratio, self.clip = ratio, clip
        self._norms: deque[float] = deque(maxlen=MEDIAN_STEPS)
        self._exploding = 0  # steps in a row

    def find_reason(self, loss: float, norm: float) -> str | None:
        """Return why training has diverged at a step with this loss and gradient norm (before clipping), or None."""
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"its {name} is {value}"
        usual = median(self._norms) if len(self._norms) >= MIN_STEPS else math.inf
        if self.ratio is None or norm <= max(self.clip, self.ratio * usual):
            self._norms.append(norm)
            self._exploding = 0
            return None
        self._exploding += 1
        if self._exploding < MAX_EXPLODING_STEPS:
            return None
        return (
            f"its gradient norm is {norm:.3g}, {norm / usual:,.0f} times the median of the steps before ({usual:.3g}), "
            f"and has been above {self.ratio:g} times the median for {MAX_EXPLODING_STEPS} steps"
        )
