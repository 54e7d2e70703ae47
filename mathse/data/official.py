"""The files that the authors' README names -> problems and paths in our own forms.

    python -m mathse convert-data official sft_chosen.jsonl hard_problems.jsonl reflection_sft.jsonl --out DIR
    python train.py task=sft data=jsonl data.path=DIR/problems.jsonl sft.train=DIR/train.jsonl data.test_path=FILE

Source    README of the authors' repository, https://arxiv.org/abs/2511.06805; it holds no code and no example file
Licence   that of your files
Records   sft_chosen       {"prompt": "<image>Find x.", "media": ["images/1.png"], "reasoning": "Step 1: ..."}
          sft_rejected     the same, wrong; "error_step" and "error_analysis" where they are there
          hard_problems    as sft_rejected; "answer" where there is one
          reflection_sft   {"instruction": "Find x.", "input": "", "draft": "...", "reflection": "...",
                            "output": "Step 1: ..."}, "media" where there are pictures
The README names the keys of reflection_sft and says (prompt, input media, reasoning) of sft_chosen; the rest is ours,
and so are the records that this is tested against. A file is known by the beginning of its name.

DIR/problems.jsonl     the problems (data=jsonl). The answer is the record's own; else the one that an accepted path
                       comes to, and then "answer_from": "path" stands beside it
DIR/train.jsonl        accepted paths: sft_chosen's, and the outputs of reflection_sft with their draft as parent
DIR/incorrect.jsonl    wrong paths {"path", "verdict"}: sft_rejected's, hard_problems', and drafts
DIR/images/            the pictures, by content
DIR/bad_rows.jsonl     records that make no row: {"file", "line", "id", "reason"}
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mathse.answers import choice_index, extract_answer
from mathse.data.readers.base import content_id, tagged, text_of
from mathse.data.readers.llava import question_of
from mathse.data.records import BadRow, Record, kind, read_lines
from mathse.data.rows import Images, checked, inside
from mathse.errors import DataError
from mathse.published import publish
from mathse.store import write_jsonl
from mathse.types import Lineage, ReasoningPath, Verdict

MARKER = "official.json"
KINDS = ("sft_chosen", "sft_rejected", "hard_problems", "reflection_sft")
MEDIA = ("media", "images", "image")
WRITER = "the authors' pipeline"


@dataclass(frozen=True)
class Entry:
    """A record as read. ``accepted`` and ``wrong`` are texts of paths; ``analysis`` is what was said of the wrong."""

    file: Path
    line: int
    kind: str
    question: str
    choices: tuple[str, ...]
    refs: tuple[str, ...]  # pictures, as the record names them
    answer: str | None
    accepted: str | None
    wrong: str | None
    error_step: str | None = None
    analysis: str | None = None

    @property
    def problem_id(self) -> str:
        return f"official/{content_id(self.question, self.refs)}"


def main(argv: Sequence[str]) -> int:
    """``convert-data official``: prints what was written; a DataError for files or a folder that cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m mathse convert-data official", description="The authors' files -> data=jsonl and sft.train"
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help=f"{', '.join(KINDS)}: .jsonl, .jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where paths of pictures start (default: each file's)"
    )
    asked = parser.parse_args(argv)
    counts = convert(asked.files, asked.out, asked.images)
    print(f"{asked.out}: {', '.join(f'{rows:,} {name}' for name, rows in counts.items())}")
    data = f"data=jsonl data.path={asked.out}/problems.jsonl"
    print(f"python train.py task=sft {data} sft.train={asked.out}/train.jsonl data.test_path=FILE")
    print("without data.test_path the test split is a share of these problems, which train.jsonl has paths for")
    return 0


