"""The block of a study's README that the command writes; all else in the file is its author's."""

from __future__ import annotations

from pathlib import Path

from mathse.errors import DataError
from mathse.reporting.report import write_page

BEGIN, END = "<!-- results: written by python -m mathse study -->", "<!-- end of results -->"
NEW = """# {name}

**Question.** (What is asked, and why.)

**Hardware.** (On what it ran.)

## Results

{begin}
{end}

## What it means, and what it does not

(Whatever came out.)
"""


class Readme:
    """A study's README with its place for results; one that is not there is begun.

    Raises DataError, before anything is written, for a file without the two marks, and for one that is no text.
    """

    def __init__(self, file: Path, name: str) -> None:
        self.file = file
        try:
            page = file.read_text(encoding="utf-8") if file.is_file() else NEW.format(name=name, begin=BEGIN, end=END)
        except UnicodeDecodeError as e:
            raise DataError(f"{file}: is no UTF-8 text ({e.reason} at byte {e.start}); save it as UTF-8") from None
        self._before, begin, rest = page.partition(BEGIN)
        _, end, self._after = rest.partition(END)
        if not begin or not end:
            raise DataError(f"{file}: has no place for the results; put two lines where they belong: {BEGIN} {END}")

    def put(self, text: str) -> None:
        """Write the results between the marks."""
        write_page(f"{self._before}{BEGIN}\n{text}\n{END}{self._after}", self.file)
