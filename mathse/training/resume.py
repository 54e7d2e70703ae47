"""Resume points: a killed training continues from its last point and makes the same bytes.

A point is a folder in the scratch folder of a stage: ``point_120/`` after step 120.

- Tensors are safetensors, which ``torch.distributed.checkpoint`` writes, each rank its shard. The default format keeps
  an index as a pickle, and pickles are never read here.
- ``progress.json`` has the numbers: the loops' counters, schedules, the optimiser's scalars.
- ``point.json`` is written last and has the size and SHA-256 of each file.

The folder is written under another name, flushed to the disk and renamed. Only then is the older point removed. So a
kill or a power cut leaves a whole point, and a point that a disk has damaged is found before it is used. A point has no
frozen weights: they still have the values that training began with.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn import Parameter

from mathse.errors import CheckpointError, DataError
from mathse.runs.store import publish_folder, read_json, sha256_file, write_json
from mathse.training import leaving, ranks, strategies
from mathse.training.monitor import TrainingMonitor

MANIFEST, PROGRESS = "point.json", "progress.json"
FIRST_FORM = "last.ckpt"  # the single file of earlier versions, written by rank 0
WEIGHT = "weight"  # a weight's tensor is "weight.NAME"; a tensor of the optimiser is "exp_avg.NAME"
FILE_BYTES = 2**30  # approximate size of a tensor file; a rank builds each file in memory before it writes it
_POINT = re.compile(r"point_(\d+)")

# This logger writes a line per tensor, and errors that are raised anyway.
logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class ResumePoint:
    """A resume point.

    Attributes:
        path: its folder, or the file of an earlier version.
        step: optimiser steps before it.
    """

    path: Path
    step: int


class ResumePoints(pl.Callback):
    """Writes resume points, and starts training from a point.

    A point is written every ``every`` optimiser steps and every ``minutes``, whichever comes first. A process that was
    asked to stop writes a point after the step and raises KeyboardInterrupt. Where a validation follows the step, the
    point is written after it, because Lightning does not validate again on resume.

    Args:
        scratch: folder of the points.
        every, minutes: None: never.
        validation_every: steps between validations; None: no validation.
        start: the point to start from; None: the first step.
        before: called on rank 0 before a point is written.
        monitor: its ``check_point`` is called on all ranks before a point is written and may raise. The point keeps
            its amounts.
    """

    def __init__(
        self,
        scratch: Path,
        every: int | None,
        minutes: float | None,
        validation_every: int | None,
        start: ResumePoint | None = None,
        before: Callable[[], None] = lambda: None,
        monitor: TrainingMonitor | None = None,
    ) -> None:
        self.scratch, self.every, self.validation_every = scratch, every, validation_every
        self.seconds = None if minutes is None else 60 * minutes
        self.start, self.before, self.monitor = start, before, monitor
        self._written_at = time.monotonic()  # seconds

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.start is not None:
            amounts = restore(self.start, trainer, module)
            if self.monitor is not None:
                self.monitor.load_state_dict(amounts)
        self._written_at = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        leaving.restore_sigterm()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self.validation_every is None or trainer.global_step % self.validation_every:
            self._save_if_due(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save_if_due(trainer, module)

    def _save_if_due(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        is_due = self.every is not None and trainer.global_step % self.every == 0
        is_late = self.seconds is not None and time.monotonic() - self._written_at >= self.seconds
        # Rank 0 decides for all ranks, because clocks differ and all ranks write together.
        is_late, is_asked = ranks.current().broadcast((is_late, leaving.is_asked()))
        if not (is_due or is_late or is_asked) or trainer.global_step >= trainer.max_steps:
            return
        amounts: dict[str, Any] = {}
        if self.monitor is not None:
            self.monitor.check_point(trainer, module)
            amounts = self.monitor.state_dict()
        if ranks.current().is_main:
            self.before()
        save(self.scratch, trainer, module, amounts)
        self._written_at = time.monotonic()
        if is_asked:
            raise KeyboardInterrupt


# --- writing ----------------------------------------------------------------------------------------------------------


def save(
    scratch: Path, trainer: pl.Trainer, module: pl.LightningModule, amounts: Mapping[str, Any] | None = None
) -> None:
    """Write the point of this step and remove older points. All ranks call it together.

    Args:
        amounts: the monitor's state.
    """
    strategies.reshard(module)
    tensors, scalars = _collect_state(trainer, module)
    unfinished = scratch / "point.partial"
    rank = ranks.current()
    if rank.is_main:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    rank.barrier()  # now the folder exists for all ranks
    storage = HuggingFaceStorageWriter(str(unfinished), _number_files(tensors), save_distributed=True)
    with _unwrap_errors():
        dcp.save(tensors, storage_writer=storage, process_group=rank.group, no_dist=rank.world_size == 1)

    # Each rank hashes its part of the files. Most of their names begin with the rank that wrote them.
    files = sorted(unfinished.glob("*.safetensors"))
    share = files[rank.rank * len(files) // rank.world_size : (rank.rank + 1) * len(files) // rank.world_size]
    records = rank.gather({file.name: _describe_file(file) for file in share})

    # Rank 0 adds the numbers and the list of files, and gives the folder its name.
    if rank.is_main:
        module_state: dict[str, Any] = {}  # JSON values that a step needs of the steps before it
        module.on_save_checkpoint(module_state)
        progress = {
            "loops": {"fit_loop": trainer.fit_loop.state_dict()},
            "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "lr": _list_rates(optimizer.param_groups for optimizer in trainer.optimizers),
            "scalars": scalars,
            "counted": amounts or {},
            "module": module_state,
        }
        write_json(unfinished / PROGRESS, progress)
        manifest: dict[str, Any] = {}
        for part in records:
            manifest |= part
        manifest[PROGRESS] = _describe_file(unfinished / PROGRESS)
        write_json(unfinished / MANIFEST, {"step": trainer.global_step, "files": manifest})
        point = scratch / f"point_{trainer.global_step}"
        publish_folder(unfinished, point)
        for older in _list_points(scratch):
            if older.path != point:
                _remove(older.path)
    rank.barrier()  # here, because in the next step a long wait would mean that a rank is stuck


def _collect_state(
    trainer: pl.Trainer, module: pl.LightningModule
) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """Return the weights that train and their optimiser state: tensors by name, and scalars by weight.

    Sharded weights are shards. A weight that no step has moved yet has no state.
    """
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, float]] = {}
    for name, parameter in _list_trained(module).items():
        tensors[f"{WEIGHT}.{name}"] = parameter.detach()
        state: Mapping[str, Any] = next((o.state[parameter] for o in trainer.optimizers if parameter in o.state), {})
        for key, value in state.items():
            if isinstance(value, Tensor) and value.ndim:
                tensors[f"{key}.{name}"] = value
            else:
                scalars.setdefault(name, {})[key] = float(value)
    return tensors, scalars


def _list_trained(module: pl.LightningModule) -> dict[str, Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def _list_rates(groups_of_optimizers: Iterable[Iterable[Mapping[str, Any]]]) -> list[list[float]]:
    return [[group["lr"] for group in groups] for groups in groups_of_optimizers]


def _number_files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of each tensor's file, from 1. Each rank has equally many files of about FILE_BYTES."""
    numbers: dict[str, int] = {}
    nbytes = 0
    for name, tensor in tensors.items():
        # The size of a sharded tensor is that of the whole tensor.
        nbytes += tensor.numel() * tensor.element_size() // ranks.current().world_size
        numbers[name] = 1 + nbytes // FILE_BYTES
    return numbers


