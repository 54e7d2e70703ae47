"""Rules of a run: its name, its task, its teacher, its samples, and the runs that it goes on from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mathse.config.data import SyntheticData, WordProblems
from mathse.config.generators import ServerGenerator, VLLMGenerator
from mathse.config.mistakes import show
from mathse.config.rules.files import file_problems
from mathse.config.schema import TrainConfig
from mathse.config.sizes import bytes_of
from mathse.config.teachers import FallibleReplayTeacher, ReplayTeacher, SymbolicTeacher
from mathse.runs.layout import RUN
from mathse.runs.reader import is_run

RUN_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


def name_is_a_folder_name(config: Any) -> Iterator[str]:
    if not RUN_NAME.fullmatch(config.name):
        yield f"name = {show(config.name)}: must be letters, digits, '.', '_' and '-' (and '/' between them): a folder"


def task_has_its_rows(config: TrainConfig) -> Iterator[str]:
    if config.task == "sft" and config.sft.train is None:
        yield "sft.train = null: task=sft needs a file; pass sft.train=FILE, a train.jsonl of a run"
    elif config.task == "sft":
        yield from file_problems("sft.train", config.sft.train, "is a train.jsonl of a run")
    elif config.sft.train is not None:
        yield f"sft.train = {show(config.sft.train)}: only task=sft reads it, and task is {config.task}"
    if config.task == "sft" and config.evolution.reflect.row == "draft":
        yield "evolution.reflect.row = 'draft': sft.train holds no drafts; leave it out, or run task=evolve"


def teacher_can_solve_the_data(config: TrainConfig) -> Iterator[str]:
    synthetic = isinstance(config.data, SyntheticData)
    if isinstance(config.teacher, SymbolicTeacher) and not synthetic:
        yield "teacher=symbolic: solves the synthetic task only (data=synthetic); pass teacher=replay for own problems"
    if isinstance(config.teacher, FallibleReplayTeacher) and not isinstance(config.data, WordProblems):
        yield "teacher=fallible_replay: makes errors up in word problems only (data=word_problems); pass teacher=replay"
    if isinstance(config.teacher, ReplayTeacher) and synthetic:
        yield "teacher=replay: repeats the solutions of own problems (data=jsonl); data=synthetic has teacher=symbolic"


def greedy_paths_are_one_a_problem(config: TrainConfig) -> Iterator[str]:
    """At temperature 0 all samples of a problem are equal."""
    samplers = (
        ("generator.temperature", config.generator, "evolution.samples_per_problem", config.evolution),
        ("orm.temperature", config.orm, "orm.samples_per_problem", config.orm),
    )
    for temperature, sampler, count, counted in samplers:
        if getattr(sampler, "temperature", None) == 0 and counted.samples_per_problem > 1:
            yield (
                f"{count} = {counted.samples_per_problem}: {temperature} = 0 is greedy, and greedy paths are all "
                f"alike; pass {count}=1, or a temperature"
            )


def rounds_can_sample_so(config: TrainConfig) -> Iterator[str]:
    restarts, serving = config.evolution.round.restarts, isinstance(config.generator, (ServerGenerator, VLLMGenerator))
    if restarts and serving:
        yield (
            f"evolution.round.restarts = {restarts}: a server is asked for whole answers and cannot go on with a begun "
            "one; pass evolution.round.restarts=0, or generator=hf"
        )
    if config.evolution.round.draw == "failure" and config.evolution.round.sample_size is None:
        yield (
            "evolution.round.draw = 'failure': a round without a sample_size tries all problems, so nothing is drawn; "
            "pass evolution.round.sample_size=N too"
        )


def device_memory_is_a_size(config: Any) -> Iterator[str]:
    memory = config.trainer.device_memory
    if memory is not None and not bytes_of(memory):
        yield f"trainer.device_memory = {show(memory)}: must be an amount of memory such as 80GiB"


def branch_names_its_sources(config: TrainConfig) -> Iterator[str]:
    if config.resume_from and config.resume != "branch":
        yield f"resume_from = {config.resume_from}: only resume=branch reads it; pass resume=branch too"
    for folder in config.resume_from:
        if not is_run(Path(folder)):
            yield f"resume_from: {show(folder)} is not a run folder (it has no {RUN})"
