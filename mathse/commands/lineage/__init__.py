"""``mathse lineage RUN ID``: where a training row comes from, back to the bytes of its image.

    mathse lineage outputs/demo/seed_0 round_01/digits/sum/0013-0750-0285/0
    mathse lineage outputs/demo/seed_0 digits/sum/0013-0750-0285
    mathse lineage outputs/demo/seed_0 --all --json
    mathse lineage outputs/demo/seed_0 --descendants digits/sum/0013-0750-0285
    mathse lineage outputs/demo/seed_0 --query "SELECT stage, count(*) FROM train GROUP BY stage"

An id is that of a path (a row of train.jsonl has its path's) or of a problem; a row may also be named by its place,
``final/train.jsonl:23``. ``--all`` has a line for every row of final/train.jsonl; of a run that has no final stage, or
not yet, of the newest train.jsonl, which a note on stderr names. ``--descendants`` names what would have to go with a
problem; nothing is removed. ``--query`` is SQL over the run's files, alone it lists the tables (sql.py).
``--json`` writes JSON Lines to stdout and nothing else. Loads no torch, and leaves the run as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from mathse.commands.lineage.descent import descendants, descent_as_text
from mathse.commands.lineage.story import tell
from mathse.commands.lineage.story_text import story_as_text
from mathse.config.extras import explain_missing
from mathse.config.program import format_command
from mathse.errors import DataError, RunError
from mathse.runs.reader import Run, read_run
from mathse.runs.store import to_json

__all__ = ["main", "tell"]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; raises MathSEError for an id that is none, a run that cannot be read, SQL that fails."""
    parser = argparse.ArgumentParser(
        prog=format_command("lineage"), description="Where a training row comes from, and what comes from a problem"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    question = parser.add_mutually_exclusive_group(required=True)
    question.add_argument("id", nargs="?", metavar="ID", help="of a training row, a path or a problem; or FILE:LINE")
    question.add_argument("--all", action="store_true", help="every row of final/train.jsonl, one line each")
    question.add_argument("--descendants", metavar="PROBLEM_ID", help="every row and checkpoint that descends from it")
    question.add_argument(
        "--query", metavar="SQL", nargs="?", const=True, help="a SELECT over the run's files; alone: the tables"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines on stdout, and nothing else")
    arguments = parser.parse_args(argv)
    run = read_run(arguments.run)
    if not run.stages:
        raise DataError(f"{run.folder}: no stage is finished yet, so there is nothing to trace; let the run go on")
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal's encoding need not have all that problems and models write
        sys.stdout.reconfigure(encoding="utf-8" if arguments.json else None, errors="backslashreplace")
    try:
        for line in _lines(run, arguments):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # `... --all --json | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _lines(run: Run, arguments: argparse.Namespace) -> Iterator[str]:
    """What is printed: rows as JSON, or as text."""
    rows: Iterator[Any]
    as_text: Callable[[Iterator[Any]], Iterator[str]]
    if arguments.descendants is not None:
        rows, as_text = descendants(run, arguments.descendants), descent_as_text
    elif arguments.id is not None:
        story = tell(run, arguments.id)
        return iter([to_json(story.to_json())]) if arguments.json else story_as_text(story)
    else:
        if sentence := explain_missing("lineage"):
            option = "--all" if arguments.all else "--query"
            raise RunError(f"{option} joins the files of a run as tables, which {sentence}")
        from mathse.commands.lineage import sql, training_rows  # late: they load duckdb

        if arguments.all:
            rows, as_text = training_rows.all_rows(run), training_rows.rows_as_text
        elif arguments.query is True:  # --query alone
            rows, as_text = sql.answer(run, sql.TABLES), sql.tables_as_text
        else:
            rows, as_text = sql.answer(run, arguments.query), sql.answer_as_text
    return map(to_json, rows) if arguments.json else as_text(rows)