def _describe_file(file: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(file), "bytes": file.stat().st_size}


@contextmanager
def _unwrap_errors() -> Iterator[None]:
    """Raise the error of a rank (also Ctrl-C, or a full disk) in place of the exception that dcp wraps around it."""
    try:
        yield
    except CheckpointException as e:
        if not e.failures:
            raise
        cause, _ = next(iter(e.failures.values()))
        raise cause from None


def _remove(path: Path) -> None:
    """Remove a point. It is renamed first, so that a kill leaves no incomplete point under its name."""
    if path.is_dir():
        aside = path.with_name(f".{path.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink()


# --- finding ----------------------------------------------------------------------------------------------------------


def find_newest(scratch: Path, say: Callable[[str], None]) -> ResumePoint | None:
    """Return the newest undamaged point, or None. Rank 0 calls it while the others follow.

    A damaged point is renamed, and ``say`` gets a sentence about it.
    """
    for point in sorted(_list_points(scratch), key=lambda point: point.step, reverse=True):
        damages = ranks.current().run_on_all(partial(_find_damage, point), _find_damage, point)
        damage = next((damage for damage in damages if damage is not None), None)
        if damage is None:
            return point if point.path.is_dir() else ResumePoint(point.path, _first_form(point.path)["global_step"])
        aside = point.path.with_name(f"damaged_{point.path.name}")
        if aside.exists():
            _remove(aside)
        point.path.rename(aside)
        say(
            f"{point.path}: this resume point is damaged ({damage}); it is renamed to {aside.name}, and training "
            "continues from the resume point before it, or starts from the first step"
        )
    return None


def _list_points(scratch: Path) -> list[ResumePoint]:
    """Return the points in a scratch folder, damaged points included. An earlier version's file comes last."""
    points = [ResumePoint(path, int(m[1])) for path in scratch.glob("point_*") if (m := _POINT.fullmatch(path.name))]
    file = scratch / FIRST_FORM  # its step is in the file
    return [*points, ResumePoint(file, 0)] if file.exists() else points


def _find_damage(point: ResumePoint) -> str | None:
    """Return a point's damage, or None. Each rank reads its share of the files."""
    if point.path.name == FIRST_FORM:
        try:
            _first_form(point.path)["global_step"]
        except (RuntimeError, UnpicklingError, EOFError, KeyError, ValueError) as e:
            return " ".join(str(e).split())[:200] or type(e).__name__
        return None
    try:
        manifest = read_json(point.path / MANIFEST)
        files, step = dict(manifest["files"]), manifest["step"]
        recorded = [(point.path / name, (record["sha256"], record["bytes"])) for name, record in sorted(files.items())]
    except (FileNotFoundError, DataError, KeyError, TypeError, ValueError):
        return f"{MANIFEST} is missing or cannot be read"
    if step != point.step or PROGRESS not in files:
        return f"{MANIFEST} is of another point"
    rank = ranks.current()
    for file, (sha256, nbytes) in recorded[rank.rank :: rank.world_size]:
        if not file.is_file():
            return f"{file.name} is missing"
        if file.stat().st_size != nbytes or sha256_file(file) != sha256:
            return f"{file.name} has other contents than recorded"
    return None


# --- reading ----------------------------------------------------------------------------------------------------------


def restore(point: ResumePoint, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    """Set weights, optimiser, schedules and loops to the state of a point, and return the monitor's state.

    All ranks call it together, after the strategy has set up the optimiser. Raises CheckpointError where the point is
    of a training of other weights.
    """
    restore_tensors = _restore_first_form if point.path.name == FIRST_FORM else _restore_shards
    progress = restore_tensors(point.path, trainer, module)
    trainer.fit_loop.load_state_dict(progress["loops"]["fit_loop"])
    for config, state in zip(trainer.lr_scheduler_configs, progress["schedulers"], strict=True):
        config.scheduler.load_state_dict(state)
    for optimizer, rates in zip(trainer.optimizers, progress["lr"], strict=True):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    if state := progress.get("module"):
        module.on_load_checkpoint(state)
    return dict(progress.get("counted", {}))  # absent in points of earlier versions


def _restore_shards(folder: Path, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    storage = HuggingFaceStorageReader(str(folder))
    stored = storage.read_metadata().state_dict_metadata
    trained = _list_trained(module)
    _expect_trained(trained, (key.removeprefix(f"{WEIGHT}.") for key in stored if key.startswith(f"{WEIGHT}.")))
    progress: dict[str, Any] = read_json(folder / PROGRESS)
    optimizer = trainer.optimizers[0]

    # dcp reads into existing tensors, each rank its slices.
    tensors: dict[str, Tensor] = {}
    for key, header in stored.items():
        kind, _, name = key.partition(".")
        parameter = trained[name]
        if kind == WEIGHT:
            tensors[key] = parameter.detach()
        else:
            empty = torch.zeros_like(parameter, dtype=header.properties.dtype)  # type: ignore[union-attr]
            tensors[key] = optimizer.state[parameter][kind] = empty
    for name, values in progress["scalars"].items():
        for key, value in values.items():
            optimizer.state[trained[name]][key] = torch.tensor(value, device=trained[name].device)
    rank = ranks.current()
    with _unwrap_errors():
        dcp.load(tensors, storage_reader=storage, process_group=rank.group, no_dist=rank.world_size == 1)
    return progress


def _expect_trained(trained: Mapping[str, Parameter], stored: Iterable[str]) -> None:
    if differing := sorted(set(trained) ^ set(stored)):
        lacks = "lacks" if differing[0] in trained else "has"
        raise CheckpointError(f"the resume point is of a training of other weights: it {lacks} {differing[0]}")


# --- the form of earlier versions -------------------------------------------------------------------------------------


def _first_form(file: Path) -> dict[str, Any]:
    """Read a Lightning checkpoint: weights (all of them, in a full fine-tuning), optimiser and loops in one file."""
    point: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return point


def _restore_first_form(file: Path, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    point = _first_form(file)
    weights, trained = point["state_dict"], _list_trained(module)
    _expect_trained(trained, weights if len(trained) < len(list(module.parameters())) else trained.keys() & weights)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(_place_like(weights[name], parameter))
    for optimizer, saved in zip(trainer.optimizers, point["optimizer_states"], strict=True):
        for group, saved_group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            # Keys are numbers, or names in a sharded training. The groups have the same order.
            for key, parameter in zip(saved_group["params"], group["params"], strict=True):
                for kind, value in saved["state"].get(key, {}).items():
                    whole = value.to(parameter.device)
                    optimizer.state[parameter][kind] = _place_like(whole, parameter) if value.ndim else whole
    rates = _list_rates(saved["param_groups"] for saved in point["optimizer_states"])
    return {"loops": point["loops"], "schedulers": point["lr_schedulers"], "lr": rates}


def _place_like(whole: Tensor, parameter: Parameter) -> Tensor:
    """Return a whole tensor on the parameter's device, in shards where the parameter is sharded."""
    whole = whole.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
    return whole.clone()  # the file is mapped into memory
