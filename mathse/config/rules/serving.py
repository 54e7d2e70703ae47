"""Rules of servers: their addresses and keys, and how students and ORMs get behind them (docs/serving.md)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from mathse.config.backbones import CogVLM2BackboneConfig
from mathse.config.generators import ServerGeneratorConfig, VLLMGeneratorConfig
from mathse.config.mistakes import show
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.config.secrets import KEY_PLACE, explain_secret, holds_secret
from mathse.config.teachers import OpenAITeacherConfig

ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # the name of a variable
SLOTS = ("checkpoint", "name", "port")  # what an engine's command is filled in with
NEEDS_SERVER = ("model", "command", "api_key_env")


def teacher_has_an_address(config: TrainConfig) -> Iterator[str]:
    if isinstance(config.teacher, OpenAITeacherConfig):
        yield from _address_problems("teacher.base_url", config.teacher.base_url, config.teacher.api_key_env)
        prices = (config.teacher.price_input, config.teacher.price_output)
        if None in prices and (prices != (None, None) or config.teacher.price_cached is not None):
            yield "teacher.price_input and teacher.price_output: both are set, or neither (then the list price counts)"


def servers_have_addresses(config: TrainConfig) -> Iterator[str]:
    if isinstance(config.generator, ServerGeneratorConfig):
        yield from _address_problems("generator.base_url", config.generator.base_url, config.generator.api_key_env)
    yield from _address_problems("judge.server", config.judge.server, config.judge.api_key_env)


def vllm_can_be_used(config: TrainConfig | EvaluateConfig) -> Iterator[str]:
    """The engine of generator=vllm, and who is in it."""
    generator, judge = config.generator, config.judge
    if not isinstance(generator, VLLMGeneratorConfig):
        if judge.engine == "vllm":
            yield "judge.engine = 'vllm': the ORM takes turns with the students in one engine; pass generator=vllm too"
        return
    yield from _no_engine("backbone", config.backbone, "generator=hf")
    if judge.engine == "vllm":
        orm = config.orm.backbone if isinstance(config, TrainConfig) else judge.backbone
        yield from _no_engine("orm.backbone", orm or config.backbone, "judge.engine=hf")
        if getattr(judge, "server", None) is not None:
            yield "judge.engine = 'vllm' and judge.server: two places for one ORM; pass one of them"
    for k, url in enumerate(generator.base_urls):
        yield from _address_problems(f"generator.base_urls[{k}]", url, None)
    yield from _address_problems("generator.base_urls", None, generator.api_key_env)
    if generator.base_urls:
        for key in ("options", "replicas"):
            if getattr(generator, key):
                yield f"generator.{key} is set: a server that runs at generator.base_urls has its own; pass one of them"
    for key in ("program", "options"):
        yield from _words_problems(f"generator.{key}", getattr(generator, key))
    if not generator.program.strip():
        yield "generator.program = '': names no program; pass vllm, or the path of another environment's"


def _address_problems(path: str, url: str | None, api_key_env: str | None) -> Iterator[str]:
    """What is wrong with where a server is and where its key comes from. No value is shown that may be a secret."""
    if url is not None and not url.strip():
        yield f"{path} = '': names no server; pass null for the OpenAI API, or http://HOST:PORT/v1"
    elif url is not None:
        address = urlsplit(url)
        if address.username is not None or address.query:
            yield f"{path}: holds a name, a password or a query, which run.json would show; {KEY_PLACE}"
        elif address.scheme not in ("http", "https") or not address.hostname:
            yield f"{path} = {show(url)}: must be http://HOST:PORT/v1 or https://HOST/v1"
    if api_key_env is not None and not ENVIRONMENT.fullmatch(api_key_env):
        yield explain_secret(f"{path.partition('.')[0]}.api_key_env")


def students_can_be_served(config: TrainConfig) -> Iterator[str]:
    """Each checkpoint gets behind the server by its folder, or by a command."""
    generator = config.generator
    if not isinstance(generator, ServerGeneratorConfig):
        return
    yield from _no_engine("backbone", config.backbone, "generator=hf")
    yield from _command_problems("generator", generator.command)
    if generator.model is not None:
        yield (
            f"generator.model = {show(generator.model)}: one name cannot stand for the checkpoints of all rounds; pass "
            "generator.model=null"
        )


def orm_can_be_served(config: TrainConfig) -> Iterator[str]:
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
    both_start = (
        isinstance(generator, ServerGeneratorConfig) and generator.command is not None and judge.command is not None
    )
    if both_start and judge.server.rstrip("/") == generator.base_url.rstrip("/"):
        yield f"judge.server = {show(judge.server)}: the students' engine is started there too; pass another port"


def evaluation_starts_no_engine(config: EvaluateConfig) -> Iterator[str]:
    if isinstance(config.generator, ServerGeneratorConfig) and config.generator.command is not None:
        yield "generator.command is set: train.py reads it; evaluate.py asks a running server for generator.model"


def _no_engine(path: str, backbone: Any, remedy: str) -> Iterator[str]:
    if isinstance(backbone, CogVLM2BackboneConfig):
        yield f"{path} = cogvlm2: its own code runs here, and no server has it; pass {remedy}"


def _command_problems(section: str, command: str | None) -> Iterator[str]:
    if command is None:
        return
    problems = list(_words_problems(f"{section}.command", command))
    if problems:
        yield from problems
        return
    unknown = [name for name in re.findall(r"\{(\w+)\}", command) if name not in SLOTS]
    if unknown:
        yield f"{section}.command: has no {{{unknown[0]}}} to fill in; there are {{checkpoint}}, {{name}} and {{port}}"
    if "{checkpoint}" not in command:
        yield f"{section}.command = {show(command)}: must say where {{checkpoint}} goes, the folder that is served"


def _words_problems(key: str, value: str) -> Iterator[str]:
    """What is wrong with a value that is split as a shell splits it. No value is shown that may be a secret."""
    if holds_secret(value):
        yield explain_secret(key)
        return
    try:
        arguments = shlex.split(value)
    except ValueError as e:
        yield f"{key} = {show(value)}: cannot be split into words ({e}); correct its quotes"
        return
    if any(argument.startswith(("--api-key", "sk-")) for argument in arguments):
        yield explain_secret(key)
