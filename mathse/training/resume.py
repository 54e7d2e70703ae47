"""Resume points of a fit: what a killed fit goes on from, to the same bytes.

A point is a folder in the stage's scratch folder: ``point_120/`` after step 120. The tensors are written by
``torch.distributed.checkpoint``, each rank its shard, as safetensors (the default format has its table of contents in a
pickle, and nothing here reads pickles). ``progress.json`` has the numbers: the loops' counters, schedules, scalars of
the optimiser. ``point.json`` is written last and names each file with its size and SHA-256.

The folder is written aside, flushed to the disk and renamed; only then does the older point go. So a kill or a power
cut leaves a whole point, and one that a disk has damaged is noticed before a number of it is used. Weights that the fit
leaves frozen are in no point: they are still those that it began with.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from mathse.training.watch import Watch

MANIFEST, PROGRESS = "point.json", "progress.json"
FIRST_FORM = "last.ckpt"  # the one file of earlier versions, written by rank 0
WEIGHT = "weight"  # tensors are named "weight.NAME" and, of the optimiser's state, "exp_avg.NAME"
FILE_BYTES = 2**30  # of a rank's file, about: each is put together in memory before it is written
_POINT = re.compile(r"point_(\d+)")

# it would log each tensor, and what a kill or a full disk raises, which is raised anyway
logging.getLogger("c10d-NullHandler-dcp_logger").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class ResumePoint:
    """``path``: a point's folder, or the file of an earlier version. ``step``: optimiser steps made."""

    path: Path
    step: int


