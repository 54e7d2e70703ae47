"""What must hold of models that are served (docs: docs/serving.md); rules as in ``rules.py``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from mathse.config.actors import ServerGenerator
from mathse.config.backbones import CogVLM2
from mathse.config.bind import show
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.config.secrets import holds_secret, refusal

SLOTS = ("checkpoint", "name", "port")
NEEDS_SERVER = ("model", "command", "api_key_env")


def students_are_served_somehow(config: TrainConfig) -> Iterator[str]:
    """Each checkpoint gets behind the server in one of three ways."""
    generator = config.generator
    if not isinstance(generator, ServerGenerator):
        return
    yield from _no_engine("backbone", config.backbone, "generator=hf")
    yield from _command_problems("generator", generator.command)
    if generator.adapters:
        yield from _adapter_problems(config, generator)
    elif generator.model is not None:
        yield (
            f"generator.model = {show(generator.model)}: one name cannot stand for the checkpoints of all rounds; pass "
            "generator.model=null, or generator.adapters=true where it is the base's name"
        )


def _adapter_problems(config: TrainConfig, generator: ServerGenerator) -> Iterator[str]:
    if generator.command is not None:
        yield "generator.command and generator.adapters: a running server takes adapters, none is started; pass one"
    if generator.model is None:
        yield "generator.model = null: generator.adapters=true needs the base's name at the server; pass it"
    if config.sft.method == "full":
        yield "generator.adapters = true: sft.method = 'full' makes no adapter; pass sft.method=lora"
    elif set(config.sft.lora.scopes) != {"language"}:
        yield (
            f"generator.adapters = true: servers take adapters of the language model alone, and sft.lora.scopes = "
            f"{config.sft.lora.scopes}; pass sft.lora.scopes=[language], or generator.command"
        )
    for key, value in (("init", config.evolution.init), ("reflect.init", config.evolution.reflect.init)):
        if value != "base":
            yield f"generator.adapters = true: adapters go on the base, and evolution.{key} = {show(value)}; pass base"


def orm_is_served_somehow(config: TrainConfig) -> Iterator[str]:
    judge = config.judge
    if judge.server is None:
        for key in NEEDS_SERVER:
            if getattr(judge, key) is not None:
                yield f"judge.{key} is set: only judge.server=URL reads it; pass that too"
        return
    yield from _no_engine("orm.backbone", config.orm.backbone or config.backbone, "judge.server=null")
    yield from _command_problems("judge", judge.command)
    if judge.model is not None and judge.command is not None:
        yield "judge.model and judge.command: a started engine is told its name as {name}; pass one of them"
    if judge.model is not None and judge.checkpoint is None:
        yield (
            f"judge.model = {show(judge.model)}: no server can have the ORM that this run will train; pass "
            "judge.checkpoint=DIR, the ORM that it has, or judge.model=null"
        )
    generator = config.generator
    both_start = isinstance(generator, ServerGenerator) and generator.command is not None and judge.command is not None
    if both_start and judge.server.rstrip("/") == generator.base_url.rstrip("/"):
        yield f"judge.server = {show(judge.server)}: the students' engine is started there too; pass another port"


def evaluation_starts_no_engine(config: EvaluateConfig) -> Iterator[str]:
    generator = config.generator
    for key in ("command", "adapters") if isinstance(generator, ServerGenerator) else ():
        if getattr(generator, key):
            yield f"generator.{key} is set: train.py reads it; evaluate.py asks a running server for generator.model"


def greedy_paths_are_one_a_problem(config: TrainConfig) -> Iterator[str]:
    several = (
        ("generator.temperature", config.generator, "evolution.samples_per_problem", config.evolution),
        ("orm.temperature", config.orm, "orm.samples_per_problem", config.orm),
    )
    for key, drawn, count_key, counted in several:
        if getattr(drawn, "temperature", None) == 0 and counted.samples_per_problem > 1:
            yield (
                f"{count_key} = {counted.samples_per_problem}: {key} = 0 is greedy, and greedy paths are all alike; "
                f"pass {count_key}=1, or a temperature"
            )


def _no_engine(path: str, backbone: Any, remedy: str) -> Iterator[str]:
    if isinstance(backbone, CogVLM2):
        yield f"{path} = cogvlm2: its own code runs here, and no server has it; pass {remedy}"


def _command_problems(section: str, command: str | None) -> Iterator[str]:
    if command is None:
        return
    if holds_secret(command):
        yield refusal(f"{section}.command")
        return
    try:
        words = shlex.split(command)
    except ValueError as e:
        yield f"{section}.command = {show(command)}: cannot be split into words ({e}); mend its quotes"
        return
    unknown = [name for name in re.findall(r"\{(\w+)\}", command) if name not in SLOTS]
    if unknown:
        yield f"{section}.command: has no {{{unknown[0]}}} to fill in; there are {{checkpoint}}, {{name}} and {{port}}"
    if any(word.startswith(("--api-key", "sk-")) for word in words):
        yield refusal(f"{section}.command")
        return
    if not words or "{checkpoint}" not in command:
        yield f"{section}.command = {show(command)}: must say where {{checkpoint}} goes, the folder that is served"
