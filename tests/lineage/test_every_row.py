"""Every training row of a finished run is told back to the bytes of its images, whatever happened on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import rows

from lineage.conftest import Made
from mathse.__main__ import main
from mathse.commands.lineage import trace_path
from mathse.data.images import image_sha256
from mathse.runs.reader import read_run
from mathse.runs.store import read_json, sha256_file

KINDS = ("embedded", "killed", "branched", "mixed")
KEYS = ["path_id", "problem_id", "origin", "round", "model", "seed", "prompt_version", "image_sha256", "parent",
        "verdict"]  # fmt: skip
TEACHERS = {"embedded": {"symbolic"}, "killed": {"replay"}, "branched": {"replay"}, "mixed": set()}


def all_rows(run: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["lineage", str(run), "--all", "--json"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    return [json.loads(line) for line in said.out.splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_all_has_a_line_for_each_row_of_the_final_fit(
    run_of: Made, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(kind)
    found, train = all_rows(run, capsys), rows(run / "final" / "train.jsonl")
    assert [row["path_id"] for row in found] == [row["id"] for row in train]
    assert {row["origin"] for row in found} == {"teacher", "student", "reflection"}
    for row, path in zip(found, train, strict=True):
        made, stage = path["lineage"], path["lineage"]["stage"]
        assert list(row) == KEYS
        assert [row["problem_id"], *(row[k] for k in ("origin", "model", "seed", "parent"))] == [
            path["problem_id"], *(made[k] for k in ("origin", "model", "seed", "parent"))]  # fmt: skip
        assert row["prompt_version"] == made["prompt"] != ""
        assert row["round"] == (0 if stage == "distill" else int((row["parent"] or stage)[6:8]))
        (verdict,) = (v for v in rows(run / stage / "verdicts.jsonl") if v["path_id"] == row["path_id"])
        assert row["verdict"] == {k: verdict[k] for k in row["verdict"]}
        assert row["verdict"]["status"] == "correct"


@pytest.mark.parametrize("kind", KINDS)
def test_its_model_is_a_teacher_or_a_checkpoint_of_the_run(
    run_of: Made, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(kind)
    models = {row["model"] for row in all_rows(run, capsys)}
    for model in models - TEACHERS[kind]:
        assert (run / model / "model.safetensors").is_file(), model


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_s_problem_stands_at_the_named_line_with_the_named_images(
    run_of: Made, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(kind)
    sources = {row["problem_id"]: row for row in rows(run / "base" / "sources.jsonl")}
    for row in all_rows(run, capsys):
        source = sources[row["problem_id"]]
        hashes = [hash_of(source, image) for image in source["images"]]
        assert (row["image_sha256"] or "").split() == hashes == source["image_sha256"]
        if source["line"] is not None and source["file"].endswith("own.jsonl"):
            line = Path(source["file"]).read_text(encoding="utf-8").splitlines()[source["line"] - 1]
            assert json.loads(line)["id"] == row["problem_id"]


def hash_of(source: Mapping[str, Any], image: str) -> str:
    drawn = image.startswith("digits:")
    return image_sha256(image) if drawn else sha256_file(Path(source["file"]).parent / image)


@pytest.mark.parametrize("kind", KINDS)
def test_the_story_of_each_row_leaves_nothing_open(run_of: Made, kind: str) -> None:
    run = run_of(kind)
    read = read_run(run)
    for path in rows(run / "final" / "train.jsonl"):
        story = trace_path(read, path["id"])
        assert story.problem.recorded and story.problem.problem is not None and not story.problem.notes
        assert all(image.state == "unchanged" for image in story.problem.images)
        assert [step.path.id for step in story.steps][-1] == path["id"]
        assert story.steps[0].path.lineage.parent is None
        for step in story.steps:
            stage = read_json(run / step.path.lineage.stage / "stage.json")
            assert step.config_hash == stage["identity"]
            assert step.verdict is not None and step.round is not None and step.path.lineage.prompt
            if step.path.lineage.model not in TEACHERS[kind]:
                assert step.model is not None
                weights = run / step.model.name / "model.safetensors"
                assert step.model.weights == {"model.safetensors": sha256_file(weights)}
        draft, last = story.steps[0], story.steps[-1]
        assert [one.name for one in last.fitted][-1] == "final/checkpoint"
        if len(story.steps) == 2:
            assert draft.verdict is not None and draft.verdict.status == "wrong" and not draft.fitted
            assert last.feedback is not None and last.path.lineage.parent == draft.path.id


def test_a_branch_tells_what_the_run_tells_that_it_took_its_stages_from(
    run_of: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    source, branch = (all_rows(run_of(kind), capsys) for kind in ("killed", "branched"))
    taken = [row for row in source if row["origin"] != "reflection"]
    assert taken and [row for row in branch if row["origin"] != "reflection"] == taken
