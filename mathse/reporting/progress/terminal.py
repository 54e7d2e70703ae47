"""Progress as headings and bars on a terminal: everything that knows rich, which is imported on first need."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO, cast

from mathse.reporting.progress.plain import Track
from mathse.reporting.progress.safe_stream import SafeStream
from mathse.reporting.progress.wording import describe, speed


class TerminalDisplay:
    """rich allows one live display a console: all tracks of a time share it, and it ends with the last of them."""

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
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("  {task.description}", markup=False),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", style="dim", markup=False),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[info]}", markup=False),
                TextColumn("{task.fields[run_left]}", style="dim", markup=False),
                console=self.console,
                refresh_per_second=4,
            )
            self._bars.start()
        self._open_tracks += 1
        task = self._bars.add_task(description, total=total, completed=done, rate="", info="", run_left="")
        return TerminalTrack(self, self._bars, task, run_left)

    def track_closed(self) -> None:
        self._open_tracks -= 1
        if self._open_tracks == 0:
            self.close()

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._open_tracks = 0


class TerminalTrack(Track):
    """A bar of the shared live display; what it did stays on the screen as one line."""

    def __init__(self, display: TerminalDisplay, bars: Any, task: Any, run_left: Callable[[], str]) -> None:
        self._display, self._bars, self._task, self._run_left = display, bars, task, run_left
        self._start, self._done = time.monotonic(), 0  # without what an earlier process did
        self._info: dict[str, float | str] = {}
        self._closed = False

    def advance(self, n: int = 1, **info: float | str) -> None:
        self._done += n
        self._info.update(info)
        seconds = time.monotonic() - self._start
        rate = f"{speed(self._done / seconds)}/s" if seconds > 0 else ""
        self._bars.update(self._task, advance=n, rate=rate, info=describe(self._info), run_left=self._run_left())

    def resume(self, n: int) -> None:
        self._bars.update(self._task, advance=n)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._bars.update(self._task, run_left="")
            self._bars.stop_task(self._task)
            self._display.track_closed()
