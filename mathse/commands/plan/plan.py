"""A plan: the stages, what they come to in dollars, hours and bytes, and how each estimate was made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mathse.commands.plan.checkpoint_size import RESUME, bytes_a_number, parameters
from mathse.commands.plan.rates import KINDS, Rates, known_rates
from mathse.commands.plan.spending import PlannedSpending, Spending
from mathse.commands.plan.teacher_requests import TeacherRequests
from mathse.config.schema import TrainConfig, is_fitted_on, needs_orm
from mathse.config.teachers import OpenAITeacherConfig
from mathse.data.sources import open_source
from mathse.evolution import memory
from mathse.evolution.planner import Planner, StagePlan
from mathse.inference.llm.pricing import BATCH_DISCOUNT, MILLION, Price, price_of
from mathse.models.needs import architecture_of, feature_bytes, frozen_parts, planned_precision

Pair = tuple[float, float]  # low, high
OF_THE_ORM = ("orm", "orm/solver")  # the stages whose model is the ORM's


@dataclass(frozen=True)
class Plan:
    """``price``: dollars a million tokens, None where unknown. ``notes`` say how each estimate was made."""

    config: TrainConfig
    stages: tuple[StagePlan, ...]
    price: Price | None
    rates: Rates
    spending: Spending
    size: int | None  # parameters of the student
    pictures: int = 0  # of all problems
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> memory.Device:
        return memory.device_of(self.config)

    def dollars(self, stage: StagePlan) -> Pair | None:
        """0 where the stage asks no server; None where no price is known."""
        if not stage.jobs:
            return 0.0, 0.0
        if self.price is None:
            return None
        share = BATCH_DISCOUNT if getattr(self.config.teacher, "mode", "online") == "batch" else 1.0
        tokens_in, tokens_out = stage.tokens_in, stage.tokens_out
        low, high = (
            (count_in * self.price.input + count_out * self.price.output) * share / MILLION
            for count_in, count_out in ((tokens_in.low, tokens_out.low), (tokens_in.high, tokens_out.high))
        )
        return low, high

    def hours(self, stage: StagePlan) -> Pair | None:
        """Device-hours; None where a kind of work that the stage does has no rate."""
        work = {"fit": stage.steps, "sample": stage.answers, "judge": stage.verdicts}
        if any(work[kind].high and kind not in self.rates.seconds for kind in KINDS):
            return None
        devices = int(self.config.trainer.devices)
        low, high = (
            sum(getattr(work[kind], end) * self.rates.seconds.get(kind, 0.0) for kind in KINDS) * devices / 3600
            for end in ("low", "high")
        )
        return low, high

    def disk(self, stage: StagePlan) -> int | None:
        """Bytes of the checkpoints that stay. The base's is a reference to weights that are on the disk already."""
        if not stage.checkpoints or stage.name == "base":
            return 0
        fit = self.config.orm.fit if stage.name in OF_THE_ORM else self.config.sft
        section, size = self._model(stage)
        masters = planned_precision(self.config.trainer) == "32-true" or is_fitted_on(self.config, stage.name)
        return None if size is None else stage.checkpoints * size * bytes_a_number(section, fit.method, masters)

    @property
    def tower_features(self) -> int | None:
        """At most so many bytes of kept features of frozen towers; None where they are not known."""
        needed = self.all_features
        return None if needed is None else min(needed, int(self.config.trainer.tower_features_gb * 2**30))

    @property
    def all_features(self) -> int | None:
        """The same if all were kept. None where a model's sizes are not known.

        A student and an ORM that begin as the same model, and leave the same parts of it frozen, share them.
        """
        config = self.config
        a_picture: dict[Any, int | None] = {}
        for fit, section, sees in (
            (config.sft, config.backbone, True),
            (config.orm.fit, config.orm.backbone or config.backbone, needs_orm(config) and config.orm.see_image),
        ):
            if fit.tower_features and sees:
                model = architecture_of(section)
                needed = None if model is None else feature_bytes(model, fit)
                a_picture[section is config.backbone, frozen_parts(fit)] = needed
        known = [needed for needed in a_picture.values() if needed is not None]
        if len(known) < len(a_picture):
            return None
        return self.pictures * sum(known)

    @property
    def resume(self) -> int | None:
        """At most so many bytes of the largest resume point, of the student's fits and the ORM's; 0 where none trains
        all weights, None where the size of a model that does is not known."""
        sizes = []
        for stage in self.stages:
            fit = self.config.orm.fit if stage.name == "orm" else self.config.sft  # the solver is fitted as a student
            if stage.steps.high and fit.method == "full":
                sizes.append(self._model(stage)[1])
        known = [size for size in sizes if size is not None]
        return None if len(known) < len(sizes) else RESUME * max(known, default=0)

    def _model(self, stage: StagePlan) -> tuple[Any, int | None]:
        """The ``backbone`` section of a stage's model, and its parameters."""
        orm_backbone = self.config.orm.backbone
        if stage.name in OF_THE_ORM and orm_backbone is not None:
            return orm_backbone, parameters(orm_backbone)[0]
        return self.config.backbone, self.size

    def total(self, quantity: str) -> Pair | None:
        """Of "dollars", "hours" or "disk" over all stages; None where one is not known."""
        values = [getattr(self, quantity)(stage) for stage in self.stages]
        if quantity == "disk":
            values.append(self.tower_features)
        if any(value is None for value in values):
            return None
        pairs = [value if isinstance(value, tuple) else (value, value) for value in values]
        return sum(low for low, _ in pairs), sum(high for _, high in pairs)

    def to_json(self) -> dict[str, Any]:
        """The stages, the totals, and how they were estimated."""
        stages = [
            {
                **s.to_json(),
                "method": self.spending.method(s).to_json(),
                "measuring": self.spending.measuring(s).to_json(),
                "usd": self.dollars(s),
                "gpu_hours": self.hours(s),
                "disk_bytes": self.disk(s),
            }
            for s in self.stages
        ]
        spent = {
            "method": sum(map(self.spending.method, self.stages), PlannedSpending()).to_json(),
            "measuring": sum(map(self.spending.measuring, self.stages), PlannedSpending()).to_json(),
        }
        totals = {
            **spent,
            "usd": self.total("dollars"),
            "gpu_hours": self.total("hours"),
            "disk_bytes": self.total("disk"),
        }
        return {
            "task": self.config.task,
            "stages": stages,
            "total": totals,
            "tower_features_bytes": self.tower_features,
            "memory": memory.to_json(self.config, self.device),
            "notes": list(self.notes),
        }


