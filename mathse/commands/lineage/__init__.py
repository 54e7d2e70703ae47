"""``python -m mathse lineage RUN ID``: where a training row comes from, back to the bytes of its image.

    python -m mathse lineage outputs/demo/seed_0 round_01/digits/sum/0013-0750-0285/0
    python -m mathse lineage outputs/demo/seed_0 digits/sum/0013-0750-0285
    python -m mathse lineage outputs/demo/seed_0 --all --json
    python -m mathse lineage outputs/demo/seed_0 --descendants digits/sum/0013-0750-0285
    python -m mathse lineage outputs/demo/seed_0 --query "SELECT stage, count(*) FROM train GROUP BY stage"

An id is that of a path (a row of train.jsonl has its path's) or of a problem; a row may also be named by its place,
``final/train.jsonl:23``. ``--all`` has a line for every row of final/train.jsonl; of a run that has no final stage, or
not yet, of the newest train.jsonl, which a note on stderr names. ``--descendants`` names what would have to go with a
problem; nothing is removed. ``--query`` is SQL over the run's files, alone it lists the tables (tables.py).
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

from mathse.commands.lineage.descent import descendants, descent_in_words
from mathse.commands.lineage.story import tell
from mathse.commands.lineage.words import said
from mathse.config.extras import missing
from mathse.errors import DataError, RunError
from mathse.runs.reader import Run, read_run
from mathse.runs.store import to_json

__all__ = ["main", "tell"]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; raises MathSEError for an id that is none, a run that cannot be read, SQL that fails."""
    asked = _parser().parse_args(argv)
    run = read_run(asked.run)
    if not run.stages:
        raise DataError(f"{run.folder}: no stage is finished yet, so there is nothing to trace; let the run go on")
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal's encoding need not have all that problems and models write
        sys.stdout.reconfigure(encoding="utf-8" if asked.json else None, errors="backslashreplace")
    try:
        for line in _lines(run, asked):
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # `... --all --json | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _lines(run: Run, asked: argparse.Namespace) -> Iterator[str]:
    if asked.descendants is not None:
        return _shown(descendants(run, asked.descendants), descent_in_words, asked.json)
    if asked.id is not None:
        story = tell(run, asked.id)
        return iter([to_json(story.to_json())]) if asked.json else said(story)
    if sentence := missing("lineage"):
        raise RunError(f"{'--all' if asked.all else '--query'} joins the files of a run as tables, which {sentence}")
    from mathse.commands.lineage.query import TABLES, answer, answer_in_words, tables_in_words  # late: they load duckdb
    from mathse.commands.lineage.rows import all_rows, row_in_words

    if asked.all:
        return _shown(all_rows(run), lambda rows: map(row_in_words, rows), asked.json)
    if asked.query is True:  # --query alone
        return _shown(answer(run, TABLES), tables_in_words, asked.json)
    return _shown(answer(run, asked.query), answer_in_words, asked.json)


def _shown(rows: Iterator[Any], words: Callable[[Iterator[Any]], Iterator[str]], as_json: bool) -> Iterator[str]:
    return map(to_json, rows) if as_json else words(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mathse lineage", description="Where a training row comes from, and what comes from a problem"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a run folder, such as outputs/demo/seed_0")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("id", nargs="?", metavar="ID", help="of a training row, a path or a problem; or FILE:LINE")
    what.add_argument("--all", action="store_true", help="every row of final/train.jsonl, one line each")
    what.add_argument("--descendants", metavar="PROBLEM_ID", help="every row and checkpoint that descends from it")
    what.add_argument(
        "--query", metavar="SQL", nargs="?", const=True, help="a SELECT over the run's files; alone: the tables"
    )
    parser.add_argument("--json", action="store_true", help="JSON Lines on stdout, and nothing else")
    return parser
