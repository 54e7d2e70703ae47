"""One fit: a fresh Trainer, resumable from its last checkpoint, ending in a folder that plain transformers opens.

A second ``fit`` on the same Trainer trains no step and reports success, and callbacks keep state between fits; so each
fit builds both anew.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from mathse.config.evolution import DPOConfig
from mathse.config.fits import FitConfig
from mathse.config.schema import TrainerConfig
from mathse.errors import MathSEError
from mathse.models import layer_states, memory, modes, reference
from mathse.models.base import Backbone
from mathse.models.feature_store import FeatureStore
from mathse.models.flops import forward_flops, kept_states_flops, model_name, picture_work
from mathse.models.layer_states import LayerStates
from mathse.models.model_spec import ModelSpec, close_shared, spec_of
from mathse.models.needs import frozen_parts, whole_gradients_fit
from mathse.models.operations import Amounts
from mathse.models.placement import META
from mathse.models.precision import cpu_prefers_bfloat16, pixels_of, precision_of
from mathse.models.row import Row, paths_of
from mathse.models.tower_features import pictures_of
from mathse.runs import meter
from mathse.runs.layout import CHECKPOINT, REFERENCE, SCRATCH, TRAIN_LOG, TRAINED
from mathse.runs.store import publish_folder, write_json, write_jsonl
from mathse.seeds import derive
from mathse.training import leaving, ranks, resume, strategies
from mathse.training.allocator import give_back_freed_memory
from mathse.training.batches import EpochStream, MixedStream, OnceStream, Stream, length
from mathse.training.divergence import Divergence
from mathse.training.dpo import DPOModule, PairData, with_reference
from mathse.training.loader import StepData, StepLoader
from mathse.training.orm import ORMModule
from mathse.training.sft import SFTModule
from mathse.training.watch import Watch, is_logged

PREFERRING = ("margin", "preferred")  # what DPO's steps say beside their loss


@dataclass(frozen=True)
class FitJob:
    """What to fit: ``rows`` (or another ``stream`` over them), validated on ``val_rows``, in a stage's ``folder``."""

    folder: Path
    rows: Sequence[Row]
    seed: int
    settings: FitConfig
    trainer: TrainerConfig
    val_rows: Sequence[Row] = ()
    stream: Stream | None = None
    status_tokens: tuple[int, int] | None = None  # an ORM's fit
    dpo: DPOConfig | None = None  # a fit whose rows are pairs; batch sizes then count pairs
    kept_in: torch.dtype | None = None  # of the checkpoint after a full fit; None: as the model was opened
    tower_features: bool = False  # kept features stand for pictures; ``fit`` decides that
    kept: LayerStates | None = None  # hidden states that stand for all frozen layers; ``fit`` decides that too
    reduced_once: bool = True  # sharded gradients, in a step's last pass; ``fit`` decides that

    @property
    def steps(self) -> int:
        return self.settings.steps(len(self.rows))

    @property
    def validated_rows(self) -> Sequence[Row]:
        return self.val_rows[: self.settings.val_rows]

    @property
    def shown_rows(self) -> Sequence[Row]:
        """With both paths of a pair, as the rows that a model reads."""
        return [path for row in (*self.rows, *self.validated_rows) for path in paths_of(row)]

    @property
    def validation_every(self) -> int | None:
        """Steps between validations; None without rows to validate on."""
        return min(self.settings.val_every, self.steps) if self.validated_rows else None


