"""``judge=orm_and_answer`` and every other judge that consists of judges: it accepts a path that all of them accept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from mathse.config.judges import AgreementJudgeConfig
from mathse.judges import Batch, Judge, PoolJudge, VerdictsOf, judge_batches
from mathse.scoring.metrics import accepted
from mathse.types import Problem, ReasoningPath, Verdict


class AgreementJudge:
    """Returns the first part's verdict, with its analysis and its score. A "correct" becomes "wrong" if another part
    does not accept the path, or if the first part's P(correct) is below the threshold."""

    def __init__(self, settings: AgreementJudgeConfig, open_judge: Callable[[str], Judge]) -> None:
        self.parts = [open_judge(name) for name in settings.parts]
        self.threshold = settings.threshold
        self.name = "_and_".join(part.name for part in self.parts)

    def read_all(
        self, problems: Mapping[str, Problem], paths: Sequence[ReasoningPath], verdicts_of: VerdictsOf
    ) -> None:
        for part in self.parts:
            if isinstance(part, PoolJudge):
                part.read_all(problems, paths, verdicts_of)

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        # Each part gets all batches, since a part that runs a model may spread them over several devices.
        by_part = [judge_batches(part, batches) for part in self.parts]
        for batch_by_part in zip(*by_part, strict=True):
            yield [self._combine(*verdicts) for verdicts in zip(*batch_by_part, strict=True)]

    def _combine(self, first: Verdict, *others: Verdict) -> Verdict:
        """Combine the verdicts of all parts on one path."""
        if first.status == "correct" and not all(accepted(v, self.threshold) for v in (first, *others)):
            rejection = next((v for v in others if not accepted(v, self.threshold)), None)
            analysis = rejection.error_analysis if rejection is not None else None
            return replace(first, status="wrong", error_analysis=analysis, judge=self.name)
        return replace(first, judge=self.name)
