"""The live display: everything that knows rich, which is imported on first need."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO, cast

from mathse.reporting.progress.stream import SafeStream
from mathse.reporting.progress.tracks import Track
from mathse.reporting.progress.wording import describe, speed


class RichDisplay:
    """Headings and bars on a terminal."""

    def __init__(self, stream: SafeStream) -> None:
        from rich.console import Console

        self.console = Console(
            file=cast(TextIO, stream), force_terminal=True, highlight=False, markup=False, legacy_windows=False
        )
        self._bars: Any = None
        self._open = 0

    def heading(self, name: str, what: str) -> None:
        from rich.text import Text

        self.console.print(Text.assemble("\n", (name, "bold"), "  ", (what, "dim")))

    def say(self, text: str) -> None:
        self.console.print(text)

    def track(self, description: str, total: int, done: int) -> RichTrack:
        bars = self._live()
        self._open += 1
        return RichTrack(self, bars, bars.add_task(description, total=total, completed=done, rate="", info=""))

    def release(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.close()

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._open = 0

    def table(self, lines: Sequence[str]) -> None:
        self.console.print()
        for place, line in enumerate(lines):
            self.console.print(line, style="bold" if place == 0 else "", soft_wrap=True)

    def _live(self) -> Any:
        # rich allows one live display a console: all tracks of a time share it.
        if self._bars is None:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("  {task.description}", markup=False),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", style="dim", markup=False),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[info]}", markup=False),
                console=self.console,
                refresh_per_second=4,
            )
            self._bars.start()
        return self._bars


class RichTrack(Track):
    """A bar of the shared live display; what it did stays on the screen as one line."""

    def __init__(self, display: RichDisplay, bars: Any, task: Any) -> None:
        self._display, self._bars, self._task = display, bars, task
        self._start, self._made = time.monotonic(), 0
        self._info: dict[str, float | str] = {}
        self._closed = False

    def advance(self, n: int = 1, **info: float | str) -> None:
        self._made += n
        self._info.update(info)
        spent = time.monotonic() - self._start
        rate = f"{speed(self._made / spent)}/s" if spent > 0 else ""
        self._bars.update(self._task, advance=n, rate=rate, info=describe(self._info))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bars.stop_task(self._task)
            self._display.release()
