"""Own problems from a JSONL file (``data=jsonl data.path=FILE``), checked row by row before any weight is loaded.

    {"id": "geo/12", "question": "Find x.", "images": ["images/12.png"], "answer": "B",
     "choices": ["12", "13", "14", "15"], "solution": "Step 1: ..."}

"choices" and "solution" are optional, "images" may be []; other keys are kept in ``Problem.metadata``. The setting
``data.columns`` maps other key names to these. Image paths are relative to the file's folder and stay inside it.
``Problem.images`` holds absolute paths, so that they open from any working directory. No record of a run stores them,
so runs do not differ between machines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

from mathse.config.data import JsonlColumnsConfig, JsonlDataConfig, SplitConfig
from mathse.config.rules.data import NO_TABLE
from mathse.data.json_records import BadRow, begins_as_table, read_lines
from mathse.data.problem_table import ProblemTable
from mathse.data.readers.base import content_id
from mathse.data.row_validation import (
    FIELDS,
    REQUIRED,
    ImageChecks,
    ValidatedRow,
    check_names,
    missing_keys,
    validate,
)
from mathse.errors import ConfigError, DataError
from mathse.runs.rows import Chained
from mathse.seeds import derive
from mathse.types import Problem, Verdict

SPLITS = ("seed", "test", "pool", "orm_train", "orm_held", "dev")
REPEATS = "repeats the row at"  # beginning of the reason for leaving out a repeated row
OUR_KEYS = JsonlColumnsConfig()
MAX_NAMED_ROWS = 5  # bad rows named in an error; the others are counted


class ProblemSource(Protocol):
    """A source of problems.

    ``splits``: disjoint lists: "seed" (the part of D that the teacher solves), "pool" (the rest of D), "test", "dev",
    "orm_train" and "orm_held". ``distillable``: the problems that task=distill solves. ``get``: a problem by id; raises
    DataError for an unknown id. ``check``: the verdict of a step checker, None without a checker. ``bad_rows``: rows
    left out, each {"file", "line", "id", "reason"}. ``notes``: sentences for the readers of the figures.
    """

    notes: Sequence[str]
    bad_rows: list[dict[str, object]]

    def splits(self) -> Mapping[str, Sequence[Problem]]: ...

    def distillable(self) -> Sequence[Problem]: ...

    def get(self, problem_id: str) -> Problem: ...

    def check(self, problem: Problem, text: str) -> Verdict | None: ...


@dataclass(frozen=True)
class Shares:
    """Shares of a file's rows, all in [0, 1]. ``seed`` is a share of the rows beyond test, dev and ORM."""

    test: float
    dev: float
    orm: float
    seed: float

    def of_splits(self) -> dict[str, float]:
        """Compute the share of each split; the shares sum to 1."""
        rest = max(0.0, round(1.0 - self.test - self.dev - self.orm, 9))
        held = 0.25  # share of the ORM's problems that measure it
        return {
            "test": self.test,
            "dev": self.dev,
            "orm_train": self.orm * (1 - held),
            "orm_held": self.orm * held,
            "seed": rest * self.seed,
            "pool": rest * (1 - self.seed),
        }


def to_distill(splits: Mapping[str, Sequence[Problem]], size: int | None) -> Sequence[Problem]:
    """Select the subset of D that the teacher solves (Alg. 1 line 1): the seed set, or its first ``size`` problems.

    A size beyond the seed set adds problems of the pool.
    """
    seed = splits["seed"]
    return seed[:size] if size is None or size <= len(seed) else Chained(seed, splits["pool"])[:size]


