"""The whole task: its files, its resume, and the settings that prevent a resume."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import killed
from small import tiny_backbone

from evaluation.cases import TINY, leave_scoring_processes, metrics, rows, run, write_rows
from mathse.errors import ConfigError, DataError, SettingsChanged
from mathse.evaluation import models, sampling
from mathse.evaluation.compare.results import read_results
from mathse.evaluation.opened import split_of_file
from mathse.runs.store import read_json


def official(files: Path, *names: str) -> list[str]:
    """Settings that choose benchmarks and their files."""
    return [f"benchmark=[{','.join(names)}]", *(f"benchmark.{n}.problems={files}/{n}.jsonl" for n in names)]


# --- predictions from a model -----------------------------------------------------------------------------------------


def test_two_benchmarks_are_answered_by_one_student_each_in_its_own_folder(
    tmp_path: Path, files: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    student = models.student
    monkeypatch.setattr(models, "student", lambda config: opened.append(1) or student(config))
    folder = tmp_path / "run"
    accuracy = run(folder, *TINY, f"checkpoint={checkpoint}", *official(files, "mathvision", "mathvista"))
    assert accuracy is None  # MathVista's answers need an LLM, and there is none
    assert len(opened) == 1
    for name in ("mathvision", "mathvista"):
        written = {f.name for f in (folder / name).iterdir()}
        assert written >= {"predictions.jsonl", "scored.jsonl", "metrics.json", "report.html", "disagreements.jsonl"}
        assert sorted(row["id"] for row in rows(folder / name / "predictions.jsonl")) == ["1", "2", "3", "4", "5", "6"]
        assert all(set(row) == {"id", "response"} for row in rows(folder / name / "predictions.jsonl"))
        scored = rows(folder / name / "scored.jsonl")
        assert [row["id"] for row in scored] == ["1", "2", "3", "4", "5", "6"]  # in the benchmark's order
        fields = {"id", "response", "extraction", "prediction", "answer", "correct", "decided_by"}
        assert all(fields <= set(row) for row in scored)
        found = metrics(folder, name)
        assert {"benchmark", "split", "correct", "total", "accuracy", "ci95", "buckets", "protocol"} <= set(found)
        assert (found["benchmark"], found["total"]) == (name, 6) and type(found["correct"]) is int
    assert 'href="mathvista/report.html"' in (folder / "report.html").read_text()
    assert not (folder / "metrics.json").exists()
    protocol = metrics(folder, "mathvision")["protocol"]
    assert protocol["answers"]["decoding"] == "greedy" and protocol["answers"]["max_new_tokens"] == 4
    assert protocol["answer_marker"] == "mapped" and protocol["prompt"] == "cot"


def test_a_set_of_the_user_s_own_is_called_by_its_name(tmp_path: Path, checkpoint: Path) -> None:
    kept = [{"id": str(k), "question": f"{k} + 1?", "images": [], "answer": str(k + 1)} for k in range(15)]
    own, test = write_rows(tmp_path / "plants.jsonl", kept[:10]), write_rows(tmp_path / "test.jsonl", kept[10:])
    sizes = [setting for setting in TINY if not setting.startswith("data.")]
    files = ("data=jsonl", f"data.path={own}", f"data.test_path={test}")
    run(tmp_path / "run", *sizes, f"checkpoint={checkpoint}", *files)
    assert not (tmp_path / "run" / "synthetic").exists()
    assert metrics(tmp_path / "run", "plants")["benchmark"] == "plants"
    assert "<h1>plants, own test split</h1>" in (tmp_path / "run" / "report.html").read_text()
    assert read_json(tmp_path / "run" / "metrics.json")["total"] == 5  # as a stage of a training run has it
    found = read_results(str(tmp_path / "run"))
    assert [*found.scores] == ["plants"]


@pytest.mark.parametrize(
    ("file", "split"),
    [("a/testmini.jsonl.gz", "testmini"), ("test.json", "test"), ("test-00000-of-00001.parquet", "test"),
     ("mine.jsonl", None), ("testminis.jsonl", None), (None, None)],
)  # fmt: skip
def test_a_split_is_named_by_its_file(file: str | None, split: str | None) -> None:
    assert split_of_file(file, ("test", "testmini")) == split


def test_what_needs_an_llm_is_not_scored_where_there_is_none(tmp_path: Path, files: Path) -> None:
    answers = [{"id": str(k), "response": str(k) if k < 5 else "It is five, I think."} for k in range(1, 7)]
    file = write_rows(tmp_path / "a.jsonl", answers)
    assert run(tmp_path / "run", *official(files, "mathvista"), f"predictions={file}") is None
    found = metrics(tmp_path / "run", "mathvista")
    assert (found["accuracy"], found["ci95"], found["correct"], found["not_scored"]) == (None, None, 4, 2)
    assert found["bounds"] == [4 / 6, 1.0]
    unscored = rows(tmp_path / "run" / "mathvista" / "scored.jsonl")[4:]
    assert [(row["correct"], row["decided_by"]) for row in unscored] == [(None, "not scored")] * 2
    assert "no accuracy, 2 of 6 answers were not scored" in (tmp_path / "run" / "report.html").read_text()


def test_an_evaluation_that_was_killed_makes_each_prediction_once(
    tmp_path: Path, files: Path, checkpoint: Path
) -> None:
    asked = (*TINY, f"checkpoint={checkpoint}", *official(files, "mathvision", "mathverse"))
    run(tmp_path / "whole", *asked)
    folder, kills = tmp_path / "killed", 0
    leave_scoring_processes()
    partly = []
    for at in (27, 16, 20, 30):  # writes: in the first benchmark's answers, in the second's, in the scoring
        kills += killed(partial(run, folder, *asked), at)
        partly.append(sum(f.read_bytes().count(b"\n") for f in folder.glob("*/predictions.jsonl")))
    assert kills == 4 and 0 < partly[0] < 12  # among the answers, not before or after
    run(folder, *asked)
    for name in ("mathvision", "mathverse"):
        assert (folder / name / "predictions.jsonl").read_bytes() == (
            tmp_path / "whole" / name / "predictions.jsonl"
        ).read_bytes()
        assert (folder / name / "scored.jsonl").read_text() == (tmp_path / "whole" / name / "scored.jsonl").read_text()


def test_a_finished_evaluation_is_scored_anew_without_the_model(
    tmp_path: Path, files: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (*TINY, f"checkpoint={checkpoint}", *official(files, "mathvision"))
    first = run(tmp_path / "run", *asked)

    def never(config: Any) -> None:
        raise AssertionError("the model was read again")

    monkeypatch.setattr(models, "student", never)
    assert run(tmp_path / "run", *asked, "map_marker=false") == first
    assert metrics(tmp_path / "run", "mathvision")["protocol"]["answer_marker"] == "as it stands"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("evaluation.max_new_tokens=5", "max_new_tokens"),
        ("benchmark.mathvision.prompt=direct", "problems_sha256, prompt"),
        ("limit=3", "problems, problems_sha256"),
        ("decoding=sampling", "decoding"),
        ("backbone.max_pixels=6272", "backbone.max_pixels"),
    ],
)
def test_answers_of_other_settings_are_not_gone_on_with(
    tmp_path: Path, files: Path, checkpoint: Path, change: str, said: str
) -> None:
    asked = (*TINY, f"checkpoint={checkpoint}", *official(files, "mathvision"))
    run(tmp_path, *asked)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file() and f.name != ".lock"}
    with pytest.raises(SettingsChanged, match=rf"other settings \(.*{said}.*\); choose another hydra.run.dir"):
        run(tmp_path, *asked, change)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file() and f.name != ".lock"} == before


def test_another_checkpoint_s_answers_are_not_gone_on_with(tmp_path: Path, files: Path, checkpoint: Path) -> None:
    run(tmp_path / "run", *TINY, f"checkpoint={checkpoint}", *official(files, "mathvision"))
    other = tmp_path / "other"
    tiny_backbone(seed=1).save(other)
    with pytest.raises(SettingsChanged, match=r"\(checkpoint, checkpoint_sha256\)"):
        run(tmp_path / "run", *TINY, f"checkpoint={other}", *official(files, "mathvision"))


def test_a_missing_picture_is_named_before_a_model_is_read(tmp_path: Path, files: Path, checkpoint: Path) -> None:
    alone = tmp_path / "mathvista.jsonl"
    alone.write_text((files / "mathvista.jsonl").read_text())
    with pytest.raises(DataError, match=r"mathvista\.jsonl:1: no image 'images/1\.png'"):
        run(tmp_path / "run", *TINY, f"checkpoint={checkpoint}", *official(tmp_path, "mathvista"))
    assert not (tmp_path / "run").exists()


def test_a_problem_that_the_model_cannot_take_is_answered_with_nothing_and_listed(
    tmp_path: Path, files: Path, checkpoint: Path
) -> None:
    asked = [dict(row) for row in rows(files / "mathvision.jsonl")]
    asked[2]["question"] = "word " * 30_000
    write_rows(tmp_path / "mathvision.jsonl", asked)
    settings = ["benchmark=mathvision", f"benchmark.mathvision.problems={tmp_path}/mathvision.jsonl"]
    run(tmp_path / "run", *TINY, f"checkpoint={checkpoint}", *settings, f"benchmark.mathvision.images={files}")
    (listed,) = rows(tmp_path / "run" / "mathvision" / "unasked.jsonl")
    assert listed["id"] == "3" and "at most" in listed["reason"]
    scored = {row["id"]: row for row in rows(tmp_path / "run" / "mathvision" / "scored.jsonl")}
    assert scored["3"]["response"] == "" and scored["3"]["correct"] is False
    found = metrics(tmp_path / "run", "mathvision")
    assert (found["total"], found["protocol"]["unasked"]) == (6, 1)


def test_the_student_s_own_prompt_can_be_asked_for(tmp_path: Path, files: Path, checkpoint: Path) -> None:
    backbone, seen = tiny_backbone(), []
    from evaluation.cases import configured
    from mathse.evaluation.opened import open_benchmarks

    for prompt in ("cot", "student"):
        settings = [*official(files, "mathvision"), f"benchmark.mathvision.prompt={prompt}"]
        (opened,) = open_benchmarks(configured(f"checkpoint={checkpoint}", *settings), tmp_path)
        seen.append(sampling.row_of(opened.bench, backbone, opened.items[0])["question"])
    assert seen[0].startswith("Please solve the problem step by step")
    assert seen[1] == rows(files / "mathvision.jsonl")[0]["question"]  # the compact style


def test_a_benchmark_of_one_s_own_needs_no_registration(tmp_path: Path, files: Path) -> None:
    given = [{"id": str(k), "response": f"perhaps {k}, who knows"} for k in range(1, 7)]
    file = write_rows(tmp_path / "a.jsonl", given)
    own = ["benchmark=[]", "+benchmark.mine._target_=evaluation.cases.Lenient"]
    own += [f"+benchmark.mine.problems={files}/mathvision.jsonl", f"predictions={file}"]
    assert run(tmp_path / "run", *own, "+benchmark.mine.case=false") == 1
    assert metrics(tmp_path / "run", "mine")["correct"] == 6
    with pytest.raises(ConfigError, match=r"benchmark\.mine\.cas: no such setting; .* takes prompt, case, problems"):
        run(tmp_path / "run", *own, "+benchmark.mine.cas=false")


# --- the synthetic task -----------------------------------------------------------------------------------------------


def test_the_embedded_world_keeps_the_files_of_a_stage(tmp_path: Path, checkpoint: Path) -> None:
    accuracy = run(tmp_path, *TINY, f"checkpoint={checkpoint}")
    assert read_json(tmp_path / "metrics.json") == {
        "accuracy": accuracy, "correct": 0, "total": 7, "ci95": metrics(tmp_path, "synthetic")["ci95"]
    }  # fmt: skip
    assert [set(row) for row in rows(tmp_path / "predictions.jsonl")] == [
        {"id", "response", "prediction", "answer", "correct"}
    ] * 7
    assert [row["id"] for row in rows(tmp_path / "predictions.jsonl")] == [
        row["id"] for row in rows(tmp_path / "synthetic" / "predictions.jsonl")
    ]
    assert metrics(tmp_path, "synthetic")["split"] == "test"


def test_several_samples_are_drawn_in_one_pass_and_all_are_scored(tmp_path: Path, checkpoint: Path) -> None:
    asked = (*TINY, f"checkpoint={checkpoint}", "n_samples=3", "selector=majority")
    run(tmp_path / "a", *asked)
    written = rows(tmp_path / "a" / "synthetic" / "predictions.jsonl")
    assert len(written) == 21 and {row["sample"] for row in written} == {0, 1, 2}
    assert len({row["response"] for row in written if row["id"] == written[0]["id"]}) > 1  # drawn, not greedy
    assert len(rows(tmp_path / "a" / "synthetic" / "samples.jsonl")) == 21
    assert len(rows(tmp_path / "a" / "synthetic" / "scored.jsonl")) == 7
    found = metrics(tmp_path / "a", "synthetic")
    assert found["selectors"]["n"] == [1, 2, 3]
    assert found["protocol"]["answers"]["decoding"] == "sampling" and found["protocol"]["selector"] == "majority"
    assert "Accuracy against the number of samples" in (tmp_path / "a" / "synthetic" / "report.html").read_text()

    run(tmp_path / "b", *asked)
    assert (tmp_path / "b" / "synthetic" / "predictions.jsonl").read_text() == (
        tmp_path / "a" / "synthetic" / "predictions.jsonl"
    ).read_text()
    run(tmp_path / "c", *asked, "seed=1", "data.seed=0")
    assert rows(tmp_path / "c" / "synthetic" / "predictions.jsonl") != written


def test_a_sampling_pass_can_be_scored_again_from_its_file(tmp_path: Path, checkpoint: Path) -> None:
    asked = (*TINY, "n_samples=3")
    run(tmp_path / "a", *asked, f"checkpoint={checkpoint}", "selector=majority")
    file = tmp_path / "a" / "synthetic" / "predictions.jsonl"
    run(tmp_path / "b", *asked, f"predictions={file}", "selector=majority")
    assert rows(tmp_path / "b" / "synthetic" / "scored.jsonl") == rows(tmp_path / "a" / "synthetic" / "scored.jsonl")
    assert metrics(tmp_path / "b", "synthetic")["selectors"] == metrics(tmp_path / "a", "synthetic")["selectors"]
