"""experiments/rehearsal: the paper's run with stand-ins, small, through a kill and the loss of an engine."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest
from e2e.runs import ROOT

pytestmark = pytest.mark.slow

REHEARSAL = ROOT / "experiments" / "rehearsal"


def test_through_a_kill_and_a_loss_a_rehearsal_loses_nothing_and_ends_in_the_same_files() -> None:
    slots = 16
    command = [sys.executable, str(REHEARSAL / "run.py"), "--problems", "300", "--kills", "1", "--losses", "1"]
    command += ["--delay", "0", "--away", "1", "--slots", str(slots), "--seed", "3", "--compare"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(done.stdout)
    assert (len(measured["kills"]), len(measured["losses"]), measured["ended_by_itself"]) == (1, 1, [])
    assert measured["starts"] == 2
    rows = measured["train_rows"]
    assert 0 < rows["distill"] < rows["round_01"] < rows["round_02"] < rows["reflection"] == rows["final"]
    # Beside what was under way at the kill, of which there is no more than this, nothing was asked twice.
    assert measured["answered_twice"] <= 2 * slots * 5 // 4
    assert any("engines, round_01" in line for line in measured["plan"])
    assert measured["files_compared"] > 50 and measured["files_that_differ"] == []


def test_made_up_solutions_are_as_right_as_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REHEARSAL))
    import made_up

    from mathse.inference.prompts import parse_annotation, parse_feedback
    from mathse.scoring.answers import extract_answer, same_answer

    draw = random.Random(0)
    for number in range(200):
        problem, right = made_up.problem(number), bool(number % 2)
        text = made_up.solution(number, right, draw)
        assert made_up.is_right(number, text) == right
        assert same_answer(extract_answer(text), problem["answer"], tuple(problem.get("choices", ()))) == right
        assert parse_feedback(made_up.verdict(number, text, 1.0, draw)).status in (
            "unparsed",
            ("wrong", "correct")[right],
        )
        assert parse_annotation(made_up.annotation(number, text, draw)).status in (
            "unparsed",
            ("wrong", "correct")[right],
        )
