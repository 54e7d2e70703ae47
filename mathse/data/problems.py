"""Own problems from a JSONL file (``data=jsonl data.path=FILE``), checked row by row before any weight is loaded.

    {"id": "geo/12", "question": "Find x.", "images": ["images/12.png"], "answer": "B",
     "choices": ["12", "13", "14", "15"], "solution": "Step 1: ..."}

"choices" and "solution" are optional, "images" may be []; other keys are kept in ``Problem.metadata``. Where a file has
other names for these keys, ``data.columns`` says so. Image paths are relative to the file's folder and stay inside it.
``Problem.images`` holds absolute paths, so that they open from any working directory; no record of a run stores them,
so runs do not differ between machines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from mathse.config.data import JsonlColumns, Split
from mathse.config.data import JsonlData as Settings
from mathse.config.rules.data import NO_TABLE
from mathse.data.json_records import BadRow, begins_as_table, read_lines
from mathse.data.own_columns import in_own_form
from mathse.data.problem_table import ProblemTable
from mathse.data.row_validation import ImageChecks, ValidatedRow, validate
from mathse.errors import ConfigError, DataError
from mathse.runs.rows import Chained
from mathse.seeds import derive
from mathse.types import Problem, Verdict

SPLITS = ("seed", "test", "pool", "orm_train", "orm_held", "dev")
ORM_HELD = 0.25  # share of the ORM's problems that it is measured on
REPEATS = "repeats the row at"  # the reason why a row that is there already is left out
OUR_KEYS = JsonlColumns()
NAMED = 5  # bad rows named in an error; the others are counted


class ProblemSource(Protocol):
    """Where problems come from.

    ``splits``: disjoint lists: "seed" (D's part that the teacher solves), "pool" (the rest of D), "test", "dev",
    "orm_train" and "orm_held". ``distillable``: what task=distill solves. ``get``: a problem by id, DataError if there
    is none. ``check``: the verdict of a step checker, None where the source has none. ``bad_rows``: rows left out, each
    {"file", "line", "id", "reason"}. ``notes``: what a reader of the figures should know.
    """

    notes: Sequence[str]
    bad_rows: list[dict[str, object]]

    def splits(self) -> Mapping[str, Sequence[Problem]]: ...

    def distillable(self) -> Sequence[Problem]: ...

    def get(self, problem_id: str) -> Problem: ...

    def check(self, problem: Problem, text: str) -> Verdict | None: ...


@dataclass(frozen=True)
class Shares:
    """Shares of a file's rows, all in [0, 1]; ``seed`` is a share of what test, dev and ORM leave."""

    test: float
    dev: float
    orm: float
    seed: float

    def of_splits(self) -> dict[str, float]:
        """The share of each split; together 1."""
        rest = max(0.0, round(1.0 - self.test - self.dev - self.orm, 9))
        return {
            "test": self.test,
            "dev": self.dev,
            "orm_train": self.orm * (1 - ORM_HELD),
            "orm_held": self.orm * ORM_HELD,
            "seed": rest * self.seed,
            "pool": rest * (1 - self.seed),
        }


def to_distill(splits: Mapping[str, Sequence[Problem]], size: int | None) -> Sequence[Problem]:
    """Alg. 1 line 1, the subset of D that the teacher solves: the seed set, or ``size`` problems of it; a size beyond
    the seed set goes on into the pool."""
    seed = splits["seed"]
    return seed[:size] if size is None or size <= len(seed) else Chained(seed, splits["pool"])[:size]


class FileData:
    """What sources that read files have in common: a table of problems, their splits, and the rows left out.

    A subclass fills the table with ``_take`` and then calls ``_opened``. ``images.decoded`` are the images whose pixels
    are known to be whole; a run decodes the others in its first stage.
    """

    def __init__(self, name: str, settings: Split) -> None:
        self.notes: Sequence[str] = ()
        self.name, self.seed, self.on_bad_row = name, settings.seed, settings.on_bad_row
        self.shares = Shares(settings.test_share, settings.dev_share, settings.orm_share, settings.seed_share)
        total = self.shares.test + self.shares.dev + self.shares.orm
        if total > 1 + 1e-9:
            added = f"{self.shares.test} + {self.shares.dev} + {self.shares.orm} = {total:g}"
            raise ConfigError(
                f"data.test_share + data.dev_share + data.orm_share = {added}, at most 1 is allowed; what they leave "
                "is for seed and pool"
            )
        self.bad_rows: list[dict[str, object]] = []
        self.lists_repeats = False  # a row that is there twice, whole, is listed and no mistake
        self.table = ProblemTable()
        self.images = ImageChecks()
        self.train_ids: list[str] = []
        self.test_ids: list[str] = []  # of a test file

    def splits(self) -> Mapping[str, Sequence[Problem]]:
        """Each split's problems, in an order that is random but fixed: a prefix is a fair sample."""
        split = split_by_hash(self.train_ids, self.seed, self.shares)
        if self.test_ids:
            split["test"] = _shuffled(self.test_ids, self.seed)
        return {name: self.table.select(split[name]) for name in SPLITS}

    def distillable(self) -> Sequence[Problem]:
        """What task=distill solves: every row but those of a test file, in the files' order."""
        return self.table.select(self.train_ids)

    def get(self, problem_id: str) -> Problem:
        if (problem := self.table.get(problem_id)) is not None:
            return problem
        if (bad := next((row for row in self.bad_rows if row["id"] == problem_id), None)) is not None:
            raise DataError(f"{bad['file']}:{bad['line']}: problem {problem_id!r:.80} was left out: {bad['reason']}")
        near = get_close_matches(problem_id, self.table.ids(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{self.name}: no problem {problem_id!r:.80} among {len(self.table)}{hint}")

    def check(self, problem: Problem, text: str) -> Verdict | None:
        """None: these problems come without a step checker."""
        return None

    def _take(self, rows: Iterable[ValidatedRow], name: str, test: bool = False) -> None:
        """Add the problems of ``rows``, for the test split alone if ``test``; list the rows that make none.

        Raises DataError where there is no problem among them.
        """
        before, taken = len(self.bad_rows), self.test_ids if test else self.train_ids
        for row in rows:
            if row.problem is not None and row.problem.id in self.table:
                file, line = self.table.location(row.problem.id)
                known = f'"id" {row.problem.id!r:.80} stands already at {Path(file).name}:{line}'
                reason = f"{known}; ids are unique, rename one"
                if self.lists_repeats and self.table.get(row.problem.id) == row.problem:
                    reason = f"{REPEATS} {Path(file).name}:{line}"
                row = replace(row, problem=None, reason=reason)
            if row.problem is not None:
                self.table.add(row.problem, row.file, row.line)
                taken.append(row.problem.id)
            else:
                self.bad_rows.append(row.to_json())
        if not taken:
            bad = self.bad_rows[before:]
            raise NoProblems(bad_rows_text(bad, 0) if bad else f"{name}: holds no rows; add some", bad)

    def _opened(self) -> None:
        """Raises DataError where a row cannot be used and that is an error."""
        unusable = [row for row in self.bad_rows if not str(row["reason"]).startswith(REPEATS)]
        if unusable and self.on_bad_row == "error":
            raise DataError(bad_rows_text(unusable, len(self.table)))


class NoProblems(DataError):
    """A file has no row that can be used; ``bad_rows`` lists those it has."""

    def __init__(self, text: str, bad_rows: Sequence[dict[str, object]]) -> None:
        super().__init__(text)
        self.bad_rows = list(bad_rows)


class JsonlData(FileData):
    """Problems of one JSONL file (``.gz`` too), split by a hash of (seed, id): added rows move no other row.

    ``test_path``: a file of its own for the test split; ``test_share`` is then not used. ``on_bad_row``: "error"
    refuses the file, "skip" leaves bad rows out and lists them in ``bad_rows``. Raises DataError for a file that cannot
    be used, ConfigError for shares that add up to more than 1.
    """

    def __init__(self, settings: Settings) -> None:
        path, test_path = settings.path, settings.test_path
        if path is None:
            raise ConfigError("data.path is not set; give the JSONL file of your problems: data.path=FILE")
        if test_path:
            settings = replace(settings, test_share=0.0)
        super().__init__(" and ".join(filter(None, (path, test_path))), settings)
        self._take(read_rows(Path(path), self.images, settings.columns), path)
        if test_path:  # one test problem must not be among the training ones: ids are unique over both files
            self._take(read_rows(Path(test_path), self.images, settings.columns), test_path, test=True)
        self._opened()


def read_rows(path: Path, images: ImageChecks, columns: JsonlColumns = OUR_KEYS) -> Iterator[ValidatedRow]:
    """Every non-blank line of a JSONL or .jsonl.gz file. Raises DataError if the file itself cannot be read."""
    for record in read_lines(path):
        if record.line == 1 and record.values is None and begins_as_table(path):
            raise DataError(f"{path}: a table with a row of names, and {NO_TABLE}")
        try:
            values = None if record.values is None else dict(in_own_form(record.values, columns))
        except BadRow as error:
            row_id = (record.values or {}).get(columns.id or "id")
            known_id = row_id if isinstance(row_id, str) else None
            yield ValidatedRow(str(path), record.line, known_id, None, str(error), record.number)
        else:
            yield validate(record._replace(values=values), str(path), path.parent, images, path.name)


def location(source: ProblemSource, problem: Problem) -> tuple[str, int | None]:
    """The file and line that a problem came from, as far as its source knows."""
    table = getattr(source, "table", None)
    return table.location(problem.id) if table is not None and problem.id in table else (problem.source, None)


def split_by_hash(ids: Sequence[str], seed: int, shares: Shares) -> dict[str, list[str]]:
    """Ids by split. An id's split follows from its own hash, so no id changes its split when rows are added.

    A split that has a share but no row is given one from the largest split, which small files need (6 rows fill all 6
    splits); such a row may move back when rows are added.
    """
    share_of = shares.of_splits()

    # Each split is a stretch of [0, 1), as long as its share; an id belongs where its hash falls.
    ends = dict(zip(share_of, accumulate(share_of.values()), strict=True))
    largest = max(share_of, key=lambda name: share_of[name])  # where the sum falls short of 1 by rounding
    split_of = {}
    for i in ids:
        position = derive(seed, "split", i) / 2**63
        split_of[i] = next((name for name, end in ends.items() if position < end), largest)

    # A split that a small file left empty gets the row of the largest split whose own hash is least.
    for name in SPLITS:
        sizes = Counter(split_of.values())
        if share_of[name] <= 0 or sizes[name] or not sizes:
            continue
        donor, size = max(sizes.items(), key=lambda item: (item[1], item[0]))
        if size > 1:
            split_of[min((i for i in ids if split_of[i] == donor), key=lambda i: derive(seed, "fill", i))] = name
    return {name: _shuffled([i for i in ids if split_of[i] == name], seed) for name in SPLITS}


def _shuffled(ids: Sequence[str], seed: int) -> list[str]:
    return sorted(ids, key=lambda i: (derive(seed, "order", i), i))


def bad_rows_text(bad: Sequence[Mapping[str, object]], usable: int) -> str:
    """The error about rows that cannot be used: the first few by file and line, the others counted."""
    lines = [f"{bad[0]['file']}: {len(bad)} of {len(bad) + usable} rows cannot be used"]
    for row in bad[:NAMED]:
        record = f"record {row['record']}: " if "record" in row else ""
        lines.append(f"{row['file']}:{row['line']}: {record}{row['reason']}")
    if len(bad) > NAMED:
        lines.append(f"... and {len(bad) - NAMED} more")
    if usable:
        lines.append("data.on_bad_row=skip leaves such rows out and lists them")
    return "\n".join(lines)