class ResumePoints(pl.Callback):
    """Writes a resume point every ``every`` optimiser steps and every ``minutes``, whichever comes first (None: never),
    and begins the fit at ``start``. Told to leave, it writes one after the step and raises KeyboardInterrupt.

    Where a validation follows the step, after it: Lightning does not validate again on resume. Before a point is
    written ``watch.check_point`` is called on all ranks, which may raise, and ``before`` on rank 0. A point keeps what
    ``watch`` has counted until then.
    """

    def __init__(
        self,
        scratch: Path,
        every: int | None,
        minutes: float | None,
        validation_every: int | None,
        start: ResumePoint | None = None,
        before: Callable[[], None] = lambda: None,
        watch: Watch | None = None,
    ) -> None:
        self.scratch, self.every, self.validation_every = scratch, every, validation_every
        self.seconds = None if minutes is None else 60 * minutes
        self.start, self.before, self.watch = start, before, watch
        self.written = time.monotonic()

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.start is not None:
            counted = restore(self.start, trainer, module)
            if self.watch is not None:
                self.watch.load_state_dict(counted)
        self.written = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        leaving.restore_sigterm()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self.validation_every is None or trainer.global_step % self.validation_every:
            self._save_if_due(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._save_if_due(trainer, module)

    def _save_if_due(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        due = self.every is not None and trainer.global_step % self.every == 0
        late = self.seconds is not None and time.monotonic() - self.written >= self.seconds
        # Clocks differ, and all ranks write together or not at all.
        late, leaves = ranks.current().broadcast((late, leaving.is_asked()))
        if (due or late or leaves) and trainer.global_step < trainer.max_steps:
            counted: dict[str, Any] = {}
            if self.watch is not None:
                self.watch.check_point(trainer, module)
                counted = self.watch.state_dict()
            if ranks.current().is_main:
                self.before()
            save(self.scratch, trainer, module, counted)
            self.written = time.monotonic()
            if leaves:
                raise KeyboardInterrupt


# --- writing ----------------------------------------------------------------------------------------------------------


def save(
    scratch: Path, trainer: pl.Trainer, module: pl.LightningModule, counted: Mapping[str, Any] | None = None
) -> None:
    """Write the point of this step, and remove older ones. All ranks call it together."""
    strategies.reshard(module)
    tensors, scalars = _state(trainer, module)
    unfinished = scratch / "point.partial"
    rank = ranks.current()
    if rank.is_main:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
    rank.barrier()  # the folder is there
    storage = HuggingFaceStorageWriter(str(unfinished), _files(tensors), save_distributed=True)
    with _own_errors():
        dcp.save(tensors, storage_writer=storage, process_group=rank.group, no_dist=rank.world_size == 1)
    hashes = rank.gather(_records(unfinished, rank.rank, rank.world_size))
    if rank.is_main:
        _publish(scratch, unfinished, trainer, scalars, hashes, counted or {})
    rank.barrier()  # here, and not in the next step, where a long wait would mean that a rank is stuck


def _publish(
    scratch: Path,
    unfinished: Path,
    trainer: pl.Trainer,
    scalars: Mapping[str, Mapping[str, float]],
    hashes: Sequence[Mapping[str, Any]],
    counted: Mapping[str, Any],
) -> None:
    """On rank 0, once all tensors are written: the numbers, the list of files, and the folder's name; older points go.
    ``hashes``: by rank, a record a file."""
    progress = {
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "lr": [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers],
        "scalars": scalars,
        "counted": counted,
    }
    write_json(unfinished / PROGRESS, progress)
    files = {name: record for part in hashes for name, record in part.items()}
    files[PROGRESS] = _record(unfinished / PROGRESS)
    write_json(unfinished / MANIFEST, {"step": trainer.global_step, "files": files})
    point = scratch / f"point_{trainer.global_step}"
    publish_folder(unfinished, point)
    for older in _candidates(scratch):
        if older.path != point:
            _remove(older.path)


def _state(trainer: pl.Trainer, module: pl.LightningModule) -> tuple[dict[str, Tensor], dict[str, dict[str, float]]]:
    """What trains and its optimiser's state by name: tensors (shards, where the weights are sharded), and the scalars
    by parameter. A parameter that no step has moved yet has no state."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, float]] = {}
    for name, parameter in _trained(module):
        tensors[f"{WEIGHT}.{name}"] = parameter.detach()
        for key, value in _optimizer_state(trainer, parameter).items():
            if isinstance(value, Tensor) and value.ndim:
                tensors[f"{key}.{name}"] = value
            else:
                scalars.setdefault(name, {})[key] = float(value)
    return tensors, scalars


def _trained(module: pl.LightningModule) -> Iterator[tuple[str, Parameter]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def _optimizer_state(trainer: pl.Trainer, parameter: Parameter) -> Mapping[str, Any]:
    return next((o.state[parameter] for o in trainer.optimizers if parameter in o.state), {})


def _files(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """The number of each tensor's file, from 1: files of about FILE_BYTES a rank, equally many on all ranks."""
    numbers: dict[str, int] = {}
    nbytes = 0
    for name, tensor in tensors.items():
        nbytes += (
            tensor.numel() * tensor.element_size() // ranks.current().world_size
        )  # of the whole tensor, where it is sharded
        numbers[name] = 1 + nbytes // FILE_BYTES
    return numbers


def _record(file: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(file), "bytes": file.stat().st_size}


def _records(folder: Path, rank: int, size: int) -> dict[str, dict[str, Any]]:
    """A rank's part of the tensor files. Their names begin with the rank that wrote them, so mostly its own."""
    files = sorted(folder.glob("*.safetensors"))
    return {file.name: _record(file) for file in files[rank * len(files) // size : (rank + 1) * len(files) // size]}


class _own_errors:  # noqa: N801 - used as a context
    """dcp wraps what a rank raised, Ctrl-C and a full disk included; it is raised as what it is."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if isinstance(error, CheckpointException) and error.failures:
            cause, _ = next(iter(error.failures.values()))
            raise cause from None


def _remove(path: Path) -> None:
    """Remove a point; under another name first, so that a kill leaves nothing that looks like one."""
    if path.is_dir():
        aside = path.with_name(f".{path.name}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        shutil.rmtree(aside)
    else:
        path.unlink()


# --- finding ----------------------------------------------------------------------------------------------------------


def newest(scratch: Path, say: Callable[[str], None]) -> ResumePoint | None:
    """The last good point, or None. A damaged one is renamed and said. Rank 0 calls it while the others follow."""
    for point in sorted(_candidates(scratch), key=lambda candidate: candidate.step, reverse=True):
        damages = ranks.current().run_on_all(partial(_damage, point), _damage, point)
        damage = next((damage for damage in damages if damage is not None), None)
        if damage is None:
            return point if point.path.is_dir() else ResumePoint(point.path, _first_form(point.path)["global_step"])
        aside = point.path.with_name(f"damaged_{point.path.name}")
        if aside.exists():
            _remove(aside)
        point.path.rename(aside)
        say(
            f"{point.path}: this resume point is damaged ({damage}); it is set aside as {aside.name}, and the fit goes "
            "on from the one before it, or begins anew"
        )
    return None


def _candidates(scratch: Path) -> list[ResumePoint]:
    """The points in a scratch folder, good or not. An earlier version's file says its step inside; it comes last."""
    points = [ResumePoint(path, int(m[1])) for path in scratch.glob("point_*") if (m := _POINT.fullmatch(path.name))]
    file = scratch / FIRST_FORM
    return [*points, ResumePoint(file, 0)] if file.exists() else points


def _damage(point: ResumePoint) -> str | None:
    """What is wrong with a point, as far as this rank looks: each reads its share of the files."""
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
        return f"{MANIFEST} is not this point's"
    rank = ranks.current()
    for file, (sha256, nbytes) in recorded[rank.rank :: rank.world_size]:
        if not file.is_file():
            return f"{file.name} is missing"
        if file.stat().st_size != nbytes or sha256_file(file) != sha256:
            return f"{file.name} has other contents than recorded"
    return None


# --- reading ----------------------------------------------------------------------------------------------------------


def restore(point: ResumePoint, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    """Give module, optimiser, schedules and loops the state of a point, and the caller what was counted until then. All
    ranks call it together, after the strategy has set the optimiser up.

    Raises CheckpointError where the point is of a fit that trains other weights.
    """
    progress = (_restore_first_form if point.path.name == FIRST_FORM else _restore_shards)(point.path, trainer, module)
    trainer.fit_loop.load_state_dict(progress["loops"]["fit_loop"])
    for config, state in zip(trainer.lr_scheduler_configs, progress["schedulers"], strict=True):
        config.scheduler.load_state_dict(state)
    for optimizer, rates in zip(trainer.optimizers, progress["lr"], strict=True):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    return dict(progress.get("counted", {}))  # earlier versions counted nothing


def _restore_shards(folder: Path, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    storage = HuggingFaceStorageReader(str(folder))
    stored = storage.read_metadata().state_dict_metadata
    trained = dict(_trained(module))
    _expect_trained(trained, (key.removeprefix(f"{WEIGHT}.") for key in stored if key.startswith(f"{WEIGHT}.")))
    progress: dict[str, Any] = read_json(folder / PROGRESS)
    optimizer = trainer.optimizers[0]
    # dcp reads into tensors that are there, each rank the slices that it holds
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
    with _own_errors():
        dcp.load(tensors, storage_reader=storage, process_group=rank.group, no_dist=rank.world_size == 1)
    return progress


def _expect_trained(trained: Mapping[str, Parameter], stored: Iterable[str]) -> None:
    if other := sorted(set(trained) ^ set(stored)):
        lacks = "lacks" if other[0] in trained else "has"
        raise CheckpointError(f"the resume point is of a fit that trains other weights: it {lacks} {other[0]}")


# --- the form of earlier versions -------------------------------------------------------------------------------------


def _first_form(file: Path) -> dict[str, Any]:
    """A Lightning checkpoint: weights (all of them, in a full fit), optimiser and loops in one file."""
    point: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return point


def _restore_first_form(file: Path, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    point = _first_form(file)
    weights, trained = point["state_dict"], dict(_trained(module))
    _expect_trained(trained, weights if len(trained) < len(list(module.parameters())) else trained.keys() & weights)
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(_laid_out(weights[name], parameter))
    for optimizer, saved in zip(trainer.optimizers, point["optimizer_states"], strict=True):
        for group, saved_group in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            # by number, or by name where the fit was sharded; the groups have the same order
            for key, parameter in zip(saved_group["params"], group["params"], strict=True):
                for kind, value in saved["state"].get(key, {}).items():
                    whole = value.to(parameter.device)
                    optimizer.state[parameter][kind] = _laid_out(whole, parameter) if value.ndim else whole
    rates = [[group["lr"] for group in saved["param_groups"]] for saved in point["optimizer_states"]]
    return {"loops": point["loops"], "schedulers": point["lr_schedulers"], "lr": rates}


def _laid_out(whole: Tensor, parameter: Parameter) -> Tensor:
    """A whole tensor on the parameter's device, in shards where the parameter is."""
    whole = whole.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
    return whole.clone()  # the file is mapped into memory
