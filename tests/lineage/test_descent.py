"""``--descendants``: what would have to go with a problem, row by row and checkpoint by checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e import runs
from e2e.runs import TINY, rows

from lineage.conftest import Made
from mathse.__main__ import main
from mathse.commands.lineage.descent import OWN, find_descendants
from mathse.runs.reader import read_run
from mathse.runs.store import write_jsonl

WRITTEN = ("bad_rows.jsonl", "train_log.jsonl")  # not about a problem by its id


def of(run: Path, problem: str) -> list[dict[str, Any]]:
    return list(find_descendants(read_run(run), problem))


def checkpoints(found: list[dict[str, Any]]) -> dict[str, str]:
    return {one["id"]: one["because"] for one in found if one["kind"] == "checkpoint"}


def places(found: list[dict[str, Any]]) -> set[str]:
    return {one["place"] for one in found if one["kind"] == "row"}


def about(run: Path, problem: str) -> Iterator[str]:
    """The place of every row of the run in which the problem's id stands, read without the code under test."""
    mark = json.dumps(problem, ensure_ascii=False)[1:-1]
    for manifest in run.rglob("stage.json"):
        for file in manifest.parent.glob("*.jsonl"):
            if file.name in WRITTEN:
                continue
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
                row = json.loads(line)
                ids = {row.get("problem_id"), row.get("id"), (row.get("path") or {}).get("problem_id"),
                       (row.get("revised") or {}).get("problem_id")}  # fmt: skip
                if problem in ids or ("path_id" in row and f"/{mark}/" in line):
                    yield f"{file.relative_to(run).as_posix()}:{number}"


@pytest.mark.parametrize("kind", ["embedded", "killed"])
def test_each_problem_s_own_rows_are_all_there(run_of: Made, kind: str) -> None:
    run = run_of(kind)
    for problem in {row["problem_id"] for row in rows(run / "base" / "sources.jsonl")}:
        found = [one for one in of(run, problem) if one["kind"] == "row"]
        assert {one["place"] for one in found if one["because"] == OWN} == set(about(run, problem)), problem
        assert len(places(found)) == len(found), "no row is named twice"


@pytest.mark.parametrize("kind", ["embedded", "killed"])
def test_a_checkpoint_descends_from_exactly_the_problems_of_its_rows_and_of_those_that_led_to_them(
    run_of: Made, kind: str
) -> None:
    run = run_of(kind)
    first = {"distill": {row["problem_id"] for row in rows(run / "distill" / "train.jsonl")}}
    first["round_01"] = {row["problem_id"] for row in rows(run / "round_01" / "train.jsonl")} - first["distill"]
    for problem in first["distill"]:
        assert {"distill/checkpoint", "round_01/checkpoint", "final/checkpoint"} <= checkpoints(of(run, problem)).keys()
    assert first["round_01"]
    for problem in first["round_01"]:
        names = checkpoints(of(run, problem)).keys()
        assert "distill/checkpoint" not in names and {"round_01/checkpoint", "final/checkpoint"} <= names


def test_what_a_descending_student_wrote_descends_too(run_of: Made) -> None:
    run = run_of("embedded")
    problem = rows(run / "distill" / "train.jsonl")[0]["problem_id"]
    found = places(of(run, problem))
    for file in ("round_01/paths.jsonl", "round_01/verdicts.jsonl", "distill/held_paths.jsonl",
                 "distill/predictions.jsonl", "round_02/reflection/reflections.jsonl"):  # fmt: skip
        everything = {f"{file}:{k + 1}" for k in range(len(rows(run / file)))}
        assert everything and everything <= found, file
    assert not any(place.startswith(("orm/", "base/predictions")) for place in found), "made without it"


def test_a_test_problem_has_answers_and_no_checkpoint(run_of: Made) -> None:
    run = run_of("embedded")
    problem = rows(run / "final" / "predictions.jsonl")[0]["id"]
    found = of(run, problem)
    assert checkpoints(found) == {}
    assert len(places(found)) == 1 + sum(1 for _ in run.rglob("predictions.jsonl"))