def convert(files: Sequence[Path], out: Path, images: Path | None = None) -> dict[str, int]:
    """Write ``out`` whole; how many problems, train and incorrect paths and bad rows it holds.

    The files are read several times, so that only ids and answers are held in memory. Raises DataError for a file of
    another name, one that cannot be read, or where no record makes a problem.
    """
    for file in files:
        _kind_of(file)
    counts: dict[str, int] = {}

    def fill(folder: Path) -> dict[str, Any]:
        writing = _Writing(files, folder, images)
        counts["problems"] = write_jsonl(folder / "problems.jsonl", writing.problems())
        if not writing.known:
            raise DataError(
                f"{files[0]}: no record makes a problem: {writing.bad[0]['reason'] if writing.bad else 'no rows'}"
            )
        counts["train"] = write_jsonl(folder / "train.jsonl", writing.accepted())
        counts["incorrect"] = write_jsonl(folder / "incorrect.jsonl", writing.wrong())
        counts["bad_rows"] = write_jsonl(folder / "bad_rows.jsonl", writing.bad)
        return dict(counts)

    publish(out, MARKER, fill)
    return counts


class _Writing:
    """``known``: ids of the problems written; ``bad``: records that make none."""

    def __init__(self, files: Sequence[Path], folder: Path, images: Path | None) -> None:
        self.files, self.folder, self.root = files, folder, images
        self.known: set[str] = set()
        self.bad: list[dict[str, object]] = []
        self.images = Images()

    def problems(self) -> Iterator[dict[str, Any]]:
        given, reached = self._answers()
        self.bad = []
        for entry in self._entries(self.bad):
            name = entry.problem_id
            if name in self.known:
                continue
            answer = given.get(name, reached.get(name))
            try:
                row = self._row(entry, answer, from_path=name not in given)
            except BadRow as error:
                self.bad.append(_bad(entry.file, entry.line, name, error))
                continue
            found = checked(Record(entry.line, row), str(entry.file), self.folder, self.images, entry.file.name)
            if found.problem is None:
                self.bad.append(_bad(entry.file, entry.line, name, found.reason))
                continue
            self.known.add(name)
            yield row

    def accepted(self) -> Iterator[ReasoningPath]:
        for entry, number in self._numbered():
            if entry.accepted is not None:
                origin, parent = ("reflection", _draft_id(entry, number)) if entry.wrong else ("student", None)
                lineage = Lineage(origin, entry.kind, WRITER, parent=parent)  # type: ignore[arg-type]
                yield ReasoningPath(
                    f"{entry.kind}/{entry.problem_id}/{number}", entry.problem_id, entry.accepted, lineage
                )

    def wrong(self) -> Iterator[dict[str, Any]]:
        for entry, number in self._numbered():
            if entry.wrong is not None:
                path = ReasoningPath(
                    _draft_id(entry, number), entry.problem_id, entry.wrong, Lineage("student", entry.kind, WRITER)
                )
                word = Verdict(path.id, "wrong", entry.error_step, entry.analysis, judge=WRITER)
                yield {"path": path, "verdict": word}

    def _numbered(self) -> Iterator[tuple[Entry, int]]:
        """Entries of known problems, each with its number among those of its kind and problem."""
        seen: Counter[tuple[str, str]] = Counter()
        for entry in self._entries([]):
            if entry.problem_id in self.known:
                key = (entry.kind, entry.problem_id)
                yield entry, seen[key]
                seen[key] += 1

    def _answers(self) -> tuple[dict[str, str], dict[str, str]]:
        """By problem: the answer that a record gives, and the one that the first accepted path comes to."""
        given: dict[str, str] = {}
        reached: dict[str, str] = {}
        for entry in self._entries([]):
            if entry.answer:
                given.setdefault(entry.problem_id, entry.answer)
            elif entry.accepted and (answer := extract_answer(entry.accepted)):
                reached.setdefault(entry.problem_id, answer)
        return given, reached

    def _row(self, entry: Entry, answer: str | None, from_path: bool) -> dict[str, Any]:
        if answer is None:
            raise BadRow('no reference answer: no "answer", and no accepted path of this problem; add an "answer"')
        question, choices = entry.question, entry.choices
        if choices and choice_index(answer, choices) is None:
            listed = "\n".join(f"({chr(ord('A') + k)}) {choice}" for k, choice in enumerate(choices))
            question, choices = f"{question}\n{listed}", ()  # an answer of another form: the list is text
        row = tagged("official", None, question, answer, choices=choices)
        pictures = [self._copied(ref, entry.file) for ref in entry.refs]
        return row | {"id": entry.problem_id, "images": pictures} | ({"answer_from": "path"} if from_path else {})

    def _copied(self, ref: str, file: Path) -> str:
        """Copy a picture; its place below the folder. Raises BadRow where it is nowhere below the root."""
        source = _found(ref, self.root or file.parent)
        data = source.read_bytes()
        name = hashlib.sha256(data).hexdigest()[:24] + source.suffix.lower()
        target = self.folder / "images" / name[:2] / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return target.relative_to(self.folder).as_posix()

    def _entries(self, bad: list[dict[str, object]]) -> Iterator[Entry]:
        for file in self.files:
            for record in read_lines(file):
                try:
                    if record.values is None:
                        raise BadRow(record.reason)
                    yield _entry(record.values, file, record.line)
                except BadRow as error:
                    bad.append(_bad(file, record.line, None, error))


