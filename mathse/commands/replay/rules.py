"""The rules that accept a run's paths: as recorded, and with the overrides of a command."""

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

CHANCE_JUDGES: dict[str, Callable[[float, int], Judge]] = {
    "random": lambda rate, seed: RandomJudge(settings.RandomJudge(rate=rate), seed),
    "noisy": lambda rate, seed: NoisyJudge(settings.NoisyJudge(rate=rate), seed),
}
# Judges that need only stored scores, reference answers and seeds. The verdicts of other judges do not change.
JUDGES = ("orm", "orm_and_answer", "answer", *CHANCE_JUDGES)
DEFAULT_RATE = 0.5  # judge.rate, if the run's judge had none
KEEP_VALUES = ("one", "all", "balanced")
KEYS = ("judge", "judge.name", "judge.threshold", "judge.rate", "distill.judge", "evolution.keep")


@dataclass(frozen=True)
class Rules:
    """The judges, the threshold of P(correct), and the number of paths kept per problem."""

    judge: str
    threshold: float
    distill_judge: str
    keep: str
    rate: float  # judge=random: the share that it accepts; judge=noisy: the share that it inverts

    @classmethod
    def of_run(cls, config: Mapping[str, Any]) -> Rules:
        """Return the rules that run.json records."""
        judge, distill = config["judge"], config["distill"]["judge"]
        return cls(
            str(judge["name"]),
            float(judge["threshold"]),
            str(distill["name"] if isinstance(distill, Mapping) else distill),
            str(config["evolution"]["keep"]),
            float(judge.get("rate", DEFAULT_RATE)),
        )

    def apply(self, overrides: Sequence[str]) -> Rules:
        """Return these rules with ``overrides``. Raises ConfigError for an unknown setting or value."""
        values: dict[str, str] = {}
        for override in overrides:
            key, equals, value = override.partition("=")
            if key not in KEYS or not equals:
                near = get_close_matches(key, KEYS, n=1)
                hint = f"; did you mean {near[0]}?" if near and key not in KEYS else ""
                raise ConfigError(
                    f"{override}: stored verdicts can be decided again by KEY=VALUE for {', '.join(KEYS)}, no "
                    f"other{hint}"
                )
            values[key] = value

        judge = values.get("judge", values.get("judge.name", self.judge))
        # One judge for both stages stays one judge for both.
        distill_judge = judge if self.distill_judge == self.judge else self.distill_judge
        rules = Rules(
            judge,
            _read_share("judge.threshold", values, self.threshold),
            values.get("distill.judge", distill_judge),
            values.get("evolution.keep", self.keep),
            _read_share("judge.rate", values, self.rate),
        )
        number = [rules.keep] if re.fullmatch("[1-9][0-9]{0,8}", rules.keep) else []
        for key, value, allowed in (
            ("judge", rules.judge, (*JUDGES, self.judge)),
            ("distill.judge", rules.distill_judge, (*JUDGES, self.judge, self.distill_judge)),
            ("evolution.keep", rules.keep, (*KEEP_VALUES, *number)),
        ):
            if value not in allowed:
                choices = ", ".join(dict.fromkeys(allowed))
                raise ConfigError(
                    f"{key} = {value!r}: must be one of {choices}; verdicts of other judges are not stored"
                )
        return rules


class Decider:
    """Decides verdicts by other rules, with the loop's own judges, from stored verdicts and reference answers.

    Args:
        problem_of: returns a problem by its id, or None if the data no longer has it.
        seed, rate: those of the run, for judge=random and judge=noisy.
    """

    def __init__(self, problem_of: Callable[[str], Problem | None], seed: int, rate: float) -> None:
        self.problem_of, self.seed, self.rate = problem_of, seed, rate
        self._by_answer: dict[str, Verdict] = {}  # by path id; several rules need the same verdict

    def decide(self, name: str, rules: Rules, path: ReasoningPath, stored: Verdict) -> Verdict:
        """Return the verdict of the judge ``name`` on a path. Raises DataError if the run's files lack it."""
        if name == "orm":
            return _recover_orm_verdict(stored)
        if name == "orm_and_answer":
            parts: dict[str, Judge] = {"orm": StoredORM(_recover_orm_verdict(stored)), "answer": AnswerJudge()}
            both = AgreementJudge(settings.AgreementJudge(threshold=rules.threshold), parts.__getitem__)
            return both.judge([self._find_problem(path)], [path])[0]
        if name == "answer":
            return self._judge_answer(self._find_problem(path), path)
        if name in CHANCE_JUDGES and (stored.judge != name or rules.rate != self.rate):
            return CHANCE_JUDGES[name](rules.rate, self.seed).judge([self._find_problem(path)], [path])[0]
        if stored.judge != name:
            raise DataError(
                f"{path.id}: {stored.judge!r} has judged it, and a verdict of judge={name} is not stored; "
                f"choose one of {', '.join(JUDGES)}"
            )
        return stored

    def is_right(self, path: ReasoningPath) -> bool | None:
        """Whether a path has the reference answer; None without a reference answer or without the problem."""
        problem = self.problem_of(path.problem_id)
        if problem is None or not problem.answer:
            return None
        return self._judge_answer(problem, path).status == "correct"

    def _judge_answer(self, problem: Problem, path: ReasoningPath) -> Verdict:
        if path.id not in self._by_answer:
            self._by_answer[path.id] = AnswerJudge().judge([problem], [path])[0]
        return self._by_answer[path.id]

    def _find_problem(self, path: ReasoningPath) -> Problem:
        problem = self.problem_of(path.problem_id)
        if problem is None:
            raise DataError(
                f"{path.id}: the run's data no longer has the problem {path.problem_id!r}, so its reference answer is "
                "not known; put the data back, or choose another judge"
            )
        return problem


class StoredORM:
    """The run's ORM as a judge, with one stored verdict."""

    name = "orm"

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self.verdict]


def _recover_orm_verdict(stored: Verdict) -> Verdict:
    """Return the ORM's own verdict. ``orm_and_answer`` changes some to "wrong", and keeps the ORM's text."""
    if stored.judge == "orm" or (stored.judge == "orm_and_answer" and stored.status != "wrong"):
        return stored
    if stored.judge == "orm_and_answer" and stored.raw is not None:
        return replace(stored, status=prompts.parse_feedback(stored.raw, binary=True).status)
    if stored.judge == "orm_and_answer" and stored.score is not None:  # a binary ORM: one forward pass, without text
        return replace(stored, status="correct" if stored.score >= 0.5 else "wrong")
    raise DataError(
        f"{stored.path_id}: {stored.judge!r} has judged it, and no ORM's score of it is stored; choose judge=answer, "
        "or run the loop with judge=orm"
    )


def _read_share(key: str, values: Mapping[str, str], otherwise: float) -> float:
    if key not in values:
        return otherwise
    try:
        share = float(values[key])
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ConfigError(f"{key} = {values[key]}: must be a number in [0, 1]; pass 0.8, for example")
    return share
