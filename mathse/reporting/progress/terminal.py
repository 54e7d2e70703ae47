"""Progress as headings and bars on a terminal. All code that knows rich is here; rich is imported on first need."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO, cast

from mathse.reporting.progress.plain import Track
from mathse.reporting.progress.safe_stream import SafeStream
from mathse.reporting.progress.wording import figures, speed

MAX_DESCRIPTION = 24  # columns; a longer description is cut, so that bar, count and time left have room


class TerminalDisplay:
    """rich allows one live display per console: all open tracks share it, and it ends with the last of them."""

    def __init__(self, stream: SafeStream) -> None:
        from rich.console import Console

        self.console = Console(
            file=cast(TextIO, stream), force_terminal=True, highlight=False, markup=False, legacy_windows=False
        )
        self._bars: Any = None  # rich's Progress while a track is open
        self._open_tracks = 0

    def stage(self, name: str, description: str, outlook: str) -> None:
        from rich.text import Text

        line = Text.assemble("\n", (name, "bold"), "  ", (description, "dim"))
        self.console.print(line + Text(f"  ({outlook})") if outlook else line)

    def say(self, text: str) -> None:
        self.console.print(text)

    def table(self, lines: Sequence[str]) -> None:
        self.console.print()
        for number, line in enumerate(lines):
            self.console.print(line, style="bold" if number == 0 else "", soft_wrap=True)

    def track(self, description: str, total: int, done: int, run_left: Callable[[], str]) -> Track:
        if self._bars is None:
            self._start_bars()
        self._open_tracks += 1
        if len(description) > MAX_DESCRIPTION:
            description = f"{description[: MAX_DESCRIPTION - 1]}…"
        task = self._bars.add_task(description, total=total, completed=done, figures=())
        return TerminalTrack(self, self._bars, task, run_left)

    def _start_bars(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars
        from rich.table import Column

        from mathse.reporting.progress.figures_column import FiguresColumn

        # Columns that do not wrap keep their width; the figures, in the last column, have the rest of the row.
        bar_width = 28 if self.console.width >= 110 else 14  # columns of the terminal
        self._bars = Bars(
            TextColumn("  {task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width, table_column=Column(no_wrap=True)),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True, table_column=Column(no_wrap=True)),
            FiguresColumn(),
            console=self.console,
            refresh_per_second=4,
        )
        self._bars.start()

    def end_track(self) -> None:
        """Count a closed track; the live display ends with the last."""
        self._open_tracks -= 1
        if self._open_tracks == 0:
            self.close()

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._open_tracks = 0


class TerminalTrack(Track):
    """A bar of the shared live display. Its last state stays on the screen as a line."""

    def __init__(self, display: TerminalDisplay, bars: Any, task: Any, run_left: Callable[[], str]) -> None:
        self._display, self._bars, self._task, self._run_left = display, bars, task, run_left
        self._start, self._done = time.monotonic(), 0  # rows of this process, for the rate
        self._info: dict[str, float | str] = {}
        self._closed = False

    def advance(self, n: int = 1, **info: float | str) -> None:
        self._done += n
        self._info.update(info)
        self._bars.update(self._task, advance=n, figures=self._figures(self._run_left()))

    def resume(self, n: int) -> None:
        self._bars.update(self._task, advance=n)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bars.update(self._task, figures=self._figures(run_left=""))
            self._bars.stop_task(self._task)
            self._display.end_track()

    def _figures(self, run_left: str) -> list[str]:
        """Return the figures by importance: the loss, the end of the run, the rate, all others."""
        seconds = time.monotonic() - self._start
        rate = [f"{speed(self._done / seconds)}/s"] if self._done and seconds > 0 else []
        loss, *others = figures(self._info) or [""]
        return [text for text in (loss, run_left, *rate, *others) if text]
