"""Labelled paths from a user's file: what a row may be, and what is said of one that cannot be used."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small import path, picture, problems, verdict, world

from mathse.data.labelled_paths import read_labelled, read_orm_data
from mathse.errors import DataError
from mathse.runs.store import to_json, write_jsonl
from mathse.types import Problem

Row = dict[str, Any]
Write = Callable[..., Path]

FULL: Row = {
    "id": "7",
    "problem_id": "geo/12",
    "question": "Find x.",
    "images": ["12.png"],
    "answer": "B",
    "choices": ["12", "13"],
    "solution": "Step 1: x is 13.",
    "path": "Step 1: The angle is 30.",
    "status": "wrong",
    "error_step": "Step 1",
    "error_analysis": "The angle is halved twice.",
    "subject": "geometry",
}


def unknown(problem_id: str) -> Problem:
    raise DataError(f"no problem {problem_id!r} in the data")


def row(identity: str, status: str = "wrong", **changes: Any) -> Row:
    """A row of its own problem."""
    asked = {"question": f"What is {identity}?", "images": [], "answer": "1"}
    return {"id": identity, **asked, "path": "Step 1: words.", "status": status, **changes}


def without(key: str) -> Row:
    return {k: v for k, v in FULL.items() if k != key}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(row, row)``: their file, with a picture beside it; a row that is text is written as it is."""
    picture(20, 10).save(tmp_path / "12.png")

    def written(*rows: Row | str, name: str = "paths.jsonl") -> Path:
        lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return tmp_path / name

    return written


# --- rows that are good -----------------------------------------------------------------------------------------------


def test_a_row_is_a_problem_a_path_and_what_is_true_of_it(write: Write) -> None:
    file = write(FULL)
    [found] = read_labelled(file, unknown)
    asked = found.problem
    assert (asked.id, asked.question, asked.answer, asked.choices) == ("geo/12", "Find x.", "B", ("12", "13"))
    assert asked.images == (str(file.parent.resolve() / "12.png"),)
    assert asked.solution == "Step 1: x is 13."
    assert (found.path.id, found.path.problem_id, found.path.text) == ("7", "geo/12", "Step 1: The angle is 30.")
    assert (found.label.path_id, found.label.status) == ("7", "wrong")
    assert (found.label.error_step, found.label.error_analysis) == ("Step 1", "The angle is halved twice.")
    assert (found.subject, found.line) == ("geometry", 1)


def test_what_is_optional_may_be_left_out_or_null(write: Write) -> None:
    bare = {key: FULL[key] for key in ("id", "question", "images", "answer", "path", "status")}
    for given in (bare, {**bare, "error_step": None, "error_analysis": None, "problem_id": None, "choices": None}):
        [found] = read_labelled(write(given), unknown)
        assert (found.label.error_step, found.label.error_analysis, found.subject) == (None, None, None)


def test_rows_that_ask_the_same_are_of_one_problem_without_an_id(write: Write) -> None:
    same = {"question": "What?", "images": [], "answer": "1"}
    one, two, three = read_labelled(write(row("a", **same), row("b", **same), row("c")), unknown)
    assert one.problem is two.problem
    assert three.problem.id != one.problem.id


def test_a_row_may_name_a_problem_of_the_data(write: Write) -> None:
    [known] = problems(1)
    asked = {"id": "a", "problem_id": known.id, "path": "Step 1: words.", "status": "correct"}
    [found] = read_labelled(write(asked), world(size=1).get)
    assert found.problem == known
    assert found.subject == known.metadata.get("kind")


def test_rows_of_a_run_are_taken_as_they_are_and_the_label_counts(tmp_path: Path) -> None:
    [known] = problems(1)
    made = path(known.id)
    right, wrong = verdict(made, "correct"), verdict(made, "wrong")
    write_jsonl(tmp_path / "held.jsonl", [{"path": made, "label": right, "verdict": wrong}])
    write_jsonl(tmp_path / "feedback.jsonl", [{"path": made, "verdict": wrong}])
    for name, label in (("held", right), ("feedback", wrong)):
        [found] = read_labelled(tmp_path / f"{name}.jsonl", world(size=1).get)
        assert (found.path, found.label) == (made, label)


def test_a_compressed_file_with_blank_lines_and_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "paths.jsonl.gz"
    file.write_bytes(gzip.compress(f"\ufeff\n\n{json.dumps(row('a'))}\n\n{json.dumps(row('b'))}".encode()))
    assert [r.line for r in read_labelled(file, unknown)] == [3, 5]


