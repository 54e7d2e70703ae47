"""A run folder is a resume point: killed, refused, branched, shared, or with nothing to merge."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Command
from e2e.runs import ROOT, TINY, contents, everything, killed, problems_of, rows, run, stages
from mathse.runs.store import read_json, sha256_file

# No rounds and no reflection: nothing asks the ORM, so there is none.
SHORT = (*TINY, "evolution.rounds=0", "evolution.reflect.when=never")


@pytest.fixture
def finished(tiny: Path, tmp_path: Path) -> Path:
    """A finished run of one round, for this test alone."""
    return Path(shutil.copytree(tiny, tmp_path / "run"))


def test_another_value_in_the_same_folder_is_refused_and_nothing_changes(finished: Path, command: Command) -> None:
    before = everything(finished)
    done = command("train.py", *TINY, f"hydra.run.dir={finished}", "evolution.rounds=3")
    assert done.code == 1
    assert "evolution.rounds: recorded 1, now 3" in done.err
    assert "resume=branch" in done.err and "Traceback" not in done.err
    assert everything(finished) == before


def test_a_value_that_no_finished_stage_depends_on_may_change(finished: Path, command: Command) -> None:
    done = command("train.py", *TINY, f"hydra.run.dir={finished}", "progress=off", "trainer.workers=1")
    assert (done.code, done.out, done.err) == (0, "", "")


@pytest.mark.parametrize(
    ("changed", "kept", "made"),
    [
        ("evolution.rounds=2", {"base", "orm", "distill", "round_01"}, {"round_02", "reflection", "final"}),
        ("evolution.reflect.when=never", {"base"}, {"distill", "round_01", "final"}),  # nothing asks the ORM now
        ("judge=teacher", {"base", "orm", "distill"}, {"round_01", "reflection", "final"}),
        pytest.param(
            "distill.judge=teacher",
            {"base", "orm"},
            {"distill", "round_01", "reflection", "final"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "sft.max_steps=3", {"base"}, {"orm", "distill", "round_01", "reflection", "final"}, marks=pytest.mark.slow
        ),
    ],
)
def test_a_branch_takes_over_what_the_new_settings_leave_alike(
    finished: Path, command: Command, changed: str, kept: set[str], made: set[str]
) -> None:
    before = everything(finished)
    done = command("train.py", *TINY, f"hydra.run.dir={finished}", "resume=branch", changed)
    assert done.code == 0, done.err
    branch = finished.with_name("run-branch-01")
    old, new = stages(finished), stages(branch)
    assert {name for name in new if "/" not in name} == kept | made
    assert {name for name in new if new[name] == old.get(name) and "/" not in name} == kept
    assert {line.split()[2].rstrip(":") for line in done.out.splitlines() if "finished before, kept" in line} >= kept
    for name in kept:
        assert contents(branch / name) == contents(finished / name)
    assert read_json(branch / "summary.json")["status"] == "finished"
    assert everything(finished) == before


def test_a_branch_takes_over_only_what_its_settings_make(finished: Path, command: Command) -> None:
    """Beside a run of one round stands a branch of it with two; both offer their stages to further branches."""
    where = ("train.py", *TINY, f"hydra.run.dir={finished}", "resume=branch")
    assert command(*where, "evolution.rounds=2").code == 0
    one_round, two_rounds = stages(finished), stages(finished.with_name("run-branch-01"))
    before = contents(finished)

    done = command(*where)  # the settings of the run itself
    assert done.code == 0 and f"{finished} was finished before" in done.out
    assert contents(finished) == before

    done = command(*where, "evolution.reflect.tries=2")
    assert done.code == 0, done.err
    assert set(stages(finished.with_name("run-branch-02"))) == set(one_round)  # no round_02

    done = command(*where, "evolution.rounds=2", "evolution.reflect.when=every")
    assert done.code == 0, done.err
    every = stages(finished.with_name("run-branch-03"))
    assert every["round_01"] == one_round["round_01"]
    assert set(every["round_02"]["after"]) == {"orm", "round_01", "round_01/reflection"}
    assert every["round_02"]["identity"] != two_rounds["round_02"]["identity"]


def test_a_branch_may_name_its_sources(tiny: Path, tmp_path: Path) -> None:
    run(tmp_path / "new", *TINY, "evolution.reflect.tries=2", "resume=branch", f"resume_from=[{tiny}]")
    assert stages(tmp_path / "new")["distill"] == stages(tiny)["distill"]
    assert contents(tmp_path / "new" / "orm") == contents(tiny / "orm")


def test_resume_last_goes_on_with_the_newest_unfinished_run(command: Command) -> None:
    runs = Path("outputs/smoke")
    for started in ("1_unfinished", "2_unfinished"):
        assert killed(lambda folder=runs / started: run(folder, *SHORT), at=30)  # type: ignore[misc]
    run(runs / "3_finished", *SHORT)
    done = command("train.py", *SHORT, "resume=last")
    assert done.code == 0, done.err
    assert contents(runs / "2_unfinished") == contents(runs / "3_finished")
    assert not (runs / "1_unfinished" / "summary.json").exists()


def test_a_killed_process_leaves_the_folder_free_and_the_same_command_finishes_the_run(
    tiny: Path, tmp_path: Path, command: Command
) -> None:
    settings = ("train.py", *TINY, f"hydra.run.dir={tmp_path / 'run'}")
    program = [sys.executable, str(ROOT / settings[0]), *settings[1:]]
    with subprocess.Popen(program, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        wait_for(tmp_path / "run" / "distill" / "stage.begun.json", process)
        second = command(*settings)
        process.send_signal(signal.SIGKILL)
    assert second.code == 1
    assert f"is in use by process {process.pid}" in second.err and len(second.err.splitlines()) == 1
    done = command(*settings)
    assert done.code == 0, done.err
    assert "base: finished before, kept" in done.out
    assert contents(tmp_path / "run") == contents(tiny)


def wait_for(file: Path, process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not file.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < end, f"{file} did not come"
        time.sleep(0.01)


def test_a_damaged_file_of_a_finished_stage_is_named(tmp_path: Path, command: Command) -> None:
    folder = tmp_path / "run"
    run(folder, *SHORT)
    (folder / "summary.json").unlink()
    file = folder / "distill" / "train.jsonl"
    file.write_text(file.read_text().replace("distill/", "DISTILL/"))
    done = command("train.py", *SHORT, f"hydra.run.dir={folder}")
    assert done.code == 1
    assert f"{file} has other contents than recorded" in done.err and len(done.err.splitlines()) == 1


def test_a_run_whose_judge_accepts_nothing_is_a_result(tmp_path: Path) -> None:
    summary = run(tmp_path, *TINY, "judge.rate=0", "distill.judge=random")
    assert summary["status"] == "finished"
    assert [e["stage"] for e in summary["stages"]] == ["base", "distill", "round_01", "final"]
    for entry in summary["stages"][1:]:
        assert (entry["train_rows"], entry["accepted"], entry["acceptance_precision"]) == (0, 0, None)
        assert entry["skipped_fit"] == "no path was accepted, so there is no row to fit on"
        assert entry["transitions"]["correct_wrong"] == entry["transitions"]["wrong_correct"] == 0
        assert rows(tmp_path / entry["stage"] / "train.jsonl") == []
        assert weights(tmp_path, entry["stage"]) == weights(tmp_path, "base")
    assert (tmp_path / "report.html").is_file()


def test_a_round_that_accepts_nothing_carries_the_last_student_on(tmp_path: Path) -> None:
    summary = run(tmp_path, *TINY, "judge.rate=0")
    entries = {e["stage"]: e for e in summary["stages"]}
    assert entries["distill"]["skipped_fit"] is None and entries["distill"]["train_rows"] > 0
    for stage in ("round_01", "final"):
        assert entries[stage]["skipped_fit"] == "nothing new was accepted"
        assert entries[stage]["train_rows"] == entries["distill"]["train_rows"]
        assert weights(tmp_path, stage) == weights(tmp_path, "distill")
    assert weights(tmp_path, "distill") != weights(tmp_path, "base")


def test_no_reflection_and_no_rounds_still_make_a_final_student(tmp_path: Path) -> None:
    summary = run(tmp_path, *SHORT)
    assert [e["stage"] for e in summary["stages"]] == ["base", "distill", "final"]
    assert summary["orm"] is None and summary["orm_by_student"] == []  # nothing asked it
    assert not (tmp_path / "orm").exists() and not (tmp_path / "reflection").exists()
    assert weights(tmp_path, "final") == weights(tmp_path, "distill")


def test_another_seed_is_another_run(tiny: Path, tmp_path: Path) -> None:
    run(tmp_path, *TINY, "task=distill", "seed=1")
    assert weights(tmp_path, "base") != weights(tiny, "base")
    assert set(problems_of(tmp_path / "distill" / "paths.jsonl")).isdisjoint(problems_of(tiny / "distill/paths.jsonl"))


def weights(folder: Path, stage: str) -> Any:
    return sha256_file(folder / stage / "checkpoint" / "model.safetensors")
