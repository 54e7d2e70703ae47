"""``python train.py experiment=smoke``: every stage of Algorithm 1, and what the run folder promises about it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Command, Smoke
from e2e.runs import everything, problems_of, rows, stages
from mathse.__main__ import main as mathse
from mathse.config import build
from mathse.config.data import SyntheticDataConfig
from mathse.runs.store import read_json, read_jsonl, sha256_file
from mathse.scoring.answers import extract_answer, same_answer
from mathse.types import ReasoningPath, Reflection, Verdict

STUDENT = {"predictions.jsonl", "metrics.json", "checkpoint", "stage.json"}
FITTED = STUDENT | {"train.jsonl", "incorrect.jsonl", "train_log.jsonl"}
JUDGED = {"paths.jsonl", "verdicts.jsonl", "orm_metrics.json", "orm_held.jsonl"}
FILES = {
    "base": STUDENT,
    "orm": {"feedback.jsonl", "train_log.jsonl", "orm_held.jsonl", "metrics.json", "checkpoint", "stage.json"},
    "distill": FITTED | JUDGED,
    "round_01": FITTED | JUDGED,
    "reflection": {"reflections.jsonl", "verdicts.jsonl", "train.jsonl", "incorrect.jsonl", "stage.json"},
    "final": FITTED,
}
STUDENTS = ["base", "distill", "round_01", "final"]


@pytest.fixture(scope="module")
def world(smoke: Smoke) -> dict[str, list[str]]:
    """Problem ids by split, of the world that the run records as its own."""
    settings = dict(read_json(smoke.folder / "run.json")["config"]["data"])
    settings.pop("_target_")
    return {split: [p.id for p in found] for split, found in build(SyntheticDataConfig(**settings)).splits().items()}


def read(smoke: Smoke, name: str, kind: Any) -> list[Any]:
    return list(read_jsonl(smoke.folder / name, kind))


# --- stages and their files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", FILES)
def test_a_stage_has_its_files(smoke: Smoke, stage: str) -> None:
    assert FILES[stage] - {f.name for f in (smoke.folder / stage).iterdir()} == set()


def test_a_finished_run_has_no_scratch_left(smoke: Smoke) -> None:
    names = {f.name for f in smoke.folder.rglob("*")}
    assert not {n for n in names if n.endswith(".partial") or n in ("stage.begun.json", "fit")}


def test_a_manifest_lists_the_files_as_they_are(smoke: Smoke) -> None:
    for name, manifest in stages(smoke.folder).items():
        assert manifest["outputs"]
        for file, recorded in manifest["outputs"].items():
            found = smoke.folder / name / file
            assert (sha256_file(found), found.stat().st_size) == (recorded["sha256"], recorded["bytes"]), found


def test_a_manifest_says_what_the_stage_was_made_from(smoke: Smoke) -> None:
    found = stages(smoke.folder)
    assert set(found["final"]["after"]) == {"orm", "reflection", "round_01"}
    for manifest in found.values():
        assert all(found[before]["identity"] == identity for before, identity in manifest["after"].items())
        assert set(manifest["time_s"]) == {"fit", "sample", "judge", "other"}
        assert sum(manifest["time_s"].values()) == pytest.approx(manifest["wall_s"], abs=0.01)
        assert manifest["versions"]["torch"] and manifest["config"]["seed"] == 0


def test_each_path_has_one_verdict(smoke: Smoke) -> None:
    for stage in ("distill", "round_01"):
        paths = [p.id for p in read(smoke, f"{stage}/paths.jsonl", ReasoningPath)]
        verdicts = [v.path_id for v in read(smoke, f"{stage}/verdicts.jsonl", Verdict)]
        assert paths and len(paths) == len(set(paths))
        assert sorted(paths) == sorted(verdicts)


# --- merging ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "origin"), [("distill", "teacher"), ("round_01", "student"), ("reflection", "reflection")]
)
def test_a_stage_merges_rows_of_its_own(smoke: Smoke, stage: str, origin: str) -> None:
    merged = [p for p in read(smoke, f"{stage}/train.jsonl", ReasoningPath) if p.lineage.stage == stage]
    assert merged
    assert {p.lineage.origin for p in merged} == {origin}


def test_what_the_answer_judge_merged_has_the_right_answer(smoke: Smoke) -> None:
    world = build(SyntheticDataConfig())
    for path in read(smoke, "final/train.jsonl", ReasoningPath):
        assert same_answer(extract_answer(path.text), world.get(path.problem_id).answer)


def test_training_rows_only_grow_and_cover_a_problem_once(smoke: Smoke) -> None:
    before: list[str] = []
    for stage in ("distill", "round_01", "reflection", "final"):
        now = [p.id for p in read(smoke, f"{stage}/train.jsonl", ReasoningPath)]
        problems = problems_of(smoke.folder / stage / "train.jsonl")
        assert now[: len(before)] == before
        assert len(set(now)) == len(now) and len(set(problems)) == len(problems)
        before = now


def test_a_round_tries_exactly_the_problems_of_d_that_have_no_accepted_path(
    smoke: Smoke, world: dict[str, list[str]]
) -> None:
    d = {*world["seed"], *world["pool"]}
    solved = set(problems_of(smoke.folder / "distill" / "train.jsonl"))
    tried = problems_of(smoke.folder / "round_01" / "paths.jsonl")
    assert solved < d
    assert sorted(tried) == sorted(d - solved)


def test_every_rejected_draft_of_a_student_is_in_r_incorrect_with_its_verdict(smoke: Smoke) -> None:
    verdicts = {v.path_id: v for v in read(smoke, "round_01/verdicts.jsonl", Verdict)}
    entries = rows(smoke.folder / "round_01" / "incorrect.jsonl")
    assert {e["path"]["id"] for e in entries} == {i for i, v in verdicts.items() if v.status != "correct"}
    assert all(Verdict.from_json(e["verdict"]) == verdicts[e["path"]["id"]] for e in entries)


def test_every_training_row_comes_from_a_path_that_a_stage_wrote(smoke: Smoke) -> None:
    written = {p.id: p for s in ("distill", "round_01") for p in read(smoke, f"{s}/paths.jsonl", ReasoningPath)}
    rewritten = {r.revised.id: r for r in read(smoke, "reflection/reflections.jsonl", Reflection)}
    for row in read(smoke, "final/train.jsonl", ReasoningPath):
        if row.lineage.origin == "reflection":
            reflection = rewritten[row.id]
            assert reflection.revised == row
            assert reflection.draft == written[row.lineage.parent]
            assert (reflection.draft.problem_id, reflection.draft.lineage.stage) == (row.problem_id, "round_01")
        else:
            assert written[row.id] == row
            assert row.lineage.parent is None
        if row.lineage.origin == "student":
            assert (smoke.folder / row.lineage.model / "model.safetensors").is_file()


def test_only_unsolved_problems_are_reflected_on(smoke: Smoke) -> None:
    drafts = [r.draft.problem_id for r in read(smoke, "reflection/reflections.jsonl", Reflection)]
    assert set(drafts).isdisjoint(problems_of(smoke.folder / "round_01" / "train.jsonl"))
    assert set(drafts) == set(problems_of(smoke.folder / "round_01" / "incorrect.jsonl"))


# --- nothing leaks ----------------------------------------------------------------------------------------------------


def test_no_training_file_holds_a_problem_or_a_picture_of_the_test(smoke: Smoke, world: dict[str, list[str]]) -> None:
    tested = {row["id"] for row in rows(smoke.folder / "final" / "predictions.jsonl")}
    assert tested == set(world["test"])
    files = [*smoke.folder.rglob("train.jsonl"), *smoke.folder.rglob("feedback.jsonl")]
    assert len(files) == 5
    for file in files:
        used = set(problems_of(file))
        assert used.isdisjoint(tested)
        assert pictures(used).isdisjoint(pictures(tested)), file


def test_the_orm_is_measured_on_problems_and_pictures_it_was_not_trained_on(smoke: Smoke) -> None:
    trained, held = (set(problems_of(smoke.folder / "orm" / f)) for f in ("feedback.jsonl", "orm_held.jsonl"))
    assert trained and held
    assert trained.isdisjoint(held)
    assert pictures(trained).isdisjoint(pictures(held))


def test_the_orm_learns_from_as_many_right_as_wrong_paths(smoke: Smoke) -> None:
    labels = [row["verdict"]["status"] for row in rows(smoke.folder / "orm" / "feedback.jsonl")]
    assert labels.count("correct") == labels.count("wrong") == len(labels) / 2 > 0


def pictures(problem_ids: set[str]) -> set[str]:
    """``digits/muladd/0012-0345-0678`` shows the pictures 12, 345 and 678."""
    return {digit for i in problem_ids for digit in i.rsplit("/", 1)[1].split("-")}


# --- the student, the report, the log ---------------------------------------------------------------------------------


def test_checkpoints_open_with_plain_transformers(smoke: Smoke) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    for stage in (*STUDENTS, "orm"):
        folder = smoke.folder / stage / "checkpoint"
        assert (folder / "model.safetensors").is_file()
        assert not [*folder.glob("*.bin"), *folder.glob("*.py"), *folder.glob("*.pt")]
    opened, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert len(AutoProcessor.from_pretrained(folder).tokenizer) == opened.config.text_config.vocab_size


def test_evaluating_the_final_checkpoint_gives_the_run_s_own_accuracy(smoke: Smoke, command: Command) -> None:
    config = read_json(smoke.folder / "run.json")["config"]
    world = [f"data.{key}={value}" for key, value in config["data"].items() if key != "_target_"]
    length = f"evaluation.max_new_tokens={config['evaluation']['max_new_tokens']}"
    done = command(
        "evaluate.py", f"checkpoint={smoke.folder / 'final' / 'checkpoint'}", "hydra.run.dir=out", length, *world
    )
    assert done.code == 0, done.err
    figures, own = read_json(Path("out/metrics.json")), read_json(smoke.folder / "final" / "metrics.json")
    assert set(figures) == {"accuracy", "correct", "total", "ci95"}
    assert figures == {key: own[key] for key in figures}
    assert Path("out/predictions.jsonl").read_text() == (smoke.folder / "final" / "predictions.jsonl").read_text()
    assert f"accuracy {own['accuracy']:.4f}" in done.out


def test_the_report_stands_alone_and_shows_each_stage(smoke: Smoke) -> None:
    page = (smoke.folder / "report.html").read_text()
    assert all(name in page for name in STUDENTS)
    assert '"png":"' in page
    assert not [word for word in ('src="http', "src='http", "<link", "@import", "url(http") if word in page]


def test_the_report_can_be_made_again_by_hand(
    smoke: Smoke, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mathse(["report", str(smoke.folder), "--out", str(tmp_path / "one.html")]) == 0
    own = (smoke.folder / "report.html").read_text()
    assert (tmp_path / "one.html").read_text() == own.replace('data-parts="report_parts"', 'data-parts="one_parts"')
    parts, own_parts = tmp_path / "one_parts", smoke.folder / "report_parts"
    assert {f.name: f.read_bytes() for f in parts.iterdir()} == {f.name: f.read_bytes() for f in own_parts.iterdir()}
    assert "Its numbers mean nothing." in own and "Its numbers mean nothing." in smoke.said
    assert mathse(["report", str(smoke.folder), str(tiny), "--out", str(tmp_path / "two.html")]) == 0
    page = (tmp_path / "two.html").read_text()
    assert "2 runs side by side" in page and "round 1" in page


def test_the_log_says_stage_rows_and_result(smoke: Smoke) -> None:
    assert [line for line in smoke.said.splitlines() if re.match(r"[\d-]+ [\d:]+ round_01: ", line)]
    last = next(line for line in smoke.said.splitlines() if line.startswith("final  "))
    rows_of_final = str(len(rows(smoke.folder / "final" / "train.jsonl")))
    assert rows_of_final in last.split()
    assert "\x1b" not in smoke.said  # no colours in a log file


def test_the_log_has_each_student_s_test_accuracy_when_it_is_measured(smoke: Smoke) -> None:
    for stage in STUDENTS:
        share = read_json(smoke.folder / stage / "metrics.json")["accuracy"]
        line = rf"\d{{4}}-[\d-]+ [\d:]+ {stage}: test accuracy {share * 100:.1f}% \[.+\] on [\d,]+ problems"
        assert len(re.findall(line, smoke.said)) == 1, smoke.said


def test_a_finished_run_started_again_does_nothing_and_says_so(smoke: Smoke, command: Command) -> None:
    before = everything(smoke.folder)
    done = command(*smoke.command)
    assert (done.code, done.err) == (0, "")
    assert f"{smoke.folder} was finished before; nothing to do" in done.out
    assert everything(smoke.folder) == before


def test_run_json_records_the_settings_and_no_times(smoke: Smoke) -> None:
    recorded = read_json(smoke.folder / "run.json")
    assert set(recorded) == {"name", "task", "seed", "config"}
    assert recorded["config"]["evolution"]["rounds"] == 1
    assert "api_key" not in json.dumps(recorded).replace("api_key_env", "")  # the names of variables, never a key
