"""Which problems a round samples, by how often students failed on them, and where restarts begin."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from small import path, verdict

from mathse.evolution.stages import (
    compute_failure_rates,
    cut_before_step,
    draw_by_failure,
    find_candidates,
    find_prefixes,
)
from mathse.evolution.state import EvolutionState, Judged
from mathse.runs.layout import PATHS, VERDICTS
from mathse.runs.reader import FinishedStage
from mathse.runs.store import sha256_file, write_jsonl
from mathse.types import Lineage, Problem, ReasoningPath, Verdict

D = [f"p{k}" for k in range(6)]


def accept(word: Verdict) -> bool:
    return word.status == "correct"


def by(student: str, problem_id: str, name: str = "0", parent: str | None = None) -> ReasoningPath:
    lineage = Lineage("student", student, f"{student}/checkpoint", parent=parent)
    return ReasoningPath(f"{student}/{problem_id}/{name}", problem_id, name, lineage)


def test_equal_failure_rates_give_each_problem_the_same_chance() -> None:
    drawn: Counter[str] = Counter()
    for seed in range(3000):
        drawn.update(draw_by_failure(D, {}, 2, random.Random(seed)))
    for problem in D:  # 2 of 6; four standard errors of a share are 0.034
        assert abs(drawn[problem] / 3000 - 1 / 3) < 0.035


def test_the_first_of_a_draw_is_each_problem_with_a_chance_proportional_to_its_failure_rate() -> None:
    rates = dict(zip(D, (0.1, 0.2, 0.3, 0.4, 0.5, 0.9), strict=True))
    first = Counter(draw_by_failure(D, rates, 1, random.Random(seed))[0] for seed in range(6000))
    for problem, rate in rates.items():
        assert abs(first[problem] / 6000 - rate / sum(rates.values())) < 0.025


def test_a_draw_has_no_problem_twice_and_is_of_the_size_asked_for() -> None:
    drawn = draw_by_failure(D, {"p1": 0.9}, 4, random.Random(1))
    assert len(set(drawn)) == 4 and drawn == sorted(drawn)


def stage(folder: Path, judged: list[tuple[ReasoningPath, bool]]) -> FinishedStage:
    folder.mkdir()
    write_jsonl(folder / PATHS, [p for p, _ in judged])
    write_jsonl(folder / VERDICTS, [verdict(p, "correct" if right else "wrong") for p, right in judged])
    files = [folder / PATHS, folder / VERDICTS]
    outputs = {file.name: {"sha256": sha256_file(file), "bytes": file.stat().st_size} for file in files}
    return FinishedStage(folder.name, folder, {"outputs": outputs})


def test_failure_rates_count_whole_samples_and_no_restarts(tmp_path: Path) -> None:
    whole = [(by("round_01", "p1", "0"), True), (by("round_01", "p1", "1"), False), (by("round_01", "p2"), False)]
    restarted = [(by("round_01", "p2", "4", parent="distill/p2/0"), True)]
    rates = compute_failure_rates([stage(tmp_path / "round_01", whole + restarted)], accept)
    assert rates == {"p1": pytest.approx(2 / 4), "p2": pytest.approx(2 / 3)}


def solved(*paths: ReasoningPath) -> EvolutionState:
    return EvolutionState(D).absorb([Judged(p, verdict(p, "correct")) for p in paths], accept)


def test_never_samples_what_remains_and_all_what_the_student_solved_too() -> None:
    taught = path("p0", origin="teacher")
    state = solved(taught, by("round_01", "p1"))
    assert find_candidates(state, "never", {}, "round_01") == ["p2", "p3", "p4", "p5"]
    assert find_candidates(state, "all", {}, "round_01") == ["p1", "p2", "p3", "p4", "p5"]


def test_better_samples_a_solved_problem_where_the_student_has_passed_its_writer_on_dev() -> None:
    state = solved(by("distill", "p1"), by("round_01", "p2"))
    accuracies = {"distill": 0.2, "round_01": 0.4, "round_02": 0.4}
    assert find_candidates(state, "better", accuracies, "round_02") == ["p0", "p1", "p3", "p4", "p5"]


def rejected(problem_id: str, text: str, step: str | None, name: str = "0") -> Judged:
    draft = path(problem_id, name, text)
    return Judged(draft, Verdict(draft.id, "wrong", step))


STEPS = "Step 1: 3 + 4 = 7.\nStep 2: 7 * 2 = 15.\nStep 3: The answer to this problem is 15."


def test_a_restart_begins_with_the_steps_before_the_first_wrong_one_of_the_newest_draft() -> None:
    items = [rejected("p1", "Step 1: old.", "Step 1", "old"), rejected("p1", STEPS, "Step 2", "new")]
    state = EvolutionState(D).absorb(items, accept)
    begun = find_prefixes(state, D, {p: Problem(p, "?") for p in D})
    assert {p: (b.text, b.draft) for p, b in begun.items()} == {"p1": ("Step 1: 3 + 4 = 7.", "round_01/p1/new")}


@pytest.mark.parametrize("step", [None, "Step 1", "Step 9"])
def test_a_draft_without_a_right_step_before_a_named_one_has_no_restart(step: str | None) -> None:
    state = EvolutionState(D).absorb([rejected("p1", STEPS, step)], accept)
    assert find_prefixes(state, D, {p: Problem(p, "?") for p in D}) == {}


def test_lines_without_numbers_are_counted_as_steps() -> None:
    assert cut_before_step(Problem("p", "?"), "3 + 4 = 7\n7 * 2 = 15\n15", 2) == "3 + 4 = 7"
