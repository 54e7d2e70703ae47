"""When a fit has gone wrong for good: a loss or gradient that is no number, or gradients that explode.

A healthy fit has single steps with a large gradient (a hard row, data of a new kind), and clipping makes them harmless.
So a large norm counts only above the clip, beside the median of the steps before, and where it lasts. Large norms
themselves stay out of that median: else it would follow an explosion, and none would be seen.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

WINDOW = 100  # steps whose norms are remembered
BASIS = 10  # steps before a norm is compared with them
IN_A_ROW = 10  # steps that explode, one after the other, until the fit is stopped


class Divergence:
    """Watches the steps of one fit. ``ratio``: a norm so many times the median counts as exploding; None: none does.
    ``clip``: the norm to which gradients are clipped."""

    def __init__(self, ratio: float | None, clip: float) -> None:
        self.ratio, self.clip = ratio, clip
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._exploding = 0  # steps in a row

    def reason(self, loss: float, norm: float) -> str | None:
        """What is wrong after a step with this loss and gradient norm (before clipping); None where nothing is."""
        for name, value in (("loss", loss), ("gradient norm", norm)):
            if not math.isfinite(value):
                return f"its {name} is {value}"
        usual = median(self._norms) if len(self._norms) >= BASIS else math.inf
        if self.ratio is None or norm <= max(self.clip, self.ratio * usual):
            self._norms.append(norm)
            self._exploding = 0
            return None
        self._exploding += 1
        if self._exploding < IN_A_ROW:
            return None
        return (
            f"its gradient norm is {norm:.3g}, {norm / usual:,.0f} times what was usual ({usual:.3g}), and has been "
            f"above {self.ratio:g} times that for {IN_A_ROW} steps"
        )
