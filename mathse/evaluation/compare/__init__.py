"""``python -m mathse compare RUN RUN...``: the same problems answered by several students, and the paper's tables.

results.py  what a RUN is, and the marks in it
pairs.py    two students on the same problems: difference, McNemar's test, transitions (Figure 2)
tables.py   rows of Table 1, Table 2 and Figure 4, the paper's and ours
page.py     the same as a page, with the drawings
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mathse.config.program import format_command
from mathse.errors import RunError
from mathse.evaluation.compare.pairs import pairs_of
from mathse.evaluation.compare.results import RunResults, benchmarks_of, read_all_results
from mathse.evaluation.compare.tables import Rows, accuracy_rows, cost_rows, error_rows, pair_rows, table_1, table_2
from mathse.reporting.progress.wording import aligned
from mathse.scoring.paper import SLIPS

_DESCRIPTION = """Accuracies with Wilson's intervals; each run against the first on the problems they share: the paired
difference with its bootstrap interval, McNemar's exact p, and the four transitions of the paper's Figure 2; then the
paper's tables with ours beside them."""
_RUN = """an output folder of evaluate.py, one of its benchmark folders, a stage of a training run, or a training run
(its last student); NAME=FOLDER names it, and a NAME from the paper's tables ("MathSE-Qwen") puts it beside that row"""


def main(argv: Sequence[str] | None = None) -> int:
    """``compare``: returns the exit code; RunError or DataError for a folder that cannot be compared."""
    parser = argparse.ArgumentParser(prog=format_command("compare"), description=_DESCRIPTION)
    parser.add_argument("runs", nargs="+", metavar="RUN", help=_RUN)
    parser.add_argument("--tables", action="store_true", help="show the paper's tables in any case")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write a page with the drawings")
    arguments = parser.parse_args(argv)
    out: Path | None = arguments.out
    # Refused before anything is read: a place where no page can be written.
    if out is not None:
        if out.is_dir():
            raise RunError(f"--out {out}: a folder; name the page's file, such as {out / 'comparison.html'}")
        above = next(folder for folder in out.absolute().parents if folder.exists())
        if not above.is_dir():
            raise RunError(f"--out {out}: {above} is a file, not a folder; name another place")
    results = read_all_results(arguments.runs)
    for heading, rows, note in blocks(results, arguments.seed, arguments.tables):
        print("\n".join([heading, *(f"  {line}" for line in aligned(rows)), *([f"  {note}"] if note else []), ""]))
    if out is not None:
        from mathse.evaluation.compare.page import write_comparison

        print(write_comparison(results, arguments.seed, out))
    return 0


def blocks(results: Sequence[RunResults], seed: int, tables: bool) -> list[tuple[str, Rows, str]]:
    """(heading, rows with their head, a note) of everything that is printed; ``tables``: the paper's in any case."""
    printed: list[tuple[str, Rows, str]] = []
    for name in benchmarks_of(results):
        printed.append((name, accuracy_rows(results, name), ""))
        if pairs := pairs_of(results, name, seed):
            printed.append((f"{name}, each against {pairs[0].before}", pair_rows(pairs), ""))
    if costs := cost_rows(results):
        note = "All stages that a student was made from; tokens and FLOPs without those of measuring."
        printed.append(("what the students took", costs, note))
    complete_only = "Ours: where every problem of the benchmark was scored."
    if tables or any("mathvl_test" in run.scores for run in results):
        note = f"{complete_only} {SLIPS['Table 1']}"
        printed.append(("Table 1: MathVL-test, percent", table_1(results), note))
    if tables or any({"mathvista", "mathverse", "mathvision"} & run.scores.keys() for run in results):
        note = f"{complete_only} {SLIPS['Table 2']}"
        printed.append(("Table 2: public benchmarks, percent", table_2(results), note))
    if any(scores.error_types for run in results for scores in run.scores.values()):
        heading = "Figure 4: kinds of mistakes, percent of the wrong answers"
        printed.append((heading, error_rows(results), SLIPS["Figure 4"]))
    return printed
