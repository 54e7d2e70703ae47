"""Problems with right and wrong paths, from whatever files -> problems, training rows and labelled paths of our own.

A reader (``official_records``, ``preferences``) gives ``Exchange``s, as often as it is asked; they become a folder:

problems.jsonl     the problems (data=jsonl). The answer is the record's own; else the one that an accepted path comes
                   to, and then "answer_from": "path" stands beside it
train.jsonl        accepted paths (sft.train)
orm_train.jsonl    all paths, right and wrong, as {"path", "verdict"} (orm.train)
orm_held.jsonl     the same of a tenth of the problems, which orm_train.jsonl has no paths of (orm.held)
images/            the pictures, by content
bad_rows.jsonl     records that make no row: {"file", "line", "id", "reason"}
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from mathse.config.program import format_command
from mathse.data.json_records import BadRow, JsonRecord
from mathse.data.readers.base import content_id, make_row
from mathse.data.row_validation import ImageChecks, path_inside, validate
from mathse.errors import DataError
from mathse.runs.published import publish
from mathse.runs.store import sha256_file, write_jsonl
from mathse.scoring.answers import choice_index, extract_answer
from mathse.seeds import derive
from mathse.types import Lineage, Origin, ReasoningPath, Verdict

HELD = 10  # one problem in so many is for measuring an ORM


class Picture(NamedTuple):
    """A file below the root: its path there, and the name that its content gives it."""

    root: Path
    path: str
    name: str


class Pictures:
    """Finds the pictures that records name, each looked at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str], Picture] = {}

    def find(self, ref: str, root: Path) -> Picture:
        """The file of a picture. Of an absolute path, which is another machine's, the end is looked for.

        Raises BadRow where it is nowhere below the root.
        """
        if (known := self._known.get((root, ref))) is not None:
            return known
        parts = PurePosixPath(ref.removeprefix("./")).parts
        starts: Iterable[int] = range(1, len(parts)) if PurePosixPath(ref).is_absolute() else (0,)
        for start in starts:
            path = Path(path_inside("/".join(parts[start:]), root))
            if path.is_file():
                relative = path.relative_to(root.resolve()).as_posix()
                picture = Picture(root, relative, sha256_file(path)[:24] + path.suffix.lower())
                return self._known.setdefault((root, ref), picture)
        raise BadRow(f"image {ref!r:.80}: not below {root}; copy it there, or say where it is with --images DIR")


@dataclass(frozen=True)
class Exchange:
    """A record as read. ``accepted`` and ``wrong`` are texts of paths, ``analysis`` says why the second is wrong;
    ``revised``: the first is a revision of the second."""

    file: Path
    line: int
    set: str  # what ids begin with
    kind: str
    question: str
    choices: tuple[str, ...]
    pictures: tuple[Picture, ...]
    answer: str | None
    accepted: str | None
    wrong: str | None
    error_step: str | None = None
    analysis: str | None = None
    revised: bool = False

    @property
    def problem_id(self) -> str:
        """By what is asked about which pictures, so that the records of one problem find each other."""
        return f"{self.set}/{content_id(self.question, [picture.name for picture in self.pictures])}"


class Exchanges(Protocol):
    """``writer``: who wrote the paths, as a lineage says it."""

    writer: str

    def entries(self, bad: list[dict[str, object]] | None = None) -> Iterator[Exchange]:
        """All records that say something, from the first on at each call; the others are added to ``bad``, a row of
        bad_rows.jsonl each."""
        ...


def bad_row(file: Path, line: int, name: str | None, reason: object) -> dict[str, object]:
    return {"file": str(file), "line": line, "id": name, "reason": str(reason)}


def write(exchanges: Exchanges, out: Path, marker: str) -> dict[str, int]:
    """Write ``out`` whole; how many rows each of its files holds.

    The records are read several times, so that only ids and answers are held in memory. Raises DataError where no
    record makes a problem.
    """
    writing = _Writing(exchanges)
    counts: dict[str, int] = {}

    def fill(folder: Path) -> dict[str, Any]:
        counts["problems"] = write_jsonl(folder / "problems.jsonl", writing.problems(folder))
        if not writing.known:
            first = writing.bad[0] if writing.bad else {"file": out, "reason": "there are no rows"}
            raise DataError(f"{first['file']}: no record makes a problem: {first['reason']}")
        counts["train"] = write_jsonl(folder / "train.jsonl", writing.accepted())
        for name, held in (("orm_train", False), ("orm_held", True)):
            counts[name] = write_jsonl(folder / f"{name}.jsonl", writing.labelled(held))
        counts["bad_rows"] = write_jsonl(folder / "bad_rows.jsonl", writing.bad)
        return dict(counts)

    publish(out, marker, fill)
    return counts


Convert = Callable[[Sequence[Path], Path, Path | None], dict[str, int]]


