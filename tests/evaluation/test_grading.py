"""Verdicts on the unchanged response, on the mapped marker and by math-verify; and the ORM's rewards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small import tiny_backbone

from evaluation.cases import TINY, metrics, rows, run, write_rows
from mathse.errors import CheckpointError
from mathse.evaluation import models


def vision(files: Path, tmp_path: Path, responses: dict[str, str], **extractions: str) -> list[str]:
    """Settings that score these answers on MATH-Vision."""
    given = [{"id": k, "response": r} | ({"extraction": extractions[f"of_{k}"]} if f"of_{k}" in extractions else {})
             for k, r in responses.items()]  # fmt: skip
    file = write_rows(tmp_path / "answers.jsonl", given)
    return ["benchmark=mathvision", f"benchmark.mathvision.problems={files}/mathvision.jsonl", f"predictions={file}"]


RESPONSES = {
    "1": "We count.\nThe answer to this problem is 1",  # MathSE's marker: no official rule reads it
    "2": "†Answer: 2",
    "3": "so \\boxed{3}",
    "4": "Answer: 5",
    "5": "\\boxed{6}",
    "6": "six dots, that is 6",
}


def test_both_numbers_are_shown_and_a_file_counts_as_it_stands(tmp_path: Path, files: Path) -> None:
    settings = vision(files, tmp_path, RESPONSES)
    run(tmp_path / "raw", *settings)
    found = metrics(tmp_path / "raw", "mathvision")
    assert found["correct"] == found["raw"]["correct"] < found["mapped"]["correct"]
    assert found["mapped"]["with_marker"] == 3  # 1, 2 and 4
    assert found["protocol"]["answer_marker"] == "as it stands"
    marks = {row["id"]: (row["raw_correct"], row["mapped_correct"]) for row in rows(
        tmp_path / "raw" / "mathvision" / "scored.jsonl")}  # fmt: skip
    assert marks["2"] == (False, True) and marks["3"] == (True, True) and marks["4"] == (False, False)

    run(tmp_path / "mapped", *settings, "map_marker=true")
    mapped = metrics(tmp_path / "mapped", "mathvision")
    assert mapped["correct"] == found["mapped"]["correct"] and mapped["raw"] == found["raw"]
    scored = rows(tmp_path / "mapped" / "mathvision" / "scored.jsonl")
    assert [row["response"] for row in scored] == list(RESPONSES.values())  # not the mapped text


def test_an_extraction_that_is_given_stands_even_an_empty_one(tmp_path: Path, files: Path) -> None:
    settings = vision(files, tmp_path, RESPONSES, of_1="", of_4="4", of_5="5")
    run(tmp_path / "run", *settings, "map_marker=true")
    scored = {row["id"]: row for row in rows(tmp_path / "run" / "mathvision" / "scored.jsonl")}
    assert [(scored[k]["extraction"], scored[k]["correct"]) for k in ("1", "4", "5")] == [
        ("", False), ("4", True), ("5", True)
    ]  # fmt: skip
    assert scored["4"]["decided_by"].startswith("given")
    kept = {row["id"]: row.get("extraction") for row in rows(tmp_path / "run" / "mathvision" / "predictions.jsonl")}
    assert kept == {"1": "", "2": None, "3": None, "4": "4", "5": "5", "6": None}


def test_math_verify_stands_beside_and_its_disagreements_are_listed(tmp_path: Path, files: Path) -> None:
    run(tmp_path / "run", *vision(files, tmp_path, {**RESPONSES, "5": "It is $\\frac{10}{2}$ dots."}))
    found = metrics(tmp_path / "run", "mathvision")
    if found["math_verify"] is None:
        pytest.skip("math-verify is not installed")
    listed = rows(tmp_path / "run" / "mathvision" / "disagreements.jsonl")
    assert found["math_verify"]["disagreements"] == len(listed) > 0
    assert all(row["math_verify"] != row["correct"] for row in listed)
    assert "Where math-verify differs" in (tmp_path / "run" / "report.html").read_text()


# --- the ORM ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def orm(tmp_path: Path) -> Path:
    """An ORM with random weights: its verdicts are no JSON, so every reward is 0."""
    folder = tmp_path / "orm"
    tiny_backbone(seed=3).save(folder)
    described = {"kind": "generative", "order": "analysis_first", "see_answer": False, "see_image": True}
    (folder / "orm.json").write_text(json.dumps(described))
    return folder


def test_the_orm_weighs_every_sample_of_the_one_pass(tmp_path: Path, checkpoint: Path, orm: Path) -> None:
    settings = (*TINY, f"checkpoint={checkpoint}", "n_samples=2", f"judge.checkpoint={orm}", "judge.max_new_tokens=3")
    run(tmp_path / "run", *settings, "selector=orm")
    (verdicts,) = (tmp_path / "run" / "synthetic").glob("orm_verdicts-*.jsonl")
    assert len(rows(verdicts)) == 14
    found = metrics(tmp_path / "run", "synthetic")
    assert set(found["selectors"]) == {"n", "first", "majority", "orm", "orm_weighted", "oracle"}
    assert all(row["p_correct"] == 0 for row in rows(tmp_path / "run" / "synthetic" / "samples.jsonl"))
    assert found["protocol"]["orm"] == str(orm)
    run(tmp_path / "run", *settings, "selector=orm_weighted")  # another selector over the same answers
    assert metrics(tmp_path / "run", "synthetic")["protocol"]["selector"] == "orm_weighted"


def test_another_orm_does_not_go_on_with_the_first_one_s_verdicts(
    tmp_path: Path, orm: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_rows(tmp_path / "a.jsonl", [{"id": str(k), "response": str(k)} for k in range(1, 7)])
    settings = ["benchmark=mathvision", f"benchmark.mathvision.problems={files}/mathvision.jsonl"]
    settings += [f"predictions={file}", "judge.max_new_tokens=3"]
    read = []
    open_orm = models.reward_model
    monkeypatch.setattr(models, "reward_model", lambda *of: read.append(1) or open_orm(*of))
    other = tmp_path / "other"
    tiny_backbone(seed=4).save(other)
    (other / "orm.json").write_text((orm / "orm.json").read_text())
    for checkpoint in (orm, other, orm):
        run(tmp_path / "run", *settings, f"judge.checkpoint={checkpoint}")
    assert len(list((tmp_path / "run" / "mathvision").glob("orm_verdicts-*.jsonl"))) == 2
    assert len(read) == 2  # the third start has its verdicts


def test_a_file_of_samples_is_weighed_by_the_orm_too(tmp_path: Path, orm: Path, files: Path) -> None:
    samples = [{"id": str(k), "sample": j, "response": str(k + j)} for k in range(1, 7) for j in range(2)]
    file = write_rows(tmp_path / "a.jsonl", samples)
    settings = ["benchmark=mathvision", f"benchmark.mathvision.problems={files}/mathvision.jsonl", "n_samples=2"]
    settings += [f"predictions={file}", f"judge.checkpoint={orm}", "judge.max_new_tokens=3", "selector=orm"]
    assert run(tmp_path / "run", *settings) == 1.0  # ties go to the first answer, which is right


def test_a_student_is_no_orm(tmp_path: Path, checkpoint: Path) -> None:
    settings = (*TINY, f"checkpoint={checkpoint}", "n_samples=2", f"judge.checkpoint={checkpoint}", "selector=orm")
    with pytest.raises(CheckpointError, match="orm.json is missing there"):
        run(tmp_path / "run", *settings)
    assert len(rows(tmp_path / "run" / "synthetic" / "predictions.jsonl")) == 14  # kept for the next start
