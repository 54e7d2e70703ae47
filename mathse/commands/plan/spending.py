"""Predict the tokens and operations of a run's own models: the ledger of a run (mathse/runs),
before it starts.

How many answers, verdicts and rows there will be is the planner's. What each comes to is measured in the ledgers of an
earlier run (--like), else estimated: tokens from the words of prompts and reference solutions, operations in the
model without numbers. Rows that a fit by pairs sees, and answers that an ORM gives for itself, are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from mathse.commands.plan.teacher_requests import ANNOTATION, SOLUTION
from mathse.commands.plan.tokens import A_MESSAGE, text_tokens
from mathse.config.fits import FitConfig
from mathse.config.schema import TrainConfig, needs_orm
from mathse.data.images import image_size
from mathse.evolution.planner import Range, StagePlan
from mathse.inference import prompts
from mathse.models.needs import architecture_of, planned_precision
from mathse.models.operations import Amounts, picture_amounts, written_behind
from mathse.runs.layout import PATHS, VERDICTS
from mathse.runs.ledger import FLOPS, TOKENS, spent_in
from mathse.runs.reader import FinishedStage, Run, read_run
from mathse.types import Problem


@dataclass(frozen=True)
class Unit:
    """Means of an answer, a verdict, or a row. ``flops`` None: not known."""

    read: float = 0.0
    written: float = 0.0
    trained: float = 0.0
    flops: float | None = None


@dataclass(frozen=True)
class PlannedSpending:
    """By currency; ``flops`` None: not known."""

    prefilled_tokens: Range = Range()
    sampled_tokens: Range = Range()
    trained_tokens: Range = Range()
    flops: Range | None = field(default_factory=Range)

    def __add__(self, other: PlannedSpending) -> PlannedSpending:
        return PlannedSpending(
            self.prefilled_tokens + other.prefilled_tokens,
            self.sampled_tokens + other.sampled_tokens,
            self.trained_tokens + other.trained_tokens,
            None if self.flops is None or other.flops is None else self.flops + other.flops,
        )

    def to_json(self) -> dict[str, Any]:
        tokens = {currency: getattr(self, currency).to_json() for currency in TOKENS}
        return {**tokens, FLOPS: None if self.flops is None else self.flops.to_json()}


class Spending:
    """Predictions for the stages of one plan. ``notes`` say how it was estimated."""

    def __init__(self, config: TrainConfig, problems: Sequence[Problem], like: Path | None) -> None:
        self.config, self.notes = config, list[str]()
        orm_section = config.orm.backbone or config.backbone
        self.student, self.orm = _Lengths(config.backbone, problems), _Lengths(orm_section, problems)
        self.measured = _measured(read_run(like)) if like is not None else {}
        if self.measured:
            names = ", ".join(sorted(self.measured))
            self.notes.append(f"tokens and FLOPs of {names}: measured in the ledgers of {like}")
        if len(self.measured) < 3 + needs_orm(config):
            self.notes.append(
                "tokens and FLOPs that no run measured: the words of prompts and reference solutions counted, which a "
                "model's own answers may exceed; --like RUN measures them"
            )
        for lengths in {id(s): s for s in (self.student, self.orm)}.values():
            if lengths.model is None:
                self.notes.append("FLOPs: not known where the sizes of the backbone are not; --like RUN measures them")
                break

    def method(self, stage: StagePlan) -> PlannedSpending:
        """Predict the spending of a stage on its student or ORM."""
        answers, verdicts = stage.samples - stage.held_samples, stage.verdicts - stage.held_verdicts
        return (
            _times(answers, self._answer(stage.prompts_share))
            + _times(verdicts, self._verdict())
            + _times(stage.seen, self._row(stage))
        )

    def measuring(self, stage: StagePlan) -> PlannedSpending:
        """Predict the cost of measuring the stage."""
        answers = stage.held_samples + Range.of(stage.evaluated)
        lengths = self.orm if stage.name == "orm" else self.student
        row = self._row(stage)
        read = Unit(read=row.trained, flops=lengths.reading(lengths.row(stage.name == "orm") + lengths.seen))
        return (
            _times(answers, self._answer(1.0))
            + _times(stage.held_verdicts, self._verdict())
            + _times(stage.validated, read)
        )

    def _answer(self, prompts_share: float) -> Unit:
        if (measured := self.measured.get("answers")) is not None:
            return measured
        limit = self.config.generator.max_new_tokens
        written = min(self.student.solution, limit)
        amounts = self.student.answer(written, prompts_share)
        read = self.student.prompt * prompts_share
        return Unit(read, written, flops=self.student.reading(amounts))

    def _verdict(self) -> Unit:
        """Predict the ORM's verdicts. With the verdict first, it explains the rejected paths, here half of them."""
        orm, judge = self.config.orm, self.config.judge
        full = min(ANNOTATION, judge.max_new_tokens)
        first = orm.kind == "binary" or orm.order == "verdict_first"
        written = (1.0 if orm.kind == "binary" or judge.explain != "all" else full / 2) if first else full
        return Unit(self.orm.judged, written, flops=self.orm.reading(self.orm.answer(written, of_judge=True)))

    def _row(self, stage: StagePlan) -> Unit:
        is_orm = stage.name == "orm"
        if (measured := self.measured.get("rows of the ORM" if is_orm else "rows")) is not None:
            return measured
        lengths = self.orm if is_orm else self.student
        fit: FitConfig = self.config.orm.fit if is_orm else self.config.sft
        first = stage.new.high / stage.seen.high if stage.seen.high else 1.0
        amounts = lengths.row(is_orm)
        flops = lengths.training(amounts, fit, planned_precision(self.config.trainer), first)
        return Unit(trained=amounts.tokens, flops=flops)


