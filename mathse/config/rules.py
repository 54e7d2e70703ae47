"""What must hold between settings. A rule is a small function from the bound config to the sentences it has to say;
a new one is written, added to its list, and has a test."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mathse.config.bind import show
from mathse.config.data_rules import (
    HUB_ID,
    benchmarks_to_keep_out_are_there,
    data_is_there,
    licence_allows_training,
    mixture_says_how_much_of_each,
    shares_leave_problems_to_learn_from,
)
from mathse.config.schema import (
    CogVLM2,
    Fit,
    InternVL25,
    OpenAITeacher,
    Qwen2VL,
    ReplayTeacher,
    ServerGenerator,
    SymbolicTeacher,
    SyntheticData,
    TinyBackbone,
    TrainConfig,
)

Rule = Callable[[Any], Iterator[str]]
MODEL_TYPES: dict[type, tuple[str | None, ...]] = {  # config.json's model_type; the published CogVLM2 has none
    TinyBackbone: ("qwen2_vl",),
    Qwen2VL: ("qwen2_vl",),
    InternVL25: ("internvl", "internvl_chat"),
    CogVLM2: ("cogvlm2", None),
}
PARTS = ("tower", "connector", "language")  # mathse.backbones.parts
SCOPES: dict[type, tuple[str, ...]] = {  # what a family's ``lora_scopes`` holds
    TinyBackbone: ("language", "tower"),
    Qwen2VL: ("language", "tower"),
    InternVL25: ("language", "tower"),
    CogVLM2: ("language", "vision_expert", "tower"),
}
ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
KEY_PLACE = "a key belongs into the environment"
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


def devices_work_together(config: Any) -> Iterator[str]:
    trainer = config.trainer
    if trainer.strategy == "auto" and trainer.devices != 1:
        yield (
            f"trainer.devices = {trainer.devices}: several devices need a strategy; pass trainer=ddp or trainer=fsdp, "
            f"and trainer.devices={trainer.devices} after it"
        )
    if trainer.strategy == "deepspeed" and trainer.accelerator == "cpu":
        yield "trainer.strategy = 'deepspeed': needs GPUs, and trainer.accelerator = 'cpu'; pass trainer=fsdp"


def shards_are_of_whole_numbers(config: TrainConfig) -> Iterator[str]:
    for path, fit in _own_fits(config, "method"):
        if fit.method == "qlora" and config.trainer.strategy in ("fsdp2", "deepspeed"):
            yield (
                f"{path}.method = 'qlora': 4-bit weights cannot be sharded, and trainer.strategy = "
                f"{show(config.trainer.strategy)}; pass trainer=ddp, or {path}.method=lora"
            )


def qlora_can_run(config: TrainConfig) -> Iterator[str]:
    """As far as it can be known without torch; the task asks for the GPU itself before it loads a model."""
    for path, fit in _own_fits(config, "method"):
        if fit.method == "qlora" and find_spec("bitsandbytes") is None:
            yield (
                f"{path}.method = 'qlora': needs bitsandbytes, which is not installed; pip install 'mathse[qlora]', "
                f"or pass {path}.method=lora"
            )
        elif fit.method == "qlora" and config.trainer.accelerator == "cpu":
            yield (
                f"{path}.method = 'qlora': needs a CUDA GPU, and trainer.accelerator = 'cpu'; pass trainer=gpu, "
                f"or {path}.method=lora"
            )


def frozen_parts_leave_one(config: TrainConfig) -> Iterator[str]:
    for path, fit in _own_fits(config, "freeze"):
        if unknown := [part for part in fit.freeze if part not in PARTS]:
            yield f"{path}.freeze = {fit.freeze}: there is no part {show(unknown[0])}; the parts are {', '.join(PARTS)}"
    for path, fit in _own_fits(config, "freeze", "method"):
        if fit.method == "full" and set(PARTS) <= set(fit.freeze):
            yield (
                f"{path}.freeze = {fit.freeze}: leaves nothing to train with {path}.method = 'full'; leave a part out, "
                f"or pass {path}.method=lora"
            )


def lora_scopes_exist(config: TrainConfig) -> Iterator[str]:
    fits = _fits(config) if config.orm.backbone is not None else _own_fits(config, "lora.scopes", "method")
    for path, fit in fits:
        backbone = config.orm.backbone if path == "orm.fit" and config.orm.backbone is not None else config.backbone
        known = SCOPES.get(type(backbone))
        if known is None or fit.method == "full":
            continue
        if not fit.lora.scopes or any(scope not in known for scope in fit.lora.scopes):
            yield f"{path}.lora.scopes = {fit.lora.scopes}: must name one or more of {', '.join(known)}"


def task_has_its_rows(config: TrainConfig) -> Iterator[str]:
    if config.task == "sft" and config.sft.train is None:
        yield "sft.train = null: task=sft needs a file; pass sft.train=FILE, a train.jsonl of a run"
    elif config.task == "sft" and not Path(config.sft.train or "").is_file():
        yield f"sft.train = {show(config.sft.train)}: no such file; it is a train.jsonl of a run"
    elif config.task != "sft" and config.sft.train is not None:
        yield f"sft.train = {show(config.sft.train)}: only task=sft reads it, and task is {config.task}"


def students_are_sampled_here(config: TrainConfig) -> Iterator[str]:
    if isinstance(config.generator, ServerGenerator):
        yield (
            "generator=server: answers for evaluate.py alone; train.py samples in its own process, since each round "
            "has another checkpoint; pass generator=hf"
        )


def teacher_can_solve_the_data(config: TrainConfig) -> Iterator[str]:
    synthetic = isinstance(config.data, SyntheticData)
    if isinstance(config.teacher, SymbolicTeacher) and not synthetic:
        yield "teacher=symbolic: solves the embedded world only (data=synthetic); pass teacher=replay for own problems"
    if isinstance(config.teacher, ReplayTeacher) and synthetic:
        yield "teacher=replay: repeats the solutions of own problems (data=jsonl); data=synthetic has teacher=symbolic"


def teacher_is_at_an_address(config: TrainConfig) -> Iterator[str]:
    if isinstance(config.teacher, OpenAITeacher):
        yield from server_problems("teacher", config.teacher.base_url, config.teacher.api_key_env)
        prices = (config.teacher.price_input, config.teacher.price_output)
        if None in prices and (prices != (None, None) or config.teacher.price_cached is not None):
            yield "teacher.price_input and teacher.price_output: both are set, or neither (then the list price counts)"


def server_problems(path: str, base_url: str | None, api_key_env: str | None) -> Iterator[str]:
    """What is wrong with where a server is and where its key comes from. No value is shown that may be a secret."""
    if base_url is not None and not base_url.strip():
        yield f"{path}.base_url = '': names no server; pass null for the OpenAI API, or http://HOST:PORT/v1"
    elif base_url is not None:
        address = urlsplit(base_url)
        if address.username is not None or address.query:
            yield f"{path}.base_url: holds a name, a password or a query, which run.json would show; {KEY_PLACE}"
        elif address.scheme not in ("http", "https") or not address.hostname:
            yield f"{path}.base_url = {show(base_url)}: must be http://HOST:PORT/v1 or https://HOST/v1"
    if api_key_env is not None and not ENVIRONMENT.fullmatch(api_key_env):
        yield f"{path}.api_key_env: must be the name of an environment variable, such as OPENAI_API_KEY; {KEY_PLACE}"


def judge_checkpoint_is_a_model(config: TrainConfig) -> Iterator[str]:
    yield from checkpoint_problems("judge.checkpoint", config.judge.checkpoint, "a trained ORM's checkpoint folder")


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
            yield from checkpoint_problems(f"{path}.path", value, "a model's folder")
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


RULES: dict[type, tuple[Rule, ...]] = {
    TrainConfig: (
        name_is_a_folder_name,
        fits_have_one_length,
        micro_batches_make_up_a_batch,
        devices_work_together,
        qlora_can_run,
        shards_are_of_whole_numbers,
        frozen_parts_leave_one,
        lora_scopes_exist,
        task_has_its_rows,
        data_is_there,
        mixture_says_how_much_of_each,
        shares_leave_problems_to_learn_from,
        licence_allows_training,
        benchmarks_to_keep_out_are_there,
        teacher_can_solve_the_data,
        students_are_sampled_here,
        teacher_is_at_an_address,
        judge_checkpoint_is_a_model,
        binary_orm_solves_nothing,
        orm_students_have_sizes,
        backbone_weights_are_somewhere,
        backbone_folder_is_of_its_family,
        backbone_sizes_fit,
        branch_names_its_sources,
    ),
}


def _fits(config: TrainConfig) -> list[tuple[str, Fit]]:
    return [("sft", config.sft), ("orm.fit", config.orm.fit)]


def _own_fits(config: TrainConfig, *keys: str) -> list[tuple[str, Fit]]:
    """The fits, the ORM's only where one of ``keys`` is another than the student's: a mistake is told once."""
    student, orm = config.sft, config.orm.fit
    differs = any(_at(student, key) != _at(orm, key) for key in keys)
    return [("sft", student), ("orm.fit", orm)] if differs else [("sft", student)]


def _at(settings: Any, key: str) -> Any:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def _backbones(config: Any) -> list[tuple[str, Any]]:
    orm = ("orm", config.orm.backbone) if isinstance(config, TrainConfig) else ("judge", config.judge.backbone)
    return [("backbone", config.backbone), (f"{orm[0]}.backbone", orm[1])]


def checkpoint_problems(path: str, value: str | None, what: str) -> Iterator[str]:
    if value is None or Path(value, "config.json").is_file():
        return
    lacks = "it has no config.json" if Path(value).is_dir() else "there is no such folder"
    yield f"{path} = {show(value)}: must be {what}, but {lacks}"


def _largest_divisor(number: int, at_most: int) -> int:
    return next(n for n in range(min(number, at_most), 0, -1) if number % n == 0)