# --- rows that are not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason", "remedy"),
    [
        ("{", "broken JSON", "write one JSON object a line"),
        ("[1]", "a row is a JSON object, got a list", "write one object"),
        ("{" * 100_000, "broken JSON", "write one JSON object a line"),
        ({**FULL, "status": "maybe"}, "'maybe'", "write one of them"),
        ({**FULL, "status": "CORRECT"}, "'CORRECT'", "write one of them"),
        ({**FULL, "status": ["wrong"]}, "['wrong']", "write one of them"),
        (without("status"), '"status" is missing', "a row has id, path, status"),
        (without("id"), '"id" is missing', "a row has id, path, status"),
        (without("images"), '"images" is missing', "a row has id, question, images, answer"),
        ({"id": "7", "path": "x", "status": "wrong"}, '"question" is missing, and so is "problem_id"', "names one"),
        ({**FULL, "path": ""}, '"path" is empty', "fill it in"),
        ({**FULL, "path": " \n"}, '"path" is empty', "fill it in"),
        ({**FULL, "path": 5}, '"path" is text, got a number 5', "put it in quotes"),
        ({**FULL, "path": "\ud800"}, '"path" holds half of a surrogate pair', "write the character itself"),
        ({**FULL, "id": 7}, '"id" is text, got a number 7', "put it in quotes"),
        ({**FULL, "error_step": 2}, '"error_step" is text, got a number 2', "put it in quotes"),
        ({**FULL, "question": ""}, '"question" is empty', "fill it in"),
        ({**FULL, "answer": "E"}, "'E' is neither a letter A-B", "correct one of them"),
        ({**without("status"), "staus": "wrong"}, 'unknown key "staus"', 'did you mean "status"?'),
        ({**FULL, "images": ["no.png"]}, "no.png", "no such"),
        ({**FULL, "images": ["../12.png"]}, "only paths inside the file's folder", "copy it there"),
        ({**FULL, "images": ["paths.jsonl"]}, "paths.jsonl", "image"),
        (without("question"), "no problem 'geo/12' in the data", "geo/12"),
    ],
)
def test_a_bad_row_is_named_with_file_line_reason_and_remedy(write: Write, bad: Any, reason: str, remedy: str) -> None:
    file = write(row("a"), bad)
    with pytest.raises(DataError) as refused:
        read_labelled(file, unknown)
    said = str(refused.value)
    assert f"{file}:2: " in said
    assert reason in said and remedy in said


def test_ids_are_unique_and_a_problems_id_stands_for_one_problem(write: Write) -> None:
    with pytest.raises(DataError, match=r"paths.jsonl:2: \"id\" 'a' stands already at line 1; .* rename one"):
        read_labelled(write(row("a"), row("a", question="Other?")), unknown)
    other = [row("a", problem_id="p"), row("b", problem_id="p")]
    with pytest.raises(DataError, match=r"paths.jsonl:2: problem 'p' is another one at line 1; .* another problem_id"):
        read_labelled(write(*other), unknown)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": None, "verdict": None}, "it has neither of the two"),
        ({"label": {"path_id": "x", "status": "correct"}}, "pair each with its own"),
        ({"label": {"status": "correct"}}, "a Verdict needs more fields: path_id"),
        ({"label": {"path_id": "7", "status": "unparsed"}}, "a label is correct or wrong, leave this row out"),
        ({"label": "correct"}, "a Verdict is a JSON object, got str"),
        ({"path": {"id": "7"}}, "a ReasoningPath needs more fields: problem_id, text, lineage"),
    ],
)
def test_a_bad_row_of_a_run_is_named_too(write: Write, change: Row, reason: str) -> None:
    made = json.loads(to_json(path("p")))
    given = {"path": made, "label": {"path_id": made["id"], "status": "correct"}, **change}
    with pytest.raises(DataError) as refused:
        read_labelled(write(given), lambda i: problems(1)[0])
    assert "paths.jsonl:1: " in str(refused.value) and reason in str(refused.value)


def test_the_first_five_bad_rows_are_named_and_the_others_counted(write: Write) -> None:
    with pytest.raises(DataError) as refused:
        read_labelled(write(row("a"), *["{"] * 8), unknown)
    said = str(refused.value)
    assert "8 of 9 rows cannot be used" in said and "and 3 more" in said
    assert [f"paths.jsonl:{line}: " in said for line in (1, 2, 6, 7)] == [False, True, True, False]


def test_a_file_without_rows_and_a_missing_one_are_said_so(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DataError, match="holds no rows"):
        read_labelled(write(), unknown)
    with pytest.raises(DataError, match="no such file"):
        read_labelled(tmp_path / "gone.jsonl", unknown)


# --- what an ORM learns from and is measured on -----------------------------------------------------------------------


def test_an_orms_rows_are_of_other_problems_than_those_it_is_measured_on(write: Write) -> None:
    train = write(row("a"), row("b", "correct"), name="train.jsonl")
    held = write(row("c"), row("d", "correct"), name="held.jsonl")
    data = read_orm_data(train, held, unknown)
    assert ([r.path.id for r in data.train], [r.path.id for r in data.held]) == (["a", "b"], ["c", "d"])


@pytest.mark.parametrize(
    "shared",
    [
        row("x", "correct", problem_id="p", question="Another?"),  # by id
        row("x", "correct", problem_id="q", question="What is b?"),  # by what it asks
    ],
)
def test_a_problem_in_both_files_is_refused_with_both_lines(write: Write, shared: Row) -> None:
    train = write(row("a"), row("b", "correct", problem_id="p"), name="train.jsonl")
    held = write(row("c"), shared, name="held.jsonl")
    with pytest.raises(DataError, match=r"held.jsonl:2: .* is in .*train.jsonl:2 too .*1 of 2 rows.* one of the two"):
        read_orm_data(train, held, unknown)


def test_an_orm_needs_right_and_wrong_paths(write: Write) -> None:
    both = write(row("a"), row("b", "correct"), name="train.jsonl")
    one = write(row("c"), row("d"), name="held.jsonl")
    with pytest.raises(DataError, match="held.jsonl: no row's status is 'correct'"):
        read_orm_data(both, one, unknown)
