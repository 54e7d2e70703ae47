"""What a run asked of the teacher, from what its stages recorded; of an earlier version's, from their settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mathse.runs.reader import FinishedStage, read_run
from mathse.runs.teacher_calls import ASKED, count_calls_until

WORLD = {"data._target_": "mathse.world.SyntheticData"}
REFLECTED = {"judge.name": "orm", "evolution.reflect.writer": "teacher", "evolution.reflect.feedback": "orm"}


def stage(name: str, after: tuple[str, ...] = (), judged: int | None = None, **config: Any) -> FinishedStage:
    counts = {} if judged is None else {"accepted": judged - 3, "rejected": 2, "unparsed": 1}
    summary = config.pop("summary", {})
    manifest = {
        "after": dict.fromkeys(after, "id"),
        "config": config.pop("config", {}),
        "summary": {**counts, **summary},
    }
    return FinishedStage(name, Path(name), manifest)


def run_of(reflection: dict[str, Any] | None = None, orm: FinishedStage | None = None) -> list[FinishedStage]:
    """An evolution of one round: 40 solutions, 100 paths, 30 rewrites."""
    return [
        stage("base"),
        orm or stage("orm", ("base",), config=WORLD),
        stage("distill", ("base", "orm"), 40, config={"distill.judge": "orm"}),
        stage("round_01", ("distill", "orm"), 100, config={"judge.name": "orm"}),
        stage(
            "reflection", ("round_01", "orm"), 30, config={**REFLECTED, **(reflection or {})}, summary={"drafts": 25}
        ),
        stage("final", ("round_01", "reflection", "orm"), 30),
    ]


def test_calls_add_up_along_the_stages_that_one_was_made_from() -> None:
    calls = [
        count_calls_until(name, run_of()) for name in ("base", "orm", "distill", "round_01", "reflection", "final")
    ]
    assert calls == [0, 0, 40, 40, 70, 70]


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ({"evolution.reflect.writer": "student"}, 40),
        ({"evolution.reflect.feedback": "none"}, 70),
        ({"evolution.reflect.feedback": "teacher"}, 70 + 25),
        ({"judge.name": "teacher"}, 70 + 30),
        ({"judge.name": "my.package.Judge"}, None),  # whom it asks is not known
    ],
)
def test_of_an_earlier_version_s_reflection_they_are_told_from_its_settings(
    settings: dict[str, str], calls: int | None
) -> None:
    assert count_calls_until("final", run_of(settings)) == calls


def test_what_a_stage_recorded_counts() -> None:
    annotated = stage("orm", ("base",), config={"data._target_": "my.Data"}, summary={ASKED: 500})
    assert count_calls_until("final", run_of(orm=annotated)) == 570


def test_they_are_unknown_where_a_stage_does_not_tell_or_is_gone() -> None:
    unknown = stage("orm", ("base",), config={"data._target_": "my.Data"})
    assert count_calls_until("final", run_of(orm=unknown)) is None
    assert count_calls_until("distill", [s for s in run_of() if s.name != "orm"]) is None


def test_an_earlier_version_s_run_has_them_in_its_rows(old_run: Any) -> None:
    run = read_run(old_run("random"))
    reflected = run.stage("reflection")
    assert reflected is not None
    solved = sum(1 for _ in run.stage("distill").rows("paths.jsonl"))  # type: ignore[union-attr]
    calls = {entry["stage"]: entry["teacher_calls"] for entry in run.entries}
    assert calls["base"] == 0 and calls["distill"] == solved
    assert calls["final"] == solved + reflected.summary["rewritten"]
