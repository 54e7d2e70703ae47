"""``python -m mathse compare RUN RUN...``: the same problems answered by several students, and the paper's tables.

results.py  reads the folder of a RUN and the marks in it
pairs.py    two students on the same problems: difference, McNemar's test, transitions (Figure 2)
tables.py   rows of Table 1, Table 2 and Figure 4: the paper's and those of the runs
page.py     the tables as a page, with charts
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from mathse.config.program import format_command
from mathse.errors import RunError
from mathse.evaluation.compare.pairs import pairs_of
from mathse.evaluation.compare.results import RunResults, benchmarks_of, read_all_results
from mathse.evaluation.compare.tables import (
    Rows,
    accuracy_rows,
    controls_rows,
    cost_rows,
    error_rows,
    pair_rows,
    table_1,
    table_2,
)
from mathse.reporting.progress.wording import align_columns
from mathse.scoring.paper import SLIPS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit code.

    Raises RunError or DataError for a folder that cannot be compared.
    """
    parser = argparse.ArgumentParser(
        prog=format_command("compare"),
        description="Accuracies with Wilson's intervals; each run against the first on the problems they share: the "
        "paired difference with its bootstrap interval, McNemar's exact p, and the four transitions of the paper's "
        "Figure 2; then the paper's tables with the runs beside them.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="an output folder of evaluate.py, one of its benchmark folders, a stage of a training run, or a training "
        'run (its last student); NAME=FOLDER names it, and a NAME from the paper\'s tables ("MathSE-Qwen") puts it '
        "beside that row",
    )
    parser.add_argument("--tables", action="store_true", help="show the paper's tables in any case")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the bootstrap")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write a page with the charts")
    arguments = parser.parse_args(argv)
    out: Path | None = arguments.out
    # An impossible place for the page is refused before any run is read.
    if out is not None:
        if out.is_dir():
            raise RunError(f"--out {out}: a folder; name the page's file, such as {out / 'comparison.html'}")
        above = next(folder for folder in out.absolute().parents if folder.exists())
        if not above.is_dir():
            raise RunError(f"--out {out}: {above} is a file, not a folder; name another place")
    results = read_all_results(arguments.runs)
    for heading, rows, note in blocks(results, arguments.seed, arguments.tables):
        below = [*align_columns(rows), note] if note else align_columns(rows)
        print("\n".join([heading, *(f"  {line}" for line in below), ""]))
    if out is not None:
        from mathse.evaluation.compare.page import write_comparison

        print(write_comparison(results, arguments.seed, out))
    return 0


def blocks(results: Sequence[RunResults], seed: int, tables: bool) -> list[tuple[str, Rows, str]]:
    """Return (heading, rows with their head, note) of each printed table.

    ``tables``: print the paper's tables even if no run has their benchmarks.
    """
    printed: list[tuple[str, Rows, str]] = []
    for name in benchmarks_of(results):
        printed.append((name, accuracy_rows(results, name), ""))
        if pairs := pairs_of(results, name, seed):
            printed.append((f"{name}, each against {pairs[0].before}", pair_rows(pairs), ""))
    if costs := cost_rows(results):
        note = "All stages that a student was made from; tokens and FLOPs of measurements do not count."
        printed.append(("costs of the students", costs, note))
    if controls := controls_rows(results):
        printed.append(("runs beside their controls", controls, "The distilled rows without rounds (mathse control)."))
    complete_only = "Ours: only if every problem of the benchmark was scored."
    if tables or any("mathvl_test" in run.scores for run in results):
        note = f"{complete_only} {SLIPS['Table 1']}"
        printed.append(("Table 1: MathVL-test, percent", table_1(results), note))
    if tables or any({"mathvista", "mathverse", "mathvision"} & run.scores.keys() for run in results):
        note = f"{complete_only} {SLIPS['Table 2']}"
        printed.append(("Table 2: public benchmarks, percent", table_2(results), note))
    all_scores = chain.from_iterable(run.scores.values() for run in results)
    if any(scores.error_types for scores in all_scores):
        heading = "Figure 4: kinds of mistakes, percent of the wrong answers"
        printed.append((heading, error_rows(results), SLIPS["Figure 4"]))
    return printed
