"""Predict the tokens and operations of a run's own models, as its ledger (mathse/runs) will record them.

The planner gives the numbers of answers, verdicts and rows. The cost of each is measured in the ledgers of an earlier
run (--like), otherwise estimated: tokens from the words of prompts and reference solutions, operations from the model
without its weights. Two parts are left out: rows of a training on pairs, and answers that the ORM gives for itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from mathse.commands.plan.teacher_requests import ANNOTATION_TOKENS, SOLUTION_TOKENS
from mathse.commands.plan.tokens import MESSAGE_TOKENS, count_text_tokens
from mathse.config.fits import Fit
from mathse.config.schema import TrainConfig, needs_orm
from mathse.data.images import image_size
from mathse.evolution.planner import Range, StagePlan
from mathse.inference import prompts
from mathse.models.needs import find_architecture, plan_precision
from mathse.models.operations import Amounts, count_picture, count_response
from mathse.runs.layout import PATHS, VERDICTS
from mathse.runs.ledger import FLOPS, TOKENS, read_spent
from mathse.runs.reader import FinishedStage, Run, read_run
from mathse.types import Problem


@dataclass(frozen=True)
class UnitCost:
    """Mean tokens and FLOPs of one answer, verdict or row. ``flops`` is None if unknown."""

    read: float = 0.0
    written: float = 0.0
    trained: float = 0.0
    flops: float | None = None


@dataclass(frozen=True)
class PlannedSpending:
    """Tokens and FLOPs, by the ledger's currencies. ``flops`` is None if unknown."""

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


class SpendingEstimate:
    """Predicts the spending of the stages of one plan. ``notes`` has the source of each estimate."""

    def __init__(self, config: TrainConfig, problems: Sequence[Problem], like: Path | None) -> None:
        self.config, self.notes = config, list[str]()
        self.student = MeanLengths(config.backbone, problems)
        self.orm = MeanLengths(config.orm.backbone or config.backbone, problems)
        self.measured = _measure_costs(read_run(like)) if like is not None else {}
        if self.measured:
            names = ", ".join(sorted(self.measured))
            self.notes.append(f"tokens and FLOPs of {names}: measured in the ledgers of {like}")
        if len(self.measured) < 3 + needs_orm(config):
            self.notes.append(
                "tokens and FLOPs that no run measured: the words of prompts and reference solutions counted, which a "
                "model's own answers may exceed; --like RUN measures them"
            )
        if self.student.model is None or self.orm.model is None:
            self.notes.append("FLOPs: not known where the sizes of the backbone are not; --like RUN measures them")

    def predict_method(self, stage: StagePlan) -> PlannedSpending:
        """Predict the spending of the stage's method: answers, verdicts, training."""
        answers, verdicts = stage.samples - stage.held_samples, stage.verdicts - stage.held_verdicts
        return (
            _multiply(answers, self._answer_cost(stage.prompts_share))
            + _multiply(verdicts, self._verdict_cost())
            + _multiply(stage.seen, self._row_cost(stage))
        )

    def predict_measuring(self, stage: StagePlan) -> PlannedSpending:
        """Predict the spending on measuring the stage: test and dev problems, held-out paths, validation."""
        answers = stage.held_samples + Range.of(stage.evaluated)
        lengths = self.orm if stage.name == "orm" else self.student
        row = self._row_cost(stage)
        # Validation reads each row once, without a backward pass.
        amounts = lengths.row_amounts(stage.name == "orm") + lengths.seen
        read = UnitCost(read=row.trained, flops=lengths.reading_flops(amounts))
        return (
            _multiply(answers, self._answer_cost(1.0))
            + _multiply(stage.held_verdicts, self._verdict_cost())
            + _multiply(stage.validated, read)
        )

    def _answer_cost(self, prompts_share: float) -> UnitCost:
        if (measured := self.measured.get("answers")) is not None:
            return measured
        limit = self.config.generator.max_new_tokens
        written = min(self.student.solution, limit)
        amounts = self.student.answer_amounts(written, prompts_share)
        read = self.student.prompt * prompts_share
        return UnitCost(read, written, flops=self.student.reading_flops(amounts))

    def _verdict_cost(self) -> UnitCost:
        """Predict one verdict of the ORM. An ORM that writes its verdict first explains the rejected paths: half."""
        orm, judge = self.config.orm, self.config.judge
        written: float = min(ANNOTATION_TOKENS, judge.max_new_tokens)
        if orm.kind == "binary" or (orm.order == "verdict_first" and judge.explain != "all"):
            written = 1.0
        elif orm.order == "verdict_first":
            written /= 2
        flops = self.orm.reading_flops(self.orm.answer_amounts(written, of_judge=True))
        return UnitCost(self.orm.judged, written, flops=flops)

    def _row_cost(self, stage: StagePlan) -> UnitCost:
        is_orm = stage.name == "orm"
        if (measured := self.measured.get("rows of the ORM" if is_orm else "rows")) is not None:
            return measured
        lengths = self.orm if is_orm else self.student
        fit: Fit = self.config.orm.fit if is_orm else self.config.sft
        first_share = stage.new.high / stage.seen.high if stage.seen.high else 1.0
        amounts = lengths.row_amounts(is_orm)
        flops = lengths.training_flops(amounts, fit, plan_precision(self.config.trainer), first_share)
        return UnitCost(trained=amounts.tokens, flops=flops)