def command_line(argv: Sequence[str], verb: str, files: str, description: str, convert: Convert) -> int:
    """``convert-data VERB FILE ... --out DIR``: converts, prints what was written and the commands that train on it."""
    parser = argparse.ArgumentParser(prog=format_command(f"convert-data {verb}"), description=description)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=files)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where paths of pictures start (default: each file's)"
    )
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    counts = convert(arguments.files, out, arguments.images)
    print(f"{out}: {', '.join(f'{rows:,} {name}' for name, rows in counts.items())}")
    data = f"data=jsonl data.path={out}/problems.jsonl"
    print(f"python train.py task=sft {data} sft.train={out}/train.jsonl data.test_path=FILE")
    print(f"python train.py task=orm {data} orm.train={out}/orm_train.jsonl orm.held={out}/orm_held.jsonl")
    print("without data.test_path the test split is a share of these problems, which train.jsonl has paths for")
    return 0


class _Writing:
    """``known``: ids of the problems written; ``bad``: records that make none, and so no path either."""

    def __init__(self, exchanges: Exchanges) -> None:
        self.exchanges, self.writer = exchanges, exchanges.writer
        self.known: set[str] = set()
        self.bad: list[dict[str, object]] = []
        self.images = ImageChecks()

    def problems(self, folder: Path) -> Iterator[dict[str, Any]]:
        """A row a problem, the pictures of which are copied below ``folder``."""
        # By problem: the answer that a record gives, and the one that the first accepted path comes to.
        stated: dict[str, str] = {}
        reached: dict[str, str] = {}
        for entry in self.exchanges.entries():
            if entry.answer:
                stated.setdefault(entry.problem_id, entry.answer)
            elif entry.accepted and (answer := extract_answer(entry.accepted)):
                reached.setdefault(entry.problem_id, answer)
        for entry in self.exchanges.entries(self.bad):
            name = entry.problem_id
            if name in self.known:
                continue
            try:
                row = _row(entry, stated.get(name, reached.get(name)))
                self._check(row, entry)
            except BadRow as error:
                self.bad.append(bad_row(entry.file, entry.line, name, error))
                continue
            self.known.add(name)
            pictures = [_copied(picture, folder) for picture in entry.pictures]
            yield row | {"images": pictures} | ({} if name in stated else {"answer_from": "path"})

    def accepted(self) -> Iterator[ReasoningPath]:
        for entry, number in self._numbered():
            if entry.accepted is not None:
                yield self._path(entry, number)

    def labelled(self, held: bool) -> Iterator[dict[str, Any]]:
        """Paths of the ``held`` problems or of the others, each with its verdict."""
        for entry, number in self._numbered():
            if (derive(0, "held", entry.problem_id) % HELD == 0) is not held:
                continue
            if entry.accepted is not None:
                path = self._path(entry, number)
                yield {"path": path, "verdict": Verdict(path.id, "correct", judge=self.writer)}
            if entry.wrong is not None:
                path = ReasoningPath(
                    _draft_id(entry, number), entry.problem_id, entry.wrong, Lineage("student", entry.kind, self.writer)
                )
                verdict = Verdict(path.id, "wrong", entry.error_step, entry.analysis, judge=self.writer)
                yield {"path": path, "verdict": verdict}

    def _path(self, entry: Exchange, number: int) -> ReasoningPath:
        """The accepted path."""
        origin: Origin = "reflection" if entry.revised else "student"
        parent = _draft_id(entry, number) if entry.revised and entry.wrong is not None else None
        lineage = Lineage(origin, entry.kind, self.writer, parent=parent)
        return ReasoningPath(
            f"{entry.kind}/{entry.problem_id}/{number}", entry.problem_id, str(entry.accepted), lineage
        )

    def _numbered(self) -> Iterator[tuple[Exchange, int]]:
        """Entries of known problems, each with its number among those of its kind and problem."""
        seen: Counter[tuple[str, str]] = Counter()
        for entry in self.exchanges.entries():
            if entry.problem_id in self.known:
                key = (entry.kind, entry.problem_id)
                yield entry, seen[key]
                seen[key] += 1

    def _check(self, row: dict[str, Any], entry: Exchange) -> None:
        """Raises BadRow for what ``data=jsonl`` would not take, before a picture is copied."""
        root = entry.pictures[0].root if entry.pictures else entry.file.parent
        values = row | {"images": [picture.path for picture in entry.pictures]}
        row_read = validate(JsonRecord(entry.line, values), str(entry.file), root, self.images, entry.file.name)
        if row_read.problem is None:
            raise BadRow(row_read.reason)


def _row(entry: Exchange, answer: str | None) -> dict[str, Any]:
    """Raises BadRow without an answer."""
    if answer is None:
        raise BadRow('no reference answer: no "answer", and no accepted path of this problem; add an "answer"')
    question, choices = entry.question, entry.choices
    if choices and choice_index(answer, choices) is None:
        listed = "\n".join(f"({chr(ord('A') + k)}) {choice}" for k, choice in enumerate(choices))
        question, choices = f"{question}\n{listed}", ()  # an answer of another form: the list is text
    return make_row(entry.set, None, question, answer, choices=choices) | {"id": entry.problem_id}


def _copied(picture: Picture, folder: Path) -> str:
    target = folder / "images" / picture.name[:2] / picture.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture.root / picture.path, target)
    return target.relative_to(folder).as_posix()


def _draft_id(entry: Exchange, number: int) -> str:
    return f"{entry.kind}/draft/{entry.problem_id}/{number}"
