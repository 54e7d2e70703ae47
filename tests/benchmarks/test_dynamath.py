"""DynaMath's official answers and verdicts, on real rows where the fixtures are, and average and worst case by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mathse.errors import DataError
from mathse.evaluation.benchmarks import make
from mathse.evaluation.benchmarks.dynamath import compare_answers, extract_short_answer


def row(**changes: Any) -> dict[str, Any]:
    return {"id": "1", "question": "How long is a? ", "answer": "2", "answer_type": "float", "subject": "algebra",
            "level": "high school"} | changes  # fmt: skip


def items_of(folder: Path, *rows: dict[str, Any], **settings: Any) -> Any:
    (folder / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    bench = make("dynamath", **settings)
    return bench, bench.load(folder / "rows.jsonl", need_images=False)


def test_real_rows_are_read_as_they_are_published(fixtures: Path) -> None:
    bench = make("dynamath")
    items = bench.load(fixtures / "real" / "dynamath" / "dataset.json")
    assert len(items) == 14 and all(len(item.problem.images) == 1 for item in items)
    assert all(item.problem.id.endswith("/1") for item in items)
    floats = [item for item in items if item.raw["answer_type"] == "float"]
    assert floats and all(
        "Please answer in a floating-point number.\n## Answer Instruction" in i.prompt for i in floats
    )
    answers = [json.dumps({"solution": "...", "short answer": item.problem.answer}) for item in items]
    assert all(each.correct for each in bench.score(items, answers, bench.extract(items, answers)))
    wrong = [json.dumps({"solution": "...", "short answer": "nothing of the kind"}) for _ in items]
    assert not any(each.correct for each in bench.score(items, wrong, bench.extract(items, wrong)))


FOUND = [
    ('{"solution": "x", "short answer": "B"}', "B"), ('```json\n{"short answer": 2.5}\n```', "2.5"),
    ('{"solution": "\\frac{1}{2}", "short answer": "3"}', "3"),  # backslashes are removed first
    ('{"solution": "line\nbreak", "short answer": "A"}', "A"), ('{"solution": "x"}', "None"),
    ("The sum is 7\nThe answer is 12.", "The answer is 12"), ("7", ""), ("", ""), ('"B"', ""),
    ('{"short answer": B}', '{"short answer": B'), ("[1]", ""), ("{" * 9000 + "}", "{" * 9000),
]  # fmt: skip


@pytest.mark.parametrize(("response", "answer"), FOUND)
def test_the_answer_is_found_as_the_official_script_finds_it(response: str, answer: str) -> None:
    assert extract_short_answer(response) == answer


COMPARED = [
    ("float", "2.000", "2", True), ("float", "2.001", "2", True), ("float", "2.002", "2", False),
    ("float", "2 cm", "2", True), ("float", "2cm", "2", False), ("float", "2π", "6.283", True),
    ("float", "π", "3.142", False), ("float", "about 2", "2", False), ("float", "", "2", False),
    ("float", "nan", "2", False), ("float", "²", "2", False), ("float", "1e400", "2", False),
    ("multiple choice", "A", "A", True), ("multiple choice", "(A)", "A", True), ("multiple choice", "a", "A", False),
    ("multiple choice", "B. A", "A", False), ("multiple choice", "", "A", False),
    ("text", "It is 5:0", "5:0", True), ("text", "5:00", "5:0", True), ("text", "5", "5:0", False),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "answer", "reference", "right"), COMPARED)
def test_answers_are_compared_as_the_official_script_compares_them(
    kind: str, answer: str, reference: str, right: bool
) -> None:
    assert compare_answers(answer, reference, kind) is right


def test_the_worst_case_is_the_share_of_seed_questions_with_every_variant_right(tmp_path: Path) -> None:
    rows = [
        row(id=seed, variant=variant, subject="algebra" if seed == "1" else "statistics")
        for seed in ("1", "2", "3")
        for variant in range(1, 4)
    ]
    bench, items = items_of(tmp_path, *rows)
    marks = [True, True, True, True, False, True, False, False, False]
    responses = [json.dumps({"short answer": "2.0" if mark else "7"}) for mark in marks]
    found = bench.buckets(items, bench.score(items, responses, bench.extract(items, responses)))
    assert found["average"] == {"accuracy": 5 / 9, "correct": 5, "total": 9}
    assert found["worst case"] == {"accuracy": 1 / 3, "correct": 1, "total": 3}
    assert found["variants"] == "3"
    assert found["subject, average"]["statistics"] == {"accuracy": 1 / 3, "correct": 2, "total": 6}
    assert found["subject, worst case"] == {
        "algebra": {"accuracy": 1.0, "correct": 1, "total": 1},
        "statistics": {"accuracy": 0.0, "correct": 0, "total": 2},
    }


def test_rows_of_the_hub_have_the_repositorys_names(tmp_path: Path) -> None:
    of_hub = {"id": "9", "question": "x", "ground_truth": "B", "answer_type": "multiple choice", "subject": "puzzle",
              "knowledge_level": "elementary school", "image": "images/9.png"}  # fmt: skip
    bench, (item,) = items_of(tmp_path, of_hub)
    assert (item.problem.answer, item.raw["level"], item.problem.metadata) == (
        "B", "elementary school", {"seed": "9", "variant": 1})  # fmt: skip


def test_a_students_own_sentence_is_mapped(tmp_path: Path) -> None:
    bench, items = items_of(tmp_path, row())
    mapped = bench.mapped("Step 1: ...\nThe answer to this problem is 2.")
    assert bench.extract(items, [mapped])[0].text == "2"
    assert bench.mapped("no marker") == "no marker"


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is already at .*rows\.jsonl:1"):
        items_of(tmp_path, row(), row())
    with pytest.raises(DataError, match=r'no row of dynamath \(it has no "answer_type"\)'):
        items_of(tmp_path, {"id": "1", "question": "x", "answer": "A"})
    with pytest.raises(Exception, match="\"answer_type\" = 'list', allowed: float, multiple choice, text"):
        items_of(tmp_path, row(answer_type="list"))
