"""``judge=orm_and_answer``, and any other judge that consists of judges: correct where all of them accept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from mathse.config.judges import AgreementJudge as Settings
from mathse.judges import Batch, Judge, PoolJudge, verdicts_on
from mathse.scoring.metrics import accepted
from mathse.types import Problem, ReasoningPath, Verdict


class AgreementJudge:
    """The first part's verdict, with its analysis and its score. Where it is "correct" though another part does not
    accept the path, or though its own P(correct) is below the threshold, it becomes "wrong"."""

    def __init__(self, settings: Settings, open_judge: Callable[[str], Judge]) -> None:
        self.parts = [open_judge(name) for name in settings.parts]
        self.threshold = settings.threshold
        self.name = "_and_".join(part.name for part in self.parts)

    def read_all(
        self,
        problems: Mapping[str, Problem],
        paths: Sequence[ReasoningPath],
        verdicts_of: Callable[[Judge], Sequence[Verdict]],
    ) -> None:
        for part in self.parts:
            if isinstance(part, PoolJudge):
                part.read_all(problems, paths, verdicts_of)

    def judge(self, problems: Sequence[Problem], paths: Sequence[ReasoningPath]) -> list[Verdict]:
        return next(self.judge_all([(problems, paths)]))

    def judge_all(self, batches: Sequence[Batch]) -> Iterator[list[Verdict]]:
        # Each part is given all batches, since one that asks a model may share them among devices.
        for by_part in zip(*(verdicts_on(part, batches) for part in self.parts), strict=True):
            yield [self._verdict(*on_one_path) for on_one_path in zip(*by_part, strict=True)]

    def _verdict(self, first: Verdict, *others: Verdict) -> Verdict:
        if first.status == "correct" and not all(accepted(v, self.threshold) for v in (first, *others)):
            against = next((v for v in others if not accepted(v, self.threshold)), None)
            analysis = against.error_analysis if against is not None else None
            return replace(first, status="wrong", error_analysis=analysis, judge=self.name)
        return replace(first, judge=self.name)