def fit(
    backbone: Backbone,
    job: FitJob,
    callbacks: Sequence[pl.Callback] = (),
    announce: Callable[[memory.Trained], None] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Fit ``backbone.model`` in place and return the folder of the finished checkpoint.

    Where ``job.folder / "checkpoint"`` exists the fit is done and nothing is trained. Without a row it is an error:
    the caller decides what a stage without rows means. ``announce`` is called with what will train, before the first
    step; ``say`` with a sentence on a resume point or a log that is damaged, and where a frozen tower's features cannot
    be kept.
    """
    done, stage = job.folder / CHECKPOINT, meter.current()
    if done.exists():
        if stage is not None:
            stage.expect_settled(done)
        return done
    if not job.rows:
        raise MathSEError(f"no row to fit on in {job.folder}")
    (job.folder / SCRATCH).mkdir(parents=True, exist_ok=True)
    job = replace(job, trainer=replace(job.trainer, precision=precision_of(job.trainer)))  # of all ranks, by this one
    before = _prepare(backbone, job)
    paths = 1 if job.dpo is None else 2  # of a row

    # What trains, what is frozen, and the memory it is expected to take.
    settings = job.settings
    longest = backbone.encode([max(job.rows, key=length)])[0]
    estimated = memory.estimate(
        backbone,
        longest,
        paths * settings.rows_at_once(paths * len(longest.ids)),
        job.trainer.precision,
        settings.activation_checkpointing,
        shards=job.trainer.devices if job.trainer.strategy == "fsdp2" else 1,
    )
    parts = memory.part_rows(backbone, settings.optimizer.lr, settings.vision_lr_scale)
    trained = memory.Trained(settings.method, job.trainer.precision, parts, estimated)
    write_json(job.folder / TRAINED, trained.to_json())
    if announce is not None:
        announce(trained)

    # What the model gives each path of a pair before it has learnt from them.
    if job.dpo is not None:
        device, precision = device_of(job.trainer), job.trainer.precision
        at_once = settings.rows_at_once(paths * len(longest.ids))
        file = job.folder / REFERENCE
        pairs = with_reference(backbone, job.rows, file, device=device, precision=precision, at_once=at_once)
        job = replace(job, rows=pairs)

    # Whether whole gradients fit beside all that until a step's last pass. Rank 0 decides for all.
    if (device := device_of(job.trainer)).type == "cuda":
        whole = memory.SINGLE * sum(memory.numel(p) for p in backbone.model.parameters() if p.requires_grad)
        has = torch.cuda.get_device_properties(device).total_memory
        job = replace(job, reduced_once=whole_gradients_fit(estimated.total, whole, has))

    # Whether the frozen layers' hidden states can be kept; with them no tower runs either.
    if settings.freeze_layers and job.steps * settings.batch_size > len(job.rows):  # else no row is seen twice
        kept = _kept_states(backbone, job)
        if isinstance(kept, str):
            say(
                f"{job.folder.name}: the lower {settings.freeze_layers} layers are frozen, and run in each step all "
                f"the same: their hidden states cannot be kept, because {kept}"
            )
        else:
            job = replace(job, kept=kept)

    # Whether the frozen tower's features fit into their store. Rows that are made up on the way show other pictures.
    features = backbone.tower_features
    usable = features is not None and job.kept is None and set(features.parts) <= set(frozen_parts(settings))
    if features is not None and usable and settings.tower_features and not isinstance(job.stream, MixedStream):
        refusal = features.prepare(backbone, job.shown_rows, device_of(job.trainer), job.trainer.precision)
        job = replace(job, tower_features=refusal is None)
        if refusal is not None:
            say(f"{job.folder.name}: {refusal}")

    before_steps = list(_spent_before(backbone, job)) if stage is not None else []

    # The steps, from the last resume point on, on all ranks.
    start = resume.newest(job.folder / SCRATCH, say) if strategies.keeps_resume_points(job.trainer) else None
    log = TrainLog(job.folder / TRAIN_LOG, start.step if start else 0, say)
    with closing(log):
        lead = partial(_train, backbone, job, start, log, callbacks)
        spent, *_ = ranks.current().run_on_all(lead, _train_along, spec_of(backbone), job, start)
    if stage is not None:  # before the checkpoint is there: a kill leaves both, or the fit is resumed
        stage.settle(done, [*before_steps, *spent])
    gc.collect()  # Trainer and module refer to each other, and hold the optimiser: gone before the export
    give_back_freed_memory()
    save_checkpoint(backbone, done, lambda folder: modes.finish(backbone, settings, before, folder, done, job.kept_in))
    if leaving.is_asked():  # in the last step
        raise KeyboardInterrupt
    return done


def _prepare(backbone: Backbone, job: FitJob) -> modes.State:
    return modes.prepare(backbone, job.settings, job.trainer.precision, derive(job.seed, "adapter") % 2**63)


def _kept_states(backbone: Backbone, job: FitJob) -> LayerStates | str:
    """The hidden states below the first layer that trains, or why they cannot be kept."""
    hardware = job.trainer
    if isinstance(job.stream, MixedStream):
        return "rows are made up on the way"
    if ranks.current().world_size > 1 and strategies.pass_together(hardware):
        return f"trainer.strategy = {hardware.strategy!r} has the layers in pieces"
    store = FeatureStore.of(hardware.tower_features_folder, hardware.tower_features_gb)
    before = backbone.device
    backbone.to(device_of(hardware))
    try:
        return layer_states.prepare(backbone, job.shown_rows, store, hardware.precision)
    finally:
        backbone.to(before)


def _spent_before(backbone: Backbone, job: FitJob) -> Iterator[meter.Debit]:
    """Work before the first step whose result is kept: the frozen tower's features or the hidden states of frozen
    layers, and the log-probabilities of a pair's paths. It counts as if no earlier fit had left it."""
    forward = forward_flops(backbone)
    if job.kept is not None:
        below = kept_states_flops(backbone)
        for row, length in zip(job.shown_rows, backbone.lengths(job.shown_rows), strict=True):
            read = Amounts(tokens=length.total, squares=length.total**2)
            for image in row["images"]:
                read += picture_work(backbone, image, trained=True)[1]
            name = f"states of {model_name(backbone)} below layer {job.settings.freeze_layers}: {_text_of(row)}"
            yield meter.Debit("method", meter.Spent(flops=below.of(read)), once=name, lasting=True)
    if job.tower_features:
        for image, trained in pictures_of(job.shown_rows):
            name, work = picture_work(backbone, image, trained)
            yield meter.Debit("method", meter.Spent(flops=forward.of(work)), once=name, lasting=True)
    if job.dpo is not None:
        for length in backbone.lengths([path for pair in job.rows for path in paths_of(pair)]):
            read = Amounts(tokens=length.total, targets=length.response, squares=length.total**2)
            yield meter.Debit("method", meter.Spent(prefilled_tokens=length.total, flops=forward.of(read)))


def _text_of(row: Row) -> str:
    """A row by its content, of which kept states are made once."""
    turns = [row["question"], row.get("response", ""), *(text for turn in row.get("history", ()) for text in turn)]
    return hashlib.sha256("\x1f".join([*map(str, row["images"]), *turns]).encode()).hexdigest()


def _train_along(spec: ModelSpec, job: FitJob, start: resume.ResumePoint | None) -> list[meter.Debit]:
    """The fit on a rank other than 0, which opens the model itself: without numbers, where it is handed them."""
    close_shared()
    backbone = spec.open(META if strategies.hands_out(job.trainer) else None)
    _prepare(backbone, job)
    spent = _train(backbone, job, start)
    del backbone
    gc.collect()  # as on rank 0
    give_back_freed_memory()
    return spent


def _train(
    backbone: Backbone,
    job: FitJob,
    start: resume.ResumePoint | None,
    log: TrainLog | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> list[meter.Debit]:
    """The steps of a fit from ``start`` on, on each of its ranks; rank 0 has the log and the callbacks. What the whole
    fit has spent."""
    settings, hardware = job.settings, job.trainer
    precision = precision_of(hardware)
    micro = settings.micro_batch_size
    options: dict[str, Any] = {"optimizer": settings.optimizer, "vision_lr_scale": settings.vision_lr_scale}
    options |= {"steps": job.steps, "seed": job.seed, "reduced_once": job.reduced_once}
    if job.dpo is not None:
        module: SFTModule = DPOModule(backbone, job.dpo, **options)
    elif job.status_tokens is None:
        module = SFTModule(backbone, **options)
    else:
        module = ORMModule(backbone, status_tokens=job.status_tokens, **options)

    # Ranks see their share of each step's rows, in training and in validation.
    rank = ranks.current()
    stream = job.stream or EpochStream(job.rows, settings.batch_size, job.seed)
    data_options: dict[str, Any] = {
        "rank": rank.rank,
        "ranks": rank.world_size,
        "tokens": settings.tokens_per_micro_batch,
    }
    data_options["pixels"] = pixels_of(precision)
    pinned = device_of(hardware).type == "cuda"
    first_step = start.step if start else 0
    divergence = Divergence(hardware.max_grad_norm_ratio, settings.optimizer.clip)
    watch = Watch(backbone, divergence=divergence, advice=_advice(job), start=first_step, kept=job.kept is not None)
    step_data = StepData if job.dpo is None else PairData
    kept, trained_paths = job.kept, len(job.rows) * (1 if job.dpo is None else 2)
    data_options["together"] = strategies.pass_together(hardware)
    data_options["kept"] = kept and kept.part(slice(trained_paths))
    data = step_data(stream, backbone, micro, job.steps, **data_options)
    loader = StepLoader(data, first_step, hardware.workers, pinned, observe=watch.observe)
    val_loader = None
    validation: dict[str, Any] = {"limit_val_batches": 0}
    if job.validation_every is not None:
        val_stream = OnceStream(job.validated_rows, micro * rank.world_size)
        data_options |= {"together": True, "kept": kept and kept.part(slice(trained_paths, None))}
        val_data = StepData(val_stream, backbone, micro, len(val_stream.batches), **data_options)
        val_loader = StepLoader(val_data, 0, 0, pinned, observe=watch.observe_validation)
        validation = {"val_check_interval": job.validation_every, "num_sanity_val_steps": 0}

    # Progress bars, checkpoints and logs of Lightning are off: ours write what a stage records.
    ours: list[pl.Callback] = [watch]
    if kept is not None:
        ours.append(FillStates(backbone, kept, job.shown_rows))
    if log is not None:
        log.watch = watch
        ours.append(log)
    keeps_points = strategies.keeps_resume_points(hardware)
    if keeps_points:
        ours.append(
            resume.ResumePoints(
                job.folder / SCRATCH,
                hardware.checkpoint_every,
                hardware.checkpoint_minutes,
                job.validation_every,
                start,
                before=log.sync if log is not None else lambda: None,
                watch=watch,
            )
        )
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The .srun. command is available")  # the ranks are started, by us or by srun
    trainer = pl.Trainer(
        **strategies.among_ranks(hardware, settings.optimizer.clip),
        # with bf16-true the weights are bfloat16 already: Lightning would round the rotary frequencies too
        precision="32-true" if precision == "bf16-true" else precision,
        max_steps=job.steps,
        max_epochs=-1,
        callbacks=[*ours, *callbacks],
        log_every_n_steps=hardware.log_every,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **validation,
    )
    with warnings.catch_warnings(), ExitStack() as in_use:
        if job.tower_features:
            features = backbone.tower_features
            assert features is not None  # ``fit`` has asked for it, and all ranks open by the same spec
            in_use.enter_context(features.store.relied_on())
            share = slice(rank.rank, None, rank.world_size)
            if strategies.hands_out(hardware):
                strategies.hand_out_vision(backbone, device_of(hardware))
            features.fill(backbone, job.shown_rows, device_of(hardware), precision, share)
            rank.barrier()
            in_use.enter_context(features.used("read"))
        if kept is not None:
            in_use.enter_context(kept.store.relied_on())
        rank.barrier()  # deepspeed's have each read the model from the disk
        warnings.simplefilter("ignore")  # Lightning's advice on workers and logging
        if keeps_points:
            in_use.enter_context(leaving.fit_under_way(decides=rank.is_main))
        in_use.enter_context(rank.limit_waits())
        try:
            trainer.fit(module, loader, val_loader)
        except SystemExit as e:  # what Lightning makes of a KeyboardInterrupt
            raise KeyboardInterrupt from e
    if trainer.global_step != job.steps:
        raise MathSEError(f"the fit in {job.folder} made {trainer.global_step} of {job.steps} steps")
    module.eval()
    strategies.gather(module)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        # Lightning gives each the module's own log methods, and a callback that lives on would keep the module with it
        for name in ("log", "log_dict"):
            vars(callback).pop(name, None)
    spent = watch.spent()
    module.trainer = (
        None  # sharded layers refer to the module; through it the optimiser would stay as long as the model
    )
    return spent


def _advice(job: FitJob) -> str:
    """What to try where the fit diverges. Another rate begins the fit anew; what only says when to stop does not."""
    section = "sft" if job.status_tokens is None else "orm.fit"
    optimizer, precision = job.settings.optimizer, job.trainer.precision
    rate = f"{section}.optimizer.lr below {optimizer.lr:g}"
    if job.dpo is not None:
        rate = f"evolution.dpo.lr_scale below {job.dpo.lr_scale:g}"
    remedies = [rate, f"{section}.optimizer.clip below {optimizer.clip:g}"]
    if precision != "32-true":
        remedies.append(f"trainer.precision={'bf16-mixed' if precision == 'bf16-true' else '32-true'}")
    return (
        f"pass resume=branch and {', or '.join(remedies)}, or, to go on as it is, a higher trainer.max_grad_norm_ratio"
    )


def save_checkpoint(
    backbone: Backbone,
    done: Path,
    finish: Callable[[Path], object] = lambda folder: None,
    unchanged: bool = False,
    plain: bool = False,
) -> Path:
    """Write a stage's checkpoint folder, all of it or nothing. ``finish(folder)`` is called first, to write more.
    ``unchanged``: no fit has touched the weights, so those that came from a folder are linked to and not copied;
    ``plain``: where programs open the folder that know transformers' layout alone, of that layout only."""
    unfinished = done.parent / SCRATCH / CHECKPOINT
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    finish(unfinished)
    if not (unchanged and reference.write(backbone, unfinished, plain)):
        backbone.save(unfinished)
    publish_folder(unfinished, done)
    return done


def device_of(settings: TrainerConfig) -> torch.device:
    """Where a model works outside a fit: the GPU of this process, if the trainer uses one."""
    return ranks.find_device(settings.accelerator)


def dtype_of(settings: TrainerConfig) -> str:
    """The numbers of a model that works outside a fit: as ``trainer.sampling_dtype`` says."""
    if settings.sampling_dtype in ("float32", "bfloat16"):
        return str(settings.sampling_dtype)
    if device_of(settings).type == "cpu":
        return "bfloat16" if settings.sampling_dtype == "fastest" and cpu_prefers_bfloat16() else "float32"
    return "bfloat16" if precision_of(settings).startswith("bf16") else "float32"


class FillStates(pl.Callback):
    """Before the first step each rank computes its share of the hidden states that are missing: only now does each have
    the whole model, on its device."""

    def __init__(self, backbone: Backbone, kept: LayerStates, rows: Sequence[Row]) -> None:
        self.backbone, self.kept, self.rows = backbone, kept, rows

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        rank = ranks.current()
        self.kept.fill(self.backbone, self.rows, slice(rank.rank, None, rank.world_size))
        rank.barrier()


class TrainLog(pl.Callback):
    """``train_log.jsonl``: a line every ``log_every`` steps, with the figures of ``watch``. A resumed fit drops the
    lines after its start, and with a sentence those that a disk has damaged."""

    watch: Watch | None = None

    def __init__(self, path: Path, start: int, say: Callable[[str], None] = lambda sentence: None) -> None:
        rows, damaged = [], 0
        if path.exists() and start:
            for line in path.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n"):  # torn by a full disk; its step is after the resume point
                    continue
                try:
                    row = json.loads(line)
                    if row["step"] <= start:
                        rows.append(row)
                except (ValueError, TypeError, KeyError):
                    damaged += 1
        if damaged:
            say(f"{path}: {damaged} damaged lines are left out; the fit itself is not touched by that")
        write_jsonl(path, rows)
        self.file = path.open("a")

    def sync(self) -> None:
        """Lay the lines so far on the disk: a resume point must not outlast them."""
        os.fsync(self.file.fileno())

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        if is_logged(trainer):
            lr = trainer.optimizers[0].param_groups[0]["lr"]
            loss = round(float(outputs["loss"]), 6)
            figures = self.watch.figures if self.watch is not None else {}
            preferring = {name: round(float(outputs[name]), 6) for name in PREFERRING if name in outputs}
            self._write({"step": trainer.global_step, "loss": loss, "lr": lr, **preferring, **figures})

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        self._write({"step": trainer.global_step, **metrics})

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