def make_plan(config: TrainConfig, *, sample: int, rates: Sequence[str] = (), like: Path | None = None) -> Plan:
    """Reads the data, and no weight. ``rates``: "fit=2.5" and the like. Raises DataError where a run would."""
    memory.expect_layers_that_train(config)
    known = known_rates(rates, like)
    source = open_source(config)
    splits = source.splits().values()
    problems = [p for split in splits for p in split[:sample]]
    # each split's share of pictures is that of its first problems
    seen = [(len(split), split[:sample]) for split in splits if len(split)]
    pictures = round(sum(rows * sum(len(p.images) for p in some) / len(some) for rows, some in seen))
    requests = TeacherRequests(config.teacher, problems, sample, known)
    stages = tuple(Planner(config, source, requests).stages())
    size, of_size = parameters(config.backbone)
    price = None
    if isinstance(teacher := config.teacher, OpenAITeacherConfig):  # as ChatClient takes it
        if teacher.price_input is not None and teacher.price_output is not None:
            price = Price(teacher.price_input, teacher.price_output, teacher.price_cached)
        else:
            price = price_of(teacher.model, teacher.base_url)
    spread = [p for split in splits for p in (split[k] for k in range(0, len(split), 1 + len(split) // sample))]
    spending = Spending(config, spread, like)
    plan = Plan(config, stages, price, known, spending, size, pictures)
    return replace(plan, notes=tuple(_notes(plan, source, requests, of_size)))


def _notes(plan: Plan, source: Any, requests: TeacherRequests, of_size: str) -> Iterator[str]:
    """How each estimate was made, and what it leaves out."""
    config, teacher = plan.config, plan.config.teacher

    # --- tokens and dollars ---
    if isinstance(teacher, OpenAITeacherConfig):
        yield (
            f"tokens of a prompt: its words, numbers and signs counted over at most {requests.sample:,} problems a "
            f"stage, pictures by {teacher.model}'s rule for their size; no tokenizer was asked"
        )
        yield from requests.notes
        if plan.price is None:
            yield f"no price is known for {teacher.model!r}: pass teacher.price_input and teacher.price_output"
        else:
            half = ", half of it in a batch" if teacher.mode == "batch" else ""
            yield f"dollars: {plan.price.input:g} in, {plan.price.output:g} out a million tokens{half}"
        yield f"answers that lie in {teacher.cache_dir} already are not subtracted; they cost nothing"
        spent = plan.total("dollars")
        if teacher.budget_usd is not None and spent is not None and spent[1] > teacher.budget_usd:
            verb = "will" if spent[0] > teacher.budget_usd else "may"
            budget = f"teacher.budget_usd = {teacher.budget_usd:g}"
            yield f"{budget} {verb} end the run before it is done; it goes on if raised"
    else:
        yield "the teacher is no server: no request, no dollar"

    # --- the run's own models ---
    yield from plan.spending.notes

    # --- hours ---
    yield from plan.rates.notes
    if plan.total("hours") is None:
        yield "GPU-hours: not estimated for want of a rate; pass --like RUN, or --rate fit=S sample=S judge=S"

    # --- disk ---
    yield f"disk: checkpoints alone; {of_size}"
    if config.orm.backbone is not None and any(stage.name in OF_THE_ORM for stage in plan.stages):
        yield f"disk, the ORM: {parameters(config.orm.backbone)[1]}"
    if plan.tower_features != 0:
        needed, folder = plan.all_features, config.trainer.tower_features_folder or "the user's cache"
        amount = "an unknown size" if needed is None else f"{needed / 2**30:,.1f} GiB"
        yield (
            f"tower features: {amount} for {plan.pictures:,} pictures of the most tokens, in {folder}; a fit whose "
            f"pictures exceed trainer.tower_features_gb = {config.trainer.tower_features_gb:g} runs the tower in each "
            "step"
        )
    if plan.resume:
        yield f"while it fits, a resume point takes up to {plan.resume / 2**30:,.1f} GiB more"

    # --- data ---
    yield "rows that the backbone cannot take count as used here; `python -m mathse data check` lists them"
    if source.bad_rows:
        yield f"{len(source.bad_rows):,} rows of the data cannot be used and are not counted"
    if config.decontaminate.against and config.decontaminate.action == "drop":
        yield "rows that decontaminate.against will drop are counted still"
