"""Write problems with right and wrong paths as files for ``data=jsonl``, ``sft.train`` and ``orm.train``.

A reader (``official``, ``preferences``) yields ``Exchange`` records, from the first record at each call. They are
written to a folder:

problems.jsonl     the problems (data=jsonl). The answer is that of the record, otherwise that of an accepted path, with
                   "answer_from": "path"
train.jsonl        accepted paths (sft.train)
orm_train.jsonl    all paths, right and wrong, as {"path", "verdict"} (orm.train)
orm_held.jsonl     the same of a tenth of the problems, without paths in orm_train.jsonl (orm.held)
images/            the pictures, named by their content
bad_rows.jsonl     records without a row: {"file", "line", "id", "reason"}
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol

from mathse.config.program import program
from mathse.data.json_records import BadRow, JsonRecord, kind
from mathse.data.readers.base import content_id, make_row
from mathse.data.row_validation import ImageChecks, path_inside, validate
from mathse.errors import DataError
from mathse.runs.published import publish
from mathse.runs.store import sha256_file, write_jsonl
from mathse.scoring.answers import choice_index, extract_answer
from mathse.seeds import derive
from mathse.types import Lineage, Origin, ReasoningPath, Verdict

HELD_OUT_EVERY = 10  # one problem in 10 measures the ORM
MEDIA_KEYS = ("media", "images", "image")  # keys of a record's pictures


class SourcePicture(NamedTuple):
    """A picture file: its path below ``root``, and its name by content in the written folder."""

    root: Path
    path: str
    name: str


class PictureFinder:
    """Finds the pictures of records. Each file is hashed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str], SourcePicture] = {}

    def find(self, ref: str, root: Path) -> SourcePicture:
        """Find the file of a picture below ``root``.

        An absolute path comes from another machine: its last parts are searched. Raises BadRow for a missing file.
        """
        if (known := self._known.get((root, ref))) is not None:
            return known
        parts = PurePosixPath(ref.removeprefix("./")).parts
        starts: Iterable[int] = range(1, len(parts)) if PurePosixPath(ref).is_absolute() else (0,)
        # The longest end of the path that is a file below the root.
        for start in starts:
            path = Path(path_inside("/".join(parts[start:]), root))
            if path.is_file():
                relative = path.relative_to(root.resolve()).as_posix()
                picture = SourcePicture(root, relative, sha256_file(path)[:24] + path.suffix.lower())
                return self._known.setdefault((root, ref), picture)
        raise BadRow(f"image {ref!r:.80}: not below {root}; copy it there, or pass its folder with --images DIR")


@dataclass(frozen=True)
class Exchange:
    """A record as read.

    Attributes:
        set: the prefix of its ids.
        kind: the kind of the record, which its paths have as their stage.
        accepted: text of a right path.
        wrong: text of a wrong path.
        analysis: the error analysis of the wrong path.
        revised: whether the right path is a revision of the wrong path.
    """

    file: Path
    line: int
    set: str
    kind: str
    question: str
    choices: tuple[str, ...]
    pictures: tuple[SourcePicture, ...]
    answer: str | None
    accepted: str | None
    wrong: str | None
    error_step: str | None = None
    analysis: str | None = None
    revised: bool = False

    @property
    def problem_id(self) -> str:
        """The id by question and pictures, so that the records of one problem share it."""
        return f"{self.set}/{content_id(self.question, [picture.name for picture in self.pictures])}"


class Exchanges(Protocol):
    """A reader of records. ``writer``: the writer of the paths, as in their lineage."""

    writer: str

    def entries(self, bad: list[dict[str, object]] | None = None) -> Iterator[Exchange]:
        """Yield all usable records, from the first at each call. Rows of bad_rows.jsonl are added to ``bad``."""
        ...


def make_bad_row(file: Path, line: int, name: str | None, reason: object) -> dict[str, object]:
    return {"file": str(file), "line": line, "id": name, "reason": str(reason)}


def read_optional_text(values: Mapping[str, Any], name: str) -> str | None:
    """Return the text of a key, or None if it is missing or empty. Raises BadRow for another type."""
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRow(f'"{name}" is text, got {kind(value)}; correct the record')
    return value if value and value.strip() else None


