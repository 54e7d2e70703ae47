"""``mathse plan OVERRIDES``: the stages, requests and costs of ``mathse train OVERRIDES``, before it starts.

    mathse plan data=jsonl data.path=FILE teacher=openai judge=orm backbone=qwen2vl

The settings are composed and checked as for a run. The data is read, weights are not. A single number is exact
(distillation, the ORM's samples, evaluation). "LOW-HIGH" bounds the number for any decisions of the judge. Dollars are
those of the teacher; answers in ``teacher.cache_dir`` are not subtracted.

    --like RUN          seconds per step, answer and verdict, and tokens per answer, as measured in an earlier run
    --rate KIND=SECONDS the same by hand: fit (an optimiser step), sample (an answer), judge (a verdict)
    --engine-speed N    with engines: tokens per second that the engine of a node writes, with all its replicas
    --answer-tokens N   with engines: tokens of an answer; --verdict-tokens N: tokens of a verdict (or --like RUN)
    --sample N          problems over which lengths are averaged (default 256)
    --device-memory SIZE  memory of one GPU, such as 80GiB, if the plan is made on another machine
    --json FILE         the plan as JSON

Without a rate, GPU-hours are not estimated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mathse.commands.missing import is_data_unnamed
from mathse.commands.plan.engines import EngineSpeed, choose_speed, plan_engines
from mathse.config.compose import train_config
from mathse.config.data import SyntheticData
from mathse.config.options import CONF, FLAG, look_in
from mathse.config.program import program
from mathse.config.rules.files import NEITHER
from mathse.config.schema import TrainConfig
from mathse.config.trust import only_looking
from mathse.errors import ConfigError
from mathse.runs.store import make_folder, write_json

SAMPLE_PROBLEMS = 256  # problems over which lengths are averaged
UNKNOWN_SPEED = EngineSpeed()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand and return its exit code. Raises MathSEError for settings or data that a run would refuse."""
    parser = argparse.ArgumentParser(
        prog=program("plan"), description="Print the stages, requests and costs of a run, before it starts."
    )
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py")
    parser.add_argument(FLAG, metavar="DIR", help="a folder of your own options, with the structure of conf/")
    parser.add_argument("--like", type=Path, metavar="RUN", help="an earlier run in which rates are measured")
    parser.add_argument("--rate", action="append", default=[], metavar="KIND=SECONDS", help="fit, sample or judge")
    for option, help_text in (
        ("--engine-speed", "tokens per second that a node's engine writes"),
        ("--answer-tokens", "tokens of an answer"),
        ("--verdict-tokens", "tokens of a verdict"),
    ):
        parser.add_argument(option, type=float, metavar="N", help=help_text)
    parser.add_argument(
        "--sample", type=int, default=SAMPLE_PROBLEMS, metavar="N", help="problems over which lengths are averaged"
    )
    parser.add_argument("--device-memory", metavar="SIZE", help="as trainer.device_memory=SIZE, such as 80GiB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the plan to this file")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.sample < 1:
        parser.error("--sample: must be at least 1")
    look_in(arguments.config_dir)
    overrides = list(arguments.overrides)
    if arguments.device_memory is not None:
        overrides.append(f"trainer.device_memory={arguments.device_memory}")
    try:
        with only_looking():
            config, _ = train_config(overrides)
    except ConfigError as error:
        # A recipe of the paper fails without its data sets. A plan can do without them.
        if NEITHER not in str(error) or not any("experiment/paper" in override for override in overrides):
            raise
        hint = "data=paper_sizes plans from the published numbers of the sets, without the sets themselves"
        raise ConfigError(f"{error}\n{hint}") from None
    config = choose_data(config, overrides)
    for option in ("engine_speed", "answer_tokens", "verdict_tokens"):
        value = getattr(arguments, option)
        if value is not None and not 0 < value < float("inf"):
            parser.error(f"--{option.replace('_', '-')}: must be above 0")
    speed = EngineSpeed(arguments.engine_speed, arguments.answer_tokens, arguments.verdict_tokens)
    plan = show_plan(config, sample=arguments.sample, rates=arguments.rate, like=arguments.like, speed=speed)
    if arguments.json is not None:
        make_folder(arguments.json.parent)
        write_json(arguments.json, plan)
    return 0


def choose_data(config: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """Return the settings. A large backbone without data gets as many problems as the paper's sets have, with a
    printed note."""
    if not is_data_unnamed(config, overrides):
        return config
    print(
        "data: nothing was chosen; planned on data=paper_sizes, as many problems as the paper's sets have (tokens and "
        "dollars are too low: these questions are short)"
    )
    # Only the numbers of problems change, so the settings of the user stay.
    values: Any = OmegaConf.load(CONF / "data" / "paper_sizes.yaml")
    sizes = {field.name: values[field.name] for field in fields(SyntheticData) if field.name in values}
    return replace(config, data=replace(config.data, **sizes))


def show_plan(
    config: TrainConfig,
    *,
    sample: int = SAMPLE_PROBLEMS,
    rates: Sequence[str] = (),
    like: Path | None = None,
    speed: EngineSpeed = UNKNOWN_SPEED,
) -> dict[str, Any]:
    """Print the plan of a run with these settings, and return it as JSON. ``mathse train plan=true`` calls this.

    Only MathSE's own classes, and classes that the user trusts, are built, whoever wrote the settings.
    """
    from mathse.commands.plan.plan import make_plan  # loads models' rooms, after the settings have been checked
    from mathse.commands.plan.table import format_plan

    with only_looking():
        plan = make_plan(config, sample=sample, rates=rates, like=like)
    print("\n".join(format_plan(plan)))
    for stage in plan.stages:
        for warning in stage.warnings:
            print(f"warning: {stage.name}: {warning}")
    engines = plan_engines(config, plan.stages, choose_speed(speed, like))
    if engines is None:
        return plan.to_json()
    print("\n".join(engines.lines()))
    return {**plan.to_json(), "engines": engines.to_json()}