class FileData:
    """Base of the sources that read files: a table of problems, their splits, and the rows left out.

    A subclass fills the table with ``_take`` and then calls ``_refuse_bad_rows``. ``images.decoded`` holds the images
    that were decoded without an error; a run decodes the others in its first stage.
    """

    def __init__(self, name: str, settings: SplitConfig) -> None:
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
        self.lists_repeats = False  # whether an exact repetition of a row is listed without being an error
        self.table = ProblemTable()
        self.images = ImageChecks()
        self.train_ids: list[str] = []
        self.test_ids: list[str] = []  # ids of a separate test file

    def splits(self) -> Mapping[str, Sequence[Problem]]:
        """Give each split's problems in a random but fixed order, so that a prefix is a fair sample."""
        split = split_by_hash(self.train_ids, self.seed, self.shares)
        if self.test_ids:
            split["test"] = _shuffle(self.test_ids, self.seed)
        return {name: self.table.select(split[name]) for name in SPLITS}

    def distillable(self) -> Sequence[Problem]:
        """Give the problems that task=distill solves: every row outside a test file, in the files' order."""
        return self.table.select(self.train_ids)

    def get(self, problem_id: str) -> Problem:
        """Give a problem by id. Raises DataError for a row that was left out, and for an unknown id."""
        if (problem := self.table.get(problem_id)) is not None:
            return problem
        if (bad := next((row for row in self.bad_rows if row["id"] == problem_id), None)) is not None:
            raise DataError(f"{bad['file']}:{bad['line']}: problem {problem_id!r:.80} was left out: {bad['reason']}")
        near = get_close_matches(problem_id, self.table.ids(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{self.name}: no problem {problem_id!r:.80} among {len(self.table)}{hint}")

    def check(self, problem: Problem, text: str) -> Verdict | None:
        """Return None, because files bring no step checker."""
        return None

    def _take(self, rows: Iterable[ValidatedRow], name: str, test: bool = False) -> None:
        """Add the problems of ``rows``, with ``test`` only to the test split; list the rows that make none.

        Raises NoProblems if no row makes a problem.
        """
        before, taken = len(self.bad_rows), self.test_ids if test else self.train_ids
        for row in rows:
            # Ids are unique over all files of a source.
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

    def _refuse_bad_rows(self) -> None:
        """Raise DataError if a row cannot be used, unless on_bad_row=skip."""
        unusable = [row for row in self.bad_rows if not str(row["reason"]).startswith(REPEATS)]
        if unusable and self.on_bad_row == "error":
            raise DataError(bad_rows_text(unusable, len(self.table)))


class NoProblems(DataError):
    """A file without a usable row; ``bad_rows`` lists its rows."""

    def __init__(self, text: str, bad_rows: Sequence[dict[str, object]]) -> None:
        super().__init__(text)
        self.bad_rows = list(bad_rows)


class JsonlData(FileData):
    """Problems of a JSONL file (``.gz`` too), split by a hash of (seed, id), so that added rows move no other row.

    ``test_path``: a separate file for the test split, in place of ``test_share``. ``on_bad_row``: "error" refuses the
    file, "skip" leaves bad rows out and lists them in ``bad_rows``. Raises DataError for a file that cannot be used,
    ConfigError for shares with a sum above 1.
    """

    def __init__(self, settings: JsonlDataConfig) -> None:
        path, test_path = settings.path, settings.test_path
        if path is None:
            raise ConfigError("data.path is not set; give the JSONL file of your problems: data.path=FILE")
        if test_path:
            settings = replace(settings, test_share=0.0)
        super().__init__(" and ".join(filter(None, (path, test_path))), settings)
        self._take(read_rows(Path(path), self.images, settings.columns), path)
        # Ids are unique over both files, so no test problem is a training problem.
        if test_path:
            self._take(read_rows(Path(test_path), self.images, settings.columns), test_path, test=True)
        self._refuse_bad_rows()


def read_rows(path: Path, images: ImageChecks, columns: JsonlColumnsConfig = OUR_KEYS) -> Iterator[ValidatedRow]:
    """Validate every non-blank line of a JSONL or .jsonl.gz file. Raises DataError if the file cannot be read."""
    for record in read_lines(path):
        if record.line == 1 and record.values is None and begins_as_table(path):
            raise DataError(f"{path}: a table with a row of names, and {NO_TABLE}")
        try:
            values = None if record.values is None else rename_keys(record.values, columns)
        except BadRow as error:
            row_id = (record.values or {}).get(columns.id or "id")
            known_id = row_id if isinstance(row_id, str) else None
            yield ValidatedRow(str(path), record.line, known_id, None, str(error), record.number)
        else:
            yield validate(record._replace(values=values), str(path), path.parent, images, path.name)


def rename_keys(values: Mapping[str, Any], columns: JsonlColumnsConfig) -> dict[str, Any]:
    """Rename the keys of a row to ours (``data.columns.answer=label``); its other keys become metadata.

    A setting of ``columns`` means that the file was not made for us. Then a row without ``id`` gets a hash of its
    question and pictures, a row without ``images`` has none, a single path counts as a list, and a number as an answer.
    Raises BadRow with all missing keys.
    """
    named = {field: column for field, column in asdict(columns).items() if column is not None}
    if named:
        row = {key: value for key, value in values.items() if key not in (*named, *named.values())}
        row |= {field: values[column] for field, column in named.items() if column in values}
        for field in ("id", "answer"):
            if isinstance(row.get(field), (int, float)) and not isinstance(row[field], bool):
                row[field] = str(row[field])
        pictures = row.get("images", [])
        if pictures is None:
            pictures = []
        row["images"] = [pictures] if isinstance(pictures, str) else pictures
        if "id" not in row and isinstance(row.get("question"), str) and isinstance(row["images"], list):
            row["id"] = content_id(row["question"], [str(picture) for picture in row["images"]])
    else:
        row = dict(values)
    check_names(row, FIELDS)
    if (missing := missing_keys(row)) is not None:
        keys = ", ".join(list(values)[:12]) or "no key"  # the first twelve keys
        remedy = " ".join(f"data.columns.{name}=KEY" for name in REQUIRED if name not in row)
        raise BadRow(f"{missing}; this one has {keys}; {remedy} takes other keys")
    return row


def location(source: ProblemSource, problem: Problem) -> tuple[str, int | None]:
    """Find the file and line of a problem, as far as its source knows."""
    table = getattr(source, "table", None)
    return table.location(problem.id) if table is not None and problem.id in table else (problem.source, None)


def split_by_hash(ids: Sequence[str], seed: int, shares: Shares) -> dict[str, list[str]]:
    """Divide ids into splits. An id's split depends on its own hash, so no id changes its split when rows are added.

    An empty split with a share gets a row of the largest split, so that 6 rows fill all 6 splits. Such a row may move
    back when rows are added.
    """
    share_of = shares.of_splits()

    # Each split is an interval of [0, 1) as long as its share; the hash of an id falls into its split's interval.
    ends = dict(zip(share_of, accumulate(share_of.values()), strict=True))
    largest = max(share_of, key=lambda name: share_of[name])  # for a hash beyond the last end, which rounding may leave
    split_of = {}
    for i in ids:
        position = derive(seed, "split", i) / 2**63
        split_of[i] = next((name for name, end in ends.items() if position < end), largest)

    # An empty split takes the row with the least hash from the largest split.
    for name in SPLITS:
        sizes = Counter(split_of.values())
        if share_of[name] <= 0 or sizes[name] or not sizes:
            continue
        donor, size = max(sizes.items(), key=lambda item: (item[1], item[0]))
        if size > 1:
            donated = min((i for i in ids if split_of[i] == donor), key=lambda i: derive(seed, "fill", i))
            split_of[donated] = name
    return {name: _shuffle([i for i in ids if split_of[i] == name], seed) for name in SPLITS}


def _shuffle(ids: Sequence[str], seed: int) -> list[str]:
    """Sort ids by a hash of (seed, id)."""
    return sorted(ids, key=lambda i: (derive(seed, "order", i), i))


def bad_rows_text(bad: Sequence[Mapping[str, object]], usable: int) -> str:
    """Write the error about bad rows: the first few by file and line, and the number of the others."""
    lines = [f"{bad[0]['file']}: {len(bad)} of {len(bad) + usable} rows cannot be used"]
    for row in bad[:MAX_NAMED_ROWS]:
        record = f"record {row['record']}: " if "record" in row else ""
        lines.append(f"{row['file']}:{row['line']}: {record}{row['reason']}")
    if len(bad) > MAX_NAMED_ROWS:
        lines.append(f"... and {len(bad) - MAX_NAMED_ROWS} more")
    if usable:
        lines.append("data.on_bad_row=skip leaves such rows out and lists them")
    return "\n".join(lines)
