"""Training rows that are in a benchmark, by question or by picture: ``check_against=TRAIN.jsonl``.

A training row has a format of ``mathse.data.decontamination.benchmark_files`` (own data, conversations, published rows;
JSON lines or a list, ``.gz`` too), or is a row of a run's train.jsonl with a problem of that run's data.
``mathse.data.decontamination``, which keeps benchmarks out of training, finds the pairs. A pair is weak if only its
question agrees, and many problems share the question ("Find x.").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
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
    """Search ``items`` for each row of ``file`` and write the pairs to ``out``.

    Args:
        benchmark: name of the benchmark.
        items: its rows.
        file: the training file.
        out: the file of pairs.
        say: called with a sentence about the result.

    Returns {"problems": ids of problems in a pair, "sure": ids of problems in a pair that is not weak, "rows", "pairs",
    "by", ...}. Raises DataError for a broken row.
    """
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
    # A benchmark's pictures are also missing if they were not read, because scoring needs none.
    missing = index.unopened
    for item in items:
        names_picture = bool(item.raw.get("image") or item.raw.get("images"))
        missing += names_picture and not item.problem.images
    for count, owner in ((unopened, str(file)), (missing, benchmark)):
        if count:
            say(f"{owner}: {count:,} pictures could not be opened; of their rows only the questions were compared")
    return {
        "file": str(file),
        "rows": rows,
        "pairs": len(pairs),
        "by": dict(Counter(chain.from_iterable(pair["by"] for pair in pairs))),
        "pictures_not_opened": {"training": unopened, "benchmark": missing},
        "problems": problems,
        "sure": sure,
    }


def training_rows(file: Path) -> Iterator[tuple[int, Problem]]:
    """Yield (line, problem) of each row of a training file. Raises DataError at a row without question."""

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
    """Return a lookup of problems by id in the run that contains ``file``."""
    if (run := find_run_above(file)) is None:
        raise DataError(
            f"{file}: its rows name problems of a run, and no folder above it is one ({RUN}); give the file of "
            'problems instead, rows {"id", "question", "images"}'
        )
    try:
        return problem_lookup(read_head(run)["config"])
    except MathSEError as error:
        raise DataError(f"{run / RUN}: its problems cannot be read ({error}); give the file of problems") from None
