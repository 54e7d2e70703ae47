"""The frame of a chart: where a value stands in px, and the lines and numbers that let one read it.

Every chart with axes is drawn in one, so that they look alike and a change of the grid is one change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mathse.reporting.report import svg

QUARTERS = (0, 0.25, 0.5, 0.75, 1)
GAP = 8  # px between the frame and its numbers


def from_zero(highest: float) -> list[float]:
    """The ticks of an axis of shares: from 0, so that heights compare within a picture and between pictures, to the
    round value above ``highest``."""
    return svg.ticks(0, min(max(highest, 0.05), 1.0))


@dataclass(frozen=True)
class Frame:
    """A box (``left``, ``top``, ``width``, ``height`` in px) whose lower and upper edges are the values ``low`` and
    ``high``; x goes from 0 at its left edge to 1 at its right."""

    left: float
    top: float
    width: float
    height: float
    low: float = 0.0
    high: float = 1.0

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, share: float) -> float:
        return self.left + share * self.width

    def y(self, value: float) -> float:
        """Of the nearest value inside: an interval over few seeds may reach beyond 0 and 100 %."""
        inside = min(max(value, self.low), self.high)
        return self.top + self.height * (self.high - inside) / (self.high - self.low)

    def at(self, share: float, value: float) -> tuple[float, float]:
        return self.x(share), self.y(value)

    def grid(
        self,
        ticks: Iterable[float],
        written: Callable[[float], str] = lambda tick: svg.percent(tick, 0 if round(100 * tick, 6) % 1 == 0 else 1),
        axis: float | None = None,
    ) -> str:
        """A line across at each tick, stronger at the value ``axis``, with what is ``written`` of it at the left."""
        drawn = ""
        for tick in ticks:
            y = self.y(tick)
            drawn += svg.line(self.left, y, self.right, y, "axis" if tick == axis else "grid")
            if number := written(tick):
                drawn += svg.text(self.left - GAP, y + 4, number, "tick", "end")
        return drawn

    def quarters(self, name: str) -> str:
        """The grid of shares against shares, each from 0 to 1; ``name`` is what x is."""
        marks = "".join(svg.text(self.x(t), self.bottom + 18, f"{t:g}", "tick", "middle") for t in QUARTERS)
        title = svg.text(self.left + self.width / 2, self.bottom + 38, name, "small", "middle")
        return self.grid(QUARTERS) + marks + title
