"""The whole loop with its students, and its ORM, behind servers on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.runs import ROOT, SIZES, WORLD, run
from engine import Engine

from mathse.runs.store import read_jsonl

GREEDY = ("generator.temperature=0", "orm.temperature=0")
LOOP = (*SIZES, *WORLD, *GREEDY, "judge=orm", "distill.judge=answer")
JUDGED = ("judge.max_new_tokens=32", "distill.judge=orm")  # room for a whole verdict
WRITTEN = ("paths.jsonl", "held_paths.jsonl", "*predictions.jsonl", "train.jsonl", "reflections.jsonl")


def served(engine: Engine, place: Path, *more: str) -> list[str]:
    how = (f"base_url={engine.url}", f"cache_dir={place / 'answers'}", "temperature=0", "max_new_tokens=8", *more)
    return ["generator=server", *(f"generator.{setting}" for setting in how)]


def rows(folder: Path, pattern: str, but: str = "") -> dict[str, list[Any]]:
    found = {str(f.relative_to(folder)): list(read_jsonl(f)) for f in sorted(folder.rglob(pattern))}
    return {name: [without(row, but) for row in listed] for name, listed in found.items()}


def without(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return {name: without(inner, key) for name, inner in value.items() if name != key}
    return value


def same_rows(one: Path, other: Path, *patterns: str, but: str = "") -> bool:
    for pattern in patterns:
        mine, theirs = rows(one, pattern, but), rows(other, pattern, but)
        assert mine and mine == theirs, pattern
    return True


def scores(run: Path) -> dict[str, float | None]:
    """P(correct) by path."""
    return {row["path_id"]: row["score"] for found in rows(run, "*verdicts.jsonl").values() for row in found}


def test_served_students_write_what_local_ones_do(engine: Engine, teacher: list[str], tmp_path: Path) -> None:
    local = run(tmp_path / "local", *LOOP, *teacher)
    summary = run(tmp_path / "served", *LOOP, *teacher, *served(engine, tmp_path))
    assert same_rows(tmp_path / "served", tmp_path / "local", *WRITTEN, "*verdicts.jsonl")
    assert summary["stages"] == local["stages"] and "held_paths.jsonl" in str(rows(tmp_path / "local", "held*"))


def test_a_served_orm_accepts_and_rejects_what_the_local_one_does(
    engine: Engine, teacher: list[str], orm_of: Callable[[str], Path], tmp_path: Path
) -> None:
    judged = (*LOOP, *JUDGED, f"judge.checkpoint={orm_of('analysis_first')}", *teacher)
    at = (f"judge.server={engine.url}", f"judge.cache_dir={tmp_path / 'answers'}")
    local = run(tmp_path / "local", *judged)
    summary = run(tmp_path / "served", *judged, *served(engine, tmp_path), *at)
    # the last digits of P(correct) hang on the batches
    assert same_rows(tmp_path / "served", tmp_path / "local", *WRITTEN, "*verdicts.jsonl", but="score")
    here = scores(tmp_path / "local")
    assert scores(tmp_path / "served") == pytest.approx(here, abs=1e-5)
    assert None not in here.values() and min(here.values()) < 0.5 < max(here.values())
    assert summary["stages"] == local["stages"] and summary["notes"] == local["notes"]


@pytest.mark.slow
def test_where_students_and_the_orm_are_served_is_no_other_run(
    engine: Engine, teacher: list[str], orm_of: Callable[[str], Path], tmp_path: Path
) -> None:
    judged = (*LOOP, *JUDGED, f"judge.checkpoint={orm_of('binary')}", *teacher)
    how = (*served(engine, tmp_path), f"judge.server={engine.url}", f"judge.cache_dir={tmp_path / 'answers'}")
    run(tmp_path / "run", *judged, *how)
    asked = len(engine.asked)
    (tmp_path / "run" / "summary.json").unlink()
    with Engine() as other:
        elsewhere = ("generator.max_concurrency=2", "generator.timeout=99", "judge.start_timeout=9", "judge.timeout=99")
        moved = (f"generator.base_url={other.url}", f"judge.server={other.url}", "generator.style=compact")
        keyed = ("generator.api_key_env=NO_KEY", "judge.api_key_env=NO_KEY", "generator.max_retries=1")
        run(tmp_path / "run", *judged, *how, *elsewhere, *moved, *keyed)
        run(tmp_path / "again", *judged, *how, *elsewhere, *moved, *keyed)  # another run that shares the answers
        assert other.asked == [] and len(engine.asked) == asked
    assert same_rows(tmp_path / "again", tmp_path / "run", *WRITTEN, "*verdicts.jsonl")


def test_a_served_orm_without_logprobs_is_told_of_in_log_and_summary(
    engine: Engine,
    teacher: list[str],
    orm_of: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    engine.ignores_logprobs = True
    at = (f"judge.checkpoint={orm_of('binary')}", f"judge.server={engine.url}", f"judge.cache_dir={tmp_path / 'a'}")
    summary = run(tmp_path / "run", *LOOP, *JUDGED, *teacher, *at)
    count = len(scores(tmp_path / "run"))
    said = f"judge.server: gave no log-probabilities for {count:,} of {count:,} paths"
    assert set(scores(tmp_path / "run").values()) == {None} and count > 10
    assert any(note.startswith(said) for note in summary["notes"])
    assert said in "".join(capsys.readouterr())


@pytest.mark.slow
def test_a_run_that_is_killed_pays_for_no_answer_twice(
    engine: Engine, teacher: list[str], orm_of: Callable[[str], Path], tmp_path: Path
) -> None:
    at = (
        f"judge.checkpoint={orm_of('binary')}",
        f"judge.server={engine.url}",
        f"judge.cache_dir={tmp_path / 'answers'}",
    )
    how = (*LOOP, *JUDGED, *teacher, *served(engine, tmp_path, "max_concurrency=4"), *at)
    command = [sys.executable, str(ROOT / "train.py"), *how, f"hydra.run.dir={tmp_path / 'killed'}"]
    for stop in (6, 21, 12):
        engine.freeze(stop)
        with subprocess.Popen(command, cwd=tmp_path, env=dict(os.environ)) as process:
            assert engine.frozen.wait(120)
            time.sleep(1.0)  # what was answered before is on the disk
            process.send_signal(signal.SIGKILL)
        engine.thaw()
    killed = run(tmp_path / "killed", *how)
    assert len(engine.answered) > 50 and set(engine.answered.values()) == {1}
    whole = run(tmp_path / "whole", *how, f"generator.cache_dir={tmp_path / 'b'}", f"judge.cache_dir={tmp_path / 'b'}")
    assert killed["stages"] == whole["stages"]
    assert same_rows(tmp_path / "killed", tmp_path / "whole", *WRITTEN, "*verdicts.jsonl")
