"""What must hold between settings. A rule is a small function from the bound config to the sentences it has to say;
a new one is written, added to its list, and has a test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mathse.config.bind import show
from mathse.config.schema import (
    CogVLM2,
    EvaluateConfig,
    Fit,
    InternVL25,
    JsonlData,
    Qwen2VL,
    ReplayTeacher,
    SymbolicTeacher,
    SyntheticData,
    TinyBackbone,
    TrainConfig,
)

Rule = Callable[[Any], Iterator[str]]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MODEL_TYPES: dict[type, tuple[str | None, ...]] = {  # config.json's model_type; the published CogVLM2 has none
    TinyBackbone: ("qwen2_vl",),
    Qwen2VL: ("qwen2_vl",),
    InternVL25: ("internvl", "internvl_chat"),
    CogVLM2: ("cogvlm2", None),
}
RUN_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


def name_is_a_folder_name(config: Any) -> Iterator[str]:
    if not RUN_NAME.fullmatch(config.name):
        yield f"name = {show(config.name)}: must be letters, digits, '.', '_' and '-' (and '/' between them): a folder"


def fits_have_one_length(config: TrainConfig) -> Iterator[str]:
    for path, fit in _fits(config):
        if fit.epochs is not None and fit.max_steps is not None:
            yield (
                f"{path}.epochs = {fit.epochs:g} and {path}.max_steps = {fit.max_steps}: exactly one is set; to count "
                f"in epochs, also pass {path}.max_steps=null"
            )
        if fit.epochs is None and fit.max_steps is None:
            yield f"{path}.epochs = null and {path}.max_steps = null: exactly one is set; pass one of them"


def micro_batches_make_up_a_batch(config: TrainConfig) -> Iterator[str]:
    for path, fit in _fits(config):
        if fit.batch_size % fit.micro_batch_size:
            yield (
                f"{path}.micro_batch_size = {fit.micro_batch_size}: must divide {path}.batch_size = {fit.batch_size}; "
                f"pass {path}.micro_batch_size={_largest_divisor(fit.batch_size, fit.micro_batch_size)}, for instance"
            )


def what_comes_later(config: TrainConfig) -> Iterator[str]:
    """Settings that stand in the schema and whose code comes with the GPU backbones."""
    if config.sft.method != "full":
        yield f"sft.method = {show(config.sft.method)}: comes with a later version; available now: full"
    if config.trainer.strategy != "auto" or config.trainer.devices != 1:
        yield (
            f"trainer.strategy = {show(config.trainer.strategy)}, trainer.devices = {config.trainer.devices}: fits on "
            "several devices come with a later version; available now: strategy=auto devices=1"
        )


def task_has_its_rows(config: TrainConfig) -> Iterator[str]:
    if config.task == "sft" and config.sft.train is None:
        yield "sft.train = null: task=sft needs a file; pass sft.train=FILE, a train.jsonl of a run"
    elif config.task == "sft" and not Path(config.sft.train or "").is_file():
        yield f"sft.train = {show(config.sft.train)}: no such file; it is a train.jsonl of a run"
    elif config.task != "sft" and config.sft.train is not None:
        yield f"sft.train = {show(config.sft.train)}: only task=sft reads it, and task is {config.task}"


def data_is_there(config: Any) -> Iterator[str]:
    if not isinstance(config.data, JsonlData):
        return
    if config.data.path is None:
        yield "data.path = null: data=jsonl needs a file; pass data.path=FILE, one JSON object a line"
    for key in ("path", "test_path"):
        value = getattr(config.data, key)
        if value is not None and not Path(value).is_file():
            yield f"data.{key} = {show(value)}: no such file; it has one JSON object a line"


def shares_leave_problems_to_learn_from(config: Any) -> Iterator[str]:
    data = config.data
    if isinstance(data, JsonlData):
        test_share = data.test_share if data.test_path is None else 0.0
        if (total := test_share + data.dev_share + data.orm_share) >= 1:
            yield (
                f"data.test_share + data.dev_share + data.orm_share = {total:g}: must stay below 1, "
                "or no problem is left to learn from"
            )


def teacher_can_solve_the_data(config: TrainConfig) -> Iterator[str]:
    synthetic = isinstance(config.data, SyntheticData)
    if isinstance(config.teacher, SymbolicTeacher) and not synthetic:
        yield "teacher=symbolic: solves the embedded world only (data=synthetic); pass teacher=replay for own problems"
    if isinstance(config.teacher, ReplayTeacher) and synthetic:
        yield "teacher=replay: repeats the solutions of own problems (data=jsonl); data=synthetic has teacher=symbolic"


def judge_checkpoint_is_a_model(config: TrainConfig) -> Iterator[str]:
    yield from _checkpoint_problems("judge.checkpoint", config.judge.checkpoint, "a trained ORM's checkpoint folder")


def binary_orm_solves_nothing(config: TrainConfig) -> Iterator[str]:
    if config.orm.kind == "binary" and config.orm.order == "solve_first":
        yield "orm.order = 'solve_first': orm.kind = 'binary' writes no text to order; pass orm=generative"


def orm_students_have_sizes(config: TrainConfig) -> Iterator[str]:
    if not config.orm.students or min(config.orm.students) < 0:
        yield (
            f"orm.students = {config.orm.students}: must be at least one training-set size, each >= 0; "
            "pass orm.students=[300,600], for instance"
        )


def backbone_weights_are_somewhere(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        value = getattr(backbone, "path", None)
        if not isinstance(value, str):
            continue
        if Path(value).is_dir():
            yield from _checkpoint_problems(f"{path}.path", value, "a model's folder")
        elif not HUB_ID.fullmatch(value):
            yield (
                f"{path}.path = {show(value)}: neither a folder that exists nor a hub id of the form org/name; "
                "pass one of them, or null"
            )


def backbone_folder_is_of_its_family(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        expected = MODEL_TYPES.get(type(backbone))
        if expected is None or not backbone.path or not (file := Path(backbone.path, "config.json")).is_file():
            continue
        try:
            described = json.loads(file.read_text(encoding="utf-8"))
            found = described.get("model_type")
        except (ValueError, AttributeError, OSError):
            yield f"{path}.path = {show(backbone.path)}: its config.json cannot be read as a JSON object"
            continue
        if found not in expected:
            yield (
                f"{path}.path = {show(backbone.path)}: holds a model of type {show(found)}, and this backbone's is "
                f"{' or '.join(show(name) for name in expected)}; choose the folder's own backbone"
            )


def backbone_sizes_fit(config: Any) -> Iterator[str]:
    for path, backbone in _backbones(config):
        if isinstance(backbone, TinyBackbone) and backbone.hidden_size % backbone.heads:
            yield f"{path}.hidden_size = {backbone.hidden_size}: must be divisible by {path}.heads = {backbone.heads}"
        if isinstance(backbone, (TinyBackbone, Qwen2VL)) and backbone.max_pixels < backbone.min_pixels:
            yield f"{path}.max_pixels = {backbone.max_pixels}: must be >= {path}.min_pixels = {backbone.min_pixels}"


def branch_names_its_sources(config: TrainConfig) -> Iterator[str]:
    if config.resume_from and config.resume != "branch":
        yield f"resume_from = {config.resume_from}: only resume=branch reads it; pass resume=branch too"
    for folder in config.resume_from:
        if not Path(folder, "run.json").is_file():
            yield f"resume_from: {show(folder)} is not a run folder (it has no run.json)"


def checkpoint_is_given(config: EvaluateConfig) -> Iterator[str]:
    if config.checkpoint is None:
        yield "checkpoint = null: nothing to evaluate; pass checkpoint=DIR, a checkpoint folder of a run"
    yield from _checkpoint_problems("checkpoint", config.checkpoint, "a checkpoint folder of a run")


RULES: dict[type, tuple[Rule, ...]] = {
    TrainConfig: (
        name_is_a_folder_name,
        fits_have_one_length,
        micro_batches_make_up_a_batch,
        what_comes_later,
        task_has_its_rows,
        data_is_there,
        shares_leave_problems_to_learn_from,
        teacher_can_solve_the_data,
        judge_checkpoint_is_a_model,
        binary_orm_solves_nothing,
        orm_students_have_sizes,
        backbone_weights_are_somewhere,
        backbone_folder_is_of_its_family,
        backbone_sizes_fit,
        branch_names_its_sources,
    ),
    EvaluateConfig: (
        name_is_a_folder_name,
        checkpoint_is_given,
        data_is_there,
        shares_leave_problems_to_learn_from,
        backbone_weights_are_somewhere,
        backbone_folder_is_of_its_family,
        backbone_sizes_fit,
    ),
}


def _fits(config: TrainConfig) -> list[tuple[str, Fit]]:
    return [("sft", config.sft), ("orm.fit", config.orm.fit)]


def _backbones(config: Any) -> list[tuple[str, Any]]:
    found = [("backbone", config.backbone)]
    return [*found, ("orm.backbone", config.orm.backbone)] if isinstance(config, TrainConfig) else found


def _checkpoint_problems(path: str, value: str | None, what: str) -> Iterator[str]:
    if value is None or Path(value, "config.json").is_file():
        return
    lacks = "it has no config.json" if Path(value).is_dir() else "there is no such folder"
    yield f"{path} = {show(value)}: must be {what}, but {lacks}"


def _largest_divisor(number: int, at_most: int) -> int:
    return next(n for n in range(min(number, at_most), 0, -1) if number % n == 0)
