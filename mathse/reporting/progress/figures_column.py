"""The last column of a progress bar's row: as many figures as fit into the terminal, each figure whole.

The base class is rich's, so this module is imported when the first bar is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import ProgressColumn, Task
from rich.text import Text


class FiguresColumn(ProgressColumn):
    """Shows the texts in a task's field ``figures``; the most important text comes first."""

    def render(self, task: Task) -> Figures:
        return Figures(task.fields["figures"])


class Figures:
    """A line of texts that leaves out each text for which the row has no room."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = ""
        for text in self.texts:
            longer = f"{line}, {text}" if line else text
            if len(longer) <= options.max_width:
                line = longer
        yield Text(line, style="dim", no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, len(", ".join(self.texts)))
