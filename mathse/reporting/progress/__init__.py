"""What a run says while it works: rich bars on a terminal, plain lines in a log file, or nothing.

    with Progress("auto") as progress:
        progress.stage("round_01", "the student samples, the ORM judges, right paths merge")
        with progress.track("sampling paths", total=2400) as track:
            track.advance(256)

One live display at a time. Nothing here can stop a run: an output that is closed, full or of a poor encoding is
survived in silence.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TextIO

from mathse.errors import ConfigError
from mathse.reporting.progress.costs import ledger_line
from mathse.reporting.progress.outlook import Outlook
from mathse.reporting.progress.plain import PlainDisplay, Track
from mathse.reporting.progress.safe_stream import SafeStream
from mathse.reporting.progress.terminal import TerminalDisplay
from mathse.reporting.progress.wording import COLUMNS, aligned, clean, orm_line, stage_rows

__all__ = ["Progress", "Track"]
MODES = ("auto", "rich", "plain", "off")


class Progress:
    """The progress of a run on one output. ``auto`` draws bars on a terminal and writes plain lines elsewhere.

    All text passes ``clean`` before it is displayed: a model may have written it.
    """

    def __init__(
        self,
        mode: str = "auto",
        stream: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``every``: at most one plain line a track in so many seconds. Raises ConfigError on an unknown mode."""
        if mode not in MODES:
            raise ConfigError(f"progress = {mode!r}: must be one of {', '.join(MODES)}")
        safe = SafeStream(stream if stream is not None else sys.stdout)
        if mode == "auto":
            mode = "rich" if safe.isatty() and os.environ.get("TERM") != "dumb" else "plain"
        self.mode = mode
        self.outlook = Outlook()  # of a run whose stages are known: which stage it is at, and how long it still takes
        self._display: PlainDisplay | TerminalDisplay
        if mode == "rich":
            self._display = TerminalDisplay(safe)
        else:
            # Without a stream ("off") the plain display writes nowhere.
            self._display = PlainDisplay(safe if mode == "plain" else SafeStream(None), every, clock)

    def stage(self, name: str, description: str) -> None:
        """Begin a stage: its name heads every plain line that follows."""
        self.outlook.begin(name)
        self._display.stage(clean(name), clean(description), self.outlook.heading(name))

    def track(self, description: str, total: int, done: int = 0) -> Track:
        """Follow ``total`` rows or steps, ``done`` of which an earlier process made."""
        return self._display.track(clean(description), total, done, lambda: self.outlook.time_left)

    def say(self, text: str) -> None:
        """One sentence to the reader; control characters, as a model may write them, are shown as spaces."""
        self._display.say(clean(text))

    def table(self, summary: Mapping[str, Any]) -> None:
        """The closing table of summary.json: a row a stage, a line about what was spent, and one about the ORM."""
        self._display.table([clean(line) for line in aligned([COLUMNS, *stage_rows(summary)])])
        if ledger := summary.get("ledger"):
            self.say(ledger_line(ledger))
        if orm := summary.get("orm"):
            self.say(orm_line(orm))

    def close(self) -> None:
        """Take down a live display, so that the terminal is left as it was; may be called twice."""
        self._display.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
