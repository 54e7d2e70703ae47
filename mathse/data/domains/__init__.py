"""Task domains: a kind of reasoning task is a folder of prompts and a few settings, ``task_domain=NAME``.

    math      mathematics, the paper's task; the default
    words     stories with a few operations in them: the answer is a number
    science   questions about nature and its diagrams, answered by one of several choices (ScienceQA, AI2D)
    charts    questions about charts: a short text or a number, which may be 5 % off (ChartQA)

A folder holds ``JOB.LANGUAGE.vN.txt`` for the jobs generate, judge, annotate and reflect. conf/task_domain/NAME.yaml
defines the comparison of answers (mathse/scoring/answers/rule.py) and the name of a step. A domain that needs more is a
class of its own, derived from ``TaskDomain`` (domain.py).

A problem carries its domain, so that prompts, judges, metrics and reports ask the problem. The source sets the domain
of its problems (mathse/data/sources.py). A problem without a domain belongs to mathematics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mathse.config import build, parse_recorded
from mathse.config.task_domains import TaskDomainConfig
from mathse.data.domains.domain import MARKERS, TaskDomain
from mathse.types import Problem

__all__ = [
    "MARKERS",
    "MATH",
    "TaskDomain",
    "domain_of",
    "final_answer",
    "has_answer",
    "in_domain",
    "is_right",
    "open_domain",
    "recorded_domain",
    "same_answers",
    "subject",
]

MATH = TaskDomain(TaskDomainConfig())


def open_domain(settings: TaskDomainConfig) -> TaskDomain:
    """Open the domain that a run's ``task_domain`` describes. Mathematics is always the same object."""
    return MATH if settings == TaskDomainConfig() else build(settings)


def recorded_domain(run_config: Mapping[str, Any]) -> TaskDomain:
    """Open the domain of a run from the ``config`` of its run.json; without a record of it, mathematics.

    Raises DataError as ``recorded`` does.
    """
    section = run_config.get("task_domain")
    if section is None:
        return MATH
    return open_domain(parse_recorded("task_domain", section))


def subject(run_config: Mapping[str, Any]) -> str:
    """Name the subject of a run for its cards: "mathematics", or the name of its domain."""
    name = (run_config.get("task_domain") or {}).get("name", MATH.name)
    return "mathematics" if name == MATH.name else str(name)


def in_domain(problem: Problem, domain: TaskDomain) -> Problem:
    """Copy a problem into this domain."""
    if domain_of(problem) is domain:
        return problem
    return replace(problem, domain=None if domain is MATH else domain)


def domain_of(problem: Problem | None) -> TaskDomain:
    """Look up the domain of a problem; for an unknown problem, mathematics."""
    return MATH if problem is None or problem.domain is None else problem.domain


def final_answer(problem: Problem, response: str) -> str | None:
    """Extract the final answer of a response to a problem as written, or None."""
    return domain_of(problem).extract(response)


def has_answer(problem: Problem, prediction: str | None) -> bool:
    """Whether an answer equals the problem's reference; False without a reference."""
    return same_answers(problem, prediction, problem.answer)


def same_answers(problem: Problem, prediction: str | None, other: str) -> bool:
    """Whether two answers to a problem are equal."""
    return domain_of(problem).about(problem.question).same_answer(prediction, other, problem.choices)


def is_right(problem: Problem, response: str) -> bool:
    """Whether the final answer of a response equals the problem's reference."""
    return has_answer(problem, final_answer(problem, response))
