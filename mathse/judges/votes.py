"""``judge=majority``: the answer that most samples of a problem come to. It needs no reference answer.

Measured on SmolLM2 (800 word problems, 4 samples each, 31 % of them right): an answer that three of the four samples
come to is right in 47 % of the problems (experiments/words_rounds).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mathse.config.judges import MajorityJudge as Settings
from mathse.data.domains import final_answer, same_answers
from mathse.judges import Judge
from mathse.types import Problem, ReasoningPath, Verdict


@dataclass
class Answer:
    """One answer to a problem, and the samples that come to it."""

    text: str
    paths: list[str] = field(default_factory=list)  # ids
    weight: float = 0.0


class MajorityJudge:
    """Accepts the samples that come to the most frequent answer; P(correct) is the share of the problem's samples that
    do, so ``judge.threshold`` is the share from which on they are accepted.

    A sample without an answer counts among the samples and is unparsed. A path that is its problem's only sample has no
    vote to be compared with: it is unparsed too, since a judge never guesses.
    """

    name = "majority"

    def __init__(self, settings: Settings, open_judge: Callable[[str], Judge]) -> None:
        self.ties = settings.ties
        self.weights = None if settings.weights is None else open_judge(settings.weights)
        self._verdicts: dict[str, Verdict] = {}

    def read_all(
        self,
        problems: Mapping[str, Problem],
        paths: Sequence[ReasoningPath],
        verdicts_of: Callable[[Judge], Sequence[Verdict]],
    ) -> None:
        """Count the votes of all paths of a stage.

        Args:
            verdicts_of: the verdicts of another judge on the same paths, kept on the disk.
        """
        scores = {} if self.weights is None else {v.path_id: v.score or 0.0 for v in verdicts_of(self.weights)}
        answers: dict[str, list[Answer]] = {}  # by problem
        samples: dict[str, list[str]] = {}  # ids of all paths by problem
        for path in paths:
            problem = problems[path.problem_id]
            samples.setdefault(problem.id, []).append(path.id)
            if (text := final_answer(problem, path.text)) is None:
                continue
            given = answers.setdefault(problem.id, [])
            answer = next((a for a in given if same_answers(problem, text, a.text)), None)
            if answer is None:
                given.append(answer := Answer(text))
            answer.paths.append(path.id)
            answer.weight += scores.get(path.id, 0.0) if self.weights is not None else 1.0
        self._verdicts = {}
        for problem_id, ids in samples.items():
            total = sum(scores.get(k, 0.0) for k in ids) if self.weights is not None else len(ids)
            self._verdicts |= {v.path_id: v for v in self._on_problem(ids, answers.get(problem_id, []), total)}

    def _on_problem(self, ids: Sequence[str], answers: Sequence[Answer], total: float) -> list[Verdict]:
        most = max((answer.weight for answer in answers), default=0.0)
        winners = [answer for answer in answers if answer.weight == most]
        decided = len(ids) > 1 and most > 0 and (len(winners) == 1 or self.ties == "accept")
        verdicts = {k: Verdict(k, "unparsed", judge=self.name) for k in ids}
        for answer in answers if len(ids) > 1 else ():
            share = round(answer.weight / total, 6) if total else 0.0
            wins = decided and answer.weight == most
            reason = None if wins else f"Other samples come to another answer; {share:.0%} come to this one."
            for k in answer.paths:
                verdicts[k] = Verdict(
                    k, "correct" if wins else "wrong", error_analysis=reason, score=share, judge=self.name
                )
        return list(verdicts.values())

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return [self._verdicts[path.id] for path in paths]
