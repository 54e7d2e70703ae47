"""How hard problems are for the students so far, and the rounds' choices that go by it.

A round may draw problems by how often students failed on them, sample solved problems again, and go on from the right
steps of rejected paths: easy problems give most accepted paths of plain rounds, and hard ones hardly any
(arXiv 2510.26474, on Qwen2-VL and InternVL2.5).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mathse.data.domains import domain_of
from mathse.errors import DataError
from mathse.evolution.state import EvolutionState
from mathse.inference.generate import PathPrefix
from mathse.runs.layout import CHECKPOINT, PATHS, VERDICTS
from mathse.runs.reader import FinishedStage
from mathse.scoring.metrics import first_step
from mathse.types import Problem, ReasoningPath, Verdict

UNTRIED = 0.5  # failure rate of a problem without samples


def failure_rates(rounds: Iterable[FinishedStage], accept: Callable[[Verdict], bool]) -> dict[str, float]:
    """The share of rejected samples by problem, over finished rounds, with one success and one failure added (Laplace).

    Samples that went on from right steps are left out: they succeed more often than samples of the whole path.
    """
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for stage in rounds:
        problem_of = {
            path.id: path.problem_id for path in stage.rows(PATHS, ReasoningPath) if path.lineage.parent is None
        }
        for verdict in stage.rows(VERDICTS, Verdict):
            if (problem := problem_of.get(verdict.path_id)) is not None:
                tried[problem] += 1
                failed[problem] += not accept(verdict)
    return {problem: (failed[problem] + 1) / (count + 2) for problem, count in tried.items()}


def draw_by_failure(problems: Sequence[str], rates: Mapping[str, float], size: int, draw: random.Random) -> list[str]:
    """``size`` different problems, each next one drawn with a probability proportional to its failure rate.

    The largest of u^(1/w), u uniform, are such a draw without replacement (Efraimidis and Spirakis 2006).
    """
    keys = {problem: draw.random() ** (1 / rates.get(problem, UNTRIED)) for problem in problems}
    return sorted(sorted(problems, key=keys.__getitem__, reverse=True)[:size])


def problems_to_sample(
    state: EvolutionState, resample: str, dev_accuracy: Mapping[str, Any], student: str
) -> list[str]:
    """D_remain, and the solved problems that are sampled again, in the order of D. A problem with a row by the teacher
    alone is not among them: its solution is right already.

    Args:
        resample: ``evolution.resample``.
        dev_accuracy: of the student of each stage, by the stage's name.
        student: the stage of the student that will sample.
    """
    if resample == "never":
        return state.remaining
    writers = {path.problem_id: path.lineage.model for path in state.train if path.lineage.origin == "student"}
    if resample == "better":
        of_writer = {f"{stage}/{CHECKPOINT}": accuracy for stage, accuracy in dev_accuracy.items()}
        writers = {p: writer for p, writer in writers.items() if of_writer[writer] < dev_accuracy[student]}
    remaining = set(state.remaining)
    return [problem for problem in state.problems if problem in remaining or problem in writers]


def require_dev_problems(resample: str, dev: Sequence[Problem]) -> None:
    """Raises DataError where students are to be compared on dev problems and there are none."""
    if resample == "better" and not len(dev):
        raise DataError(
            "evolution.resample = 'better': compares students on dev problems, and the data has none; pass "
            "evolution.resample=all or never, or a dev split (data.dev, data.dev_share)"
        )


def beginnings(state: EvolutionState, problems: Sequence[str], by_id: Mapping[str, Problem]) -> dict[str, PathPrefix]:
    """By problem, the steps before the first wrong one of its newest rejected path, where the verdict names a later
    step than the first."""
    wanted = set(problems)
    newest = {item.path.problem_id: k for k, item in enumerate(state.incorrect) if item.path.problem_id in wanted}
    found = {}
    for problem_id, k in newest.items():
        item = state.incorrect[k]
        wrong = first_step(item.verdict.error_step)
        text = "" if wrong is None else text_before_step(by_id[problem_id], item.path.text, wrong)
        if text:
            found[problem_id] = PathPrefix(text, item.path.id)
    return found


def text_before_step(problem: Problem, text: str, number: int) -> str:
    """A path up to its step ``number``; empty where it has no such step or nothing stands before it."""
    end = 0
    for position, (named, piece) in enumerate(domain_of(problem).steps(text), 1):
        start = text.find(piece, end)
        if (position if named is None else named) == number:  # lines without a number are counted
            return text[:start].rstrip()
        end = start + len(piece)
    return ""
