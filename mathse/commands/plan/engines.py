"""What a run asks its engines (generator=vllm or server): requests, tokens, and hours a stage and a node.

How many tokens a node's engine writes a second, with all its replicas, is given by hand or measured in an earlier run
behind engines, and so are the tokens of an answer and of a verdict. None is made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mathse.config.generators import ServerGeneratorConfig, VLLMGeneratorConfig
from mathse.config.schema import TrainConfig
from mathse.evolution.planner import Range, StagePlan
from mathse.runs.layout import JUDGE_USAGE, PATH_FILES, PREDICTION_FILES, STUDENT_USAGE, VERDICT_FILES
from mathse.runs.reader import Run, read_run


@dataclass(frozen=True)
class EngineSpeed:
    """What is not known is None."""

    tokens_per_second: float | None = None  # written by the engine of a node
    answer: float | None = None  # tokens
    verdict: float | None = None  # tokens
    notes: tuple[str, ...] = field(default=())


def speed_of(chosen: EngineSpeed, like: Path | None) -> EngineSpeed:
    """What is ``chosen``, else what a run measured."""
    if like is None:
        return chosen
    measured = _measured(read_run(like))
    known = {
        name: getattr(chosen, name) if getattr(chosen, name) is not None else getattr(measured, name)
        for name in ("tokens_per_second", "answer", "verdict")
    }
    return replace(chosen, **known, notes=measured.notes)


def _measured(run: Run) -> EngineSpeed:
    tokens = {
        file: sum({row["key"]: int(row["completion_tokens"]) for row in run.rows(file) if "key" in row}.values())
        for file in (STUDENT_USAGE, JUDGE_USAGE)
    }
    if not any(tokens.values()):
        return EngineSpeed()
    answers = sum(1 for stage in run.stages for name in (*PATH_FILES, *PREDICTION_FILES) for _ in stage.rows(name))
    verdicts = sum(1 for stage in run.stages for name in VERDICT_FILES for _ in stage.rows(name))
    kinds = (("sample", STUDENT_USAGE), ("judge", JUDGE_USAGE))
    seconds = sum(
        float((stage.manifest.get("time_s") or {}).get(kind, 0.0))
        for stage in run.stages
        for kind, file in kinds
        if tokens[file]
    )
    written = sum(tokens.values())
    nodes = max(1, len(run.config.get("generator", {}).get("base_urls", ())))
    return EngineSpeed(
        written / seconds / nodes if seconds else None,
        tokens[STUDENT_USAGE] / answers if answers and tokens[STUDENT_USAGE] else None,
        tokens[JUDGE_USAGE] / verdicts if verdicts and tokens[JUDGE_USAGE] else None,
        (
            f"engines: {written:,} tokens in {seconds:,.0f} s of sampling and judging on {_nodes(nodes)}, measured in "
            f"{run.folder}",
        ),
    )


@dataclass(frozen=True)
class EngineWork:
    """What a stage, or the run, asks its engines: requests, and tokens that they write."""

    requests: Range
    tokens: Range

    def hours(self, speed: EngineSpeed, nodes: int) -> tuple[float, float] | None:
        """From, to; None where the speed is not known."""
        if speed.tokens_per_second is None:
            return None
        low, high = (count / speed.tokens_per_second / nodes / 3600 for count in (self.tokens.low, self.tokens.high))
        return low, high


@dataclass(frozen=True)
class EnginePlan:
    """``stages``: those that ask something, by name."""

    stages: dict[str, EngineWork]
    speed: EngineSpeed
    nodes: int
    judges_there: bool  # the ORM

    @property
    def whole(self) -> EngineWork:
        work = self.stages.values()
        return EngineWork(sum((w.requests for w in work), Range()), sum((w.tokens for w in work), Range()))

    def lines(self) -> Iterator[str]:
        """A line a stage and one for the run."""
        speed = self.speed
        yield from speed.notes
        for name, work in self.stages.items():
            yield f"engines, {name}: {self._line(work)}"
        yield f"engines, the run: {self._line(self.whole)}, on {_nodes(self.nodes)}"
        if speed.answer is None or (self.judges_there and speed.verdict is None):
            bounds = "engines: tokens are upper bounds (max_new_tokens)"
            yield f"{bounds}; pass --answer-tokens, --verdict-tokens, or --like RUN"
        if speed.tokens_per_second is None:
            yield "engines: hours are not estimated; pass --engine-speed (tokens a second of a node), or --like RUN"

    def to_json(self) -> dict[str, Any]:
        def shown(work: EngineWork) -> dict[str, Any]:
            hours = work.hours(self.speed, self.nodes)
            return {"requests": work.requests.to_json(), "tokens": work.tokens.to_json(), "hours": hours}

        stages = {name: shown(work) for name, work in self.stages.items()}
        speed = {name: getattr(self.speed, name) for name in ("tokens_per_second", "answer", "verdict")}
        return {"nodes": self.nodes, "speed": speed, "stages": stages, "total": shown(self.whole)}

    def _line(self, work: EngineWork) -> str:
        def shown(number: Range) -> str:
            return f"{number.low:,}" if number.exact else f"{number.low:,}-{number.high:,}"

        line = f"{shown(work.requests)} requests, {shown(work.tokens)} tokens to write"
        if (hours := work.hours(self.speed, self.nodes)) is not None:
            low, high = hours
            line += f", {low:,.1f} h" if work.tokens.exact else f", {low:,.1f}-{high:,.1f} h"
        return line


def engine_plan(config: TrainConfig, stages: Sequence[StagePlan], speed: EngineSpeed) -> EnginePlan | None:
    """None where this process samples and judges itself."""
    generator = config.generator
    if not isinstance(generator, (VLLMGeneratorConfig, ServerGeneratorConfig)):
        return None
    judges_there = config.judge.server is not None or config.judge.engine == "vllm"
    work = {}
    for stage in stages:
        n = config.orm.samples_per_problem if stage.name.startswith("orm/") else config.evolution.samples_per_problem
        samples = stage.samples.through(lambda count, n=n: -(-count // n))  # type: ignore[misc]
        verdicts = stage.verdicts if judges_there else Range()
        # upper bounds where no length is known
        tokens = stage.answers * (speed.answer or generator.max_new_tokens)
        tokens += verdicts * (speed.verdict or config.judge.max_new_tokens)
        if (requests := samples + Range.of(stage.evaluated) + verdicts).high:
            work[stage.name] = EngineWork(requests, tokens)
    nodes = max(1, len(generator.base_urls)) if isinstance(generator, VLLMGeneratorConfig) else 1
    return EnginePlan(work, speed, nodes, judges_there)


def _nodes(count: int) -> str:
    return f"{count} node{'s' * (count > 1)}"
