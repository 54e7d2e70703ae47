"""``mathse plan OVERRIDES``: what ``mathse train`` with these overrides will do, ask and cost, before it starts.

    mathse plan data=jsonl data.path=FILE teacher=openai judge=orm backbone=qwen2vl

The settings are composed and checked as for a run, the data is read, and no weight is. A number is exact where it
stands alone (distillation, the ORM's samples, evaluation); "LOW-HIGH" holds whatever the judge accepts. Dollars are the
teacher's; answers that lie in ``teacher.cache_dir`` already are not subtracted.

    --like RUN          seconds a step, an answer, a verdict, and tokens an answer, as measured in an earlier run
    --rate KIND=SECONDS the same by hand: fit (an optimiser step), sample (an answer), judge (a verdict)
    --engine-speed N    behind engines: tokens that the engine of a node writes a second, with all its replicas
    --answer-tokens N   and the tokens of an answer, --verdict-tokens N of a verdict (or --like RUN)
    --sample N          problems over which lengths are averaged (default 256)
    --device-memory SIZE  what one GPU has, such as 80GiB, where the plan is made on another machine
    --json FILE         the plan as JSON

Without a rate GPU-hours are not estimated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from mathse.commands.missing import data_is_unnamed
from mathse.commands.plan.engines import EngineSpeed, engine_plan, speed_of
from mathse.config.compose import compose_train
from mathse.config.data import SyntheticDataConfig
from mathse.config.options import CONF, FLAG, look_in
from mathse.config.program import format_command
from mathse.config.rules.files import NEITHER
from mathse.config.schema import TrainConfig
from mathse.config.trust import forbid_foreign_classes
from mathse.errors import ConfigError
from mathse.runs.store import make_folder, write_json

SAMPLE = 256
NOT_KNOWN = EngineSpeed()


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code; raises MathSEError for settings or data that a run would refuse."""
    parser = argparse.ArgumentParser(prog=format_command("plan"), description="What a run will do, ask and cost")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as for train.py")
    parser.add_argument(FLAG, metavar="DIR", help="a folder of your own options, laid out as conf/ is")
    parser.add_argument("--like", type=Path, metavar="RUN", help="an earlier run to measure rates in")
    parser.add_argument("--rate", action="append", default=[], metavar="KIND=SECONDS", help="fit, sample or judge")
    for option, help_text in (
        ("--engine-speed", "tokens a second that a node's engine writes"),
        ("--answer-tokens", "tokens of an answer"),
        ("--verdict-tokens", "tokens of a verdict"),
    ):
        parser.add_argument(option, type=float, metavar="N", help=help_text)
    parser.add_argument("--sample", type=int, default=SAMPLE, metavar="N", help="problems to average lengths over")
    parser.add_argument("--device-memory", metavar="SIZE", help="as trainer.device_memory=SIZE, such as 80GiB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the plan there")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.sample < 1:
        parser.error("--sample: must be at least 1")
    look_in(arguments.config_dir)
    overrides = list(arguments.overrides)
    if arguments.device_memory is not None:
        overrides.append(f"trainer.device_memory={arguments.device_memory}")
    try:
        with forbid_foreign_classes():
            config, _ = compose_train(overrides)
    except ConfigError as error:
        if NEITHER not in str(error) or not any("experiment/paper" in o for o in overrides):
            raise
        without = "data=paper_sizes plans from the published numbers of the sets, without the sets themselves"
        raise ConfigError(f"{error}\n{without}") from None
    config = with_data(config, overrides)
    for option in ("engine_speed", "answer_tokens", "verdict_tokens"):
        value = getattr(arguments, option)
        if value is not None and not 0 < value < float("inf"):
            parser.error(f"--{option.replace('_', '-')}: must be above 0")
    speed = EngineSpeed(arguments.engine_speed, arguments.answer_tokens, arguments.verdict_tokens)
    plan = show(config, sample=arguments.sample, rates=arguments.rate, like=arguments.like, speed=speed)
    if arguments.json is not None:
        make_folder(arguments.json.parent)
        write_json(arguments.json, plan)
    return 0


def with_data(config: TrainConfig, overrides: Sequence[str]) -> TrainConfig:
    """The settings; where a large backbone has no data yet, with as many problems as the paper's sets, and says so."""
    if not data_is_unnamed(config, overrides):
        return config
    print(
        "data: nothing was chosen; planned on data=paper_sizes, as many problems as the paper's sets have (of their "
        "tokens and dollars too few: these questions are short)"
    )
    values: Any = OmegaConf.load(CONF / "data" / "paper_sizes.yaml")
    sizes = {field.name: values[field.name] for field in fields(SyntheticDataConfig) if field.name in values}
    return replace(config, data=replace(config.data, **sizes))


def show(
    config: TrainConfig,
    *,
    sample: int = SAMPLE,
    rates: Sequence[str] = (),
    like: Path | None = None,
    speed: EngineSpeed = NOT_KNOWN,
) -> dict[str, Any]:
    """Print the plan of a run with these settings, and return it as JSON; ``mathse train plan=true`` does no more.

    Nothing is built but options and what the user trusts, whoever wrote the settings.
    """
    from mathse.commands.plan.plan import make_plan  # here: a wrong setting is refused before anything is loaded
    from mathse.commands.plan.table import plan_as_text

    with forbid_foreign_classes():
        plan = make_plan(config, sample=sample, rates=rates, like=like)
    print("\n".join(plan_as_text(plan)))
    for stage in plan.stages:
        for warning in stage.warnings:
            print(f"warning: {stage.name}: {warning}")
    engines = engine_plan(config, plan.stages, speed_of(speed, like))
    if engines is None:
        return plan.to_json()
    print("\n".join(engines.lines()))
    return {**plan.to_json(), "engines": engines.to_json()}
