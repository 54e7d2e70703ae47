"""Which rows of a training file are in a benchmark, by question or by picture: ``check_against=TRAIN.jsonl``.

A training row is one that ``mathse.data.decontamination.benchmark_files`` reads (own data, conversations, published
rows; JSON lines or a list, ``.gz`` too), or a row of a run's train.jsonl, whose problem is looked up in that run's
data.
``mathse.data.decontamination``, the engine that keeps benchmarks out of training, says what makes a pair, and which
pairs are weak: those by a question that many problems share ("Find x.") and by no picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mathse.data.decontamination import ComparedRow, Index
from mathse.data.decontamination.benchmark_files import problem_in
from mathse.data.json_records import BadRow, read_records
from mathse.data.sources import problem_lookup, problem_named
from mathse.errors import DataError, MathSEError
from mathse.evaluation.benchmark import Item
from mathse.runs.layout import RUN
from mathse.runs.reader import find_run_above, read_head
from mathse.runs.store import write_jsonl
from mathse.types import Problem


def check(benchmark: str, items: Sequence[Item], file: Path, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Search ``items`` for each row of ``file`` and list the pairs in ``out``. Sums up: {"problems": ids of the
    benchmark in any pair, "sure": those in a pair that is not weak, "rows", "pairs", "by", ...}. Raises DataError for a
    broken row."""
    index = Index()
    for item in items:
        index.add(benchmark, item.problem)
    pairs: list[dict[str, Any]] = []
    rows = unopened = 0
    for line, problem in training_rows(file):
        row = ComparedRow.of(problem)
        rows, unopened = rows + 1, unopened + row.named - len(row.images)
        source = {"file": str(file), "line": line, "id": problem.id}
        pairs += [{**source, **pair.to_json()} for pair in index.pairs(row)]
    if not rows:
        raise DataError(f"{file}: holds no rows; check_against names a file of training rows")
    write_jsonl(out, pairs)
    problems = sorted({pair["against_id"] for pair in pairs})
    sure = sorted({pair["against_id"] for pair in pairs if pair["counts"]})
    say(
        f"{file}: {rows:,} rows, {len(pairs):,} pairs with {len(problems):,} of {len(items):,} problems "
        f"({len(sure):,} for sure): {out}"
    )
    # Also items whose picture was left out when the rows were read, since scoring needs none.
    lacking = index.unopened + sum(
        bool(item.raw.get("image") or item.raw.get("images")) and not item.problem.images for item in items
    )
    for count, owner in ((unopened, str(file)), (lacking, benchmark)):
        if count:
            say(f"{owner}: {count:,} pictures could not be opened; of their rows only the questions were compared")
    return {
        "file": str(file),
        "rows": rows,
        "pairs": len(pairs),
        "by": dict(Counter(by for pair in pairs for by in pair["by"])),
        "pictures_not_opened": {"training": unopened, "benchmark": lacking},
        "problems": problems,
        "sure": sure,
    }


def training_rows(file: Path) -> Iterator[tuple[int, Problem]]:
    """(line, problem) of each row of a training file. Raises DataError with file and line at one without question."""

    def picture_beside(name: str) -> str:
        # A path is relative to the file's folder; a reference with a scheme, such as ``digits:``, is kept.
        return name if ":" in name.partition("/")[0] else str(file.parent / name)

    problem_of: Callable[[str], Problem] | None = None
    for record in read_records(file):
        position, row = f"{file}:{record.line}", record.values
        if row is None:
            raise DataError(f"{position}: {record.reason}")
        if "problem_id" in row and "question" not in row:
            problem_of = problem_of or _problems_of_run(file)
            yield record.line, problem_named(str(row["problem_id"]), problem_of, position)
        else:
            try:
                yield record.line, problem_in(row, record.line, picture_beside)
            except BadRow as error:
                raise DataError(f"{position}: {error}") from None


def _problems_of_run(file: Path) -> Callable[[str], Problem]:
    """Problems by id, from the run that ``file`` lies in."""
    if (run := find_run_above(file)) is None:
        raise DataError(
            f"{file}: its rows name problems of a run, and no folder above it is one ({RUN}); give the file of "
            'problems instead, rows {"id", "question", "images"}'
        )
    try:
        return problem_lookup(read_head(run)["config"])
    except MathSEError as error:
        raise DataError(f"{run / RUN}: its problems cannot be read ({error}); give the file of problems") from None
