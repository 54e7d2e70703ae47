"""A plan: the stages, and what they come to in dollars, hours and bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mathse.commands.plan.amounts import StagePlan
from mathse.commands.plan.measured import KINDS, Rates, rates
from mathse.commands.plan.planner import Planner
from mathse.commands.plan.size import RESUME, bytes_a_number, parameters
from mathse.commands.plan.teaching import Teaching
from mathse.config import build
from mathse.config.schema import TrainConfig
from mathse.config.teachers import OpenAITeacher
from mathse.inference.llm.pricing import BATCH_DISCOUNT, MILLION, Price, price_of

Pair = tuple[float, float]  # low, high
OF_THE_ORM = ("orm", "orm/solver")  # the stages whose model is the ORM's


@dataclass(frozen=True)
class Plan:
    """``price``: dollars a million tokens, None where unknown. ``notes`` say how each estimate was made."""

    config: TrainConfig
    stages: tuple[StagePlan, ...]
    price: Price | None
    rates: Rates
    size: int | None  # parameters of the student
    notes: tuple[str, ...]

    def dollars(self, stage: StagePlan) -> Pair | None:
        """0 where the stage asks no server; None where no price is known."""
        if not stage.jobs:
            return 0.0, 0.0
        if self.price is None:
            return None
        into, out = stage.tokens
        share = BATCH_DISCOUNT if getattr(self.config.teacher, "mode", "online") == "batch" else 1.0
        low, high = (
            (i * self.price.input + o * self.price.output) * share / MILLION
            for i, o in ((into.low, out.low), (into.high, out.high))
        )
        return low, high

    def hours(self, stage: StagePlan) -> Pair | None:
        """Device-hours; None where a kind of work that the stage does has no rate."""
        answers = stage.samples.low + stage.evaluated, stage.samples.high + stage.evaluated
        work = {"fit": (stage.steps.low, stage.steps.high), "sample": answers}
        work["judge"] = stage.verdicts.low, stage.verdicts.high
        if any(work[kind][1] and kind not in self.rates.seconds for kind in KINDS):
            return None
        low, high = (
            sum(work[kind][end] * self.rates.seconds.get(kind, 0.0) for kind in KINDS) * self._devices / 3600
            for end in (0, 1)
        )
        return low, high

    @property
    def _devices(self) -> int:
        return int(self.config.trainer.devices)

    def disk(self, stage: StagePlan) -> int | None:
        """Bytes of the checkpoints that stay."""
        if not stage.checkpoints:
            return 0
        fit = self.config.orm.fit if stage.name in OF_THE_ORM else self.config.sft
        section, size = self._model(stage)
        return None if size is None else stage.checkpoints * size * bytes_a_number(section, fit.method)

    @property
    def resume(self) -> int | None:
        """At most so many bytes of the largest resume point, of the student's fits and the ORM's; 0 where none trains
        all weights, None where the size of a model that does is not known."""
        sizes = [self._model(s)[1] for s in self.stages if s.steps.high and self._method(s) == "full"]
        known = [size for size in sizes if size is not None]
        return None if len(known) < len(sizes) else RESUME * max(known, default=0)

    def _method(self, stage: StagePlan) -> str:
        """How a stage fits; the ORM's solver is fitted as the student is."""
        return str((self.config.orm.fit if stage.name == "orm" else self.config.sft).method)

    def _model(self, stage: StagePlan) -> tuple[Any, int | None]:
        """The ``backbone`` section of a stage's model, and its parameters."""
        own = self.config.orm.backbone
        if stage.name in OF_THE_ORM and own is not None:
            return own, parameters(own)[0]
        return self.config.backbone, self.size

    def total(self, of: str) -> Pair | None:
        """Of "dollars", "hours" or "disk" over all stages; None where one is not known."""
        values = [getattr(self, of)(stage) for stage in self.stages]
        if any(value is None for value in values):
            return None
        pairs = [value if isinstance(value, tuple) else (value, value) for value in values]
        return sum(low for low, _ in pairs), sum(high for _, high in pairs)

    def to_json(self) -> dict[str, Any]:
        """The stages, the totals, and how they were estimated."""
        stages = [
            {**s.to_json(), "usd": self.dollars(s), "gpu_hours": self.hours(s), "disk_bytes": self.disk(s)}
            for s in self.stages
        ]
        totals = {"usd": self.total("dollars"), "gpu_hours": self.total("hours"), "disk_bytes": self.total("disk")}
        return {"task": self.config.task, "stages": stages, "total": totals, "notes": list(self.notes)}


