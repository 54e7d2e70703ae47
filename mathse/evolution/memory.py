"""The memory of each kind of work in a run, and the nearest settings that fit if it exceeds the device.

A run shows the estimate in its first line, and ``mathse plan`` shows a table. A run that cannot fit is refused before
it downloads, samples or pays anything. The estimates come from the model without its weights (mathse/models/needs.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from mathse.config.backbones import TinyBackbone
from mathse.config.fits import Fit
from mathse.config.generators import HFGenerator
from mathse.config.schema import TrainConfig, needs_orm
from mathse.config.sizes import bytes_of
from mathse.errors import ConfigError
from mathse.models.needs import (
    USABLE_SHARE,
    Need,
    RowSize,
    estimate_sampling,
    estimate_training,
    find_architecture,
    format_bytes,
)
from mathse.reporting.progress.wording import align_columns

# Tokens of the longest texts in the estimate, beside the largest picture that the backbone allows. The settings may
# limit solutions and verdicts further.
QUESTION_TOKENS, COMPACT_QUESTION_TOKENS, SOLUTION_TOKENS, FEEDBACK_TOKENS = 256, 32, 768, 128

Work = Literal["fit", "sample", "evaluate", "judge"]
Change = tuple[str, Any]  # key path, value
CPU = "this machine"  # name of the device without a GPU


@dataclass(frozen=True)
class Job:
    """A kind of work with one model. All stages with this work need the same memory.

    Attributes:
        key: the section of the settings that decide, such as sft, orm.fit or generator.
        stages: names of the stages, for people.
    """

    work: Work
    model: Literal["student", "ORM"]
    key: str
    stages: str
    need: Need

    @property
    def name(self) -> str:
        return f"{self.work} {self.model}"

    @property
    def identity(self) -> tuple[str, str]:
        """Identifies the work when settings change."""
        return self.name, self.key


@dataclass(frozen=True)
class Device:
    """A device and its memory in bytes. None: the memory is not known."""

    name: str
    total: int | None

    @property
    def usable(self) -> int | None:
        """Bytes for a run. On a GPU a part is left for the framework and for fragmentation."""
        if self.total is None:
            return None
        # Host RAM is shared with the page cache and may swap, so a run is refused only if it exceeds all of it.
        return self.total if self.name == CPU else round(USABLE_SHARE * self.total)


def read_device(config: TrainConfig) -> Device:
    """Return the device of the settings. Its memory is ``trainer.device_memory``, or the driver reports it.

    nvidia-smi is the source, because torch would take memory of the GPU. The smallest GPU counts.
    """
    trainer = config.trainer
    gpus = [] if trainer.accelerator == "cpu" else _read_gpu_memory()
    stated = bytes_of(trainer.device_memory) if trainer.device_memory is not None else None
    if trainer.accelerator == "gpu" or gpus or (stated is not None and trainer.accelerator == "auto"):
        return Device("GPU", stated if stated is not None else min(gpus, default=None))
    return Device(CPU, stated if stated is not None else _read_host_memory())


def _read_gpu_memory() -> list[int]:
    """Return the bytes of each GPU's memory; no GPU without an NVIDIA driver."""
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.split() if done.returncode == 0 else []
    return [int(line) * 2**20 for line in lines if line.isdigit()]


