"""Files of problems as they are published -> what is compared of them: a benchmark's, to be kept out of training, and
(``check_against``) training rows, to be looked for in a benchmark.

Read are JSON lines, a JSON list, an object of id -> row, ``.gz`` too; under the names that MathVista, MathVerse,
MATH-V, DynaMath, Geometry3K, conversations and our own rows use. Pictures are looked for in the file's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
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
        try:
            yield problem_in(record.values, record.line, partial(_below, folder=file.parent))
        except BadRow as error:
            raise DataError(f"decontaminate.against: {where}: {error}") from None


def problem_in(values: Mapping[str, Any], line: int, path_of: Callable[[str], str]) -> Problem:
    """The id, question and pictures of a published row; ``path_of``: where a picture lies that the row names. Raises
    BadRow for one that asks nothing."""
    question, images = _question(values), _pictures(values, path_of)
    if not question.strip() and not images:
        raise BadRow(f"no question and no picture (its keys: {', '.join(list(values)[:8])})")
    return Problem(_id(values, line), question, images)


def _id(values: Mapping[str, Any], line: int) -> str:
    return next((str(values[key]) for key in IDS if values.get(key) not in (None, "")), f"line {line}")


def _question(values: Mapping[str, Any]) -> str:
    for key in QUESTIONS:
        if isinstance(values.get(key), str) and values[key].strip():
            return str(values[key])
    for key in ("conversations", "messages"):
        turns = [turn for turn in values.get(key) or () if isinstance(turn, Mapping)]
        asked = next((t for t in turns if t.get("from", t.get("role")) in ("human", "user")), turns[0] if turns else {})
        if text := asked.get("value", asked.get("content")):
            return str(text)
    return ""


def _pictures(values: Mapping[str, Any], path_of: Callable[[str], str]) -> tuple[str, ...]:
    """The pictures a row names: under the first key whose files are here, else under its first key."""
    named = [_names(values[key]) for key in PICTURES if values.get(key)]
    found = [tuple(map(path_of, names)) for names in named if names]
    return next((paths for paths in found if all(Path(path).is_file() for path in paths)), found[0] if found else ())


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _below(name: str, folder: Path) -> str:
    """The path of a picture below ``folder``: as named, without its first folder, or in images/."""
    for path in (name, name.partition("/")[2], f"images/{name}"):
        try:
            if path and Path(target := inside(path, folder)).is_file():
                return target
        except BadRow:
            continue
    return str(folder / "not here" / Path(name[-60:]).name)