class _Lengths:
    """Mean tokens of what a backbone reads and writes, over some problems; and its operations."""

    def __init__(self, section: Any, problems: Sequence[Problem]) -> None:
        settings: Mapping[str, Any] = section if isinstance(section, Mapping) else vars(section)
        style: Any = settings.get("prompt_style") or getattr(section, "prompt_style", "full")
        self.model = architecture_of(section)
        self.picture = _mean(sum(self._picture(ref) for ref in p.images) for p in problems)
        question = _mean(text_tokens(prompts.generation_prompt(p, style)) for p in problems) + A_MESSAGE
        solved = [p.solution for p in problems if p.solution]
        self.seen = picture_amounts(round(self.picture))
        self.solution = _mean(text_tokens(text) + 1 for text in solved) if solved else SOLUTION  # with its end
        self.prompt = question + self.picture
        self.judged = self.prompt + self.solution + 2 * A_MESSAGE

    def _picture(self, ref: str) -> float:
        """Tokens; where a picture's size decides, at most as many as the settings allow."""
        if self.model is None:
            return 0.0
        if self.model.tokens_of is None:
            return self.model.image_tokens[1]
        return self.model.tokens_of(*image_size(ref))

    def answer(self, written: float, prompts_share: float = 1.0, of_judge: bool = False) -> Amounts:
        """Operations of one answer, with its share of reading the prompt."""
        prompt = self.judged if of_judge else self.prompt
        seen = picture_amounts(round(self.picture * prompts_share))
        whole = Amounts(tokens=round(prompt * prompts_share), squares=round(prompt**2 * prompts_share)) + seen
        return whole + written_behind(round(prompt), 0, round(written))

    def row(self, of_judge: bool) -> Amounts:
        """A row without what the tower does for its picture."""
        length = (self.judged + ANNOTATION) if of_judge else (self.prompt + self.solution)
        response = ANNOTATION if of_judge else self.solution
        return Amounts(tokens=round(length), targets=round(response), squares=round(length**2))

    def reading(self, amounts: Amounts) -> float | None:
        """FLOPs of a forward pass."""
        return None if self.model is None else self.model.reading.of(amounts)

    def training(self, row: Amounts, fit: FitConfig, precision: str, first: float) -> float | None:
        """FLOPs of a row each time that training sees it. ``first``: share of the rows that it sees for the first time;
        the outputs of frozen parts and lower layers for these are kept where ``fit`` says so."""
        if self.model is None:
            return None
        trained = self.model.training(fit, precision)
        if fit.freeze_layers and first < 1 and trained.above is not None and trained.below is not None:
            return trained.above.of(row) + first * trained.below.of(row + self.seen)
        if fit.tower_features:
            return trained.whole.of(row) + first * self.model.reading.of(self.seen)
        return trained.whole.of(row + self.seen)


def _times(count: Range, unit: Unit) -> PlannedSpending:
    if not count.high:
        return PlannedSpending()
    return PlannedSpending(
        count * unit.read,
        count * unit.written,
        count * unit.trained,
        None if unit.flops is None else count * unit.flops,
    )


def _measured(run: Run) -> dict[str, Unit]:
    """Rates from the ledgers of a run: of trained rows, and of answers where nothing else was read or written."""
    found: dict[str, Unit] = {}
    for name, stages in (
        ("rows", [stage for stage in run.stages if stage.name != "orm"]),
        ("rows of the ORM", [stage for stage in run.stages if stage.name == "orm"]),
    ):
        fits = [spent for stage in stages if (spent := spent_in(stage)).trained_rows]
        rows = sum(spent.trained_rows or 0 for spent in fits)
        if rows:
            trained = sum(spent.trained_tokens or 0 for spent in fits)
            found[name] = Unit(trained=trained / rows, flops=sum(s.training_flops or 0 for s in fits) / rows)
    sampled = [(stage, spent_in(stage)) for stage in run.stages if _only_samples(stage)]
    known = [(stage, spent) for stage, spent in sampled if spent.flops is not None]
    if answers := sum(sum(1 for _ in stage.rows(PATHS)) for stage, _ in known):
        read, written = (sum(getattr(spent, c) or 0 for _, spent in known) / answers for c in TOKENS[:2])
        flops = sum((spent.flops or 0) - (spent.training_flops or 0) for _, spent in known) / answers
        found["answers"] = Unit(read, written, flops=flops)
    return found


def _only_samples(stage: FinishedStage) -> bool:
    """Whether its student's paths are all that its method had a model of ours write."""
    if not stage.name.startswith(("orm/student", "round")) or not stage.has(PATHS):
        return False
    by_model = ("orm", "student")
    return not any(str(row.get("judge", "")).startswith(by_model) for row in stage.rows(VERDICTS))


def _mean(values: Iterator[float]) -> float:
    counted = list(values)
    return fmean(counted) if counted else 0.0
