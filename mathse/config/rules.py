"""What must hold between settings. A rule is a small function from the bound config to the sentences it has to say;
a new one is written, added to its list, and has a test."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mathse.config.actors import OpenAITeacher, ReplayTeacher, ServerGenerator, SymbolicTeacher
from mathse.config.bind import show
from mathse.config.data import SyntheticData
from mathse.config.data_rules import (
    benchmarks_to_keep_out_are_there,
    data_is_there,
    licence_allows_training,
    mixture_says_how_much_of_each,
    shares_leave_problems_to_learn_from,
)
from mathse.config.fit_rules import (
    devices_work_together,
    fits_have_one_length,
    frozen_parts_leave_one,
    lora_scopes_exist,
    micro_batches_make_up_a_batch,
    qlora_can_run,
    shards_are_of_whole_numbers,
)
from mathse.config.judge_rules import judge_checkpoint_is_a_model, judges_are_known, own_judges_have_their_settings
from mathse.config.model_rules import (
    backbone_folder_is_of_its_family,
    backbone_sizes_fit,
    backbone_weights_are_somewhere,
)
from mathse.config.schema import TrainConfig
from mathse.config.secrets import KEY_PLACE, refusal
from mathse.config.serving_rules import (
    greedy_paths_are_one_a_problem,
    orm_is_served_somehow,
    students_are_served_somehow,
)
from mathse.runs.layout import RUN
from mathse.runs.reader import is_run

Rule = Callable[[Any], Iterator[str]]
ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
RUN_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


def name_is_a_folder_name(config: Any) -> Iterator[str]:
    if not RUN_NAME.fullmatch(config.name):
        yield f"name = {show(config.name)}: must be letters, digits, '.', '_' and '-' (and '/' between them): a folder"


def task_has_its_rows(config: TrainConfig) -> Iterator[str]:
    if config.task == "sft" and config.sft.train is None:
        yield "sft.train = null: task=sft needs a file; pass sft.train=FILE, a train.jsonl of a run"
    elif config.task == "sft" and not Path(config.sft.train or "").is_file():
        yield f"sft.train = {show(config.sft.train)}: no such file; it is a train.jsonl of a run"
    elif config.task != "sft" and config.sft.train is not None:
        yield f"sft.train = {show(config.sft.train)}: only task=sft reads it, and task is {config.task}"
    if config.task == "sft" and config.evolution.reflect.row == "draft":
        yield "evolution.reflect.row = 'draft': sft.train holds no drafts; leave it out, or run task=evolve"


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


def servers_are_at_addresses(config: TrainConfig) -> Iterator[str]:
    if isinstance(config.generator, ServerGenerator):
        yield from server_problems("generator", config.generator.base_url, config.generator.api_key_env)
    yield from server_problems("judge", config.judge.server, config.judge.api_key_env, "server")


def server_problems(path: str, base_url: str | None, api_key_env: str | None, key: str = "base_url") -> Iterator[str]:
    """What is wrong with where a server is and where its key comes from. No value is shown that may be a secret."""
    if base_url is not None and not base_url.strip():
        yield f"{path}.{key} = '': names no server; pass null for the OpenAI API, or http://HOST:PORT/v1"
    elif base_url is not None:
        address = urlsplit(base_url)
        if address.username is not None or address.query:
            yield f"{path}.{key}: holds a name, a password or a query, which run.json would show; {KEY_PLACE}"
        elif address.scheme not in ("http", "https") or not address.hostname:
            yield f"{path}.{key} = {show(base_url)}: must be http://HOST:PORT/v1 or https://HOST/v1"
    if api_key_env is not None and not ENVIRONMENT.fullmatch(api_key_env):
        yield refusal(f"{path}.api_key_env")


def binary_orm_solves_nothing(config: TrainConfig) -> Iterator[str]:
    if config.orm.kind == "binary" and config.orm.order == "solve_first":
        yield "orm.order = 'solve_first': orm.kind = 'binary' writes no text to order; pass orm=generative"


def orm_has_its_rows(config: TrainConfig) -> Iterator[str]:
    given = {"orm.train": config.orm.train, "orm.held": config.orm.held}
    for key, value in given.items():
        other = "orm.held" if key == "orm.train" else "orm.train"
        if value is None and given[other] is not None:
            yield f"{key} = null: {other} is set; an ORM learns from one file and is measured on the other, pass both"
        elif value is not None and not Path(value).is_file():
            yield f"{key} = {show(value)}: no such file; it has one labelled path a line"
    if config.orm.train is not None and config.judge.checkpoint is not None:
        yield f"orm.train = {show(config.orm.train)}: judge.checkpoint brings an ORM, so none is trained; pass one"


def orm_students_have_sizes(config: TrainConfig) -> Iterator[str]:
    if not config.orm.students or min(config.orm.students) < 0:
        yield (
            f"orm.students = {config.orm.students}: must be at least one training-set size, each >= 0; "
            "pass orm.students=[300,600], for instance"
        )


def branch_names_its_sources(config: TrainConfig) -> Iterator[str]:
    if config.resume_from and config.resume != "branch":
        yield f"resume_from = {config.resume_from}: only resume=branch reads it; pass resume=branch too"
    for folder in config.resume_from:
        if not is_run(Path(folder)):
            yield f"resume_from: {show(folder)} is not a run folder (it has no {RUN})"


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
        teacher_is_at_an_address,
        servers_are_at_addresses,
        students_are_served_somehow,
        orm_is_served_somehow,
        greedy_paths_are_one_a_problem,
        judges_are_known,
        own_judges_have_their_settings,
        judge_checkpoint_is_a_model,
        binary_orm_solves_nothing,
        orm_has_its_rows,
        orm_students_have_sizes,
        backbone_weights_are_somewhere,
        backbone_folder_is_of_its_family,
        backbone_sizes_fit,
        branch_names_its_sources,
    ),
}
