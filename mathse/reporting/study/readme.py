"""The block of a study's README that the command writes: how the runs are made again, the tables, how to read them.

All else in the file is its author's: the block stands between two marks, and a README without them is left alone.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from mathse.config.compose import unchecked_settings
from mathse.errors import DataError
from mathse.reporting.report import write_page
from mathse.reporting.report.compare import comparable
from mathse.reporting.study.collect import BOOKKEEPING, Collected
from mathse.reporting.study.design import programs
from mathse.reporting.study.differences import difference
from mathse.reporting.study.tables import main_table, seed_table, settings_table, transition_table

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
PLAIN = re.compile(r"[\w./-]+")  # text that Hydra reads as it is


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


def results(collected: Collected) -> str:
    """The block, in Markdown: what was run, the tables, how to read them."""
    last_table = transition_table if collected.design.rows == "stages" else settings_table
    tables = [main_table(collected), seed_table(collected), last_table(collected)]
    parts = [_command(collected)]
    for table in tables:
        if len(table) > 1:  # more than a head
            lines = [table[0], ["---"] * len(table[0]), *table[1:]]
            escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in escaped))
    return "\n\n".join([*parts, _legend(collected)])


def _command(collected: Collected) -> str:
    """The two commands that make the runs again and collect them, with the overrides that all runs had besides their
    variant's file."""
    name, seeds = collected.design.name, ",".join(map(str, collected.seeds))
    besides: list[dict[str, Any]] = []  # of the first run of each variant
    for variant, runs in collected.runs.items():
        composed = unchecked_settings([f"+experiment/{name}={variant}", f"seed={runs[0].seed}"])
        settings, keys = runs[0].settings, comparable(runs[0]).keys() - set(BOOKKEEPING)
        besides.append({k: settings[k] for k in keys if k not in composed or settings[k] != composed[k]})
    shared = {k: v for k, v in besides[0].items() if all(k in other and other[k] == v for other in besides)}

    overrides = []
    for key, value in sorted(shared.items()):
        # Text that Hydra would not read as it is stands in double quotes, as in JSON.
        plain = isinstance(value, str) and PLAIN.fullmatch(value)
        overrides.append(shlex.quote(f"{key}={value if plain else json.dumps(value, ensure_ascii=False)}"))
    train, study = programs()
    run_all = " ".join([train, f"'+experiment/{name}=glob(*)'", f"seed={seeds}", *overrides])
    return f"```\n{run_all}\n{study} {name}\n```"


def _legend(collected: Collected) -> str:
    """How to read the figures, and what they cost."""
    design, seeds = collected.design, len(collected.seeds)
    first = next(iter(design.measures.values()))
    others = [] if design.rows == "stages" else [v for v in design.variants if v != design.against]
    gains = [difference(collected.runs[design.against], collected.runs[v], first) for v in others]
    bootstrap = {gain.bootstrap for gain in gains if gain is not None} or {design.rows == "stages"}
    intervals = {
        (True,): "a bootstrap over seeds and what was answered in each (rather too narrow for few seeds)",
        (False,): "Student's t over the paired seeds",
        (False, True): "a bootstrap over seeds and answers where all answers are here, else Student's t over the seeds",
    }[tuple(sorted(bootstrap))]
    return (
        f"Means over {seeds} seed{'s' if seeds > 1 else ''} with 95 % intervals (Student's t, wide with few seeds, cut "
        f"at 0 and 100); differences in points, paired by seed, with {intervals}. "
        f"{collected.minutes:.0f} minutes of stages in all, those that variants share counted once."
    )
