"""Judges: what each says, and that nothing unreadable is ever accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from small import orm_and_answer, path, problems, tiny_backbone, verdict

from mathse.config import build
from mathse.config import judges as settings
from mathse.config.teachers import SymbolicTeacherConfig
from mathse.judges import Judge, judge_paths
from mathse.judges.answer import AnswerJudge
from mathse.judges.controls import RandomJudge
from mathse.judges.orm import ORMJudge, status_tokens
from mathse.judges.teacher import TeacherJudge
from mathse.models.base import Completion
from mathse.models.row import Row
from mathse.models.tiny import TinyBackbone
from mathse.runs.store import BatchLog, read_jsonl
from mathse.scoring.metrics import accepted
from mathse.types import Problem, ReasoningPath, Status, Verdict

MARKER = "The answer to this problem is"


class SpeakingBackbone(TinyBackbone):
    """Says what it is told instead of sampling; at each token, ``odds`` tells how far CORRECT is before WRONG."""

    def __init__(self, says: Sequence[str], odds: Sequence[float] = ()) -> None:
        small = tiny_backbone()
        super(TinyBackbone, self).__init__(small.model, small.processor)
        self.says, self.odds = list(says), odds
        self.asked: list[Row] = []

    def complete(self, rows: Sequence[Row], **sampling: Any) -> list[list[Completion]]:
        self.asked += rows
        said = []
        for _ in rows:
            text = self.says.pop(0)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            odds = torch.tensor(self.odds) if len(self.odds) else torch.zeros(len(ids))
            said.append([Completion(text, ids, torch.stack([odds, -odds], -1))])
        return said


class Fixed:
    """Says the same of every path."""

    name = "fixed"

    def __init__(self, status: Status, score: float | None = None) -> None:
        self.status, self.score = status, score
        self.batches: list[list[str]] = []

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        self.batches.append([p.id for p in paths])
        assert [p.id for p in problems] == [p.problem_id for p in paths]
        return [verdict(p, self.status, self.score) for p in paths]


@pytest.fixture
def problem() -> Problem:
    return problems(1)[0]


def chance(rate: float, seed: int) -> RandomJudge:
    return RandomJudge(settings.RandomJudgeConfig(rate=rate), seed)


def said_of(judge: Judge, problem: Problem, text: str) -> Verdict:
    [word] = judge.judge([problem], [path(problem.id, text=text)])
    assert (word.path_id, word.judge) == (path(problem.id).id, judge.name)
    return word


# --- the trained ORM ------------------------------------------------------------------------------------------------


WRONG = '{"error_analysis": "2: 7 + 5 = 12: 77 ok", "error_step": "Step 2", "status": "WRONG"}'


def test_the_orm_says_status_step_and_analysis_and_its_own_words_are_kept(problem: Problem) -> None:
    word = said_of(ORMJudge(SpeakingBackbone([WRONG])), problem, "Step 1: ...")
    assert (word.status, word.error_step, word.error_analysis) == ("wrong", "Step 2", "2: 7 + 5 = 12: 77 ok")
    assert word.raw == WRONG


@pytest.mark.parametrize("said", ["", "CORRECT", WRONG[:-2], '{"status": "CORRECT"}', "{" * 500])
def test_what_the_orm_garbles_is_unparsed_without_a_score_and_never_accepted(problem: Problem, said: str) -> None:
    word = said_of(ORMJudge(SpeakingBackbone([said])), problem, "Step 1: ...")
    assert (word.status, word.score, word.raw) == ("unparsed", None, said)
    assert not accepted(word, threshold=0.0)


def test_a_binary_orm_is_read_by_its_status_alone(problem: Problem) -> None:
    word = said_of(ORMJudge(SpeakingBackbone(['{"status": "CORRECT"}']), binary=True), problem, "Step 1: ...")
    assert (word.status, word.score) == ("correct", 0.5)


def test_the_score_is_p_correct_where_the_status_was_written_last(problem: Problem) -> None:
    said = '{"error_analysis": "WRONG CORRECT", "error_step": null, "status": "CORRECT"}'
    backbone = SpeakingBackbone([said])
    ids = backbone.tokenizer(said, add_special_tokens=False)["input_ids"]
    places = [k for k, i in enumerate(ids) if i in status_tokens(backbone)]
    assert len(places) == 3
    backbone.odds = [1.5 if k == places[-1] else -9.0 for k in range(len(ids))]
    word = said_of(ORMJudge(backbone), problem, "Step 1: ...")
    assert word.score == pytest.approx(torch.sigmoid(torch.tensor(3.0)).item(), abs=1e-6)


def test_the_orm_reads_the_image_and_no_answer_unless_told_otherwise(problem: Problem) -> None:
    for see_answer in (False, True):
        for see_image in (False, True):
            backbone = SpeakingBackbone([WRONG])
            said_of(ORMJudge(backbone, see_answer=see_answer, see_image=see_image), problem, "Step 1: ...")
            [row] = backbone.asked
            assert ("correct answer" in row["question"]) == see_answer
            assert tuple(row["images"]) == (problem.images if see_image else ())
            assert row["history"] == [(problem.question, "Step 1: ...")]


def test_an_orm_solves_each_problem_once_before_it_sees_a_path_and_compares_with_its_own_answer() -> None:
    solved, unsolved = (replace(problem, answer="SECRET") for problem in problems(2))
    backbone = SpeakingBackbone([f"Step 1: 3 + 4 = 7.\n{MARKER} 7.", "I do not know.", *[WRONG] * 4])
    judge = ORMJudge(backbone, own_answer=True)
    paths = [path(solved.id, "0"), path(solved.id, "1"), path(unsolved.id)]
    first, _, last = judge.judge([solved, solved, unsolved], paths)
    assert (first.raw, last.raw) == (f"Step 1: 3 + 4 = 7.\n{MARKER} 7.\n{WRONG}", f"I do not know.\n{WRONG}")
    judge.explaining(False).judge([solved], paths[:1])
    solving, judging = backbone.asked[:2], backbone.asked[2:]
    assert [row["question"] for row in solving] == [solved.question, unsolved.question]
    assert not any("history" in row for row in solving)
    hinted, without = "The correct answer is 7.\nCheck each step.", "Check each step."
    assert [row["question"] for row in judging] == [hinted, hinted, without, hinted]
    assert [row["history"][0][0] for row in judging] == [p.question for p in (solved, solved, unsolved, solved)]


def test_own_answers_are_asked_for_a_batch_at_a_time_so_that_a_kill_loses_one() -> None:
    chosen = problems(3)
    backbone = SpeakingBackbone([*[f"{MARKER} 7."] * 2, WRONG, WRONG, f"{MARKER} 7.", WRONG])
    batches = [(part, [path(problem.id) for problem in part]) for part in (chosen[:2], chosen[2:])]
    verdicts = ORMJudge(backbone, own_answer=True).judge_all(batches)
    assert [verdict.path_id for verdict in next(verdicts)] == [path(problem.id).id for problem in chosen[:2]]
    asked = ["judge" if "history" in row else "solve" for row in backbone.asked]
    assert asked == ["solve", "solve", "judge", "judge"]
    assert [verdict.path_id for verdict in next(verdicts)] == [path(chosen[2].id).id]
    assert len(backbone.asked) == 6


def test_a_real_untrained_orm_judges_nothing_it_cannot_say() -> None:
    pool = problems(6)
    words = ORMJudge(tiny_backbone(), max_new_tokens=8).judge(pool, [path(p.id) for p in pool])
    assert {w.status for w in words} == {"unparsed"}
    assert [w.path_id for w in words] == [path(p.id).id for p in pool]


def test_the_status_words_begin_with_different_tokens() -> None:
    right, wrong = status_tokens(tiny_backbone())
    assert right != wrong


# --- answer, teacher, chance ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "status"), [("{right}", "correct"), ("999", "wrong"), ("", "unparsed")])
def test_the_answer_judge_compares_the_final_answer(problem: Problem, text: str, status: Status) -> None:
    said = f"Step 1: ...\n{MARKER} {text.format(right=problem.answer)}." if text else "I do not know"
    word = said_of(AnswerJudge(), problem, said)
    assert word.status == status
    assert accepted(word, threshold=1.0) == (status == "correct")
    assert problem.answer not in (word.error_analysis or "")


def test_the_teacher_judge_says_what_the_teacher_annotates(problem: Problem) -> None:
    judge = TeacherJudge(settings.TeacherJudgeConfig(), build(SymbolicTeacherConfig(error_rate=0.0)))
    assert said_of(judge, problem, problem.solution or "").status == "correct"
    word = said_of(judge, problem, "Step 1: no digits.")
    assert (word.status, word.error_step) == ("wrong", "Step 1")


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_the_random_judge_accepts_its_share(problem: Problem, rate: float) -> None:
    paths = [path(problem.id, str(i)) for i in range(2000)]
    words = chance(rate, 0).judge([problem] * len(paths), paths)
    assert abs(mean(w.status == "correct" for w in words) - rate) < 0.04
    assert {w.status for w in words} <= {"correct", "wrong"}


def test_the_random_judges_word_on_a_path_depends_on_seed_and_path_alone(problem: Problem) -> None:
    paths = [path(problem.id, str(i)) for i in range(200)]
    words = chance(0.5, 0).judge([problem] * 200, paths)
    assert chance(0.5, 0).judge([problem] * 200, paths[::-1]) == words[::-1]
    assert chance(0.5, 1).judge([problem] * 200, paths) != words


# --- both -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orm", "score", "right", "both"),
    [
        ("correct", 0.9, True, "correct"),
        ("correct", None, True, "correct"),
        ("correct", 0.9, False, "wrong"),
        ("correct", 0.4, True, "wrong"),
        ("wrong", 0.1, True, "wrong"),
        ("wrong", 0.1, False, "wrong"),
        ("unparsed", None, True, "unparsed"),
    ],
)
def test_orm_and_answer_accepts_what_both_accept(
    problem: Problem, orm: Status, score: float | None, right: bool, both: Status
) -> None:
    text = problem.solution or "" if right else f"{MARKER} 999."
    word = said_of(orm_and_answer(Fixed(orm, score)), problem, text)
    assert (word.status, word.score) == (both, score)


def test_orm_and_answer_keeps_the_orms_words(problem: Problem) -> None:
    word = said_of(orm_and_answer(ORMJudge(SpeakingBackbone([WRONG]))), problem, problem.solution or "")
    assert (word.error_step, word.error_analysis, word.raw) == ("Step 2", "2: 7 + 5 = 12: 77 ok", WRONG)


# --- in batches -----------------------------------------------------------------------------------------------------


def many(count: int) -> tuple[dict[str, Problem], list[ReasoningPath]]:
    pool = {p.id: p for p in problems(count)}
    return pool, [path(id_, text="x" * (17 * i % 23)) for i, id_ in enumerate(pool)]


def test_every_path_is_judged_once_and_paths_of_similar_length_together(tmp_path: Path) -> None:
    pool, paths = many(20)
    judge, seen = Fixed("correct"), []
    words = judge_paths(judge, pool, paths, tmp_path / "verdicts.jsonl", batch_size=6, advance=seen.append)
    assert sorted(w.path_id for w in words) == sorted(p.id for p in paths)
    assert [len(b) for b in judge.batches] == [n for n in seen if n] == [6, 6, 6, 2]
    by_id = {p.id: len(p.text) for p in paths}
    lengths = [by_id[i] for batch in judge.batches for i in batch]
    assert lengths == sorted(lengths)
    assert list(read_jsonl(tmp_path / "verdicts.jsonl", Verdict)) == words


def test_the_order_in_which_paths_come_does_not_matter(tmp_path: Path) -> None:
    pool, paths = many(20)
    one = judge_paths(chance(0.5, 0), pool, paths, tmp_path / "one.jsonl", batch_size=6)
    other = judge_paths(chance(0.5, 0), pool, paths[::-1], tmp_path / "other.jsonl", batch_size=6)
    assert one == other


@pytest.mark.parametrize("batches", [0, 1, 3, 4])
def test_a_judge_that_was_killed_goes_on_after_its_last_whole_batch(tmp_path: Path, batches: int) -> None:
    pool, paths = many(20)
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    expected = judge_paths(chance(0.5, 0), pool, paths, whole, batch_size=6)
    lines = whole.read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(lines[: 6 * batches + 1])[: -5 if batches < 4 else None])
    left: list[int] = []

    class Counting(RandomJudge):
        def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
            left.append(len(paths))
            return super().judge(problems, paths)

    seen: list[int] = []
    assert (
        judge_paths(
            Counting(settings.RandomJudgeConfig(rate=0.5), 0), pool, paths, torn, batch_size=6, advance=seen.append
        )
        == expected
    )
    assert torn.read_bytes() == whole.read_bytes()
    assert left == [6, 6, 6, 2][batches:]
    assert sum(seen) == len(paths)


def test_no_path_is_no_verdict(tmp_path: Path) -> None:
    assert judge_paths(Fixed("correct"), {}, [], tmp_path / "verdicts.jsonl", batch_size=6) == []
    assert BatchLog(tmp_path / "verdicts.jsonl", []).done == 0


def test_verdicts_that_an_earlier_version_took_in_another_order_are_taken_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool = problems(2)
    lengths = {0: [3, 30], 1: [9, 12]}
    asked = [path(pool[k].id, str(i), text="x" * length) for k in (0, 1) for i, length in enumerate(lengths[k])]
    judge, file = Fixed("wrong"), tmp_path / "verdicts.jsonl"
    by_id = {p.id: p for p in pool}
    verdicts = list(judge_paths(judge, by_id, asked, file, batch_size=2))
    assert judge.batches == [[asked[2].id, asked[3].id], [asked[0].id, asked[1].id]], "a problem's paths come together"
    by_length = sorted(verdicts, key=lambda v: next(len(p.text) for p in asked if p.id == v.path_id))
    BatchLog(tmp_path / "old.jsonl", [2, 2]).append(by_length[:2])
    del judge.batches[:]
    assert list(judge_paths(judge, by_id, asked, tmp_path / "old.jsonl", batch_size=2)) == verdicts
    assert len(judge.batches) == 2 and "another order of rows" in caplog.text
