"""The block of a study's README that the command writes; all else in the file is its author's."""

from __future__ import annotations

from pathlib import Path

from mathse.errors import DataError
from mathse.report import write_page
from mathse.study.collect import Collected

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


def put(file: Path, collected: Collected, text: str, drawn: bool) -> None:
    """Write the results between their two marks; a README that is not there is begun. Raises DataError for one
    without the marks."""
    page = file.read_text(encoding="utf-8") if file.is_file() else None
    if page is None:
        page = NEW.format(name=collected.design.name, begin=BEGIN, end=END)
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{file}: has no place for the results; put these two lines where they belong: {BEGIN} {END}")
    picture = f"\n\n![{collected.design.name}](result.svg)" if drawn else ""
    write_page(f"{before}{BEGIN}\n{text}{picture}\n{END}{after}", file)
