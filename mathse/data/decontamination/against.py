"""Benchmark files as they are published -> problems to be kept out of training.

Read are JSON lines, a JSON list, an object of id -> row, ``.gz`` too; under the names that MathVista, MathVerse,
MATH-V, DynaMath, Geometry3K, conversations and our own rows use. Pictures are looked for in the file's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mathse.data.decontamination import stored
from mathse.data.decontamination.index import ALIKE, DISTANCE, Index
from mathse.data.records import BadRow, read_records
from mathse.data.rows import inside
from mathse.errors import DataError
from mathse.types import Problem

IDS = ("id", "pid", "sample_index", "question_id", "problem_id", "qid")
QUESTIONS = ("question", "problem_text", "problem", "query", "query_wo", "instruction", "English_problem")
PICTURES = ("images", "image_file", "image", "image_path", "image_url", "imgname", "img")


def index_of(
    files: Sequence[str], alike: float = ALIKE, distance: int = DISTANCE, say: Callable[[str], None] | None = None
) -> Index:
    """The problems of these files, indexed. Raises DataError for a file or row that cannot be read: a benchmark that is
    half read would keep only half of itself out."""
    index = Index(alike, distance)
    for file in files:
        rows, pictures, missing = len(index), 0, index.unopened
        if stored.is_list(path := stored.location(file)):
            for identity, digest in stored.read(path):
                index.add_digest(file, identity, digest)
        else:
            for problem in problems_of(path):
                index.add(file, problem)
                pictures += len(problem.images)
        if len(index) == rows:
            raise DataError(f"decontaminate.against: {file}: holds no rows; give the benchmark's problems")
        if (unopened := index.unopened - missing) and say is not None:
            say(f"{file}: {unopened:,} of {pictures:,} pictures are not here; of their problems the question is known")
    return index


def problems_of(file: Path) -> Iterator[Problem]:
    """The rows of a benchmark's file. Raises DataError, naming file and line, at one that asks nothing."""
    for record in read_records(file):
        where = f"{file}:{record.line}"
        if record.values is None:
            raise DataError(f"decontaminate.against: {where}: {record.reason}")
        question, images = _question(record.values), _pictures(record.values, file.parent)
        if not question.strip() and not images:
            named = ", ".join(list(record.values)[:8])
            raise DataError(f"decontaminate.against: {where}: no question and no picture (its keys: {named})")
        yield Problem(_id(record.values, record.line), question, images)


def _id(values: Mapping[str, Any], line: int) -> str:
    return next((str(values[key]) for key in IDS if values.get(key) not in (None, "")), f"line {line}")


def _question(values: Mapping[str, Any]) -> str:
    for key in QUESTIONS:
        if isinstance(values.get(key), str) and values[key].strip():
            return str(values[key])
    for key in ("conversations", "messages"):
        if isinstance(turns := values.get(key), list) and turns and isinstance(turns[0], Mapping):
            return str(turns[0].get("value", turns[0].get("content", "")))
    return ""


def _pictures(values: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    """The pictures a row names: under the first key whose files are here, else under its first key."""
    named = [_names(values[key]) for key in PICTURES if values.get(key)]
    found = [tuple(_place(name, folder) for name in names) for names in named if names]
    return next((paths for paths in found if all(Path(path).is_file() for path in paths)), found[0] if found else ())


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _place(name: str, folder: Path) -> str:
    """The path of a picture below ``folder``: as named, without its first folder, or in images/."""
    for path in (name, name.partition("/")[2], f"images/{name}"):
        try:
            if path and Path(target := inside(path, folder)).is_file():
                return target
        except BadRow:
            continue
    return str(folder / "not here" / Path(name[-60:]).name)
