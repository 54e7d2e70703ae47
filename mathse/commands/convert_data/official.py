"""The files that the authors' README names -> problems and paths in our own forms.

    mathse convert-data official sft_chosen.jsonl hard_problems.jsonl reflection_sft.jsonl --out DIR
    python train.py task=sft data=jsonl data.path=DIR/problems.jsonl sft.train=DIR/train.jsonl data.test_path=FILE
    python train.py task=orm data=jsonl data.path=DIR/problems.jsonl orm.train=DIR/orm_train.jsonl \\
        orm.held=DIR/orm_held.jsonl

Source    README of the authors' repository, https://arxiv.org/abs/2511.06805; it holds no code and no example file
Licence   that of your files
Records   mathse/commands/convert_data/official_records.py

DIR/problems.jsonl     the problems (data=jsonl). The answer is the record's own; else the one that an accepted path
                       comes to, and then "answer_from": "path" stands beside it
DIR/train.jsonl        accepted paths: sft_chosen's, and the outputs of reflection_sft with their draft as parent
DIR/orm_train.jsonl    all paths, right and wrong, as {"path", "verdict"}; wrong are sft_rejected's, hard_problems' and
                       the drafts of reflection_sft
DIR/orm_held.jsonl     the same of a tenth of the problems, which orm_train.jsonl has no paths of
DIR/images/            the pictures, by content
DIR/bad_rows.jsonl     records that make no row: {"file", "line", "id", "reason"}
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mathse.commands.convert_data.official_records import KINDS, Exchange, Files, Picture, bad_row
from mathse.config.program import program
from mathse.data.json_records import BadRow, JsonRecord
from mathse.data.readers.base import tagged
from mathse.data.row_validation import ImageChecks, validate
from mathse.errors import DataError
from mathse.runs.published import publish
from mathse.runs.store import write_jsonl
from mathse.scoring.answers import choice_index, extract_answer
from mathse.seeds import derive
from mathse.types import Lineage, Origin, ReasoningPath, Verdict

MARKER = "official.json"
WRITER = "the authors' pipeline"
HELD = 10  # one problem in so many is for measuring an ORM


def main(argv: Sequence[str]) -> int:
    """``convert-data official``: prints what was written; a DataError for files or a folder that cannot be used."""
    parser = argparse.ArgumentParser(
        prog=program("convert-data official"),
        description="The authors' files -> data=jsonl, sft.train, orm.train",
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=f"{', '.join(KINDS)}: .jsonl, .jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where paths of pictures start (default: each file's)"
    )
    arguments = parser.parse_args(argv)
    counts = convert(arguments.files, arguments.out, arguments.images)
    print(f"{arguments.out}: {', '.join(f'{rows:,} {name}' for name, rows in counts.items())}")
    out = arguments.out
    data = f"data=jsonl data.path={out}/problems.jsonl"
    print(f"python train.py task=sft {data} sft.train={out}/train.jsonl data.test_path=FILE")
    print(f"python train.py task=orm {data} orm.train={out}/orm_train.jsonl orm.held={out}/orm_held.jsonl")
    print("without data.test_path the test split is a share of these problems, which train.jsonl has paths for")
    return 0


def convert(files: Sequence[Path], out: Path, images: Path | None = None) -> dict[str, int]:
    """Write ``out`` whole; how many rows each of its files holds.

    The files are read several times, so that only ids and answers are held in memory. Raises DataError for a file of
    another name, one that cannot be read, or where no record makes a problem.
    """
    writing = _Writing(Files(files, images))
    counts: dict[str, int] = {}

    def fill(folder: Path) -> dict[str, Any]:
        counts["problems"] = write_jsonl(folder / "problems.jsonl", writing.problems(folder))
        if not writing.known:
            reason = writing.bad[0]["reason"] if writing.bad else "there are no rows"
            raise DataError(f"{files[0]}: no record makes a problem: {reason}")
        counts["train"] = write_jsonl(folder / "train.jsonl", writing.accepted())
        for name, held in (("orm_train", False), ("orm_held", True)):
            counts[name] = write_jsonl(folder / f"{name}.jsonl", writing.labelled(held))
        counts["bad_rows"] = write_jsonl(folder / "bad_rows.jsonl", writing.bad)
        return dict(counts)

    publish(out, MARKER, fill)
    return counts


class _Writing:
    """``known``: ids of the problems written; ``bad``: records that make none, and so no path either."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.known: set[str] = set()
        self.bad: list[dict[str, object]] = []
        self.images = ImageChecks()

    def problems(self, folder: Path) -> Iterator[dict[str, Any]]:
        """A row a problem, the pictures of which are copied below ``folder``."""
        # By problem: the answer that a record gives, and the one that the first accepted path comes to.
        stated: dict[str, str] = {}
        reached: dict[str, str] = {}
        for entry in self.files.entries():
            if entry.answer:
                stated.setdefault(entry.problem_id, entry.answer)
            elif entry.accepted and (answer := extract_answer(entry.accepted)):
                reached.setdefault(entry.problem_id, answer)
        for entry in self.files.entries(self.bad):
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
                yield _accepted(entry, number)

    def labelled(self, held: bool) -> Iterator[dict[str, Any]]:
        """Paths of the ``held`` problems or of the others, each with its verdict."""
        for entry, number in self._numbered():
            if (derive(0, "held", entry.problem_id) % HELD == 0) is not held:
                continue
            if entry.accepted is not None:
                path = _accepted(entry, number)
                yield {"path": path, "verdict": Verdict(path.id, "correct", judge=WRITER)}
            if entry.wrong is not None:
                path = ReasoningPath(
                    _draft_id(entry, number), entry.problem_id, entry.wrong, Lineage("student", entry.kind, WRITER)
                )
                verdict = Verdict(path.id, "wrong", entry.error_step, entry.analysis, judge=WRITER)
                yield {"path": path, "verdict": verdict}

    def _numbered(self) -> Iterator[tuple[Exchange, int]]:
        """Entries of known problems, each with its number among those of its kind and problem."""
        seen: Counter[tuple[str, str]] = Counter()
        for entry in self.files.entries():
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
    return tagged("official", None, question, answer, choices=choices) | {"id": entry.problem_id}


def _copied(picture: Picture, folder: Path) -> str:
    target = folder / "images" / picture.name[:2] / picture.name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture.root / picture.path, target)
    return target.relative_to(folder).as_posix()


def _accepted(entry: Exchange, number: int) -> ReasoningPath:
    origin: Origin = "reflection" if entry.kind == "reflection_sft" else "student"
    parent = _draft_id(entry, number) if entry.wrong is not None else None
    lineage = Lineage(origin, entry.kind, WRITER, parent=parent)
    return ReasoningPath(f"{entry.kind}/{entry.problem_id}/{number}", entry.problem_id, str(entry.accepted), lineage)


def _draft_id(entry: Exchange, number: int) -> str:
    return f"{entry.kind}/draft/{entry.problem_id}/{number}"
