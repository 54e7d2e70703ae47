"""A plan: the stages, their dollars, hours and bytes, and the source of each estimate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mathse.commands.plan.checkpoint_size import RESUME_BYTES_PER_PARAMETER, bytes_per_parameter, count_parameters
from mathse.commands.plan.rates import KINDS, Rates, read_rates
from mathse.commands.plan.spending import PlannedSpending, SpendingEstimate
from mathse.commands.plan.teacher_requests import TeacherRequests
from mathse.config.schema import TrainConfig, is_fitted_on, needs_orm
from mathse.config.teachers import OpenAITeacher
from mathse.data.sources import open_source
from mathse.evolution import memory
from mathse.evolution.planner import Planner, StagePlan
from mathse.inference.llm.pricing import BATCH_DISCOUNT, MILLION, Price, price_of
from mathse.models.needs import estimate_feature_bytes, find_architecture, find_frozen_parts, plan_precision
from mathse.types import Problem

LowHigh = tuple[float, float]
ORM_MODEL_STAGES = ("orm", "orm/solver")  # stages that train the ORM's model


@dataclass(frozen=True)
class Plan:
    """The predicted work and cost of a run.

    Attributes:
        price: dollars per million tokens of the teacher; None if unknown.
        size: parameters of the student; None if unknown.
        pictures: pictures of all problems.
        notes: the source of each estimate.
    """

    config: TrainConfig
    stages: tuple[StagePlan, ...]
    price: Price | None
    rates: Rates
    spending: SpendingEstimate
    size: int | None
    pictures: int = 0
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> memory.Device:
        return memory.read_device(self.config)

    def dollars(self, stage: StagePlan) -> LowHigh | None:
        """Return the dollars of a stage: 0 without a request to a server, None without a known price."""
        if not stage.jobs:
            return 0.0, 0.0
        if self.price is None:
            return None
        # A batch costs half of the online price.
        share = BATCH_DISCOUNT if getattr(self.config.teacher, "mode", "online") == "batch" else 1.0
        tokens_in, tokens_out = stage.tokens_in, stage.tokens_out
        low, high = (
            (count_in * self.price.input + count_out * self.price.output) * share / MILLION
            for count_in, count_out in ((tokens_in.low, tokens_out.low), (tokens_in.high, tokens_out.high))
        )
        return low, high

    def hours(self, stage: StagePlan) -> LowHigh | None:
        """Return the device-hours of a stage, or None if it has work without a rate."""
        work = {"fit": stage.steps, "sample": stage.answers, "judge": stage.verdicts}
        if any(work[kind].high and kind not in self.rates.seconds for kind in KINDS):
            return None
        # Rates are seconds on all devices together, so each second counts once per device.
        devices = int(self.config.trainer.devices)
        low, high = (
            sum(getattr(work[kind], end) * self.rates.seconds.get(kind, 0.0) for kind in KINDS) * devices / 3600
            for end in ("low", "high")
        )
        return low, high

    def disk(self, stage: StagePlan) -> int | None:
        """Return the bytes of a stage's checkpoints that stay on the disk, or None if the size is unknown.

        The base's checkpoint refers to weights that are already on the disk: 0 bytes.
        """
        if not stage.checkpoints or stage.name == "base":
            return 0
        fit = self.config.orm.fit if stage.name in ORM_MODEL_STAGES else self.config.sft
        section, size = self._model(stage)
        float32 = plan_precision(self.config.trainer) == "32-true" or is_fitted_on(self.config, stage.name)
        return None if size is None else stage.checkpoints * size * bytes_per_parameter(section, fit.method, float32)

    @property
    def tower_features(self) -> int | None:
        """Upper bound of the bytes of stored features of frozen towers; None if unknown."""
        needed = self.all_features
        return None if needed is None else min(needed, int(self.config.trainer.tower_features_gb * 2**30))

    @property
    def all_features(self) -> int | None:
        """Bytes of the features of all pictures; None if the sizes of a model are unknown.

        A student and an ORM that start from the same model, with the same frozen parts, share their features.
        """
        config = self.config
        bytes_per_picture: dict[Any, int | None] = {}  # by model and frozen parts
        for fit, section, sees in (
            (config.sft, config.backbone, True),
            (config.orm.fit, config.orm.backbone or config.backbone, needs_orm(config) and config.orm.see_image),
        ):
            if fit.tower_features and sees:
                model = find_architecture(section)
                needed = None if model is None else estimate_feature_bytes(model, fit)
                bytes_per_picture[section is config.backbone, find_frozen_parts(fit)] = needed
        known = [needed for needed in bytes_per_picture.values() if needed is not None]
        if len(known) < len(bytes_per_picture):
            return None
        return self.pictures * sum(known)

    @property
    def resume(self) -> int | None:
        """Upper bound of the bytes of the largest resume point, over the trainings of the student and the ORM.

        0 if no training updates all weights; None if the size of a model that does is unknown.
        """
        sizes = []
        for stage in self.stages:
            fit = self.config.orm.fit if stage.name == "orm" else self.config.sft  # the solver is trained as a student
            if stage.steps.high and fit.method == "full":
                sizes.append(self._model(stage)[1])
        known = [size for size in sizes if size is not None]
        return None if len(known) < len(sizes) else RESUME_BYTES_PER_PARAMETER * max(known, default=0)

    def _model(self, stage: StagePlan) -> tuple[Any, int | None]:
        """Return the ``backbone`` section of a stage's model, and its parameters."""
        orm_backbone = self.config.orm.backbone
        if stage.name in ORM_MODEL_STAGES and orm_backbone is not None:
            return orm_backbone, count_parameters(orm_backbone)[0]
        return self.config.backbone, self.size

    def total(self, quantity: str) -> LowHigh | None:
        """Return the sum of "dollars", "hours" or "disk" over all stages, or None if a stage's value is unknown."""
        values = [getattr(self, quantity)(stage) for stage in self.stages]
        if quantity == "disk":
            values.append(self.tower_features)
        if any(value is None for value in values):
            return None
        pairs = [value if isinstance(value, tuple) else (value, value) for value in values]
        return sum(low for low, _ in pairs), sum(high for _, high in pairs)

    def to_json(self) -> dict[str, Any]:
        """Return the stages, the totals and the notes."""
        stages = [
            {
                **s.to_json(),
                "method": self.spending.predict_method(s).to_json(),
                "measuring": self.spending.predict_measuring(s).to_json(),
                "usd": self.dollars(s),
                "gpu_hours": self.hours(s),
                "disk_bytes": self.disk(s),
            }
            for s in self.stages
        ]
        totals = {
            "method": sum(map(self.spending.predict_method, self.stages), PlannedSpending()).to_json(),
            "measuring": sum(map(self.spending.predict_measuring, self.stages), PlannedSpending()).to_json(),
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
    """Plan a run. Reads the data, and no weight.

    Args:
        sample: problems over which lengths are averaged.
        rates: "fit=2.5" and the like.
        like: an earlier run in which unknown rates are measured.

    Raises DataError for data that a run would refuse.
    """
    memory.check_frozen_layers(config)
    known_rates = read_rates(rates, like)
    source = open_source(config)
    splits = source.splits().values()
    problems: list[Problem] = []
    pictures = 0.0
    for split in splits:
        first = split[:sample]
        problems += first
        if len(split):
            # The pictures of a split, extrapolated from its first problems.
            pictures += len(split) * sum(len(problem.images) for problem in first) / len(first)
    requests = TeacherRequests(config.teacher, problems, sample, known_rates)
    stages = tuple(Planner(config, source, requests).stages())
    size, size_source = count_parameters(config.backbone)
    # The user's own price, or the published price of the model.
    price = None
    if isinstance(teacher := config.teacher, OpenAITeacher):  # as in ChatClient
        if teacher.price_input is not None and teacher.price_output is not None:
            price = Price(teacher.price_input, teacher.price_output, teacher.price_cached)
        else:
            price = price_of(teacher.model, teacher.base_url)
    spread: list[Problem] = []  # about `sample` problems of each split, at equal distances
    for split in splits:
        spread += [split[k] for k in range(0, len(split), 1 + len(split) // sample)]
    spending = SpendingEstimate(config, spread, like)
    plan = Plan(config, stages, price, known_rates, spending, size, round(pictures))
    return replace(plan, notes=tuple(_describe_estimates(plan, source, requests, size_source)))


def _describe_estimates(plan: Plan, source: Any, requests: TeacherRequests, size_source: str) -> Iterator[str]:
    """Yield the source of each estimate and the parts that it leaves out."""
    config, teacher = plan.config, plan.config.teacher

    # --- tokens and dollars ---
    if isinstance(teacher, OpenAITeacher):
        yield (
            f"tokens of a prompt: its words, numbers and signs counted over at most {requests.sample:,} problems a "
            f"stage, pictures by {teacher.model}'s rule for their size; without a tokenizer"
        )
        yield from requests.notes
        if plan.price is None:
            yield f"no price is known for {teacher.model!r}: pass teacher.price_input and teacher.price_output"
        else:
            half = ", half of it in a batch" if teacher.mode == "batch" else ""
            yield f"dollars: {plan.price.input:g} in, {plan.price.output:g} out a million tokens{half}"
        yield f"answers in {teacher.cache_dir} are not subtracted; they cost nothing"
        spent = plan.total("dollars")
        if teacher.budget_usd is not None and spent is not None and spent[1] > teacher.budget_usd:
            # The lower bound decides between "will" and "may".
            verb = "will" if spent[0] > teacher.budget_usd else "may"
            budget = f"teacher.budget_usd = {teacher.budget_usd:g}"
            yield f"{budget} {verb} end the run before it is done; a higher budget continues it"
    else:
        yield "the teacher is no server: no request, no dollar"

    # --- the run's own models ---
    yield from plan.spending.notes

    # --- hours ---
    yield from plan.rates.notes
    if plan.total("hours") is None:
        yield "GPU-hours: not estimated without a rate; pass --like RUN, or --rate fit=S sample=S judge=S"

    # --- disk ---
    yield f"disk: checkpoints only; {size_source}"
    if config.orm.backbone is not None and any(stage.name in ORM_MODEL_STAGES for stage in plan.stages):
        yield f"disk, the ORM: {count_parameters(config.orm.backbone)[1]}"
    if plan.tower_features != 0:
        needed, folder = plan.all_features, config.trainer.tower_features_folder or "the user's cache"
        amount = "an unknown size" if needed is None else f"{needed / 2**30:,.1f} GiB"
        yield (
            f"tower features: {amount} for {plan.pictures:,} pictures of the most tokens, in {folder}; a training with "
            f"pictures beyond trainer.tower_features_gb = {config.trainer.tower_features_gb:g} runs the tower in each "
            "step"
        )
    if plan.resume:
        yield f"during a training, a resume point takes up to {plan.resume / 2**30:,.1f} GiB more"

    # --- data ---
    yield "rows that the backbone cannot read are counted as used; `python -m mathse data check` lists them"
    if source.bad_rows:
        yield f"{len(source.bad_rows):,} rows of the data cannot be used and are not counted"
    if config.decontaminate.against and config.decontaminate.action == "drop":
        yield "rows that decontaminate.against will drop are still counted"
