"""Judges: whoever returns a verdict on a reasoning path.

orm.py        the trained ORM in this process; served_orm.py: behind a server; orm_rows.py: its training rows
teacher.py    the teacher's annotation
answer.py     the reference answer
votes.py      majority: the most frequent answer among a problem's samples
checked.py    the data's own check of steps
agreement.py  several judges and a rule: orm_and_answer
controls.py   chance, and known noise
opening.py    opens a judge from its settings (mathse/config/judges.py); a user's own judge is one more class
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Protocol, runtime_checkable

from mathse.runs.rows import Chosen, JsonlRows, Mapped
from mathse.runs.store import BatchLog
from mathse.types import Problem, ReasoningPath, Verdict


class Judge(Protocol):
    """``name`` is recorded in each verdict. A judge that cannot decide returns "unparsed"; it never guesses."""

    name: str

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]: ...


Batch = tuple[Sequence[Problem], Sequence[ReasoningPath]]
VerdictsOf = Callable[[Judge], Sequence[Verdict]]  # the verdicts of another judge on the same paths


@runtime_checkable
class BatchJudge(Judge, Protocol):
    """A judge that gets all batches of a stage at once, since it runs a model and can use several devices."""

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]: ...


@runtime_checkable
class PoolJudge(Judge, Protocol):
    """A judge that compares the paths of a stage with each other, so it reads all of them before its first verdict."""

    def read_all(
        self, problems: Mapping[str, Problem], paths: Sequence[ReasoningPath], verdicts_of: VerdictsOf
    ) -> None: ...


def judge_paths(
    judge: Judge,
    problems: Mapping[str, Problem],
    paths: Sequence[ReasoningPath],
    file: Path,
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda rows: None,
) -> Sequence[Verdict]:
    """Judge each path, and append the verdicts to ``file`` batch by batch; batches in the file are not judged again.

    Args:
        judge: returns the verdicts.
        problems: by id.
        paths: of a stage.
        file: verdicts as JSONL rows, in the order of judging.
        batch_size: paths per batch.
        advance: called with the number of verdicts of each finished batch.

    Returns:
        The rows of ``file``, read when they are used.
    """
    if isinstance(judge, PoolJudge):

        def verdicts_of(part: Judge) -> Sequence[Verdict]:
            part_file = file.with_name(f"{part.name}_{file.name}")
            return judge_paths(part, problems, paths, part_file, batch_size=batch_size)

        judge.read_all(problems, paths, verdicts_of)

    # Sort by the length of the problem's longest path, then by the path's own length. Paths of similar length share a
    # batch, so little of it is padding. Paths of one problem are neighbours, so a model reads their common prompt,
    # question and picture, once per batch. The id makes the order equal in every process.
    keys = [(len(p.text), p.id) for p in paths]
    problem_ids = [p.problem_id for p in paths]
    longest: dict[str, tuple[int, str]] = {}
    for problem_id, key in zip(problem_ids, keys, strict=True):
        longest[problem_id] = max(key, longest.get(problem_id, key))
    positions = sorted(range(len(keys)), key=lambda k: (longest[problem_ids[k]], keys[k]))
    order = Chosen(paths, positions)
    batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]

    # Continue behind the last whole batch of the file.
    log = BatchLog(file, [len(b) for b in batches], lambda k, row: row.get("path_id") == keys[positions[k]][1])
    advance(sum(len(b) for b in batches[: log.done]))
    todo = Mapped(lambda batch: ([problems[p.problem_id] for p in batch], list(batch)), batches[log.done :])
    for verdicts in judge_batches(judge, todo):
        log.append(verdicts)
        advance(len(verdicts))
    return JsonlRows(file, Verdict)


def judge_batches(judge: Judge, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
    """Return the judge's verdicts on each batch, in order."""
    return judge.judge_all(batches) if isinstance(judge, BatchJudge) else starmap(judge.judge, batches)
