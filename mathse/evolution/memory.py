"""How much memory each kind of work of a run takes, whether it fits, and if not, the nearest settings that do.

A run says so in its first line, ``mathse plan`` in a table, and what cannot fit is refused before anything is
downloaded, sampled or paid. All of it is estimated for the model without numbers (mathse/models/needs.py).
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

from mathse.config.backbones import TinyBackboneConfig
from mathse.config.fits import FitConfig
from mathse.config.generators import HFGeneratorConfig
from mathse.config.schema import TrainConfig, needs_orm
from mathse.config.sizes import parse_memory_size
from mathse.errors import ConfigError
from mathse.models.needs import USABLE, Need, RowSize, architecture_of, in_bytes, of_fit, of_sampling
from mathse.reporting.progress.wording import aligned

# Tokens of the longest texts that are reckoned with, beside a picture of the most tokens that the backbone allows. A
# solution is as long as the student may write one, a verdict as the ORM may.
QUESTION, COMPACT_QUESTION, SOLUTION, FEEDBACK = 256, 32, 768, 128
Work = Literal["fit", "sample", "evaluate", "judge"]


@dataclass(frozen=True)
class Job:
    """A kind of work on one model: all stages that do it take the same.

    ``stages`` says which these are; ``key`` is the section whose settings decide (sft, orm.fit, generator, ...).
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
        """The same whatever the settings are."""
        return self.name, self.key


@dataclass(frozen=True)
class Device:
    """What the work happens on. ``total`` bytes of memory; None: not known."""

    name: str
    total: int | None

    @property
    def usable(self) -> int | None:
        if self.total is None:
            return None
        # a CPU's memory is shared with the page cache and may swap: only what exceeds all of it is refused
        return self.total if self.name == CPU else round(USABLE * self.total)


CPU = "this machine"


def device_of(config: TrainConfig) -> Device:
    """The device that the settings name, and its memory: ``trainer.device_memory``, or what the driver says.

    Asks nvidia-smi, not torch, which would take memory of the GPU; the smallest GPU counts for all.
    """
    trainer = config.trainer
    gpus = [] if trainer.accelerator == "cpu" else _gpus()
    stated = parse_memory_size(trainer.device_memory) if trainer.device_memory is not None else None
    if trainer.accelerator == "gpu" or gpus or (stated is not None and trainer.accelerator == "auto"):
        return Device("GPU", stated if stated is not None else min(gpus, default=None))
    return Device(CPU, stated if stated is not None else physical_memory())


def _gpus() -> list[int]:
    """Bytes of each GPU's memory as nvidia-smi has them; none where there is no NVIDIA driver."""
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = done.stdout.split() if done.returncode == 0 else []
    return [int(line) * 2**20 for line in lines if line.isdigit()]


def physical_memory() -> int | None:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


# --- the work of a run ------------------------------------------------------------------------------------------------


def jobs(config: TrainConfig, device: Device) -> list[Job]:
    """The work of a run with these settings on models whose architecture is known. The memory of an engine behind a
    server is not counted. Raises ConfigError where a fit would freeze more layers than there are."""
    expect_layers_that_train(config)
    return list(_jobs(config, device))


def expect_layers_that_train(config: TrainConfig) -> None:
    """Raise ConfigError for a fit that would freeze more layers than there are."""
    fits: list[tuple[str, FitConfig, Any]] = [("sft", config.sft, config.backbone)]
    if needs_orm(config):
        fits.append(("orm.fit", config.orm.fit, config.orm.backbone or config.backbone))
    for path, fit, section in fits:
        model = architecture_of(section) if fit.freeze_layers else None
        if model is not None and fit.freeze_layers >= model.decoder.layers:
            raise ConfigError(
                f"{path}.freeze_layers = {fit.freeze_layers}: the language model has {model.decoder.layers} layers, "
                f"and at least the last one trains; pass {model.decoder.layers - 1} or less"
            )