def _entry(values: Mapping[str, Any], file: Path, line: int) -> Entry:
    """Raises BadRow for a record without question or path."""
    which = _kind_of(file)
    answer = text_of(values, "answer") if values.get("answer") not in (None, "") else None
    refs = _refs(values)
    if which == "reflection_sft":
        more = _optional(values, "input")
        asked = text_of(values, "instruction") + (f"\n{more}" if more else "")
        accepted: str | None = text_of(values, "output")
        wrong = _optional(values, "draft")
        said = _optional(values, "error_analysis") or _optional(values, "reflection")
    else:
        asked, path = text_of(values, "prompt", "question"), _optional(values, "reasoning")
        if path is None and which != "hard_problems":
            text_of(values, "reasoning")  # says what is wrong with it
        accepted, wrong = (path, None) if which == "sft_chosen" else (None, path)
        said = _optional(values, "error_analysis")
    question, choices = question_of(asked)
    if not question:
        raise BadRow("there is no question but pictures and hints; leave the row out")
    step = _optional(values, "error_step")
    return Entry(file, line, which, question, tuple(choices), refs, answer, accepted, wrong, step, said)


def _refs(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The pictures of a record: a path, several, or none."""
    name = next((name for name in MEDIA if values.get(name) not in (None, "")), MEDIA[0])
    found = values.get(name) or []
    refs = found if isinstance(found, list) else [found]
    for ref in refs:
        if not isinstance(ref, str) or not ref.strip():
            raise BadRow(f'"{name}" is paths of pictures, got {kind(ref)}; correct the record')
    return tuple(refs)


def _optional(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRow(f'"{name}" is text, got {kind(value)}; correct the record')
    return value if value and value.strip() else None


def _found(ref: str, root: Path) -> Path:
    """The file of a picture below ``root``. Of an absolute path, which is another machine's, its end is looked for."""
    parts = PurePosixPath(ref.removeprefix("./")).parts
    starts: Iterable[int] = range(1, len(parts)) if PurePosixPath(ref).is_absolute() else (0,)
    for start in starts:
        path = Path(inside("/".join(parts[start:]), root))
        if path.is_file():
            return path
    raise BadRow(f"image {ref!r}: not below {root}; copy it there, or say where it is with --images DIR")


def _kind_of(file: Path) -> str:
    for name in KINDS:
        if file.name.startswith(name):
            return name
    raise DataError(f"{file}: the name must begin with one of {', '.join(KINDS)}, which says what it holds; rename it")


def _draft_id(entry: Entry, number: int) -> str:
    return f"{entry.kind}/draft/{entry.problem_id}/{number}"


def _bad(file: Path, line: int, name: str | None, reason: object) -> dict[str, object]:
    return {"file": str(file), "line": line, "id": name, "reason": str(reason)}
