"""Every task, and the switches of the loop: each run is whole, and each switch leaves its mark on the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Smoke
from e2e.runs import SIZES, TINY, problems_of, rows, run, stages
from mathse.__main__ import main as mathse
from mathse.errors import DataError
from mathse.runs.store import read_json, read_jsonl, sha256_file, write_jsonl
from mathse.types import Lineage, ReasoningPath, Reflection, Verdict


def weights(folder: Path) -> str:
    return sha256_file(folder / "checkpoint" / "model.safetensors")


def paths(file: Path) -> list[ReasoningPath]:
    return list(read_jsonl(file, ReasoningPath))


def reflections(file: Path) -> list[Reflection]:
    return list(read_jsonl(file, Reflection))


def check_bookkeeping(folder: Path) -> None:
    """What holds in every run: rows grow, are unique, belong to D and come from a path or a rewrite of this run."""
    written = {p.id: p for f in folder.glob("*/paths.jsonl") for p in paths(f)}
    rewritten = {r.revised.id: r.revised for f in folder.rglob("reflections.jsonl") for r in reflections(f)}
    assert written.keys().isdisjoint(rewritten)
    test = {row["id"] for row in rows(folder / "final" / "predictions.jsonl")}
    summary = read_json(folder / "summary.json")
    before: list[ReasoningPath] = []
    for entry in summary["stages"][1:]:
        now = paths(folder / entry["stage"] / "train.jsonl")
        assert now[: len(before)] == before
        assert len({p.id for p in now}) == len(now) == entry["train_rows"]
        assert sum(entry["transitions"].values()) == entry["n"] == len(test)
        before = now
    assert all((written | rewritten)[p.id] == p for p in before)
    assert all(p.lineage.parent in written for p in before if p.lineage.origin == "reflection")
    assert test.isdisjoint(p.problem_id for p in before)


# --- the switches of the loop -----------------------------------------------------------------------------------------


def test_reflection_in_every_round_by_the_teacher_with_two_tries_at_all_drafts(tmp_path: Path) -> None:
    switches = ("when=every", "feedback=teacher", "tries=2", "all_drafts=true", "init=previous")
    run(
        tmp_path,
        *TINY,
        *(f"evolution.reflect.{s}" for s in switches),
        "evolution.rounds=2",
        "evolution.init=previous",
        "evolution.round.sample_size=6",
    )
    check_bookkeeping(tmp_path)
    assert len(rows(tmp_path / "round_01" / "paths.jsonl")) == 6
    assert set(stages(tmp_path)["final"]["after"]) == {"round_02", "round_02/reflection"}
    for stage in ("round_01", "round_02"):
        made = reflections(tmp_path / stage / "reflection" / "reflections.jsonl")
        drafts = {row["path"]["id"] for row in rows(tmp_path / stage / "incorrect.jsonl")}
        assert {r.draft.id for r in made} == drafts  # all of them, of problems solved since too
        assert {r.feedback.judge for r in made if r.feedback} == {"teacher"}
        said = {v.path_id: v.status for v in read_jsonl(tmp_path / stage / "reflection" / "verdicts.jsonl", Verdict)}
        first = {r.draft.id: said[r.revised.id] for r in made if "/reflection/0/" in r.revised.id}
        second = {r.draft.id for r in made if "/reflection/1/" in r.revised.id}
        assert second == {draft for draft, status in first.items() if status != "correct"}


def test_reflection_by_the_student_without_feedback(tmp_path: Path, tiny: Path) -> None:
    run(tmp_path, *TINY, "evolution.reflect.writer=student", "evolution.reflect.feedback=none")
    check_bookkeeping(tmp_path)
    made = reflections(tmp_path / "reflection" / "reflections.jsonl")
    assert made and all(r.feedback is None for r in made)
    assert {r.revised.lineage.model for r in made} == {"round_01/checkpoint"}
    assert {r.revised.lineage.seed for r in made} != {0}
    assert not (tmp_path / "orm").exists()  # nothing asked it
    assert {r.revised.lineage.model for r in reflections(tiny / "reflection" / "reflections.jsonl")} == {"symbolic"}


def test_several_samples_a_problem_all_of_which_are_kept(tmp_path: Path) -> None:
    run(tmp_path, *TINY, "evolution.samples_per_problem=2", "evolution.keep=all", "evolution.reflect.when=never")
    check_bookkeeping(tmp_path)
    tried = problems_of(tmp_path / "round_01" / "paths.jsonl")
    assert all(tried.count(p) == 2 for p in tried)
    kept = problems_of(tmp_path / "round_01" / "train.jsonl")
    accepted = [v for v in read_jsonl(tmp_path / "round_01" / "verdicts.jsonl", Verdict) if v.status == "correct"]
    assert len(kept) == len(problems_of(tmp_path / "distill" / "train.jsonl")) + len(accepted)
    assert max(kept.count(p) for p in kept) == 2


def test_of_several_accepted_samples_one_is_kept(tmp_path: Path) -> None:
    run(tmp_path, *TINY, "evolution.samples_per_problem=2", "judge.rate=1", "evolution.reflect.when=never")
    check_bookkeeping(tmp_path)
    kept = problems_of(tmp_path / "final" / "train.jsonl")
    assert len(set(kept)) == len(kept) == 24  # all of D
    assert {p.id[-2:] for p in paths(tmp_path / "round_01" / "train.jsonl")} == {"/0"}


def test_a_round_from_the_previous_student_is_another_student(tmp_path: Path, tiny: Path) -> None:
    run(tmp_path, *TINY, "evolution.init=previous", "resume=branch", f"resume_from=[{tiny}]")
    check_bookkeeping(tmp_path)
    assert weights(tmp_path / "distill") == weights(tiny / "distill")
    assert (tmp_path / "round_01" / "paths.jsonl").read_text() == (tiny / "round_01" / "paths.jsonl").read_text()
    assert (tmp_path / "round_01" / "train.jsonl").read_text() == (tiny / "round_01" / "train.jsonl").read_text()
    assert weights(tmp_path / "round_01") != weights(tiny / "round_01")


def test_an_ablation_without_measuring_still_ends_in_a_run(tmp_path: Path) -> None:
    summary = run(tmp_path, *TINY, "~callbacks.evaluate")
    assert [entry["accuracy"] is None for entry in summary["stages"]] == [False, True, True, True]
    assert summary["metric"] is None and summary["stages"][-1]["train_rows"] > 0


@pytest.mark.parametrize(
    "judge", ["orm_and_answer", "teacher", *(pytest.param(j, marks=pytest.mark.slow) for j in ("orm", "answer"))]
)
def test_each_judge_signs_its_verdicts(tmp_path: Path, tiny: Path, judge: str) -> None:
    run(tmp_path, *TINY, f"judge={judge}", "resume=branch", f"resume_from=[{tiny}]")
    check_bookkeeping(tmp_path)
    for stage in ("round_01", "reflection"):
        assert {v.judge for v in read_jsonl(tmp_path / stage / "verdicts.jsonl", Verdict)} == {judge}
    assert {v.judge for v in read_jsonl(tmp_path / "distill" / "verdicts.jsonl", Verdict)} == {"answer"}


# --- the ORM ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "described"),
    [
        (
            ("orm=binary", "orm.order=verdict_first", "orm.see_image=false"),
            {"kind": "binary", "order": "verdict_first", "see_image": False},
        ),
        (
            ("orm.order=solve_first", "orm.see_answer=true", "orm.samples_per_problem=2"),
            {"order": "solve_first", "see_answer": True},
        ),
        (
            ("orm.own_answer=true", "orm.samples_per_problem=2"),
            {"own_answer": True},
        ),
        (
            ("orm.students=[0,4]", "orm.solver_steps=0", "orm.augment=0", "orm.fit.epochs=1", "orm.fit.max_steps=null"),
            {},
        ),
    ],
)
def test_task_orm_trains_each_kind_of_orm(tmp_path: Path, settings: tuple[str, ...], described: dict[str, Any]) -> None:
    summary = run(tmp_path, *TINY, "task=orm", *settings)
    default = {"kind": "generative", "order": "analysis_first", "see_answer": False, "own_answer": False}
    assert read_json(tmp_path / "orm" / "checkpoint" / "orm.json") == {**default, "see_image": True, **described}
    assert [e["stage"] for e in summary["stages"]] == ["base"]
    assert summary["metric"] == summary["orm"]["overall_accuracy"]
    assert summary["orm"]["n"] == len(rows(tmp_path / "orm" / "orm_held.jsonl")) > 0
    assert (summary["orm"]["error_step_accuracy"] is None) == (described.get("kind") == "binary")
    assert weights(tmp_path / "orm") != weights(tmp_path / "orm" / "solver")
    assert any("no better than chance" in note for note in summary["notes"])  # two steps teach nothing


def test_a_trained_orm_serves_another_run_whose_student_is_another(smoke: Smoke, tmp_path: Path) -> None:
    trained = smoke.folder / "orm" / "checkpoint"
    summary = run(tmp_path, *TINY, "judge=orm", "distill.judge=orm", f"judge.checkpoint={trained}")
    check_bookkeeping(tmp_path)
    assert summary["orm"] is None and not (tmp_path / "orm").exists()
    assert {v.judge for v in read_jsonl(tmp_path / "distill" / "verdicts.jsonl", Verdict)} == {"orm"}
    judged = [e["stage"] for e in summary["orm_by_student"]]
    assert judged == [e["stage"] for e in summary["stages"][1:-1] if e["skipped_fit"] is None]


def test_the_orm_may_have_a_backbone_of_its_own(tmp_path: Path) -> None:
    run(
        tmp_path, *TINY, "task=orm", "backbone@orm.backbone=tiny", "orm.backbone.hidden_size=64", "orm.backbone.heads=2"
    )
    sizes = {
        name: read_json(tmp_path / name / "checkpoint" / "config.json")["text_config"]["hidden_size"]
        for name in ("base", "orm/student_8", "orm/solver", "orm")
    }
    assert sizes == {"base": 32, "orm/student_8": 32, "orm/solver": 64, "orm": 64}


# --- the other tasks --------------------------------------------------------------------------------------------------


def test_task_sft_fits_on_the_training_rows_of_another_run(smoke: Smoke, tmp_path: Path) -> None:
    given = smoke.folder / "final" / "train.jsonl"
    summary = run(tmp_path, *TINY, "task=sft", f"sft.train={given}")
    assert [e["stage"] for e in summary["stages"]] == ["base", "sft"]
    assert summary["stages"][1]["train_rows"] == len(rows(given))
    assert summary["stages"][1]["origins"] == read_json(smoke.folder / "summary.json")["stages"][-1]["origins"]
    assert (tmp_path / "sft" / "train.jsonl").read_text() == given.read_text()
    assert weights(tmp_path / "sft") != weights(tmp_path / "base")
    assert not (tmp_path / "orm").exists()


def test_task_sft_leaves_out_rows_of_problems_that_it_is_measured_on(tmp_path: Path) -> None:
    solved = [str(n) for n in range(40)]
    data = tmp_path / "problems.jsonl"
    write_jsonl(data, ({"id": n, "question": f"How much is {n} + 1?", "images": [], "answer": "1"} for n in solved))
    train = tmp_path / "train.jsonl"
    lineage = Lineage("teacher", "distill", "m", None, 0, "")
    write_jsonl(train, (ReasoningPath(f"distill/{n}/0", n, "Step 1: It is 1.", lineage) for n in solved))
    own = (*SIZES, "data=jsonl", f"data.path={data}", "teacher=replay", "task=sft", f"sft.train={train}")
    summary = run(tmp_path / "run", *own, "data.test_share=0.3", "data.dev_share=0.2")
    stage = tmp_path / "run" / "sft"
    measured = {row["id"] for file in stage.glob("*predictions.jsonl") for row in rows(file)}
    learnt = {row["problem_id"] for row in rows(stage / "train.jsonl")}
    assert measured and learnt and not measured & learnt and measured | learnt <= set(solved)
    assert any(f"{len(solved) - len(learnt)} of 40 rows of sft.train are left out" in note for note in summary["notes"])
    write_jsonl(train, (path for path in paths(train) if path.problem_id in measured))
    with pytest.raises(DataError, match="all rows are of problems of the test and dev splits"):
        run(tmp_path / "all", *own, "data.test_share=0.3", "data.dev_share=0.2")


@pytest.mark.parametrize(("size", "solved"), [("null", 24), ("5", 5)])
def test_task_distill_solves_every_row_or_as_many_as_asked(tmp_path: Path, size: str, solved: int) -> None:
    summary = run(tmp_path, *TINY, "task=distill", f"distill.size={size}", "teacher.error_rate=0.5")
    line = summary["stages"][-1]
    assert line["stage"] == "distill"
    assert len(set(problems_of(tmp_path / "distill" / "paths.jsonl"))) == solved
    assert line["accepted"] + line["rejected"] + line["unparsed"] == solved
    assert line["train_rows"] == line["accepted"] == len(rows(tmp_path / "distill" / "train.jsonl"))
    assert not (tmp_path / "distill" / "checkpoint").exists()  # no fit


def test_the_seed_set_is_what_evolve_distills(tiny: Path, tmp_path: Path) -> None:
    assert len(rows(tiny / "distill" / "paths.jsonl")) == 8
    short = ("evolution.rounds=0", "evolution.reflect.when=never")
    summary = run(tmp_path, *TINY, *short, "distill.size=3", "distill.judge=random", "judge.rate=1")
    assert (summary["stages"][1]["accepted"], summary["stages"][1]["train_rows"]) == (3, 3)


# --- real problems ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(fixtures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 10 Geometry3K and 30 MATH-V records as one file."""
    folder = tmp_path_factory.mktemp("real")
    for format, source in (("geometry3k", "geometry3k_samples"), ("mathvision", "mathvision")):
        target = folder / f"{format}.jsonl"
        assert mathse(["convert-data", str(fixtures / "datasets" / source), str(target), "--format", format]) == 0
    joined = "".join((folder / f"{format}.jsonl").read_text() for format in ("geometry3k", "mathvision"))
    (folder / "all.jsonl").write_text(joined)
    return folder / "all.jsonl"