def read_picture_refs(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the paths of a record's pictures: one, several, or none. Raises BadRow for other values."""
    name = next((name for name in MEDIA_KEYS if values.get(name) not in (None, "")), MEDIA_KEYS[0])
    value = values.get(name) or []
    refs = value if isinstance(value, list) else [value]
    for ref in refs:
        if not isinstance(ref, str) or not ref.strip():
            raise BadRow(f'"{name}" is paths of pictures, got {kind(ref)}; correct the record')
    return tuple(refs)


def write_folder(exchanges: Exchanges, out: Path, marker: str) -> dict[str, int]:
    """Write the folder ``out`` in one piece. Returns the number of rows by file.

    The records are read several times, so that memory has only ids and answers. Raises DataError if no record makes a
    problem.
    """
    rows = _RowMaker(exchanges)
    counts: dict[str, int] = {}

    def fill(folder: Path) -> dict[str, Any]:
        counts["problems"] = write_jsonl(folder / "problems.jsonl", rows.make_problems(folder))
        # Without a problem there is nothing to train on: report the first bad record.
        if not rows.known:
            first = rows.bad[0] if rows.bad else {"file": out, "reason": "there are no rows"}
            raise DataError(f"{first['file']}: no record makes a problem: {first['reason']}")
        counts["train"] = write_jsonl(folder / "train.jsonl", rows.make_training_paths())
        for name, held in (("orm_train", False), ("orm_held", True)):
            counts[name] = write_jsonl(folder / f"{name}.jsonl", rows.make_labelled_paths(held))
        counts["bad_rows"] = write_jsonl(folder / "bad_rows.jsonl", rows.bad)
        return dict(counts)

    publish(out, marker, fill)
    return counts


Convert = Callable[[Sequence[Path], Path, Path | None], dict[str, int]]


def run_command(argv: Sequence[str], name: str, files: str, description: str, convert: Convert) -> int:
    """Run ``convert-data NAME FILE ... --out DIR``: convert, print the counts and the commands that train on them."""
    parser = argparse.ArgumentParser(prog=program(f"convert-data {name}"), description=description)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=files)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="the folder of the pictures' paths (default: that of each file)"
    )
    arguments = parser.parse_args(argv)
    out: Path = arguments.out
    counts = convert(arguments.files, out, arguments.images)
    print(f"{out}: {', '.join(f'{rows:,} {file}' for file, rows in counts.items())}")
    data = f"data=jsonl data.path={out}/problems.jsonl"
    print(f"python train.py task=sft {data} sft.train={out}/train.jsonl data.test_path=FILE")
    print(f"python train.py task=orm {data} orm.train={out}/orm_train.jsonl orm.held={out}/orm_held.jsonl")
    print("without data.test_path the test split is a share of these problems, and train.jsonl has paths for them")
    return 0


class _RowMaker:
    """Makes the rows of all files.

    Attributes:
        known: ids of the written problems.
        bad: records without a problem, and therefore without a path.
    """

    def __init__(self, exchanges: Exchanges) -> None:
        self.exchanges, self.writer = exchanges, exchanges.writer
        self.known: set[str] = set()
        self.bad: list[dict[str, object]] = []
        self.images = ImageChecks()

    def make_problems(self, folder: Path) -> Iterator[dict[str, Any]]:
        """Yield one row per problem, and copy its pictures below ``folder``."""
        # By problem: the answer in a record, and the answer of the first accepted path.
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
                row = _make_row(entry, stated.get(name, reached.get(name)))
                self._check(row, entry)
            except BadRow as error:
                self.bad.append(make_bad_row(entry.file, entry.line, name, error))
                continue
            self.known.add(name)
            pictures = [_copy_picture(picture, folder) for picture in entry.pictures]
            yield row | {"images": pictures} | ({} if name in stated else {"answer_from": "path"})

    def make_training_paths(self) -> Iterator[ReasoningPath]:
        """Yield the accepted paths of known problems."""
        for entry, number in self._number_exchanges():
            if entry.accepted is not None:
                yield self._path(entry, number)

    def make_labelled_paths(self, held: bool) -> Iterator[dict[str, Any]]:
        """Yield the paths of the ``held`` problems, or of the others, each with its verdict."""
        for entry, number in self._number_exchanges():
            # A hash of the problem's id decides, so all paths of a problem are on the same side.
            if (derive(0, "held", entry.problem_id) % HELD_OUT_EVERY == 0) is not held:
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
        """Return the accepted path of an exchange."""
        origin: Origin = "reflection" if entry.revised else "student"
        parent = _draft_id(entry, number) if entry.revised and entry.wrong is not None else None
        lineage = Lineage(origin, entry.kind, self.writer, parent=parent)
        return ReasoningPath(
            f"{entry.kind}/{entry.problem_id}/{number}", entry.problem_id, str(entry.accepted), lineage
        )

    def _number_exchanges(self) -> Iterator[tuple[Exchange, int]]:
        """Yield the exchanges of known problems, each with its number within its kind and problem."""
        seen: Counter[tuple[str, str]] = Counter()
        for entry in self.exchanges.entries():
            if entry.problem_id in self.known:
                key = (entry.kind, entry.problem_id)
                yield entry, seen[key]
                seen[key] += 1

    def _check(self, row: dict[str, Any], entry: Exchange) -> None:
        """Raise BadRow for a row that ``data=jsonl`` would refuse, before a picture is copied."""
        root = entry.pictures[0].root if entry.pictures else entry.file.parent
        values = row | {"images": [picture.path for picture in entry.pictures]}
        row_read = validate(JsonRecord(entry.line, values), str(entry.file), root, self.images, entry.file.name)
        if row_read.problem is None:
            raise BadRow(row_read.reason)


def _make_row(entry: Exchange, answer: str | None) -> dict[str, Any]:
    """Return the row of a problem. Raises BadRow without an answer."""
    if answer is None:
        raise BadRow('no reference answer: no "answer", and no accepted path of this problem; add an "answer"')
    question, choices = entry.question, entry.choices
    if choices and choice_index(answer, choices) is None:
        listed = "\n".join(f"({chr(ord('A') + k)}) {choice}" for k, choice in enumerate(choices))
        # The answer is none of the choices, so their list becomes part of the question.
        question, choices = f"{question}\n{listed}", ()
    return make_row(entry.set, None, question, answer, choices=choices) | {"id": entry.problem_id}


def _copy_picture(picture: SourcePicture, folder: Path) -> str:
    target = folder / "images" / picture.name[:2] / picture.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture.root / picture.path, target)
    return target.relative_to(folder).as_posix()


def _draft_id(entry: Exchange, number: int) -> str:
    return f"{entry.kind}/draft/{entry.problem_id}/{number}"
