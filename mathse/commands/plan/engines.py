"""The requests to a run's engines (generator=vllm or server): their number, tokens and hours per stage.

Three numbers are given by hand or measured in an earlier run with engines: the tokens per second that a node's engine
writes with all its replicas, the tokens of an answer, and the tokens of a verdict. None is invented.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mathse.config.generators import ServerGenerator, VLLMGenerator
from mathse.config.schema import TrainConfig
from mathse.evolution.planner import Range, StagePlan
from mathse.runs.layout import JUDGE_USAGE, PATH_FILES, PREDICTION_FILES, STUDENT_USAGE, VERDICT_FILES
from mathse.runs.reader import FinishedStage, Run, read_run


@dataclass(frozen=True)
class EngineSpeed:
    """The speed of engines. An unknown number is None."""

    tokens_per_second: float | None = None  # written by the engine of a node
    answer: float | None = None  # tokens
    verdict: float | None = None  # tokens
    notes: tuple[str, ...] = field(default=())


def choose_speed(chosen: EngineSpeed, like: Path | None) -> EngineSpeed:
    """Return ``chosen``, with its unknown numbers as measured in the run ``like``."""
    if like is None:
        return chosen
    measured = _measure_speed(read_run(like))
    known: dict[str, float | None] = {}
    for name in ("tokens_per_second", "answer", "verdict"):
        value = getattr(chosen, name)
        known[name] = getattr(measured, name) if value is None else value
    return replace(chosen, **known, notes=measured.notes)


def _measure_speed(run: Run) -> EngineSpeed:
    # Tokens written, by file of usage. A later line on a request replaces an earlier line.
    tokens: dict[str, int] = {}
    for file in (STUDENT_USAGE, JUDGE_USAGE):
        requests = {row["key"]: int(row["completion_tokens"]) for row in run.rows(file) if "key" in row}
        tokens[file] = sum(requests.values())
    written = sum(tokens.values())
    if not written:
        return EngineSpeed()

    answers = verdicts = 0
    seconds = 0.0
    for stage in run.stages:
        answers += sum(_count_rows(stage, name) for name in (*PATH_FILES, *PREDICTION_FILES))
        verdicts += sum(_count_rows(stage, name) for name in VERDICT_FILES)
        # Only work that went to the engines counts.
        times = stage.manifest.get("time_s") or {}
        for kind, file in (("sample", STUDENT_USAGE), ("judge", JUDGE_USAGE)):
            if tokens[file]:
                seconds += float(times.get(kind, 0.0))
    nodes = max(1, len(run.config.get("generator", {}).get("base_urls", ())))
    return EngineSpeed(
        written / seconds / nodes if seconds else None,
        tokens[STUDENT_USAGE] / answers if answers and tokens[STUDENT_USAGE] else None,
        tokens[JUDGE_USAGE] / verdicts if verdicts and tokens[JUDGE_USAGE] else None,
        (
            f"engines: {written:,} tokens in {seconds:,.0f} s of sampling and judging on {_format_nodes(nodes)}, "
            f"measured in {run.folder}",
        ),
    )


@dataclass(frozen=True)
class EngineWork:
    """The requests of a stage, or of the run, to its engines, and the tokens that the engines write."""

    requests: Range
    tokens: Range

    def hours(self, speed: EngineSpeed, nodes: int) -> tuple[float, float] | None:
        """Return the lowest and highest hours, or None if the speed is unknown."""
        if speed.tokens_per_second is None:
            return None
        low, high = (count / speed.tokens_per_second / nodes / 3600 for count in (self.tokens.low, self.tokens.high))
        return low, high


@dataclass(frozen=True)
class EnginePlan:
    """The work of the engines.

    Attributes:
        stages: the stages with requests, by name.
        judges_there: whether the ORM judges in an engine.
    """

    stages: dict[str, EngineWork]
    speed: EngineSpeed
    nodes: int
    judges_there: bool

    @property
    def total(self) -> EngineWork:
        work = self.stages.values()
        return EngineWork(sum((w.requests for w in work), Range()), sum((w.tokens for w in work), Range()))

    def lines(self) -> Iterator[str]:
        """Yield one line per stage, one for the run, and the unknown numbers."""
        speed = self.speed
        yield from speed.notes
        for name, work in self.stages.items():
            yield f"engines, {name}: {self._format(work)}"
        yield f"engines, the run: {self._format(self.total)}, on {_format_nodes(self.nodes)}"
        if speed.answer is None or (self.judges_there and speed.verdict is None):
            bounds = "engines: tokens are upper bounds (max_new_tokens)"
            yield f"{bounds}; pass --answer-tokens, --verdict-tokens, or --like RUN"
        if speed.tokens_per_second is None:
            yield "engines: hours are not estimated; pass --engine-speed (tokens per second of a node), or --like RUN"

    def to_json(self) -> dict[str, Any]:
        def as_json(work: EngineWork) -> dict[str, Any]:
            hours = work.hours(self.speed, self.nodes)
            return {"requests": work.requests.to_json(), "tokens": work.tokens.to_json(), "hours": hours}

        stages = {name: as_json(work) for name, work in self.stages.items()}
        speed = {name: getattr(self.speed, name) for name in ("tokens_per_second", "answer", "verdict")}
        return {"nodes": self.nodes, "speed": speed, "stages": stages, "total": as_json(self.total)}

    def _format(self, work: EngineWork) -> str:
        def format_range(number: Range) -> str:
            return f"{number.low:,}" if number.exact else f"{number.low:,}-{number.high:,}"

        line = f"{format_range(work.requests)} requests, {format_range(work.tokens)} tokens to write"
        if (hours := work.hours(self.speed, self.nodes)) is not None:
            low, high = hours
            line += f", {low:,.1f} h" if work.tokens.exact else f", {low:,.1f}-{high:,.1f} h"
        return line


def plan_engines(config: TrainConfig, stages: Sequence[StagePlan], speed: EngineSpeed) -> EnginePlan | None:
    """Return the work of the engines, or None if the run's own process samples and judges."""
    generator = config.generator
    if not isinstance(generator, (VLLMGenerator, ServerGenerator)):
        return None
    judges_there = config.judge.server is not None or config.judge.engine == "vllm"
    work: dict[str, EngineWork] = {}
    for stage in stages:
        # One request returns all n samples of a problem.
        n = config.orm.samples_per_problem if stage.name.startswith("orm/") else config.evolution.samples_per_problem
        samples = Range(-(-stage.samples.low // n), -(-stage.samples.high // n))
        verdicts = stage.verdicts if judges_there else Range()
        # If no length is known, max_new_tokens is an upper bound.
        tokens = stage.answers * (speed.answer or generator.max_new_tokens)
        tokens += verdicts * (speed.verdict or config.judge.max_new_tokens)
        if (requests := samples + Range.of(stage.evaluated) + verdicts).high:
            work[stage.name] = EngineWork(requests, tokens)
    nodes = max(1, len(generator.base_urls)) if isinstance(generator, VLLMGenerator) else 1
    return EnginePlan(work, speed, nodes, judges_there)


def _count_rows(stage: FinishedStage, name: str) -> int:
    return sum(1 for _ in stage.rows(name))


def _format_nodes(count: int) -> str:
    return f"{count} node{'s' * (count > 1)}"
