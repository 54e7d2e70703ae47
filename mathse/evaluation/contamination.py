"""Which rows of a training file are in a benchmark, by question or by picture: ``check_against=TRAIN.jsonl``.

A training row is one that ``mathse.data.decontamination.against`` reads (own data, conversations, published rows; JSON
lines or a list, ``.gz`` too), or a row of a run's train.jsonl, whose problem is looked up in that run's data.
``mathse.data.decontamination``, the engine that keeps benchmarks out of training, says what makes a pair, and which
pairs are weak: by a question that does not tell which problem it is ("Find x."), with no picture in common.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mathse.data.decontamination import Index, Seen
from mathse.data.decontamination.against import problem_in
from mathse.data.records import BadRow, read_records
from mathse.data.sources import problem_lookup, problem_named
from mathse.errors import DataError, MathSEError
from mathse.evaluation.benchmarks.base import Item
from mathse.runs.layout import RUN
from mathse.runs.reader import read_head, run_above
from mathse.runs.store import write_jsonl
from mathse.types import Problem


@dataclass(frozen=True)
class TrainingRow:
    """What is compared of a training row: its problem, and the line where it stands."""

    line: int
    problem: Problem


def check(benchmark: str, items: Sequence[Item], file: Path, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Search ``items`` for each row of ``file`` and list the pairs in ``out``. Sums up: {"problems": ids of the
    benchmark in any pair, "sure": those in a pair that is not weak, "rows", "pairs", "by", ...}. Raises DataError for a
    broken row."""
    index = Index()
    for item in items:
        index.add(benchmark, item.problem)
    listed: list[dict[str, Any]] = []
    rows = unopened = 0
    for row in training_rows(file):
        seen = Seen.of(row.problem)
        rows, unopened = rows + 1, unopened + seen.named - len(seen.shown)
        place = {"file": str(file), "line": row.line, "id": row.problem.id}
        listed += [{**place, **pair.to_json()} for pair in index.pairs(seen)]
    if not rows:
        raise DataError(f"{file}: holds no rows; check_against names a file of training rows")
    write_jsonl(out, listed)
    problems, sure = ids_of(listed), ids_of([pair for pair in listed if pair["counts"]])
    say(
        f"{file}: {rows:,} rows, {len(listed):,} pairs with {len(problems):,} of {len(items):,} problems "
        f"({len(sure):,} for sure): {out}"
    )
    lacking = index.unopened + sum(map(_lacks_its_picture, items))
    for count, whose in ((unopened, str(file)), (lacking, benchmark)):
        if count:
            say(f"{whose}: {count:,} pictures could not be opened; of their rows only the questions were compared")
    return {
        "file": str(file),
        "rows": rows,
        "pairs": len(listed),
        "by": dict(Counter(by for pair in listed for by in pair["by"])),
        "pictures_not_opened": {"training": unopened, "benchmark": lacking},
        "problems": problems,
        "sure": sure,
    }


def _lacks_its_picture(item: Item) -> bool:
    """Its row names one, and it was left out when the rows were read: scoring needs none."""
    return bool(item.raw.get("image") or item.raw.get("images")) and not item.problem.images


def ids_of(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The benchmark's problems in these pairs."""
    return sorted({pair["against_id"] for pair in pairs})


# --- training rows ----------------------------------------------------------------------------------------------------


def training_rows(file: Path) -> Iterator[TrainingRow]:
    """The rows of a training file. Raises DataError with file and line at one that asks nothing."""
    problem_of: Callable[[str], Problem] | None = None
    for number, row, reason in read_records(file):
        where = f"{file}:{number}"
        if row is None:
            raise DataError(f"{where}: {reason}")
        if "problem_id" in row and "question" not in row:
            problem_of = problem_of or _problems_of_run(file)
            yield TrainingRow(number, problem_named(str(row["problem_id"]), problem_of, where))
        else:
            try:
                yield TrainingRow(number, problem_in(row, number, partial(_beside, file)))
            except BadRow as error:
                raise DataError(f"{where}: {error}") from None


def _problems_of_run(file: Path) -> Callable[[str], Problem]:
    """Problems by id, from the run that ``file`` lies in."""
    if (run := run_above(file)) is None:
        raise DataError(
            f"{file}: its rows name problems of a run, and no folder above it is one ({RUN}); give the file of "
            'problems instead, rows {"id", "question", "images"}'
        )
    try:
        return problem_lookup(read_head(run)["config"])
    except MathSEError as error:
        raise DataError(f"{run / RUN}: its problems cannot be read ({error}); give the file of problems") from None


def _beside(file: Path, name: str) -> str:
    """A path relative to the file's folder; a scheme such as ``digits:`` as it is."""
    return name if ":" in name.partition("/")[0] else str(file.parent / name)
