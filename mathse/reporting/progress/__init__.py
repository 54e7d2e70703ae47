"""Progress of a run while it works: rich bars on a terminal, plain lines in a log file, or nothing.

    with Progress("auto") as progress:
        progress.stage("round_01", "the student samples, the ORM judges, right paths merge")
        with progress.track("sampling paths", total=2400) as track:
            track.advance(256)

There is one live display at a time. An output that is closed, full or narrow in its encoding never stops a run: its
lines are dropped without a message.
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
from mathse.reporting.progress.wording import COLUMNS, align_columns, clean, orm_line, stage_rows

__all__ = ["Progress", "Track"]


class Progress:
    """The progress of a run on one output.

    All text passes ``clean`` before it is displayed: a model may have written it.

    Args:
        mode: ``auto`` draws bars on a terminal and writes plain lines elsewhere.
        stream: the output. None: stdout.
        every: seconds between two plain lines of a track, at least.
        clock: the current time in seconds.

    Raises ConfigError for an unknown mode.
    """

    def __init__(
        self,
        mode: str = "auto",
        stream: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        modes = ("auto", "rich", "plain", "off")
        if mode not in modes:
            raise ConfigError(f"progress = {mode!r}: must be one of {', '.join(modes)}")
        safe = SafeStream(stream if stream is not None else sys.stdout)
        if mode == "auto":
            mode = "rich" if safe.isatty() and os.environ.get("TERM") != "dumb" else "plain"
        self.mode = mode
        self.outlook = Outlook()  # a run with planned stages replaces it
        self._display: PlainDisplay | TerminalDisplay
        if mode == "rich":
            self._display = TerminalDisplay(safe)
        else:
            # mode "off": a plain display without a stream writes nothing.
            self._display = PlainDisplay(safe if mode == "plain" else SafeStream(None), every, clock)

    def stage(self, name: str, description: str) -> None:
        """Begin a stage. Its name heads every plain line of its tracks."""
        self.outlook.begin(name)
        self._display.stage(clean(name), clean(description), self.outlook.heading(name))

    def track(self, description: str, total: int, done: int = 0) -> Track:
        """Follow ``total`` rows or steps. An earlier process made the first ``done``."""
        return self._display.track(clean(description), total, done, lambda: self.outlook.time_left)

    def say(self, text: str) -> None:
        """Show a sentence. Control characters, which a model may write, are shown as spaces."""
        self._display.say(clean(text))

    def table(self, summary: Mapping[str, Any]) -> None:
        """Show the closing table of summary.json: a row for each stage, a line about costs, a line about the ORM."""
        self._display.table([clean(line) for line in align_columns([COLUMNS, *stage_rows(summary)])])
        if ledger := summary.get("ledger"):
            self.say(ledger_line(ledger))
        if orm := summary.get("orm"):
            self.say(orm_line(orm))

    def close(self) -> None:
        """End a live display and restore the terminal. A second call does nothing."""
        self._display.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
