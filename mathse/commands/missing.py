"""List everything that a run lacks before it can begin, in one answer: data, teacher, key, memory, weights, engine.

A large backbone is not trained on the default data by mistake. Where that or an engine is missing, the answer also has
what would come to light next, each with a command.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mathse.config.backbones import TinyBackboneConfig
from mathse.config.data import SyntheticDataConfig
from mathse.config.generators import VLLMGeneratorConfig
from mathse.config.rules.files import HUB_ID
from mathse.config.schema import TrainConfig
from mathse.config.teachers import OpenAITeacherConfig, SymbolicTeacherConfig
from mathse.errors import ConfigError
from mathse.evolution import memory
from mathse.models.needs import HALF, architecture_of, in_bytes

SMALL = 100_000_000  # parameters; a model with fewer is here to try something out
CHOOSES = re.compile(r"[+~]*(data|experiment)\b")  # an experiment says what its data is


def data_is_unnamed(config: TrainConfig, overrides: Sequence[str]) -> bool:
    """Whether a pretrained backbone would train on the synthetic problems, and no override chose them."""
    if not isinstance(config.data, SyntheticDataConfig) or any(CHOOSES.match(override) for override in overrides):
        return False
    if isinstance(config.backbone, TinyBackboneConfig):
        return False
    model = architecture_of(config.backbone)
    return model is not None and model.total >= SMALL


def refuse_incomplete(config: TrainConfig, overrides: Sequence[str]) -> None:
    """Raises ConfigError for a run that lacks its data or an engine's program."""
    engine = list(missing_program(config))
    unnamed = data_is_unnamed(config, overrides)
    if engine or unnamed:
        first = _data_and_teacher(config) if unnamed else ()
        raise ConfigError("\n".join([*first, *engine, *_found_later(config, unnamed)]))


def refuse_missing_program(config: Any) -> None:
    """The same for an evaluation's engine."""
    if engine := list(missing_program(config)):
        raise ConfigError("\n".join(engine))


def missing_program(config: Any) -> Iterator[str]:
    """The program of generator=vllm, where this machine starts the engine."""
    generator = config.generator
    if isinstance(generator, VLLMGeneratorConfig) and not generator.base_urls:
        program = shlex.split(generator.program)[0]
        if shutil.which(program) is None:
            yield (
                f"generator.program = {generator.program!r}: there is no such program on this machine; vLLM has an "
                "environment of its own (python -m venv /opt/vllm && /opt/vllm/bin/pip install vllm), then pass "
                "generator.program=/opt/vllm/bin/vllm; or generator=hf"
            )


def _data_and_teacher(config: TrainConfig) -> Iterator[str]:
    model = architecture_of(config.backbone)
    size = "" if model is None else f" of {model.total / 1e9:.1f} billion parameters"
    yield (
        f"data: nothing was chosen, so this would train a model{size} on the default data, synthetic sums over "
        "pictures of digits; pass data=jsonl data.path=FILE for your own problems (`mathse data check data=jsonl "
        "data.path=FILE` looks at them first), or data=synthetic if these are meant"
    )
    if isinstance(config.teacher, SymbolicTeacherConfig):
        yield (
            "teacher: symbolic solves the synthetic problems only; pass teacher=openai, a model behind an API "
            "(teacher.base_url=http://HOST:PORT/v1 for a server of your own), or teacher=replay for rows that have a "
            "solution"
        )


def _found_later(config: TrainConfig, unnamed: bool) -> Iterator[str]:
    to_choose = unnamed and isinstance(config.teacher, SymbolicTeacherConfig)
    key = getattr(OpenAITeacherConfig() if to_choose else config.teacher, "api_key_env", None)
    if key is not None and not os.environ.get(key):
        yield f"key: teacher=openai reads {key}, which is not set; export {key}=..."
    try:
        memory.refuse_what_cannot_fit(config, memory.device_of(config))
    except ConfigError as error:
        yield from (f"memory: {line}" for line in str(error).splitlines())
    path, model = getattr(config.backbone, "path", None), architecture_of(config.backbone)
    if isinstance(path, str) and HUB_ID.fullmatch(path) and not Path(path).exists() and not _is_cached(path):
        size = "" if model is None else f" (about {in_bytes(model.total * HALF)})"
        yield f"weights: {path} is not in the hub's cache; hf download {path}{size}, or backbone.path=DIR"
    yield "`mathse plan` with the same settings prints what the run would do, ask and take; it needs none of these"


def _is_cached(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache  # here: it takes half a second, and only a refusal needs it

    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)
