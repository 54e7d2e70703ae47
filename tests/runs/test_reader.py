"""One reader of a run folder: finished stages only, in order, and only files that are as their stage recorded them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from run_builder import build_run, record_again

from mathse.__main__ import main
from mathse.errors import DataError, RunError
from mathse.runs import layout, reader
from mathse.runs.reader import (
    FinishedStage,
    find_last_change,
    find_run_above,
    find_runs,
    read_run,
    read_stage,
    read_stages,
)
from mathse.runs.store import read_json, read_jsonl, write_json
from mathse.types import ReasoningPath, Verdict

OldRun = Callable[[str], Path]

STAGES = ["base", "orm/student_8", "orm/solver", "orm", "distill", "round_01", "reflection", "final"]


def flip(file: Path) -> None:
    """Change one letter of a model's text, and nothing else: the row is as good a row as before."""
    content = bytearray(file.read_bytes())
    content[content.index(b"Step") if b"Step" in content else len(content) // 2] ^= 1
    file.write_bytes(content)


def stage_of(run: Path, name: str) -> FinishedStage:
    stage = read_run(run).stage(name)
    assert stage is not None
    return stage


# --- what it gives ----------------------------------------------------------------------------------------------------


def test_a_run_is_its_head_its_settings_of_today_and_its_stages_in_the_order_they_were_made(old_run: OldRun) -> None:
    run = read_run(old_run("random"))
    assert (run.name, run.task, run.seed, run.finished, run.threshold) == ("smoke", "evolve", 0, True, 0.5)
    assert [stage.name for stage in run.stages] == STAGES
    assert run.settings["data._target_"] == "mathse.data.synthetic.SyntheticData"  # it has moved since
    assert [entry["stage"] for entry in run.entries] == ["base", "distill", "round_01", "final"]
    assert run.orm is not None and run.orm["n"] > 0 and "reliability" in run.orm
    assert [name for name, _ in run.orm_by_student] == ["distill", "round_01"]


def test_a_stage_gives_its_files_as_values_rows_and_numbered_lines(old_run: OldRun) -> None:
    folder = old_run("random")
    stage, file = stage_of(folder, "round_01"), folder / "round_01" / "paths.jsonl"
    assert stage.after == ("distill", "orm") and stage.identity == read_json(stage.folder / "stage.json")["identity"]
    assert stage.json("metrics.json") == read_json(stage.folder / "metrics.json") and stage.json("x.json") is None
    assert list(stage.rows("paths.jsonl")) == list(read_jsonl(file)) and list(stage.rows("x.jsonl")) == []
    paths = list(read_jsonl(file, ReasoningPath))
    assert list(stage.rows("paths.jsonl", ReasoningPath)) == list(stage.records("paths.jsonl", ReasoningPath)) == paths
    assert list(stage.lines("paths.jsonl", ReasoningPath)) == list(enumerate(paths, 1))
    third = paths[2].problem_id
    assert [number for number, _ in stage.lines("paths.jsonl", text=third)] == [3]
    assert stage.curve() and {"step", "loss"} <= stage.curve()[0].keys()
    solved = {row["id"]: row["correct"] for row in read_jsonl(stage.folder / "predictions.jsonl")}
    assert stage.solved() == solved and len(solved) == 8
    assert stage.weights.keys() == {"model.safetensors"} and stage.checkpoint == stage.folder / "checkpoint"
    assert stage_of(folder, "reflection").checkpoint is None and stage_of(folder, "reflection").solved() == {}


def test_stages_follow_those_they_were_made_from_whatever_their_names(tmp_path: Path) -> None:
    after = {"zero": [], "base": [], "round_10": ["round_09"], "round_09": ["aside"], "aside": ["zero", "base"]}
    for name, before in after.items():
        record = {"stage": name, "identity": name, "config": {}, "keys": [], "after": dict.fromkeys(before, "x")}
        write_json(tmp_path / name / "stage.json", {**record, "outputs": {}, "summary": {}})
    assert [stage.name for stage in read_stages(tmp_path)] == ["base", "zero", "aside", "round_09", "round_10"]


@pytest.mark.parametrize("last", ["base", "orm/solver", "distill", "round_01"])
def test_a_run_under_way_is_read_as_far_as_its_finished_stages(tmp_path: Path, last: str) -> None:
    run = build_run(tmp_path / "run", size=12, stop_after=last)
    (run / "round_02").mkdir()
    (run / "round_02" / "paths.jsonl").write_text('{"id": "torn')
    (run / "round_02" / "stage.begun.json").write_text("{}")
    read = read_run(run)
    assert read.stages[-1].name == last and not read.finished and read.stage("round_02") is None
    assert [e["stage"] for e in read.entries] == [s.name for s in read.stages if s.has("predictions.jsonl")]


def test_runs_are_found_below_and_above_a_path(tmp_path: Path) -> None:
    one, two = (build_run(tmp_path / name, size=12, stop_after="base") for name in ("a/one", "two"))
    (tmp_path / "link").symlink_to(two)
    assert find_runs([tmp_path, two]) == [one, two]
    assert find_run_above(one / "base" / "train.jsonl") == one.resolve() and find_run_above(tmp_path) is None
    os.utime(two / "run.json", (0, 0))
    assert find_last_change(two) == (two / "base" / "stage.json").stat().st_mtime


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["report"],
        ["lineage", "--all"],
        ["replay"],
        ["compare"],
        ["export", "--format", "swift"],
    ],
    ids=lambda command: command[0],
)
def test_one_flipped_bit_in_the_verdicts_is_refused_by_whoever_reads_the_run(
    command: list[str], old_run: OldRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = old_run("random")
    stage = "final" if command[0] == "compare" else "round_01"
    file = run / stage / ("train.jsonl" if command[0] == "compare" else "verdicts.jsonl")
    flip(file)
    verb, *options = command
    assert main([verb, str(run), *options]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{file} has other contents than recorded (sha256); put the file back, or remove {file.parent}" in error


def test_a_stage_is_compared_only_with_all_its_rows_as_recorded(
    old_run: OldRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = old_run("random")
    shutil.rmtree(run / "round_01" / "checkpoint")  # to save the disk
    assert main(["compare", f"before={run / 'round_01'}", f"after={run}"]) == 0
    flip(run / "round_01" / "verdicts.jsonl")
    assert main(["compare", f"before={run / 'round_01'}", f"after={run}"]) == 1
    assert "round_01/verdicts.jsonl has other contents than recorded" in capsys.readouterr().err


def test_a_study_refuses_a_run_whose_answers_were_edited(tmp_path: Path) -> None:
    from mathse.reporting.study.collect import right_answers

    run = build_run(tmp_path / "run", size=12)
    assert right_answers(read_run(run), "last.accuracy")
    flip(run / "final" / "predictions.jsonl")
    with pytest.raises(RunError, match=r"final/predictions\.jsonl has other contents than recorded"):
        right_answers(read_run(run), "last.accuracy")
    (run / "final" / "predictions.jsonl").unlink()
    assert right_answers(read_run(run), "last.accuracy") is None  # the summary has the figure


@pytest.mark.parametrize("read", ["rows", "json", "records", "lines", "path"])
def test_a_file_that_was_edited_is_named_however_it_is_read(read: str, old_run: OldRun) -> None:
    stage = stage_of(old_run("random"), "distill")
    file = "metrics.json" if read == "json" else "verdicts.jsonl"
    (stage.folder / file).write_bytes((stage.folder / file).read_bytes() + b"\n")
    with pytest.raises(RunError, match=rf"distill/{file} has \d+ bytes, not the recorded \d+; put the file back"):
        getattr(stage, read)(file, *([Verdict] if read == "records" else []))
        list(getattr(stage, read)(file))


def test_a_file_that_the_stage_did_not_make_is_named(old_run: OldRun) -> None:
    stage = stage_of(old_run("random"), "base")
    shutil.copy(stage.folder.parent / "distill" / "verdicts.jsonl", stage.folder)
    with pytest.raises(RunError, match=r"base/verdicts\.jsonl is no file of the stage: its stage\.json does not"):
        list(stage.rows("verdicts.jsonl"))
    assert main(["report", str(stage.folder.parent)]) == 1


def test_a_file_that_is_gone_is_named(old_run: OldRun) -> None:
    stage = stage_of(old_run("random"), "distill")
    (stage.folder / "paths.jsonl").unlink()
    assert stage.has("paths.jsonl") and not stage.is_here("paths.jsonl")
    with pytest.raises(RunError, match=r"distill/paths\.jsonl is missing; put the file back, or remove"):
        list(stage.rows("paths.jsonl"))


def test_the_manifest_of_another_stage_is_named(old_run: OldRun) -> None:
    run = old_run("random")
    shutil.copy(run / "distill" / "stage.json", run / "round_01" / "stage.json")
    with pytest.raises(RunError, match=r"round_01/stage\.json is that of stage 'distill'"):
        read_run(run)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "checkpoint/../../x"])
def test_a_manifest_that_lists_files_outside_its_folder_is_refused(name: str, old_run: OldRun) -> None:
    file = old_run("random") / "base" / "stage.json"
    manifest = read_json(file)
    manifest["outputs"][name] = {"sha256": "0" * 64, "bytes": 1}
    write_json(file, manifest)
    with pytest.raises(RunError, match="which is not below"):
        read_stage(file.parent)


@pytest.mark.parametrize("change", [{"outputs": []}, {"outputs": {"x": 1}}, {"summary": None}, {"after": ["base"]}])
def test_a_manifest_of_another_shape_is_named(change: dict[str, object], old_run: OldRun) -> None:
    file = old_run("random") / "base" / "stage.json"
    write_json(file, {**read_json(file), **change})
    with pytest.raises(RunError, match=r"base/stage\.json"):
        read_stage(file.parent)


def test_a_folder_that_is_no_run_or_no_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run folder: it has no run\.json"):
        read_run(tmp_path)
    with pytest.raises(RunError, match=r"is not a finished stage: it has no stage\.json"):
        read_stage(tmp_path)


def test_rows_that_are_no_answers_are_named_by_their_line(tmp_path: Path) -> None:
    run = build_run(tmp_path / "run", size=12)
    with open(run / "final" / "predictions.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "x"}) + "\n")
    record_again(run)
    with pytest.raises(DataError, match=r"predictions\.jsonl:13: is no answer as a run writes it"):
        stage_of(run, "final").solved()


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_a_file_is_hashed_once_a_process_until_it_changes(old_run: OldRun, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def counted(file: Path) -> str:
        hashed.append(file.name)
        return str(real(file))

    real = reader.sha256_file
    monkeypatch.setattr(reader, "sha256_file", counted)
    run = old_run("random")
    for _ in range(3):
        list(stage_of(run, "distill").rows("verdicts.jsonl", Verdict))
    assert hashed == ["verdicts.jsonl"]
    os.utime(run / "distill" / "verdicts.jsonl", (1, 1))
    list(stage_of(run, "distill").rows("verdicts.jsonl", Verdict))
    assert hashed == ["verdicts.jsonl"] * 2
    stage_of(run, "base").verify()
    assert len(hashed) == len(set(stage_of(run, "base").sha256)) + 2


# --- names ------------------------------------------------------------------------------------------------------------


def test_stage_names_sort_as_a_run_makes_them() -> None:
    made = ["base", "orm/student_50", "orm/student_200", "orm", "distill", "round_01", "round_01/reflection",
            "round_02", "round_10", "reflection", "final", "of_a_user"]  # fmt: skip
    assert sorted(set(made), key=layout.stage_order) == made


def test_every_file_that_a_run_leaves_is_spelt_in_the_layout(old_run: OldRun) -> None:
    known = {value for value in vars(layout).values() if isinstance(value, str)}
    for name in ("random", "orm"):
        for stage in read_run(old_run(name)).stages:
            made = {file for file in stage.sha256 if not file.startswith(("checkpoint/", "try_"))}
            assert made <= known
