"""An exported row is the row that the run's own fit trains on."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from run_builder import record_again, write_stage

from exports.own_run import own_run
from mathse.commands.export.examples import read_family, read_orm_examples, read_sft_examples, read_style
from mathse.config.fits import ORM
from mathse.data.sources import problem_lookup
from mathse.errors import DataError
from mathse.evolution.state import Judged
from mathse.inference.rows import reflect_row, solve_row
from mathse.judges.orm_rows import training_row
from mathse.models.base import Backbone
from mathse.runs.reader import Run, read_run
from mathse.runs.store import read_json, read_jsonl, write_json, write_jsonl
from mathse.types import Lineage, ReasoningPath, Reflection, Verdict

CLASSES = {
    "tiny": "mathse.models.tiny.TinyBackbone",
    "qwen2vl": "mathse.models.qwen2vl.Qwen2VLBackbone",
    "internvl2_5": "mathse.models.internvl2_5.backbone.InternVL25Backbone",
    "cogvlm2": "mathse.models.cogvlm2.backbone.CogVLM2Backbone",
}


def class_of(family: str) -> type[Backbone]:
    module, _, name = CLASSES[family].rpartition(".")
    found: type[Backbone] = getattr(import_module(module), name)
    return found


def run_of(place: Path, family: str, **orm: Any) -> Run:
    return read_run(own_run(place, family, **orm).folder)


@pytest.mark.parametrize("family", CLASSES)
def test_the_prompt_style_is_that_of_the_familys_class(family: str) -> None:
    assert read_style({"_target_": CLASSES[family]}) == class_of(family).prompt_style
    assert read_family({"_target_": CLASSES[family]}) == family


@pytest.mark.parametrize("family", ["tiny", "qwen2vl"])
def test_a_rewrite_has_its_draft_and_critique_in_the_prompt_where_the_fit_had_them(tmp_path: Path, family: str) -> None:
    made = own_run(tmp_path, family)
    settings = read_json(made.folder / "run.json")
    settings["config"]["evolution"]["reflect"]["row"] = "draft"
    write_json(made.folder / "run.json", settings)
    (revised,) = [p for p in read_jsonl(made.folder / "final" / "train.jsonl", ReasoningPath) if p.problem_id == "zh"]
    draft = ReasoningPath("round_01/zh/0", "zh", "Step 1: A slip.", Lineage("student", "round_01", "somebody"))
    word = Verdict(draft.id, "wrong", "Step 1", "The height is another.", judge="orm")
    write_jsonl(made.folder / "reflection" / "reflections.jsonl", [Reflection(draft, word, revised)])
    write_stage(made.folder / "reflection")
    run = read_run(made.folder)
    problem_of: Any = problem_lookup(run.config)
    backbone: Any = class_of(family)
    examples = {example.path.problem_id: example for example in read_sft_examples(run, "final")}
    row: Any = reflect_row(backbone.prompt_style, problem_of("zh"), draft.text, word, revised.text)
    assert (examples["zh"].prompt, examples["zh"].response) == (row["question"], row["response"])
    assert "The height is another." in examples["zh"].prompt
    assert examples["one"].prompt == solve_row(backbone.prompt_style, problem_of("one"))["question"]


@pytest.mark.parametrize("family", ["tiny", "qwen2vl"])
def test_an_sft_row_is_the_one_that_the_fit_trains_on(tmp_path: Path, family: str) -> None:
    run = run_of(tmp_path, family)
    examples = list(read_sft_examples(run, "final"))
    assert len(examples) == 7
    problem_of: Any = problem_lookup(run.config)
    for example in examples:
        row: Any = solve_row(class_of(family).prompt_style, problem_of(example.path.problem_id), example.path.text)  # type: ignore[arg-type]
        assert (example.prompt, example.images, example.response) == (row["question"], row["images"], row["response"])
        assert not example.history


@pytest.mark.parametrize("family", ["tiny", "qwen2vl"])
@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "generative", "order": "verdict_first", "see_answer": False, "see_image": True},
        {"kind": "generative", "order": "analysis_first", "see_answer": True, "see_image": True},
        {"kind": "binary", "order": "verdict_first", "see_answer": False, "see_image": False},
    ],
)
def test_an_orm_row_is_the_one_that_the_orm_trains_on(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    run = run_of(tmp_path, family)
    write_json(run.folder / "orm" / "checkpoint" / "orm.json", settings)  # it decides, not the settings of the run
    record_again(run.folder)
    run = read_run(run.folder)
    problem_of: Any = problem_lookup(run.config)
    examples = list(read_orm_examples(run))
    assert {example.verdict.status for example in examples if example.verdict} == {"correct", "wrong"}
    for example in examples:
        assert example.verdict is not None
        problem = problem_of(example.path.problem_id)
        row = training_row(class_of(family).prompt_style, problem, example.path.text, example.verdict, ORM(**settings))
        assert (example.prompt, example.response) == (row["question"], row["response"])
        assert (tuple(example.images), tuple(example.history)) == (tuple(row["images"]), tuple(row["history"]))


def test_without_its_checkpoint_the_orm_is_read_from_the_runs_settings(tmp_path: Path) -> None:
    run = run_of(tmp_path, "qwen2vl", kind="binary")
    assert {example.response for example in read_orm_examples(run)} == {'{"status": "CORRECT"}', '{"status": "WRONG"}'}


def test_a_stage_without_rows_is_refused_with_those_that_have_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose --stage final"):
        next(read_sft_examples(run_of(tmp_path, "tiny"), "round_07"))


def test_a_row_whose_problem_is_gone_is_told_by_file_and_line(tmp_path: Path) -> None:
    own = own_run(tmp_path)
    write_jsonl(own.problems, list(read_jsonl(own.problems))[:3])
    with pytest.raises(DataError, match=r"train\.jsonl:4: .*no problem 'zh'"):
        list(read_sft_examples(read_run(own.folder), "final"))


def test_an_orm_that_learnt_from_a_file_has_its_problems_from_there(tmp_path: Path) -> None:
    own = own_run(tmp_path)
    asked = {"id": "a", "problem_id": "theirs", "question": "How many sides?", "images": ["a.png"], "answer": "4"}
    write_jsonl(own.pictures / "labelled.jsonl", [{**asked, "path": "There are 5.", "status": "wrong"}])
    head = read_json(own.folder / "run.json")
    head["config"]["orm"]["train"] = str(own.pictures / "labelled.jsonl")
    write_json(own.folder / "run.json", head)
    path = ReasoningPath("a", "theirs", "There are 5.", Lineage("student", "", "labelled.jsonl"))
    write_jsonl(own.folder / "orm" / "feedback.jsonl", [Judged(path, Verdict("a", "wrong"))])
    record_again(own.folder)
    (example,) = read_orm_examples(read_run(own.folder))
    assert "How many sides?" in example.prompt
    assert example.images == (str(own.pictures / "a.png"),)