def test_the_whole_loop_runs_on_real_problems(real: Path, tmp_path: Path) -> None:
    summary = run(tmp_path, *SIZES, "data=jsonl", f"data.path={real}", "teacher=replay", "judge=random")
    check_bookkeeping(tmp_path)
    assert [e["stage"] for e in summary["stages"]] == ["base", "distill", "round_01", "final"]
    known = {json.loads(line)["id"] for line in real.read_text().splitlines()}
    assert len(known) == 40
    assert set(problems_of(tmp_path / "final" / "train.jsonl")) < known
    assert all(e["step_precision"] is None for e in summary["stages"][1:])  # no step checker for real problems
    assert all(e["origins"] for e in summary["stages"][1:])
    assert '"png":"' in (tmp_path / "report.html").read_text()


def test_distilling_real_problems_writes_solutions_that_reach_the_answer(real: Path, tmp_path: Path) -> None:
    settings = ("judge=answer", "task=distill", "data=jsonl", f"data.path={real}", "teacher=replay")
    summary = run(tmp_path, *SIZES, *settings)
    line = summary["stages"][-1]
    assert line["accepted"] + line["rejected"] + line["unparsed"] == 40
    assert len(rows(tmp_path / "distill" / "paths.jsonl")) == 40
    assert line["acceptance_precision"] == 1


def test_a_test_file_of_its_own_is_never_learnt_from(real: Path, tmp_path: Path) -> None:
    geometry, vision = (real.with_name(f"{name}.jsonl") for name in ("geometry3k", "mathvision"))
    settings = ("data=jsonl", f"data.path={vision}", f"data.test_path={geometry}", "teacher=replay")
    run(tmp_path, *SIZES, *settings, "judge=random", "evolution.reflect.when=never", "distill.judge=answer")
    check_bookkeeping(tmp_path)
    assert {row["id"].split("/")[0] for row in rows(tmp_path / "final" / "predictions.jsonl")} == {"geometry3k"}
    assert {i.split("/")[0] for i in problems_of(tmp_path / "final" / "train.jsonl")} == {"mathvision"}
