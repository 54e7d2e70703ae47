"""Tasks go to whichever rank is free: none waits for a slow one, answers come in order, and a loss is noticed."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from connected import STUCK, in_ranks

from mathse.errors import DataError, RankLost
from mathse.training import ranks, work_queue

Answers = Callable[[int], tuple[int, int]]  # a task, and the rank that answered it
MEANWHILE = 12


def own_number() -> int:
    return ranks.current().rank


def by_rank() -> Answers:
    return lambda task: (task, ranks.current().rank)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + STUCK
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)


def slow_on(rank: int, folder: Path) -> Answers:
    """``rank`` is at its first task until the others have answered MEANWHILE, which they begin when it has it."""

    def answer(task: int) -> tuple[int, int]:
        slow = folder / "slow"
        if ranks.current().rank != rank:
            wait_for(slow.exists)
            (folder / f"answered_{task}").touch()
        elif not slow.exists():
            slow.touch()
            wait_for(lambda: len(list(folder.glob("answered_*"))) >= MEANWHILE)
        return task, ranks.current().rank

    return answer


@pytest.mark.parametrize("slow", [0, 1])
def test_no_rank_waits_for_a_slow_one(tmp_path: Path, slow: int) -> None:
    answers = in_ranks(
        3, lambda: list(work_queue.map_in_order(range(24), slow_on(slow, tmp_path), slow_on, slow, tmp_path))
    )
    assert [task for task, _ in answers] == list(range(24))
    # in step, each of the others would have had one task meanwhile, and all of them eight in the end
    answered = Counter(rank for _, rank in answers)
    assert answered.keys() == {0, 1, 2}
    assert answered[slow] <= 24 - MEANWHILE


def test_tasks_run_ahead_of_the_oldest_missing_answer_so_far_and_no_further() -> None:
    def lead() -> tuple[int, list[int]]:
        drawn = 0

        def tasks() -> Iterator[int]:
            nonlocal drawn
            for task in range(40):
                drawn += 1
                yield task

        answered, ahead = [], []
        for task, _ in work_queue.map_in_order(tasks(), by_rank(), by_rank):
            ahead.append(drawn - len(answered))
            answered.append(task)
        return max(ahead), answered

    assert in_ranks(2, lead) == (2 * work_queue.AHEAD, list(range(40)))


def leaving_a_mark(folder: Path) -> Answers:
    def answer(task: int) -> tuple[int, int]:
        (folder / "helped").touch()
        return task, ranks.current().rank

    return answer


def test_a_second_caller_is_answered_by_rank_0_until_the_first_one_goes_away(tmp_path: Path) -> None:
    def lead() -> Any:
        alone = True

        def answer(task: int) -> tuple[int, int]:
            if not alone:
                wait_for((tmp_path / "helped").exists)
            return task, ranks.current().rank

        first = work_queue.map_in_order(range(100), by_rank(), by_rank)
        second = work_queue.map_in_order(range(100), answer, leaving_a_mark, tmp_path)
        in_turns = [(next(first), next(second)) for _ in range(20)]
        alone = False
        del first
        ranks.current().run_on_all(own_number, own_number)  # when the other rank has ended its last task
        return in_turns, list(second)

    in_turns, rest = in_ranks(2, lead)
    assert [(a[0], b) for a, b in in_turns] == [(k, (k, 0)) for k in range(20)]
    assert [task for task, _ in rest] == list(range(20, 100)) and {rank for _, rank in rest} == {0, 1}


def test_ranks_do_other_work_though_a_caller_has_not_taken_all_of_its_answers() -> None:
    def lead() -> Any:
        def tasks(n: int) -> Iterator[int]:
            return (task for task, _ in work_queue.map_in_order(range(n), by_rank(), by_rank))

        one, unfinished = next(tasks(1)), tasks(50)
        return one, list(islice(unfinished, 3)), ranks.current().run_on_all(own_number, own_number), list(unfinished)

    assert in_ranks(2, lead) == (0, [0, 1, 2], [0, 1], list(range(3, 50)))


def test_a_single_process_answers_alone_and_draws_what_it_answers() -> None:
    tasks = iter(range(3))
    assert next(work_queue.map_in_order(tasks, by_rank(), by_rank)) == (0, 0) and next(tasks) == 1


def ending(how: str, folder: Path) -> Answers:
    """How a rank answers that does not come back from its first task beyond the sixth."""

    def answer(task: int) -> tuple[int, int]:
        if task >= 6:
            (folder / "ending").touch()
            if how == "killed":
                os._exit(9)
            if how == "error":
                raise DataError("images/6.png: cannot be read")
            wait_for((folder / "over").exists)
        return task, ranks.current().rank

    return answer


@pytest.mark.parametrize("how", ["killed", "error", "stuck"])
def test_rank_0_notices_that_a_rank_does_not_come_back_and_keeps_what_was_answered_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(work_queue, "CHECK_SECONDS", 0.01)

    def answer(task: int) -> tuple[int, int]:
        if task >= 6 + 2 * work_queue.AHEAD:  # none is drawn so far ahead while the other is at one of the first six
            wait_for((tmp_path / "ending").exists)
        return task, ranks.current().rank

    def lead() -> None:
        try:
            with (tmp_path / "kept").open("w") as kept:
                for task, _ in work_queue.map_in_order(range(100), answer, ending, how, tmp_path):
                    print(task, file=kept, flush=True)
        finally:
            (tmp_path / "over").touch()

    lost = in_ranks(2, lead, minutes=1 / 60 if how == "stuck" else 1)
    assert isinstance(lost, RankLost) and "lost its connection" in str(lost)
    tasks_in_order = [int(line) for line in (tmp_path / "kept").read_text().split()]
    assert 6 <= len(tasks_in_order) < 100 and tasks_in_order == list(range(len(tasks_in_order)))


def test_an_error_of_rank_0_is_its_own() -> None:
    def refuse(task: int) -> Any:
        raise DataError("images/1.png: cannot be read")

    many = range(100_000)  # the other rank must not answer all of them before rank 0 has come to one
    assert isinstance(in_ranks(2, lambda: list(work_queue.map_in_order(many, refuse, by_rank))), DataError)
