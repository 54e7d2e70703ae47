"""What a run says while it works: rich bars on a terminal, calm plain lines in a log file, or nothing.

    with Progress("auto") as progress:
        progress.stage("round_01", "the student samples, the ORM judges, right paths merge")
        with progress.track("sampling paths", total=2400) as track:
            track.advance(256)

One live display at a time; nothing here can stop a run: a closed or narrow-minded output is survived in silence.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Self, TextIO

from mathse.errors import ConfigError
from mathse.reporting.progress.live import RichDisplay
from mathse.reporting.progress.stream import SafeStream
from mathse.reporting.progress.tracks import PlainTrack, Track
from mathse.reporting.progress.wording import COLUMNS, aligned, clean, orm_line, stage_rows

__all__ = ["Progress", "Track"]
MODES = ("auto", "rich", "plain", "off")


class Progress:
    """The run's voice. ``auto`` draws bars on a terminal and writes plain lines elsewhere."""

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
        self._stream = SafeStream(stream if stream is not None else sys.stdout)
        if mode == "auto":
            mode = "rich" if self._stream.isatty() and os.environ.get("TERM") != "dumb" else "plain"
        self.mode = mode
        self._every, self._clock = every, clock
        self._stage = ""
        self._display = RichDisplay(self._stream) if mode == "rich" else None

    def stage(self, name: str, what: str) -> None:
        """Begin a stage: its name heads every plain line that follows."""
        self._stage = name
        if self._display:
            self._display.heading(clean(name), clean(what))
        else:
            self._line(f"{name}: {what}")

    def track(self, description: str, total: int, done: int = 0) -> Track:
        """Follow ``total`` rows or steps, ``done`` of which an earlier process made."""
        if self._display:
            return self._display.track(clean(description), total, done)
        head = f"{self._stage} | {description}" if self._stage else description
        return PlainTrack(self._line, head, total, done, self._every, self._clock)

    def say(self, text: str) -> None:
        """One sentence to the reader; control characters, as a model may write them, are shown as spaces."""
        if self._display:
            self._display.say(clean(text))
        else:
            self._line(text)

    def table(self, summary: Mapping[str, Any]) -> None:
        """The closing table of summary.json: a row a stage, and a line about the ORM."""
        lines = aligned([COLUMNS, *stage_rows(summary)])
        if self._display:
            self._display.table(lines)
        else:
            for line in lines:
                self._line(line)
        if orm := summary.get("orm"):
            self.say(orm_line(orm))

    def close(self) -> None:
        """Take down a live display, so that the terminal is left as it was; may be called twice."""
        if self._display:
            self._display.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _line(self, text: str) -> None:
        if self.mode == "plain":
            self._stream.write(clean(text).rstrip() + "\n")
            self._stream.flush()
