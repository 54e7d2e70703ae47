"""Judges: whoever returns a verdict on a reasoning path.

orm.py        the trained ORM in this process; served_orm.py: behind a server; orm_rows.py: what it is trained on
teacher.py    the teacher's annotation
answer.py     the reference answer
votes.py      the answer that most samples come to: majority
checked.py    the data's own check of steps
agreement.py  several judges and a rule: orm_and_answer
controls.py   chance, and known noise
opening.py    a judge from its settings (mathse/config/judges.py); a user's own is one more class
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


@runtime_checkable
class BatchJudge(Judge, Protocol):
    """A judge that asks a model, and so can use several devices: it gets all batches of a stage at once."""

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]: ...


@runtime_checkable
class PoolJudge(Judge, Protocol):
    """A judge that compares the paths of a stage with each other: it reads all of them before its first verdict."""

    def read_all(
        self,
        problems: Mapping[str, Problem],
        paths: Sequence[ReasoningPath],
        verdicts_of: Callable[[Judge], Sequence[Verdict]],
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
    """A verdict on each path, appended to ``file`` batch by batch.

    Paths of similar length are judged together, and next to the others of their problem: a judge that is a model reads
    what their prompts have in common, question and picture, once a batch.
    """
    if isinstance(judge, PoolJudge):

        def verdicts_of(part: Judge) -> Sequence[Verdict]:
            beside = file.with_name(f"{part.name}_{file.name}")
            return judge_paths(part, problems, paths, beside, batch_size=batch_size)

        judge.read_all(problems, paths, verdicts_of)

    # Sorted by length, so that little of a batch is padding: by that of a problem's longest path, then by a path's own.
    # The id makes the order the same in every process.
    keys = [(len(p.text), p.id) for p in paths]
    problem_ids = [p.problem_id for p in paths]
    longest: dict[str, tuple[int, str]] = {}
    for problem_id, key in zip(problem_ids, keys, strict=True):
        longest[problem_id] = max(key, longest.get(problem_id, key))
    positions = sorted(range(len(keys)), key=lambda k: (longest[problem_ids[k]], keys[k]))
    order = Chosen(paths, positions)
    batches = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
    log = BatchLog(file, [len(b) for b in batches], lambda k, row: row.get("path_id") == keys[positions[k]][1])
    advance(sum(len(b) for b in batches[: log.done]))
    todo = Mapped(lambda batch: ([problems[p.problem_id] for p in batch], list(batch)), batches[log.done :])
    for verdicts in verdicts_on(judge, todo):
        log.append(verdicts)
        advance(len(verdicts))
    return JsonlRows(file, Verdict)


def verdicts_on(judge: Judge, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
    """The judge's verdicts on each batch, in order."""
    return judge.judge_all(batches) if isinstance(judge, BatchJudge) else starmap(judge.judge, batches)