class MeanLengths:
    """Mean tokens that a backbone reads and writes over some problems, and its operations.

    Attributes:
        picture: tokens of a problem's pictures.
        prompt: tokens of a question with its pictures.
        solution: tokens of a solution.
        judged: tokens of a prompt that shows a solution to the ORM.
    """

    def __init__(self, section: Any, problems: Sequence[Problem]) -> None:
        settings: Mapping[str, Any] = section if isinstance(section, Mapping) else vars(section)
        style: Any = settings.get("prompt_style") or getattr(section, "prompt_style", "full")
        self.model = find_architecture(section)
        self.picture = _mean(sum(self._picture_tokens(ref) for ref in p.images) for p in problems)
        question = _mean(count_text_tokens(prompts.generation_prompt(p, style)) for p in problems) + MESSAGE_TOKENS
        solutions = [p.solution for p in problems if p.solution]
        self.seen = count_picture(round(self.picture))
        # Each solution has one token more: its end.
        self.solution = _mean(count_text_tokens(text) + 1 for text in solutions) if solutions else SOLUTION_TOKENS
        self.prompt = question + self.picture
        self.judged = self.prompt + self.solution + 2 * MESSAGE_TOKENS

    def _picture_tokens(self, ref: str) -> float:
        """Return the tokens of a picture; where its size decides, at most as many as the settings allow."""
        if self.model is None:
            return 0.0
        if self.model.tokens_of is None:
            return self.model.image_tokens[1]
        return self.model.tokens_of(*image_size(ref))

    def answer_amounts(self, written: float, prompts_share: float = 1.0, of_judge: bool = False) -> Amounts:
        """Return the amounts of one answer, with its share of reading the prompt."""
        prompt = self.judged if of_judge else self.prompt
        seen = count_picture(round(self.picture * prompts_share))
        reading = Amounts(tokens=round(prompt * prompts_share), squares=round(prompt**2 * prompts_share)) + seen
        return reading + count_response(round(prompt), 0, round(written))

    def row_amounts(self, of_judge: bool) -> Amounts:
        """Return the amounts of a training row, without the tower's work on its pictures."""
        length = (self.judged + ANNOTATION_TOKENS) if of_judge else (self.prompt + self.solution)
        response = ANNOTATION_TOKENS if of_judge else self.solution
        return Amounts(tokens=round(length), targets=round(response), squares=round(length**2))

    def reading_flops(self, amounts: Amounts) -> float | None:
        """Return the FLOPs of a forward pass."""
        return None if self.model is None else self.model.reading.of(amounts)

    def training_flops(self, row: Amounts, fit: Fit, precision: str, first_share: float) -> float | None:
        """Return the mean FLOPs of a row per time that training sees it.

        Args:
            first_share: the share of rows that training sees for the first time. The outputs of frozen parts and lower
                layers are computed for these rows only, if ``fit`` stores them.
        """
        if self.model is None:
            return None
        trained = self.model.training(fit, precision)
        if fit.freeze_layers and first_share < 1 and trained.above is not None and trained.below is not None:
            return trained.above.of(row) + first_share * trained.below.of(row + self.seen)
        if fit.tower_features:
            return trained.whole.of(row) + first_share * self.model.reading.of(self.seen)
        return trained.whole.of(row + self.seen)


def _multiply(count: Range, cost: UnitCost) -> PlannedSpending:
    if not count.high:
        return PlannedSpending()
    return PlannedSpending(
        count * cost.read,
        count * cost.written,
        count * cost.trained,
        None if cost.flops is None else count * cost.flops,
    )


def _measure_costs(run: Run) -> dict[str, UnitCost]:
    """Measure costs in the ledgers of a run: of trained rows, and of answers in stages where models only answer."""
    costs: dict[str, UnitCost] = {}
    for name, stages in (
        ("rows", [stage for stage in run.stages if stage.name != "orm"]),
        ("rows of the ORM", [stage for stage in run.stages if stage.name == "orm"]),
    ):
        fits = [spent for stage in stages if (spent := read_spent(stage)).trained_rows]
        rows = sum(spent.trained_rows or 0 for spent in fits)
        if rows:
            trained = sum(spent.trained_tokens or 0 for spent in fits)
            flops = sum(spent.training_flops or 0 for spent in fits)
            costs[name] = UnitCost(trained=trained / rows, flops=flops / rows)

    answers = read = written = answer_flops = 0
    for stage in run.stages:
        spent = read_spent(stage)
        if spent.flops is None or not _only_samples(stage):
            continue
        answers += sum(1 for _ in stage.rows(PATHS))
        read += spent.prefilled_tokens or 0
        written += spent.sampled_tokens or 0
        answer_flops += spent.flops - (spent.training_flops or 0)
    if answers:
        costs["answers"] = UnitCost(read / answers, written / answers, flops=answer_flops / answers)
    return costs


def _only_samples(stage: FinishedStage) -> bool:
    """Whether the paths of its student are the only text that the run's own models wrote for the stage's method."""
    if not stage.name.startswith(("orm/student", "round")) or not stage.has(PATHS):
        return False
    return not any(str(row.get("judge", "")).startswith(("orm", "student")) for row in stage.rows(VERDICTS))


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return fmean(numbers) if numbers else 0.0
