"""Judges that need no reference answer: the majority of samples, and the data's own check of steps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from small import path

from mathse.config import judges as settings
from mathse.data.words.solution import check_sums
from mathse.errors import ConfigError
from mathse.judges import judge_paths
from mathse.judges.agreement import AgreementJudge
from mathse.judges.checked import CheckedJudge
from mathse.judges.votes import MajorityJudge
from mathse.types import Problem, ReasoningPath, Verdict

P = {name: Problem(name, "?") for name in ("p1", "p2")}


def samples(*answers: str, problem: str = "p1") -> list[ReasoningPath]:
    return [path(problem, str(k), answer) for k, answer in enumerate(answers)]


def statuses(judge: object, paths: Sequence[ReasoningPath], folder: Path, batch_size: int = 2) -> dict[str, Verdict]:
    verdicts = judge_paths(judge, P, paths, folder / "verdicts.jsonl", batch_size=batch_size)  # type: ignore[arg-type]
    return {v.path_id: v for v in verdicts}


def majority(**fields: object) -> MajorityJudge:
    return MajorityJudge(settings.MajorityJudgeConfig(**fields), lambda name: Scored())  # type: ignore[arg-type]


class Scored:
    """P(correct) is high for one answer."""

    name = "orm"

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [Verdict(p.id, "correct", score=0.9 if "7" in p.text else 0.2, judge=self.name) for p in paths]


def test_the_answer_of_most_samples_is_accepted_with_its_share_as_p_correct(tmp_path: Path) -> None:
    paths = samples("Thus it is 5.", "5", "= 5.0", "7")
    verdicts = statuses(majority(), paths, tmp_path)
    assert [verdicts[p.id].status for p in paths] == ["correct"] * 3 + ["wrong"]
    assert [verdicts[p.id].score for p in paths] == [0.75] * 3 + [0.25]


def test_votes_are_counted_over_batches_and_apart_for_each_problem(tmp_path: Path) -> None:
    paths = [*samples("5", "5", "7"), *samples("7", "7", "5", problem="p2")]
    verdicts = statuses(majority(), paths, tmp_path, batch_size=1)
    assert [verdicts[p.id].status for p in paths] == ["correct", "correct", "wrong", "correct", "correct", "wrong"]


def test_a_killed_judging_counts_the_votes_of_paths_that_have_a_verdict_already(tmp_path: Path) -> None:
    paths = samples("5", "5", "5", "7")
    whole = statuses(majority(), paths, tmp_path, batch_size=1)
    file = tmp_path / "verdicts.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]))
    assert statuses(majority(), paths, tmp_path, batch_size=1) == whole


@pytest.mark.parametrize(("ties", "status"), [("reject", "wrong"), ("accept", "correct")])
def test_two_answers_with_equally_many_votes_are_a_tie(tmp_path: Path, ties: str, status: str) -> None:
    verdicts = statuses(majority(ties=ties), samples("5", "5", "7", "7"), tmp_path)
    assert {v.status for v in verdicts.values()} == {status}


def test_a_sample_without_an_answer_counts_among_the_samples_and_is_unparsed(tmp_path: Path) -> None:
    paths = samples("5", "5", "I do not know that.", "")
    verdicts = statuses(majority(), paths, tmp_path)
    assert [verdicts[p.id].status for p in paths] == ["correct", "correct", "unparsed", "unparsed"]
    assert verdicts[paths[0].id].score == 0.5


def test_a_problems_only_sample_has_no_vote_and_is_never_accepted(tmp_path: Path) -> None:
    (verdict,) = statuses(majority(), samples("5"), tmp_path).values()
    assert verdict.status == "unparsed"


def test_votes_weighed_by_p_correct_follow_the_judge_and_keep_its_verdicts(tmp_path: Path) -> None:
    paths = samples("5", "5", "7")
    verdicts = statuses(majority(weights="orm"), paths, tmp_path)
    assert [verdicts[p.id].status for p in paths] == ["wrong", "wrong", "correct"]
    assert verdicts[paths[2].id].score == pytest.approx(0.9 / 1.3, abs=1e-6)
    assert (tmp_path / "orm_verdicts.jsonl").exists()


def test_checked_votes_accept_a_true_sum_that_half_of_the_samples_come_to(tmp_path: Path) -> None:
    checked = CheckedJudge(settings.CheckedJudgeConfig(), lambda problem, text: _sums(text))
    parts = {"majority": majority(), "checked": checked}
    judge = AgreementJudge(settings.CheckedVotesJudgeConfig(), parts.__getitem__)
    paths = samples("2 + 3 = 5", "1 + 3 = 5", "8 - 3 = 5", "3 + 4 = 7")
    verdicts = statuses(judge, paths, tmp_path)
    assert [verdicts[p.id].status for p in paths] == ["correct", "wrong", "correct", "wrong"]


def _sums(text: str) -> Verdict:
    result = check_sums(text)
    assert result is not None
    return Verdict("", "correct" if result.error_step is None else "wrong")


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("45 / 9 = 5", None),
        ("Step 1: 32 + 42 = 74.\nStep 2: 74 - 35 = 38.\nStep 3: The answer to this problem is 38.", 2),
        ("Step 1: 32 + 42 = 74.\nStep 2: The answer to this problem is 75.", 2),
        ("1 / 3 = 0.33", 1),
    ],
)
def test_a_path_is_checked_by_its_own_sums_without_the_reference_answer(text: str, step: int | None) -> None:
    result = check_sums(text)
    assert result is not None and result.error_step == step


@pytest.mark.parametrize("text", ["", "It is five.", "The answer to this problem is 5.", "7" * 5000])
def test_a_path_without_a_sum_cannot_be_checked(text: str) -> None:
    assert check_sums(text) is None


def test_data_without_a_check_of_steps_is_refused_with_the_judges_that_there_are() -> None:
    with pytest.raises(ConfigError, match="judge=majority"):
        CheckedJudge(settings.CheckedJudgeConfig(), None)
