"""By which rules a run's paths are accepted: those that it recorded, and those of a command's overrides."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from mathse.config import judges as settings
from mathse.errors import ConfigError, DataError
from mathse.inference import prompts
from mathse.judges import Judge
from mathse.judges.agreement import AgreementJudge
from mathse.judges.answer import AnswerJudge
from mathse.judges.controls import NoisyJudge, RandomJudge
from mathse.types import Problem, ReasoningPath, Verdict

CHANCE: dict[str, Callable[[float, int], Judge]] = {
    "random": lambda rate, seed: RandomJudge(settings.RandomJudgeConfig(rate=rate), seed),
    "noisy": lambda rate, seed: NoisyJudge(settings.NoisyJudgeConfig(rate=rate), seed),
}
# What stored scores, references and seeds decide; the verdicts of others stand as they are.
JUDGES = ("orm", "orm_and_answer", "answer", *CHANCE)
RATE = 0.5  # judge.rate, where the run had a judge without one
KEEPS = ("one", "all", "balanced")
KEYS = ("judge", "judge.name", "judge.threshold", "judge.rate", "distill.judge", "evolution.keep")


@dataclass(frozen=True)
class Rules:
    """Who judges, from which P(correct) on, and how many paths of a problem are kept."""

    judge: str
    threshold: float
    distill_judge: str
    keep: str
    rate: float  # judge=random: the share it accepts; judge=noisy: the share it turns round

    @classmethod
    def of_run(cls, config: Mapping[str, Any]) -> Rules:
        """As run.json records them."""
        judge, distill = config["judge"], config["distill"]["judge"]
        return cls(
            str(judge["name"]),
            float(judge["threshold"]),
            str(distill["name"] if isinstance(distill, Mapping) else distill),
            str(config["evolution"]["keep"]),
            float(judge.get("rate", RATE)),
        )

    def changed(self, overrides: Sequence[str]) -> Rules:
        """These rules with ``overrides``. Raises ConfigError for what is no such setting or no such value."""
        values: dict[str, str] = {}
        for override in overrides:
            key, equals, value = override.partition("=")
            if key not in KEYS or not equals:
                near = get_close_matches(key, KEYS, n=1)
                hint = f"; did you mean {near[0]}?" if near and key not in KEYS else ""
                raise ConfigError(
                    f"{override}: stored verdicts can be decided anew by KEY=VALUE for {', '.join(KEYS)}, no "
                    f"other{hint}"
                )
            values[key] = value

        judge = values.get("judge", values.get("judge.name", self.judge))
        distill_judge = (
            judge if self.distill_judge == self.judge else self.distill_judge
        )  # one judge for both stays one
        rules = Rules(
            judge,
            _share("judge.threshold", values, self.threshold),
            values.get("distill.judge", distill_judge),
            values.get("evolution.keep", self.keep),
            _share("judge.rate", values, self.rate),
        )
        number = [rules.keep] if re.fullmatch("[1-9][0-9]{0,8}", rules.keep) else []
        for key, value, allowed in (
            ("judge", rules.judge, (*JUDGES, self.judge)),
            ("distill.judge", rules.distill_judge, (*JUDGES, self.judge, self.distill_judge)),
            ("evolution.keep", rules.keep, (*KEEPS, *number)),
        ):
            if value not in allowed:
                choices = ", ".join(dict.fromkeys(allowed))
                raise ConfigError(f"{key} = {value!r}: must be one of {choices}; what others would say is not stored")
        return rules


class Decider:
    """Verdicts by another rule: the loop's own judges, over stored verdicts and reference answers.

    Args:
        problem_of: a problem by id, None where the data does not have it any more.
        seed, rate: the run's own, by which judge=random and judge=noisy drew or would have drawn.
    """

    def __init__(self, problem_of: Callable[[str], Problem | None], seed: int, rate: float) -> None:
        self.problem_of, self.seed, self.rate = problem_of, seed, rate
        self._by_answer: dict[str, Verdict] = {}  # by path; several rules ask for the same

    def decide(self, name: str, rules: Rules, path: ReasoningPath, stored: Verdict) -> Verdict:
        """The verdict of the judge ``name`` on a path. Raises DataError where the run's files do not tell."""
        if name == "orm":
            return _verdict_of_the_orm(stored)
        if name == "orm_and_answer":
            parts: dict[str, Judge] = {"orm": StoredORM(_verdict_of_the_orm(stored)), "answer": AnswerJudge()}
            both = AgreementJudge(settings.AgreementJudgeConfig(threshold=rules.threshold), parts.__getitem__)
            return both.judge([self._known(path)], [path])[0]
        if name == "answer":
            return self._answered(self._known(path), path)
        if name in CHANCE and (stored.judge != name or rules.rate != self.rate):
            return CHANCE[name](rules.rate, self.seed).judge([self._known(path)], [path])[0]
        if stored.judge != name:
            raise DataError(
                f"{path.id}: {stored.judge!r} has judged it, and what judge={name} says of it is not stored; "
                f"choose one of {', '.join(JUDGES)}"
            )
        return stored

    def right(self, path: ReasoningPath) -> bool | None:
        """Whether a path comes to the reference answer; None where there is none, or the problem is not here."""
        problem = self.problem_of(path.problem_id)
        if problem is None or not problem.answer:
            return None
        return self._answered(problem, path).status == "correct"

    def _answered(self, problem: Problem, path: ReasoningPath) -> Verdict:
        if path.id not in self._by_answer:
            self._by_answer[path.id] = AnswerJudge().judge([problem], [path])[0]
        return self._by_answer[path.id]

    def _known(self, path: ReasoningPath) -> Problem:
        problem = self.problem_of(path.problem_id)
        if problem is None:
            raise DataError(
                f"{path.id}: the run's data has no problem {path.problem_id!r} any more, so its reference answer is "
                "not known; put the data back, or choose another judge"
            )
        return problem


class StoredORM:
    """The run's ORM as a judge: its stored verdict."""

    name = "orm"

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self.verdict]


def _verdict_of_the_orm(stored: Verdict) -> Verdict:
    """The ORM's own verdict: ``orm_and_answer`` turns some into "wrong", and keeps the ORM's text beside that."""
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


def _share(key: str, values: Mapping[str, str], otherwise: float) -> float:
    if key not in values:
        return otherwise
    try:
        share = float(values[key])
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"{key} = {values[key]}: must be a number in [0, 1]; pass 0.8, for example")
    return share