def make_plan(config: TrainConfig, *, sample: int, given: Sequence[str] = (), like: Path | None = None) -> Plan:
    """Reads the data, and no weight. Raises DataError where a run would."""
    known = rates(given, like)
    source = build(config.data)
    problems = [p for split in source.splits().values() for p in split[:sample]]
    teaching = Teaching(config.teacher, problems, sample, known)
    stages = tuple(Planner(config, source, teaching).stages())
    size, of_size = parameters(config.backbone)
    plan = Plan(config, stages, _price(config.teacher), known, size, ())
    notes = (*_of_tokens(plan, teaching, sample), *known.notes, *_of_hours(plan), *_of_disk(plan, of_size))
    return Plan(config, stages, plan.price, known, size, (*notes, *_of_data(config, source)))


def _price(teacher: Any) -> Price | None:
    """As ChatClient takes it: the settings', else the list price."""
    if not isinstance(teacher, OpenAITeacher):
        return None
    if teacher.price_input is not None and teacher.price_output is not None:
        return Price(teacher.price_input, teacher.price_output, teacher.price_cached)
    return price_of(teacher.model, teacher.base_url)


# --- how it was estimated -------------------------------------------------------------------------------------------


def _of_tokens(plan: Plan, teaching: Teaching, sample: int) -> Iterator[str]:
    teacher = plan.config.teacher
    if not isinstance(teacher, OpenAITeacher):
        yield "the teacher is no server: no request, no dollar"
        return
    yield (
        f"tokens of a prompt: its words, numbers and signs counted over at most {sample:,} problems a stage, pictures "
        f"by {teacher.model}'s rule for their size; no tokenizer was asked"
    )
    yield from teaching.notes
    if plan.price is None:
        yield f"no price is known for {teacher.model!r}: pass teacher.price_input and teacher.price_output"
    else:
        half = ", half of it in a batch" if teacher.mode == "batch" else ""
        yield f"dollars: {plan.price.input:g} in, {plan.price.output:g} out a million tokens{half}"
    yield f"answers that lie in {teacher.cache_dir} already are not subtracted; they cost nothing"
    spent = plan.total("dollars")
    if teacher.budget_usd is not None and spent is not None and spent[1] > teacher.budget_usd:
        word = "will" if spent[0] > teacher.budget_usd else "may"
        yield f"teacher.budget_usd = {teacher.budget_usd:g} {word} end the run before it is done; it goes on if raised"


def _of_hours(plan: Plan) -> Iterator[str]:
    if plan.total("hours") is None:
        yield "GPU-hours: not estimated for want of a rate; pass --like RUN, or --rate fit=S sample=S judge=S"


def _of_disk(plan: Plan, of_size: str) -> Iterator[str]:
    yield f"disk: checkpoints alone; {of_size}"
    own = plan.config.orm.backbone
    if own is not None and any(s.name in OF_THE_ORM for s in plan.stages):
        yield f"disk, the ORM: {parameters(own)[1]}"
    if plan.resume:
        yield f"while it fits, a resume point takes up to {plan.resume / 2**30:,.1f} GiB more"


def _of_data(config: TrainConfig, source: Any) -> Iterator[str]:
    yield "rows that the backbone cannot take count as used here; `python -m mathse data check` lists them"
    if source.bad_rows:
        yield f"{len(source.bad_rows):,} rows of the data cannot be used and are not counted"
    if config.decontaminate.against and config.decontaminate.action == "drop":
        yield "rows that decontaminate.against will drop are counted still"
