"""``mathse lineage RUN ID``: trace a training row back to the bytes of its image.

    mathse lineage outputs/demo/seed_0 round_01/digits/sum/0013-0750-0285/0
    mathse lineage outputs/demo/seed_0 digits/sum/0013-0750-0285
    mathse lineage outputs/demo/seed_0 --all --json
    mathse lineage outputs/demo/seed_0 --descendants digits/sum/0013-0750-0285
    mathse lineage outputs/demo/seed_0 --query "SELECT stage, count(*) FROM train GROUP BY stage"

ID is the id of a path (also of its row in train.jsonl) or of a problem, or the location of a row:
``final/train.jsonl:23``. ``--all`` prints one line per row of final/train.jsonl. A run without a final stage has the
newest train.jsonl instead, and a note on stderr names it. ``--descendants`` lists all rows and checkpoints that depend
on a problem; nothing is removed. ``--query`` is SQL over the run's files; without SQL it lists the tables (sql.py).
``--json`` writes only JSON Lines to stdout. The command loads no torch and does not change the run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from mathse.commands.lineage.descent import find_descendants, format_descent
from mathse.commands.lineage.story import format_story, trace_path
from mathse.config.extras import missing
from mathse.config.program import program
from mathse.errors import DataError, RunError
from mathse.runs.reader import Run, read_run
from mathse.runs.store import to_json

__all__ = ["main", "trace_path"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit code.

    Raises MathSEError for an unknown id, a run that cannot be read, or SQL that fails.
    """
    parser = argparse.ArgumentParser(
        prog=program("lineage"),
        description="Trace a training row to its origin, or list the rows that descend from a problem.",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("id", nargs="?", metavar="ID", help="id of a training row, a path or a problem; or FILE:LINE")
    query.add_argument("--all", action="store_true", help="every row of final/train.jsonl, one per line")
    query.add_argument("--descendants", metavar="PROBLEM_ID", help="every row and checkpoint that descends from it")
    query.add_argument(
        "--query", metavar="SQL", nargs="?", const=True, help="a SELECT over the run's files; without SQL: the tables"
    )
    parser.add_argument("--json", action="store_true", help="print only JSON Lines on stdout")
    arguments = parser.parse_args(argv)
    run = read_run(arguments.run)
    if not run.stages:
        raise DataError(f"{run.folder}: no stage is finished yet, so there is nothing to trace; continue the run")
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal's encoding may lack characters of problems and models.
        sys.stdout.reconfigure(encoding="utf-8" if arguments.json else None, errors="backslashreplace")
    try:
        for line in _list_lines(run, arguments):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # `... --all --json | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _list_lines(run: Run, arguments: argparse.Namespace) -> Iterator[str]:
    """Return the lines to print: rows as JSON, or as text."""
    rows: Iterator[Any]
    format_rows: Callable[[Iterator[Any]], Iterator[str]]
    if arguments.descendants is not None:
        rows, format_rows = find_descendants(run, arguments.descendants), format_descent
    elif arguments.id is not None:
        story = trace_path(run, arguments.id)
        return iter([to_json(story.to_json())]) if arguments.json else format_story(story)
    else:
        # Both options need duckdb, which is an extra.
        if sentence := missing("lineage"):
            option = "--all" if arguments.all else "--query"
            raise RunError(f"{option} joins the files of a run as tables, which {sentence}")
        from mathse.commands.lineage import sql, training_rows  # these import duckdb

        if arguments.all:
            rows, format_rows = training_rows.read_all_rows(run), training_rows.format_rows
        elif arguments.query is True:  # --query without SQL
            rows, format_rows = sql.run_query(run, sql.LIST_TABLES), sql.format_tables
        else:
            rows, format_rows = sql.run_query(run, arguments.query), sql.format_result
    return map(to_json, rows) if arguments.json else format_rows(rows)