def test_an_orm_s_problem_leads_through_weak_students_and_verdicts_to_what_was_told_by_it(run_of: Made) -> None:
    run = run_of("embedded")
    problem = next(r["problem_id"] for r in rows(run / "base" / "sources.jsonl") if r["split"] == "orm_train")
    found = of(run, problem)
    names = checkpoints(found)
    assert list(names)[:3] == ["orm/student_8/checkpoint", "orm/solver/checkpoint", "orm/checkpoint"]
    assert "distill/checkpoint" not in names and "final/checkpoint" in names
    for file in ("orm/student_8/paths.jsonl", "orm/student_8/held_paths.jsonl", "orm/held_verdicts.jsonl",
                 "orm/orm_held.jsonl", "round_01/reflection/feedback_verdicts.jsonl",
                 "round_01/reflection/reflections.jsonl"):  # fmt: skip
        assert {f"{file}:{k + 1}" for k in range(len(rows(run / file)))} <= places(found), file
    assert "round_01/paths.jsonl:1" not in places(found)


def test_the_orm_s_last_problems_are_not_in_its_small_students(run_of: Made) -> None:
    run = run_of("embedded")
    split = [r["problem_id"] for r in rows(run / "base" / "sources.jsonl") if r["split"] == "orm_train"]
    assert "orm/student_8/checkpoint" in checkpoints(of(run, split[7]))
    assert "orm/student_8/checkpoint" not in checkpoints(of(run, split[8]))


def test_a_student_carried_on_descends_as_the_one_it_is(run_of: Made) -> None:
    run = run_of("nothing_merged")
    names = checkpoints(of(run, rows(run / "distill" / "train.jsonl")[0]["problem_id"]))
    assert names["distill/checkpoint"].startswith("trained on 1 such rows")
    assert names["round_01/checkpoint"] == "the same as distill/checkpoint"
    assert names["final/checkpoint"] == "the same as round_01/checkpoint"


def test_words_name_own_rows_and_checkpoints_and_count_the_rest(
    run_of: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("embedded")
    problem = rows(run / "distill" / "train.jsonl")[0]["problem_id"]
    found = of(run, problem)
    capsys.readouterr()
    assert main(["lineage", str(run), "--descendants", problem]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("row  ") for line in lines) == sum(o["because"] == OWN for o in found)
    assert sum(line.startswith("checkpoint  ") for line in lines) == len(checkpoints(found))
    further = [int(line.split(": ")[1].split()[0]) for line in lines if line.startswith("rows  ")]
    assert sum(further) == sum(o["kind"] == "row" and o["because"] != OWN for o in found)
    assert main(["lineage", str(run), "--descendants", problem, "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == found


def test_a_path_s_id_is_refused_with_the_problem_s(run_of: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of("embedded")
    path = rows(run / "distill" / "train.jsonl")[0]
    assert main(["lineage", str(run), "--descendants", path["id"]]) == 1
    assert f"its problem is {path['problem_id']!r}" in capsys.readouterr().err


def test_a_problem_of_own_labelled_paths_leads_to_the_orm_that_learnt_from_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, held = tmp_path / "train.jsonl", tmp_path / "held.jsonl"
    for file, name in ((train, "own"), (held, "kept")):
        problem = {"images": [], "answer": "4", "question": f"How many {name} are 2 + 2?", "solution": "Step 1: 4"}
        write_jsonl(file, [{"id": f"{name}{k}", "problem_id": f"{name}/{k}", **problem, "path": f"Step 1: {k}",
                            "status": "correct" if k == 4 else "wrong"} for k in (4, 5)])  # fmt: skip
    runs.run(tmp_path / "run", *TINY, "task=orm", f"orm.train={train}", f"orm.held={held}")
    found = of(tmp_path / "run", "own/5")
    assert checkpoints(found).keys() == {"orm/solver/checkpoint", "orm/checkpoint"}
    assert checkpoints(of(tmp_path / "run", "kept/4")) == {}
    capsys.readouterr()
    assert main(["lineage", str(tmp_path / "run"), "own/5", "--json"]) == 0
    story = json.loads(capsys.readouterr().out)
    assert (story["problem"]["file"], story["problem"]["line"]) == (str(train), 2)
    assert story["problem"]["question"] == "How many own are 2 + 2?" and len(story["steps"]) == 1
