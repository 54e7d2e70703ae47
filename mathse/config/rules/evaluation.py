"""Rules of evaluate.py alone: what answers, which benchmarks, how answers are chosen, which LLM is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mathse.config.evaluation import ORMTestConfig
from mathse.config.generators import ServerGeneratorConfig
from mathse.config.mistakes import show
from mathse.config.rules.files import check_checkpoint, check_file
from mathse.config.rules.run import RUN_NAME
from mathse.config.schema import EvaluateConfig
from mathse.runs.layout import ORM_FILE


def evaluation_has_a_model_or_answers(config: EvaluateConfig) -> Iterator[str]:
    sources = [key for key in ("checkpoint", "predictions") if getattr(config, key) is not None]
    own_class = isinstance(config.backbone, dict)
    if isinstance(config.generator, ServerGeneratorConfig):
        if config.generator.model is None:
            yield "generator.model = null: generator=server needs the served model's name; pass generator.model=NAME"
        if sources:
            yield f"{sources[0]} is set, and generator=server answers; pass one of them"
    elif not sources and not own_class and config.backbone.path is None:
        yield (
            "checkpoint = null: nothing to evaluate; pass checkpoint=DIR, a checkpoint folder of a run, or "
            "predictions=FILE, or backbone=... backbone.path=..."
        )
    if len(sources) == 2:
        yield f"predictions = {show(config.predictions)}: stand for a model, and checkpoint is set too; pass one"
    yield from check_checkpoint("checkpoint", config.checkpoint, "a checkpoint folder of a run")


def evaluated_files_exist(config: EvaluateConfig) -> Iterator[str]:
    rows = 'rows {"id", "response"}'
    yield from check_file("predictions", config.predictions, f"has {rows}, one JSON object a line")
    yield from check_file("check_against", config.check_against, "has training rows, one JSON object a line")


def benchmarks_are_chosen(config: EvaluateConfig) -> Iterator[str]:
    names = list(config.benchmark)
    if not names:
        yield "benchmark = []: nothing to score; pass one name, or several as benchmark=[mathvista,mathvision]"
    if config.predictions is not None and len(names) > 1:
        yield f"benchmark = {names}: a predictions file is of one benchmark; pass predictions=FILE once for each"
    for name, section in config.benchmark.items():
        if not RUN_NAME.fullmatch(name) or "/" in name:
            yield f"benchmark.{name}: must be letters, digits, '.', '_' and '-': its results get a folder of that name"
        problems = section.get("problems") if isinstance(section, dict) else getattr(section, "problems", None)
        yield from check_file(f"benchmark.{name}.problems", problems, "is the official JSON or JSONL")


def selector_has_samples(config: EvaluateConfig) -> Iterator[str]:
    if config.n_samples > 1 and config.decoding == "greedy":
        yield f"n_samples = {config.n_samples}: greedy answers are all alike; pass decoding=sampling"
    if config.selector != "first" and config.n_samples == 1:
        yield f"selector = {show(config.selector)}: chooses among samples, and n_samples = 1; pass n_samples=8, say"
    if config.selector.startswith("orm") and config.judge.checkpoint is None:
        yield f"selector = {show(config.selector)}: needs an ORM; pass judge.checkpoint=DIR, a trained ORM's checkpoint"
    yield from check_checkpoint("judge.checkpoint", config.judge.checkpoint, "a trained ORM's checkpoint folder")


def orm_test_is_the_only_benchmark(config: EvaluateConfig) -> Iterator[str]:
    """It measures a judge, and every other benchmark a student."""
    for name, section in config.benchmark.items():
        if not isinstance(section, ORMTestConfig):
            continue
        if section.paths is None:
            yield f"benchmark.{name}.paths = null: needs labelled paths; pass benchmark.{name}.paths=FILE, a JSONL file"
        yield from check_file(f"benchmark.{name}.paths", section.paths, "has one labelled path a line")
        if len(config.benchmark) > 1:
            yield f"benchmark = {list(config.benchmark)}: {name} measures an ORM, not a student; run it by itself"
        if config.checkpoint is None:
            yield f"checkpoint = null: benchmark={name} measures an ORM; pass checkpoint=DIR, a trained ORM's folder"
        elif Path(config.checkpoint, "config.json").is_file() and not Path(config.checkpoint, ORM_FILE).is_file():
            yield f"checkpoint = {show(config.checkpoint)}: is no trained ORM's checkpoint, it has no orm.json"
        if config.judge.checkpoint is not None:
            yield f"judge.checkpoint = {show(config.judge.checkpoint)}: benchmark={name} measures checkpoint"
        if config.n_samples > 1:
            yield f"n_samples = {config.n_samples}: benchmark={name} samples nothing; leave it out"


def llm_has_address_and_model(config: EvaluateConfig) -> Iterator[str]:
    if config.llm.base_url is not None and not re.match(r"https?://.", config.llm.base_url):
        yield (
            f"llm.base_url = {show(config.llm.base_url)}: must be the address of an OpenAI-compatible server, such as "
            "http://localhost:8000/v1; leave it out for the OpenAI API"
        )
    if config.llm.base_url is not None and config.llm.model is None:
        yield f"llm.base_url = {show(config.llm.base_url)}: llm.model is not set; name one of the server's models"
    if config.error_types and config.llm.model is None:
        yield "error_types = true: an LLM says what kind of mistake an answer is; pass llm.model=NAME"
