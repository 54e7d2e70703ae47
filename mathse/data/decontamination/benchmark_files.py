"""Readers of published problem files for the comparison: benchmarks, and training rows for ``check_against``.

A file holds JSON lines, a JSON list, or an object of id -> row, ``.gz`` too, with the keys of MathVista, MathVerse,
MATH-V, DynaMath, We-Math, LogicVista, MMMU, Geometry3K, conversations or our own rows. Images are searched in the
file's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mathse.data.decontamination import hash_lists
from mathse.data.decontamination.index import IMAGE_SIZE, PICTURE_DISTANCE, TEXT_SIMILARITY, Index
from mathse.data.json_records import BadRow, read_records
from mathse.data.row_validation import path_inside
from mathse.errors import DataError
from mathse.types import Problem

# Keys of published rows; the first key that a row has counts.
IDS = ("id", "pid", "sample_index", "question_id", "problem_id", "qid", "ID")
QUESTIONS = ("question", "problem_text", "problem", "query", "query_wo", "instruction", "English_problem")
CONVERSATIONS = ("conversations", "messages")
PICTURES = ("images", "image_file", "image", "image_path", "image_url", "imgname", "img", "imagename", "image_1")


def index_of(
    files: Sequence[str],
    text_similarity: float = TEXT_SIMILARITY,
    picture_distance: int = PICTURE_DISTANCE,
    say: Callable[[str], None] | None = None,
) -> Index:
    """Index the problems of benchmark files; ``say`` reports missing images.

    Raises DataError for a file or row that cannot be read, because a benchmark that is read in part would be kept out
    of the training data only in part.
    """
    index = Index(text_similarity, picture_distance)
    for file in files:
        rows, images, unopened = len(index), 0, index.unopened
        path = hash_lists.location(file)
        if hash_lists.is_list(path):
            for problem_id, digest in hash_lists.read(path):
                index.add_digest(file, problem_id, digest)
        else:
            for problem in problems_of(path):
                index.add(file, problem)
                images += len(problem.images)
        if len(index) == rows:
            raise DataError(f"decontaminate.against: {file}: holds no rows; give the benchmark's problems")
        if (missing := index.unopened - unopened) and say is not None:
            say(f"{file}: {missing:,} of {images:,} pictures are not here; of their problems the question is known")
    return index


def problems_of(file: Path) -> Iterator[Problem]:
    """Yield the problems of a benchmark's file. Raises DataError, with file and line, for a row that asks nothing."""
    for record in read_records(file):
        if record.values is None:
            raise DataError(f"decontaminate.against: {file}:{record.line}: {record.reason}")
        try:
            yield problem_in(record.values, record.line, partial(_path_below, folder=file.parent))
        except BadRow as error:
            raise DataError(f"decontaminate.against: {file}:{record.line}: {error}") from None


def problem_in(values: Mapping[str, Any], line: int, path_of: Callable[[str], str]) -> Problem:
    """Read id, question, images and answer of a published row, and the size of its image if the row has it.

    ``path_of`` gives the path of an image by its name in the row. Raises BadRow for a row that asks nothing.
    """
    problem_id = next((str(values[key]) for key in IDS if values.get(key) not in (None, "")), f"line {line}")

    questions = (values[key] for key in QUESTIONS if isinstance(values.get(key), str) and values[key].strip())
    question = next(questions, "") or _first_user_turn(values)

    # The images of the first key with a complete set of files, else of the first key.
    candidates = []
    for key in PICTURES:
        if not (value := values.get(key)):
            continue
        names = value if isinstance(value, list) else [value]
        if paths := tuple(path_of(name) for name in names if isinstance(name, str)):
            candidates.append(paths)
    images = next((paths for paths in candidates if all(Path(path).is_file() for path in paths)), None)
    if images is None:
        images = candidates[0] if candidates else ()

    if not question.strip() and not images:
        raise BadRow(f"no question and no picture (its keys: {', '.join(list(values)[:8])})")
    answer, choices = values.get("answer"), values.get("choices")
    about = values["metadata"] if isinstance(values.get("metadata"), Mapping) else values
    size = [about.get(key) for key in ("img_width", "img_height")]  # pixels
    return Problem(
        problem_id,
        question,
        images,
        str(answer) if isinstance(answer, (str, int, float)) else "",
        tuple(map(str, choices)) if isinstance(choices, list) else (),
        metadata={IMAGE_SIZE: size} if all(isinstance(side, int) for side in size) else {},
    )


def _first_user_turn(values: Mapping[str, Any]) -> str:
    for key in CONVERSATIONS:
        turns = [turn for turn in values.get(key) or () if isinstance(turn, Mapping)]
        by_user = [turn for turn in turns if turn.get("from", turn.get("role")) in ("human", "user")]
        for turn in (by_user or turns)[:1]:
            if text := turn.get("value", turn.get("content")):
                return str(text)
    return ""


def _path_below(name: str, folder: Path) -> str:
    """Find an image below ``folder``: by its name, without its first folder, or in images/."""
    for candidate in (name, name.partition("/")[2], f"images/{name}"):
        try:
            if candidate and Path(path := path_inside(candidate, folder)).is_file():
                return path
        except BadRow:
            continue
    return str(folder / "not here" / Path(name[-60:]).name)
