"""``judge=majority``: the most frequent answer among a problem's samples. It needs no reference answer.

Measured on SmolLM2 (800 word problems, 4 samples each, 31 % of them right): an answer that three of the four samples
share is right for 47 % of the problems (experiments/words_rounds).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mathse.config.judges import MajorityJudgeConfig
from mathse.data.domains import final_answer, same_answers
from mathse.judges import Judge, VerdictsOf
from mathse.types import Problem, ReasoningPath, Verdict


@dataclass
class AnswerVotes:
    """An answer to a problem and the samples that give it."""

    text: str
    path_ids: list[str] = field(default_factory=list)
    weight: float = 0.0


class MajorityJudge:
    """Accepts the samples with the most frequent answer.

    P(correct) is the share of the problem's samples that give the answer, so ``judge.threshold`` is the smallest
    accepted share. A sample without an answer counts among the samples and is unparsed. The only sample of a problem
    has no vote to be compared with: it is unparsed too, since a judge never guesses.
    """

    name = "majority"

    def __init__(self, settings: MajorityJudgeConfig, open_judge: Callable[[str], Judge]) -> None:
        self.ties = settings.ties
        self.weights = None if settings.weights is None else open_judge(settings.weights)
        self._verdicts: dict[str, Verdict] = {}  # by path id

    def read_all(
        self, problems: Mapping[str, Problem], paths: Sequence[ReasoningPath], verdicts_of: VerdictsOf
    ) -> None:
        """Count the votes of all paths of a stage. A vote weighs P(correct) of the judge ``weights``, or 1 without
        such a judge."""
        scores = None
        if self.weights is not None:
            scores = {verdict.path_id: verdict.score or 0.0 for verdict in verdicts_of(self.weights)}

        # Group the samples of each problem by their answer.
        answers: dict[str, list[AnswerVotes]] = {}  # by problem id
        samples: dict[str, list[str]] = {}  # path ids by problem id
        totals: dict[str, float] = {}  # weight of all samples by problem id
        for path in paths:
            problem = problems[path.problem_id]
            weight = 1.0 if scores is None else scores.get(path.id, 0.0)
            samples.setdefault(problem.id, []).append(path.id)
            totals[problem.id] = totals.get(problem.id, 0.0) + weight
            text = final_answer(problem, path.text)
            if text is None:
                continue
            of_problem = answers.setdefault(problem.id, [])
            answer = next((a for a in of_problem if same_answers(problem, text, a.text)), None)
            if answer is None:
                answer = AnswerVotes(text)
                of_problem.append(answer)
            answer.path_ids.append(path.id)
            answer.weight += weight

        self._verdicts = {}
        for problem_id, path_ids in samples.items():
            self._decide(path_ids, answers.get(problem_id, []), totals[problem_id])

    def _decide(self, path_ids: Sequence[str], answers: Sequence[AnswerVotes], total: float) -> None:
        """Enter the verdicts on one problem's samples."""
        for path_id in path_ids:
            self._verdicts[path_id] = Verdict(path_id, "unparsed", judge=self.name)
        if len(path_ids) < 2:
            return

        # An answer wins with the largest weight. Equal weights decide only if ties are accepted.
        largest = max((answer.weight for answer in answers), default=0.0)
        n_largest = sum(answer.weight == largest for answer in answers)
        is_decided = largest > 0 and (n_largest == 1 or self.ties == "accept")
        for answer in answers:
            share = round(answer.weight / total, 6) if total else 0.0
            wins = is_decided and answer.weight == largest
            analysis = None if wins else f"Other samples come to another answer; {share:.0%} come to this one."
            for path_id in answer.path_ids:
                self._verdicts[path_id] = Verdict(
                    path_id, "correct" if wins else "wrong", error_analysis=analysis, score=share, judge=self.name
                )

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self._verdicts[path.id] for path in paths]
