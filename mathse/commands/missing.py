"""List everything that a run lacks before it can start, in one error: data, teacher, key, memory, weights, engine.

A large backbone is not trained on the default data by mistake. Where the data or an engine is missing, the error also
lists the mistakes that would appear next, each with a command.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mathse.config.backbones import TinyBackbone
from mathse.config.data import SyntheticData
from mathse.config.generators import VLLMGenerator
from mathse.config.rules.files import HUB_ID
from mathse.config.schema import TrainConfig
from mathse.config.teachers import OpenAITeacher, SymbolicTeacher
from mathse.errors import ConfigError
from mathse.evolution import memory
from mathse.models.needs import BFLOAT16_BYTES, find_architecture, format_bytes

MIN_REAL_PARAMETERS = 100_000_000  # a smaller model is for trials, and may train on synthetic problems
CHOOSES_DATA = re.compile(r"[+~]*(data|experiment)\b")  # an experiment also chooses its data


def is_data_unnamed(config: TrainConfig, overrides: Sequence[str]) -> bool:
    """Whether a pretrained backbone would train on the synthetic problems, and no override chose them."""
    if not isinstance(config.data, SyntheticData) or any(CHOOSES_DATA.match(override) for override in overrides):
        return False
    if isinstance(config.backbone, TinyBackbone):
        return False
    model = find_architecture(config.backbone)
    return model is not None and model.total >= MIN_REAL_PARAMETERS


def refuse_incomplete(config: TrainConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError for a run without its data or its engine's program."""
    missing_program = list(_find_missing_program(config))
    unnamed = is_data_unnamed(config, overrides)
    if missing_program or unnamed:
        missing_data = _describe_missing_data(config) if unnamed else ()
        raise ConfigError("\n".join([*missing_data, *missing_program, *_find_later_mistakes(config, unnamed)]))


def refuse_missing_program(config: Any) -> None:
    """Raise ConfigError for an evaluation without its engine's program."""
    if missing_program := list(_find_missing_program(config)):
        raise ConfigError("\n".join(missing_program))


def _find_missing_program(config: Any) -> Iterator[str]:
    """Yield a sentence if generator=vllm would start a program on this machine that is not there."""
    generator = config.generator
    if isinstance(generator, VLLMGenerator) and not generator.base_urls:
        program = shlex.split(generator.program)[0]
        if shutil.which(program) is None:
            yield (
                f"generator.program = {generator.program!r}: there is no such program on this machine; vLLM has an "
                "environment of its own (python -m venv /opt/vllm && /opt/vllm/bin/pip install vllm), then pass "
                "generator.program=/opt/vllm/bin/vllm; or generator=hf"
            )


def _describe_missing_data(config: TrainConfig) -> Iterator[str]:
    model = find_architecture(config.backbone)
    size = "" if model is None else f" of {model.total / 1e9:.1f} billion parameters"
    yield (
        f"data: nothing was chosen, so this would train a model{size} on the default data, synthetic sums over "
        "pictures of digits; pass data=jsonl data.path=FILE for your own problems (`mathse data check data=jsonl "
        "data.path=FILE` looks at them first), or data=synthetic if you want these sums"
    )
    if isinstance(config.teacher, SymbolicTeacher):
        yield (
            "teacher: symbolic solves the synthetic problems only; pass teacher=openai, a model behind an API "
            "(teacher.base_url=http://HOST:PORT/v1 for your own server), or teacher=replay for rows with a solution"
        )


def _find_later_mistakes(config: TrainConfig, unnamed: bool) -> Iterator[str]:
    """Yield the mistakes that the run would meet after this one: key, memory, weights."""
    # With data of their own, most users choose teacher=openai. Its key may be missing.
    suggests_openai = unnamed and isinstance(config.teacher, SymbolicTeacher)
    key = getattr(OpenAITeacher() if suggests_openai else config.teacher, "api_key_env", None)
    if key is not None and not os.environ.get(key):
        yield f"key: teacher=openai reads {key}, which is not set; export {key}=..."
    try:
        memory.check_memory(config, memory.read_device(config))
    except ConfigError as error:
        yield from (f"memory: {line}" for line in str(error).splitlines())
    # A hub id whose weights are not in the cache would start a long download.
    path, model = getattr(config.backbone, "path", None), find_architecture(config.backbone)
    if isinstance(path, str) and HUB_ID.fullmatch(path) and not Path(path).exists() and not _is_cached(path):
        size = "" if model is None else f" (about {format_bytes(model.total * BFLOAT16_BYTES)})"
        yield f"weights: {path} is not in the hub's cache; hf download {path}{size}, or backbone.path=DIR"
    yield (
        "`mathse plan` with the same settings prints the stages, requests, costs and memory of the run; it needs none "
        "of these"
    )


def _is_cached(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache  # the import takes half a second, and only an error needs it

    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)
