"""The last column of a progress bar's row: as many of its figures as the terminal has room for, each whole."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import ProgressColumn, Task
from rich.text import Text


class FiguresColumn(ProgressColumn):
    """The texts in a task's field ``figures``, the most important one first."""

    def render(self, task: Task) -> Figures:
        return Figures(task.fields["figures"])


class Figures:
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
