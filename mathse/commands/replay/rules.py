"""By which rules a run's paths are accepted: as it recorded them, and as they are asked for now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from mathse.errors import ConfigError, DataError
from mathse.inference import prompts
from mathse.scoring.answers import extract_answer, same_answer
from mathse.scoring.metrics import accepted
from mathse.types import Problem, ReasoningPath, Verdict

JUDGES = ("orm", "orm_and_answer", "answer")  # what stored scores and references decide; others only as they stand
KEEPS = ("one", "all")
KEYS = ("judge", "judge.name", "judge.threshold", "distill.judge", "evolution.keep")


@dataclass(frozen=True)
class Rules:
    """Who judges, from which P(correct) on, and how many paths of a problem are kept."""

    judge: str
    threshold: float
    distill_judge: str
    keep: str

    @classmethod
    def of_run(cls, config: Mapping[str, Any]) -> Rules:
        """As run.json records them."""
        judge = config["judge"]
        return cls(
            str(judge["name"]),
            float(judge["threshold"]),
            str(config["distill"]["judge"]),
            str(config["evolution"]["keep"]),
        )

    def changed(self, overrides: Sequence[str]) -> Rules:
        """These rules with ``overrides``. Raises ConfigError for what is no such setting or no such value."""
        given = dict(map(_key_and_value, overrides))
        rules = self
        if (name := given.get("judge", given.get("judge.name"))) is not None:
            one_for_both = self.distill_judge == self.judge
            rules = replace(rules, judge=name, distill_judge=name if one_for_both else self.distill_judge)
        if "judge.threshold" in given:
            rules = replace(rules, threshold=_share(given["judge.threshold"]))
        if "distill.judge" in given:
            rules = replace(rules, distill_judge=given["distill.judge"])
        if "evolution.keep" in given:
            rules = replace(rules, keep=given["evolution.keep"])
        _check("judge", rules.judge, (*JUDGES, self.judge))
        _check("distill.judge", rules.distill_judge, (*JUDGES, self.judge, self.distill_judge))
        _check("evolution.keep", rules.keep, KEEPS)
        return rules


class Decider:
    """Verdicts by another rule, from stored ones and reference answers.

    Args:
        problem_of: a problem by id, None where the data does not have it any more.
    """

    def __init__(self, problem_of: Callable[[str], Problem | None]) -> None:
        self.problem_of = problem_of
        self._read: dict[str, str | None] = {}  # path id -> its final answer
        self._right: dict[str, bool | None] = {}

    def decide(self, judge: str, threshold: float, path: ReasoningPath, stored: Verdict) -> Verdict:
        """What ``judge`` says of a path. Raises DataError where the run's files do not tell."""
        if judge == "answer":
            return self._by_answer(path)
        if judge in ("orm", "orm_and_answer"):
            orm = _word_of_the_orm(stored)
            return orm if judge == "orm" else self._by_both(orm, threshold, path)
        if stored.judge != judge:
            raise DataError(
                f"{path.id}: {stored.judge!r} has judged it, and what judge={judge} says of it is not stored; "
                f"choose one of {', '.join(JUDGES)}"
            )
        return stored

    def right(self, path: ReasoningPath) -> bool | None:
        """Whether a path comes to the reference answer; None where there is none, or the problem is not here."""
        if path.id not in self._right:
            problem = self.problem_of(path.problem_id)
            known = problem is not None and bool(problem.answer)
            self._right[path.id] = self._matches(path, problem) if known else None
        return self._right[path.id]

    def _matches(self, path: ReasoningPath, problem: Problem | None) -> bool:
        assert problem is not None
        return same_answer(self._answer(path), problem.answer, problem.choices)

    def _answer(self, path: ReasoningPath) -> str | None:
        if path.id not in self._read:
            self._read[path.id] = extract_answer(path.text)
        return self._read[path.id]

    def _by_answer(self, path: ReasoningPath) -> Verdict:
        """As ``judges.AnswerJudge``, which lives beside torch."""
        problem = self.problem_of(path.problem_id)
        if problem is None:
            raise DataError(
                f"{path.id}: the run's data has no problem {path.problem_id!r} any more, so its reference answer is "
                "not known; put the data back, or leave judge=answer out"
            )
        if self._answer(path) is None:
            return Verdict(path.id, "unparsed", judge="answer")
        if path.id not in self._right or self._right[path.id] is None:
            self._right[path.id] = self._matches(path, problem)
        return Verdict(path.id, "correct" if self._right[path.id] else "wrong", judge="answer")

    def _by_both(self, orm: Verdict, threshold: float, path: ReasoningPath) -> Verdict:
        """As ``judges.ORMAndAnswerJudge``."""
        if orm.status != "correct":
            return replace(orm, judge="orm_and_answer")
        agreed = accepted(orm, threshold) and self._by_answer(path).status == "correct"
        return replace(orm, status="correct" if agreed else "wrong", judge="orm_and_answer")


def _word_of_the_orm(stored: Verdict) -> Verdict:
    """The ORM's own verdict: ``orm_and_answer`` turns some into "wrong", and keeps the ORM's words beside that."""
    if stored.judge == "orm" or (stored.judge == "orm_and_answer" and stored.status != "wrong"):
        return stored
    if stored.judge == "orm_and_answer" and stored.raw is not None:
        return replace(stored, status=prompts.parse_feedback(stored.raw, binary=True).status)
    if stored.judge == "orm_and_answer" and stored.score is not None:  # read from one forward pass, without words
        return replace(stored, status="correct" if stored.score >= 0.5 else "wrong")
    raise DataError(
        f"{stored.path_id}: {stored.judge!r} has judged it, and no ORM's score of it is stored; choose judge=answer, "
        "or run the loop with judge=orm"
    )


def _key_and_value(override: str) -> tuple[str, str]:
    key, equals, value = override.partition("=")
    if key not in KEYS or not equals:
        near = get_close_matches(key, KEYS, n=1)
        hint = f"; did you mean {near[0]}?" if near and key not in KEYS else ""
        raise ConfigError(
            f"{override}: stored verdicts can be decided anew by KEY=VALUE for {', '.join(KEYS)}, no other{hint}"
        )
    return key, value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError(f"judge.threshold = {text}: must be a number in [0, 1]; pass 0.8, for example")
    return value


def _check(key: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        choices = ", ".join(dict.fromkeys(allowed))
        raise ConfigError(f"{key} = {value!r}: must be one of {choices}; what others would say is not stored")