def _read_host_memory() -> int | None:
    """Return the bytes of host RAM; None if the system does not report them."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


# --- the work of a run ------------------------------------------------------------------------------------------------


def list_jobs(config: TrainConfig, device: Device) -> list[Job]:
    """Return the work of a run on models with a known architecture. An engine behind a server is not counted.

    Raises:
        ConfigError: a fit would freeze all layers.
    """
    check_frozen_layers(config)
    return list(_list_jobs(config, device))


def check_frozen_layers(config: TrainConfig) -> None:
    """Raise ConfigError if a fit would freeze all layers of its model."""
    fits: list[tuple[str, Fit, Any]] = [("sft", config.sft, config.backbone)]
    if needs_orm(config):
        fits.append(("orm.fit", config.orm.fit, config.orm.backbone or config.backbone))
    for path, fit, section in fits:
        model = find_architecture(section) if fit.freeze_layers else None
        if model is not None and fit.freeze_layers >= model.decoder.layers:
            raise ConfigError(
                f"{path}.freeze_layers = {fit.freeze_layers}: the language model has {model.decoder.layers} layers, "
                f"and at least the last one trains; pass {model.decoder.layers - 1} or less"
            )


def count_text_tokens(config: TrainConfig) -> tuple[int, int]:
    """Return the tokens of a question and of a solution in the estimate."""
    # The tokenizer of the tiny backbone has a token per word.
    question = COMPACT_QUESTION_TOKENS if isinstance(config.backbone, TinyBackbone) else QUESTION_TOKENS
    return question, min(SOLUTION_TOKENS, getattr(config.generator, "max_new_tokens", SOLUTION_TOKENS))


def _list_jobs(config: TrainConfig, device: Device) -> Iterator[Job]:
    # 1) Which models work, and which stages there are.
    trainer, orm, evolves = config.trainer, config.orm, config.task == "evolve"
    student = find_architecture(config.backbone)
    judge = student if orm.backbone is None else find_architecture(orm.backbone)
    has_orm = needs_orm(config)
    trains_orm = has_orm and config.judge.checkpoint is None
    samples_weak = trains_orm and orm.train is None
    fits_weak = samples_weak and any(orm.students)
    fits_solver = trains_orm and orm.solver_steps > 0
    student_fits = {"evolve": "distill, rounds, final", "sft": "sft"}.get(config.task)

    question, solution = count_text_tokens(config)  # tokens
    pictures_of_orm = int(orm.see_image)
    on_gpu = device.name != CPU
    estimate_fit = partial(estimate_training, trainer=trainer, memory=device.total if on_gpu else None)
    estimate_samples = partial(estimate_sampling, trainer=trainer, on_gpu=on_gpu)

    # 2) Fits. The solver is a fit of the student's model, or of the ORM's if the ORM has its own backbone.
    solved = RowSize(question, solution)
    stages = []
    if fits_weak:
        stages.append("orm/student_*")
    if fits_solver and orm.backbone is None:
        stages.append("orm/solver")
    if student_fits is not None:
        stages.append(student_fits)
    if student is not None and stages:
        yield Job("fit", "student", "sft", ", ".join(stages), estimate_fit(student, config.sft, row=solved))
    if judge is not None and fits_solver and orm.backbone is not None:
        yield Job("fit", "ORM", "sft", "orm/solver", estimate_fit(judge, config.sft, row=solved))
    if judge is not None and trains_orm:
        feedback = min(FEEDBACK_TOKENS, config.judge.max_new_tokens)
        labelled = RowSize(question + solution, feedback, pictures_of_orm)
        yield Job("fit", "ORM", "orm.fit", "orm", estimate_fit(judge, orm.fit, row=labelled))

    # 3) Samples and greedy answers, unless an engine writes them.
    if student is not None and isinstance(config.generator, HFGenerator):
        stages, samples = [], 1  # samples: of a problem, at most
        if samples_weak:
            stages.append("orm/student_*")
        if fits_weak:
            samples = orm.samples_per_problem
        if evolves:
            stages.append("rounds")
            samples = max(samples, config.evolution.samples_per_problem)
        if stages:
            row = RowSize(question, config.generator.max_new_tokens)
            sequences = config.generator.batch_size
            need = estimate_samples(student, sequences=sequences, prompts=max(1, sequences // samples), row=row)
            yield Job("sample", "student", "generator", ", ".join(stages), need)
        row, rows = RowSize(question, config.evaluation.max_new_tokens), config.evaluation.batch_size
        stages = ["base"] if student_fits is None else ["base", student_fits]
        need = estimate_samples(student, sequences=rows, prompts=rows, row=row)
        yield Job("evaluate", "student", "evaluation", ", ".join(stages), need)

    # 4) Verdicts, unless an engine gives them.
    if judge is not None and has_orm and config.judge.server is None and config.judge.engine == "hf":
        row = RowSize(question + solution, config.judge.max_new_tokens, pictures_of_orm)
        rows = config.judge.batch_size
        stages = []
        if trains_orm:
            stages.append("orm")
        if config.task != "orm":
            stages.append("distill")
        if evolves:
            stages.append("rounds")
        need = estimate_samples(judge, sequences=rows, prompts=rows, row=row)
        yield Job("judge", "ORM", "judge", ", ".join(stages), need)


# --- does it fit ------------------------------------------------------------------------------------------------------


def find_too_large(config: TrainConfig, device: Device) -> list[Job]:
    """Return the work that needs more memory than the device has."""
    usable = device.usable
    return [] if usable is None else [job for job in list_jobs(config, device) if job.need.on_device > usable]


def find_remedy(config: TrainConfig, device: Device) -> list[str] | None:
    """Return the nearest settings that make all work fit, as overrides; None if no tried setting does.

    The work that does not fit is changed job by job. The smallest changes come first: changes that only cost time, then
    shards, then adapters in place of full fine-tuning, then more devices.
    """
    config, chosen = deepcopy(config), dict[str, Any]()
    while too_large := find_too_large(config, device):
        changes = _find_changes(config, device, too_large[0])
        if changes is None:
            return None
        for key, value in changes:
            _change_setting(config, key, value)
            chosen[key] = value

    overrides = []
    # trainer=fsdp sets the strategy and its other settings.
    if chosen.pop("trainer.strategy", None) == "fsdp2":
        devices = chosen.pop("trainer.devices", config.trainer.devices)
        overrides += ["trainer=fsdp", f"trainer.devices={devices}"]
    for key, value in chosen.items():
        overrides.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    return overrides


def _find_changes(config: TrainConfig, device: Device, job: Job) -> list[Change] | None:
    """Return the smallest changes that make a job fit."""
    candidates = _propose_for_fit if job.work == "fit" else _propose_for_batches
    for changes in candidates(config, job.key):
        changed = deepcopy(config)
        for key, value in changes:
            _change_setting(changed, key, value)
        if job.identity not in {other.identity for other in find_too_large(changed, device)}:
            return changes
    return None


def _propose_for_batches(config: TrainConfig, section: str) -> Iterator[list[Change]]:
    """Yield smaller batches, the largest first."""
    size = getattr(config, section).batch_size
    while size > 1:
        size //= 2
        yield [(f"{section}.batch_size", size)]


def _propose_for_fit(config: TrainConfig, section: str) -> Iterator[list[Change]]:
    """Yield changes of a fit, the cheapest first."""
    fit: Fit = config.sft if section == "sft" else config.orm.fit
    trainer = config.trainer

    # 1) Only time: activation checkpointing, then smaller micro-batches, which must divide the batch.
    slower: list[Change] = []
    if not fit.activation_checkpointing:
        slower.append(("sft.activation_checkpointing", True))
        yield [*slower]
    rows = fit.micro_batch_size
    while rows > 1:
        rows = max(n for n in range(1, rows // 2 + 1) if fit.batch_size % n == 0)
        yield [*slower, (f"{section}.micro_batch_size", rows)]
    slowest = [*slower]
    if fit.micro_batch_size > 1:
        slowest.append((f"{section}.micro_batch_size", 1))

    # 2) Shards on the same devices.
    if trainer.devices > 1 and trainer.strategy != "fsdp2":
        for before in (slower, slowest):
            yield [*before, ("trainer.strategy", "fsdp2"), ("trainer.devices", trainer.devices)]

    # 3) Adapters, over weights in bfloat16 or in 4 bits.
    if fit.method == "full":
        yield [("sft.method", "lora")]
        yield [*slowest, ("sft.method", "lora")]
    if fit.method != "qlora" and trainer.strategy != "fsdp2" and trainer.accelerator != "cpu":
        yield [*slowest, ("sft.method", "qlora")]

    # 4) More devices.
    for devices in (2, 4, 8, 16, 32, 64):
        if devices > trainer.devices:
            yield [*slowest, ("trainer.strategy", "fsdp2"), ("trainer.devices", devices)]


def _change_setting(config: TrainConfig, key: str, value: Any) -> None:
    *sections, name = key.split(".")
    target: Any = config
    for section in sections:
        target = getattr(target, section)
    # The ORM's fit takes these two settings from the student's, unless the user set them for the ORM.
    shared = key in ("sft.method", "sft.activation_checkpointing")
    follows = shared and getattr(config.orm.fit, name) == getattr(config.sft, name)
    setattr(target, name, value)
    if follows:
        setattr(config.orm.fit, name, value)


def check_memory(config: TrainConfig, device: Device) -> None:
    """Raise ConfigError if work needs more memory than the device has. The message has settings that fit."""
    too_large = find_too_large(config, device)
    if not too_large:
        return
    lines = []
    for job in too_large:
        terms = ", ".join(f"{name} {format_bytes(count)}" for name, count in job.need.device.items() if count)
        lines.append(f"{job.key}: to {job.name} takes {format_bytes(job.need.on_device)} ({terms})")
    overrides = find_remedy(config, device)
    if overrides is None:
        lines.append(
            f"no setting that was tried makes it fit on {_describe_device(device)}; choose a smaller backbone or more "
            "devices"
        )
    else:
        lines.append(f"on {_describe_device(device)} it fits with: {' '.join(overrides)}")
    lines.append("these are estimates; trainer.device_memory=SIZE replaces the memory of the device")
    raise ConfigError("\n".join(lines))


# --- texts ------------------------------------------------------------------------------------------------------------


def _describe_device(device: Device) -> str:
    if device.total is None:
        return f"a {device.name} of unknown memory"
    if device.name == CPU:
        return f"{device.name}, {format_bytes(device.total)}"
    return f"a {device.name} of {format_bytes(device.total)} ({USABLE_SHARE:.0%} of it usable)"


def describe_run(config: TrainConfig, device: Device) -> str | None:
    """Return the line with the largest need of each kind of work; None if no architecture is known."""
    jobs = list_jobs(config, device)
    if not jobs:
        return None
    largest: dict[str, int] = {}  # bytes by kind of work
    for job in jobs:
        largest[job.work] = max(largest.get(job.work, 0), job.need.on_device)
    needs = ", ".join(f"{work} {format_bytes(count)}" for work, count in largest.items())
    host = max(job.need.on_host for job in jobs)
    return f"estimated memory on {_describe_device(device)}: {needs}; host RAM: {format_bytes(host)}"


def describe_plan(config: TrainConfig, device: Device) -> Iterator[str]:
    """Yield the lines of a plan: a table of all work, and settings that fit if it does not."""
    if not list_jobs(config, device):
        yield "memory: not estimated, the shape of the model is not known before it is opened"
        return
    yield f"memory on {_describe_device(device)}, estimated:"
    yield from (f"  {line}" for line in align_columns(_make_table(config, device)))
    question, solution = count_text_tokens(config)
    model = find_architecture(config.backbone)
    picture = "one picture of the most tokens, " if model is None or any(model.image_tokens) else ""
    yield (
        f"memory: rows of {picture}{question} tokens of question and {solution} of solution; "
        "host: host RAM for all ranks of a machine"
    )
    trainer = config.trainer
    if trainer.strategy == "fsdp2" and trainer.devices > 1:
        yield (
            f"memory: fits hold the model in {trainer.devices} shards; to sample and to judge, each device holds the "
            "whole model"
        )
    if device.total is None:
        yield "memory: no GPU was found here; trainer.device_memory=80GiB checks the plan for a GPU of this size"
    elif find_too_large(config, device):
        overrides = find_remedy(config, device)
        if overrides is None:
            yield "memory: does not fit, and no setting that was tried makes it fit; choose a smaller backbone"
        else:
            yield f"memory: does not fit, and a run would be refused; it fits with {' '.join(overrides)}"


def to_json(config: TrainConfig, device: Device) -> dict[str, Any]:
    """Return the plan's memory in bytes."""
    work = [
        {
            "work": job.work,
            "model": job.model,
            "settings": job.key,
            "stages": job.stages,
            "device": dict(job.need.device),
            "sum": job.need.on_device,
            "host": dict(job.need.host),
        }
        for job in list_jobs(config, device)
    ]
    fits = None if device.usable is None else not find_too_large(config, device)
    return {
        "device": device.name,
        "has": device.total,
        "usable": device.usable,
        "work": work,
        "fits": fits,
        "fits_with": find_remedy(config, device) if fits is False else None,
    }


def _make_table(config: TrainConfig, device: Device) -> list[tuple[str, ...]]:
    """Return a row per kind of work, after the row of headings."""
    jobs = list_jobs(config, device)
    terms: dict[str, None] = {}  # weights, gradients, ...: each name once, in order
    for job in jobs:
        terms |= dict.fromkeys(job.need.device)
    rows: list[tuple[str, ...]] = [("work", *terms, "sum", "fits", "host", "stages")]
    for job in jobs:
        amounts = (format_bytes(job.need.device[name]) if job.need.device.get(name) else "-" for name in terms)
        fits = "?"
        if device.usable is not None:
            fits = "yes" if job.need.on_device <= device.usable else "NO"
        host = format_bytes(job.need.on_host) if job.need.on_host else "-"
        rows.append((job.name, *amounts, format_bytes(job.need.on_device), fits, host, job.stages))
    return rows