def texts(config: TrainConfig) -> tuple[int, int]:
    """Tokens of a question and of a solution that are reckoned with."""
    compact = isinstance(config.backbone, TinyBackboneConfig)  # its tokenizer has a token for each word of its few
    longest = getattr(config.generator, "max_new_tokens", SOLUTION)
    return COMPACT_QUESTION if compact else QUESTION, min(SOLUTION, longest)


def _jobs(config: TrainConfig, device: Device) -> Iterator[Job]:
    trainer, orm = config.trainer, config.orm
    student = architecture_of(config.backbone)
    judge = student if orm.backbone is None else architecture_of(orm.backbone)
    asks_orm = needs_orm(config)
    trains_orm = asks_orm and config.judge.checkpoint is None
    weak = trains_orm and orm.train is None and any(orm.students)
    solver = trains_orm and orm.solver_steps > 0
    question, solution = texts(config)
    solved = RowSize(question, solution)
    on_gpu = device.name != CPU
    fitting = partial(of_fit, trainer=trainer, memory=device.total if on_gpu else None)
    sampling = partial(of_sampling, trainer=trainer, on_gpu=on_gpu)

    # --- fits ---
    fits = {"evolve": "distill, rounds, final", "sft": "sft"}.get(config.task)
    stages = [*(["orm/student_*"] if weak else []), *(["orm/solver"] if solver and orm.backbone is None else [])]
    stages += [fits] if fits is not None else []
    if student is not None and stages:
        yield Job("fit", "student", "sft", ", ".join(stages), fitting(student, config.sft, row=solved))
    if judge is not None and solver and orm.backbone is not None:
        yield Job("fit", "ORM", "sft", "orm/solver", fitting(judge, config.sft, row=solved))
    seen = int(orm.see_image)
    if judge is not None and trains_orm:
        labelled = RowSize(question + solution, min(FEEDBACK, config.judge.max_new_tokens), seen)
        yield Job("fit", "ORM", "orm.fit", "orm", fitting(judge, orm.fit, row=labelled))

    # --- answers and verdicts ---
    rounds = ["rounds"] if config.task == "evolve" else []
    sampled = [*(["orm/student_*"] if trains_orm and orm.train is None else []), *rounds]
    if student is not None and isinstance(config.generator, HFGeneratorConfig):
        if sampled:
            samples = max(config.evolution.samples_per_problem if rounds else 1, orm.samples_per_problem if weak else 1)
            row = RowSize(question, config.generator.max_new_tokens)
            sequences = config.generator.batch_size
            need = sampling(student, sequences=sequences, prompts=max(1, sequences // samples), row=row)
            yield Job("sample", "student", "generator", ", ".join(sampled), need)
        row, rows = RowSize(question, config.evaluation.max_new_tokens), config.evaluation.batch_size
        evaluated = ", ".join(["base", *([fits] if fits is not None else [])])
        need = sampling(student, sequences=rows, prompts=rows, row=row)
        yield Job("evaluate", "student", "evaluation", evaluated, need)
    if judge is not None and asks_orm and config.judge.server is None and config.judge.engine == "hf":
        row, rows = RowSize(question + solution, config.judge.max_new_tokens, seen), config.judge.batch_size
        judged = [*(["orm"] if trains_orm else []), *(["distill"] if config.task != "orm" else []), *rounds]
        yield Job("judge", "ORM", "judge", ", ".join(judged), sampling(judge, sequences=rows, prompts=rows, row=row))


# --- does it fit ------------------------------------------------------------------------------------------------------


def too_large(config: TrainConfig, device: Device) -> list[Job]:
    """The work that needs more than the device has."""
    usable = device.usable
    return [] if usable is None else [job for job in jobs(config, device) if job.need.on_device > usable]


Change = tuple[str, Any]  # key path, value


def remedy(config: TrainConfig, device: Device) -> list[str] | None:
    """The nearest settings with which all work fits, as overrides; None where none that is tried does.

    Each kind of work that does not fit is taken in turn, and changes are tried from the smallest on: those that only
    cost time, then shards, then adapters instead of all weights, then more devices.
    """
    config, chosen = deepcopy(config), dict[str, Any]()
    while large := too_large(config, device):
        job = large[0]
        changes = _first_that_fits(config, device, job)
        if changes is None:
            return None
        for key, value in changes:
            _set(config, key, value)
            chosen[key] = value
    if chosen.pop("trainer.strategy", None) == "fsdp2":
        devices = chosen.pop("trainer.devices", config.trainer.devices)
        return ["trainer=fsdp", f"trainer.devices={devices}", *(_override(*item) for item in chosen.items())]
    return [_override(*item) for item in chosen.items()]


def _override(key: str, value: Any) -> str:
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _first_that_fits(config: TrainConfig, device: Device, job: Job) -> list[Change] | None:
    candidates = _for_fits if job.work == "fit" else _for_batches
    for changes in candidates(config, job.key):
        tried = deepcopy(config)
        for key, value in changes:
            _set(tried, key, value)
        if job.identity not in {other.identity for other in too_large(tried, device)}:
            return changes
    return None


def _for_batches(config: TrainConfig, section: str) -> Iterator[list[Change]]:
    """Smaller batches, as large as possible."""
    size = getattr(config, section).batch_size
    while size > 1:
        size //= 2
        yield [(f"{section}.batch_size", size)]


def _for_fits(config: TrainConfig, section: str) -> Iterator[list[Change]]:
    fit: FitConfig = config.sft if section == "sft" else config.orm.fit
    slower: list[Change] = []
    if not fit.activation_checkpointing:
        slower.append(("sft.activation_checkpointing", True))
        yield [*slower]
    rows = fit.micro_batch_size
    while rows > 1:
        rows = max(n for n in range(1, rows // 2 + 1) if fit.batch_size % n == 0)
        yield [*slower, (f"{section}.micro_batch_size", rows)]
    least: list[Change] = [*slower, *([(f"{section}.micro_batch_size", 1)] if fit.micro_batch_size > 1 else [])]
    trainer = config.trainer
    if trainer.devices > 1 and trainer.strategy != "fsdp2":
        for before in (slower, least):
            yield [*before, ("trainer.strategy", "fsdp2"), ("trainer.devices", trainer.devices)]
    if fit.method == "full":
        yield [("sft.method", "lora")]
        yield [*least, ("sft.method", "lora")]
    if fit.method != "qlora" and trainer.strategy != "fsdp2" and trainer.accelerator != "cpu":
        yield [*least, ("sft.method", "qlora")]
    for devices in (2, 4, 8, 16, 32, 64):
        if devices > trainer.devices:
            yield [*least, ("trainer.strategy", "fsdp2"), ("trainer.devices", devices)]


FOLLOWED = ("sft.method", "sft.activation_checkpointing")  # the ORM's fit has the student's value, unless set apart


def _set(config: TrainConfig, key: str, value: Any) -> None:
    *sections, name = key.split(".")
    target: Any = config
    for section in sections:
        target = getattr(target, section)
    follows = key in FOLLOWED and getattr(config.orm.fit, name) == getattr(config.sft, name)
    setattr(target, name, value)
    if follows:
        setattr(config.orm.fit, name, value)


def refuse_what_cannot_fit(config: TrainConfig, device: Device) -> None:
    """Raises ConfigError for work that needs more memory than the device has, with settings that fit."""
    large = too_large(config, device)
    if not large:
        return
    lines = [f"{job.key}: to {job.name} takes {in_words(job.need)}" for job in large]
    settings = remedy(config, device)
    if settings is None:
        lines.append(f"nothing that was tried makes it fit on {_of(device)}; choose a smaller backbone or more devices")
    else:
        lines.append(f"on {_of(device)} it fits with: {' '.join(settings)}")
    lines.append("these are estimates; trainer.device_memory=SIZE puts another number in the place of the device's own")
    raise ConfigError("\n".join(lines))


# --- in words ---------------------------------------------------------------------------------------------------------


def in_words(need: Need) -> str:
    """ "61.2 GiB (weights 30.9 GiB, ...)"."""
    terms = ", ".join(f"{name} {in_bytes(count)}" for name, count in need.device.items() if count)
    return f"{in_bytes(need.on_device)} ({terms})"


def _of(device: Device) -> str:
    if device.total is None:
        return f"a {device.name} of unknown memory"
    if device.name == CPU:
        return f"{device.name}, {in_bytes(device.total)}"
    return f"a {device.name} of {in_bytes(device.total)}, of which {USABLE:.0%} are counted on"


def first_line(config: TrainConfig, device: Device) -> str | None:
    """What a run takes at most, in one line; None where no architecture is known."""
    work = jobs(config, device)
    if not work:
        return None
    largest: dict[str, int] = {}
    for job in work:
        largest[job.work] = max(largest.get(job.work, 0), job.need.on_device)
    each = ", ".join(f"{name} {in_bytes(count)}" for name, count in largest.items())
    host = max(job.need.on_host for job in work)
    return f"estimated memory on {_of(device)}: {each}; of the machine's own: {in_bytes(host)}"


def described(config: TrainConfig, device: Device) -> Iterator[str]:
    """The lines of a plan: a table of all work with the sums, and what would make it fit where it does not."""
    if not jobs(config, device):
        yield "memory: not estimated, the shape of the model is not known before it is opened"
        return
    yield f"memory on {_of(device)}, estimated:"
    yield from (f"  {line}" for line in aligned(table(config, device)))
    question, solution = texts(config)
    model = architecture_of(config.backbone)
    picture = "one picture of the most tokens, " if model is None or any(model.image_tokens) else ""
    yield (
        f"memory: rows of {picture}{question} tokens of question and {solution} of solution; "
        "host: of the machine, with all its ranks"
    )
    trainer = config.trainer
    if trainer.strategy == "fsdp2" and trainer.devices > 1:
        yield (
            f"memory: fits lie in {trainer.devices} shards; to sample and to judge, each device holds the whole model"
        )
    if device.total is None:
        yield "memory: no GPU was found here; trainer.device_memory=80GiB says what fits on such"
    elif too_large(config, device):
        settings = remedy(config, device)
        if settings is None:
            yield "memory: does not fit, and no setting that was tried makes it fit; choose a smaller backbone"
        else:
            yield f"memory: does not fit, and a run would be refused; it fits with {' '.join(settings)}"


def to_json(config: TrainConfig, device: Device) -> dict[str, Any]:
    """The same as numbers, in bytes."""
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
        for job in jobs(config, device)
    ]
    fits = None if device.usable is None else not too_large(config, device)
    fitting = remedy(config, device) if fits is False else None
    return {"device": device.name, "has": device.total, "usable": device.usable, "work": work, "fits": fits,
            "fits_with": fitting}  # fmt: skip


def table(config: TrainConfig, device: Device) -> list[tuple[str, ...]]:
    """A row for each kind of work, with the sums, its heading first."""
    work = jobs(config, device)
    terms = list(dict.fromkeys(name for job in work for name in job.need.device))
    cells: list[tuple[str, ...]] = [("work", *terms, "sum", "fits", "host", "stages")]
    usable = device.usable
    for job in work:
        amounts = (in_bytes(job.need.device[name]) if job.need.device.get(name) else "-" for name in terms)
        fits = "?" if usable is None else "yes" if job.need.on_device <= usable else "NO"
        host = in_bytes(job.need.on_host) if job.need.on_host else "-"
        cells.append((job.name, *amounts, in_bytes(job.need.on_device), fits, host, job.stages))
    return cells
