"""One training: a new Trainer, resumable from its last resume point, that ends in a folder for plain transformers.

Lightning trains no step and reports success where ``fit`` is called twice on a Trainer, and callbacks keep their state.
So each training builds a new Trainer and new callbacks.
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

from mathse.config.fits import Fit
from mathse.config.schema import Trainer as TrainerSettings
from mathse.errors import MathSEError
from mathse.models import layer_states, memory, modes, reference
from mathse.models.base import Backbone, Length
from mathse.models.feature_store import FeatureStore
from mathse.models.flops import count_forward_flops, count_kept_states_flops, count_picture_work, name_model
from mathse.models.layer_states import LayerStates
from mathse.models.model_spec import ModelSpec, close_shared, find_spec
from mathse.models.needs import find_frozen_parts, has_room_for_gradients
from mathse.models.operations import Amounts
from mathse.models.placement import META
from mathse.models.precision import choose_pixel_dtype, choose_precision, cpu_prefers_bfloat16
from mathse.models.row import Row, list_row_paths
from mathse.models.tower_features import list_pictures
from mathse.runs import meter
from mathse.runs.layout import CHECKPOINT, REFERENCE, SCRATCH, TRAIN_LOG, TRAINED
from mathse.runs.store import publish_folder, write_json, write_jsonl
from mathse.seeds import derive
from mathse.training import leaving, ranks, resume, strategies
from mathse.training.allocator import give_back_freed_memory
from mathse.training.batches import EpochStream, MixedStream, OnceStream, Stream, count_characters
from mathse.training.divergence import Divergence
from mathse.training.groups import GroupData, GroupModule, Sampling, log_probs_of_sampler
from mathse.training.loader import StepData, StepLoader
from mathse.training.monitor import TrainingMonitor, is_logged
from mathse.training.online import OnlineBatches, OnlineModule, OnlineStream, ResponseData
from mathse.training.orm import ORMModule
from mathse.training.pairs import PairData, PairModule
from mathse.training.paths import add_reference
from mathse.training.sft import SFTModule
from mathse.training.verdicts import VerdictData, VerdictModule

DATA: dict[str, type[StepData]] = {"rows": StepData, "pairs": PairData, "verdicts": VerdictData, "groups": GroupData}


@dataclass(frozen=True)
class FitJob:
    """A training to run.

    Attributes:
        folder: the stage's folder.
        rows: the training rows, as ``update.data`` says.
        seed: of the rows' order, dropout and adapters.
        settings: method, length, batch and optimiser.
        trainer: hardware and precision.
        val_rows: rows of the validation.
        stream: draws the rows of each step; None: epochs over ``rows``.
        status_tokens: of an ORM, the first tokens of CORRECT and WRONG.
        update: of a loss other than the cross-entropy (mathse/training/updates). Batch sizes count its rows.
        sampling: of the paths of groups.
        kept_in: dtype of the checkpoint after a full fine-tuning; None: the dtype in which the model was opened.
        tower_features: whether stored features replace pictures; ``fit`` decides it.
        kept: stored hidden states that replace all frozen layers; ``fit`` decides it.
        reduced_once: whether sharded gradients are reduced only in a step's last pass; ``fit`` decides it.
        online: samples the rows of each step; ``rows`` are the prompts. None: ``rows`` are trained on.
    """

    folder: Path
    rows: Sequence[Row]
    seed: int
    settings: Fit
    trainer: TrainerSettings
    val_rows: Sequence[Row] = ()
    stream: Stream | None = None
    status_tokens: tuple[int, int] | None = None
    update: Any = None
    sampling: Sampling | None = None
    kept_in: torch.dtype | None = None
    tower_features: bool = False
    kept: LayerStates | None = None
    reduced_once: bool = True
    online: OnlineBatches | None = None

    @property
    def steps(self) -> int:
        return self.settings.steps(len(self.rows))

    @property
    def paths_per_row(self) -> int:
        return len(list_row_paths(self.rows[0]))

    @property
    def paths_per_pass(self) -> int:
        """The paths of a row that one forward pass with a gradient has."""
        return 2 if self.update is not None and self.update.data == "pairs" else 1

    @property
    def reference_names(self) -> tuple[str, ...]:
        """The paths, or the tokens, that need log-probabilities of the model before the first step."""
        if self.update is None or self.online is not None:
            return ()
        if self.update.data == "groups":
            return ("tokens",) if getattr(self.update, "needs_old", False) else ()
        return {"pairs": ("chosen", "rejected"), "verdicts": ("response", "mismatched")}[self.update.data]

    @property
    def validated_rows(self) -> Sequence[Row]:
        return self.val_rows[: self.settings.val_rows]

    @property
    def all_paths(self) -> Sequence[Row]:
        """The rows that the model reads, of training and then of validation. A row of two paths is two rows."""
        return [path for row in (*self.rows, *self.validated_rows) for path in list_row_paths(row)]

    @property
    def validation_every(self) -> int | None:
        """Steps between validations; None without validation rows."""
        return min(self.settings.val_every, self.steps) if self.validated_rows else None


def fit(
    backbone: Backbone,
    job: FitJob,
    callbacks: Sequence[pl.Callback] = (),
    announce: Callable[[memory.TrainingSummary], None] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Train ``backbone.model`` in place and return the folder of the finished checkpoint.

    Where ``job.folder / "checkpoint"`` exists, the training is finished and this function trains nothing.

    Args:
        callbacks: further callbacks of Lightning's Trainer, on rank 0.
        announce: called before the first step with the parts that train and their memory.
        say: called with a sentence about each damaged resume point or log, and where features or hidden states of
            frozen parts cannot be stored.

    Raises:
        MathSEError: ``job`` has no rows. The caller decides about a stage without rows.
        KeyboardInterrupt: the process was asked to stop; the resume point or the checkpoint is written.
    """
    done, stage = job.folder / CHECKPOINT, meter.current()
    if done.exists():
        if stage is not None:
            stage.expect_settled(done)
        return done
    if not job.rows:
        raise MathSEError(f"no row to train on in {job.folder}")
    (job.folder / SCRATCH).mkdir(parents=True, exist_ok=True)
    # Rank 0 resolves precision=fastest for all ranks.
    job = replace(job, trainer=replace(job.trainer, precision=choose_precision(job.trainer)))
    settings, hardware = job.settings, job.trainer
    device = device_of(hardware)
    before = _prepare_model(backbone, job)

    # Report the parts that train, the frozen parts, and the expected memory.
    longest = backbone.encode([max(job.rows, key=count_characters)])[0]
    if job.online is not None and job.sampling is not None:
        longest = replace(longest, response=[backbone.pad_id] * job.sampling.max_new_tokens)
    rows_at_once = settings.rows_at_once(job.paths_per_pass * len(longest.ids))
    estimated = memory.estimate(
        backbone,
        longest,
        job.paths_per_pass * rows_at_once,
        hardware.precision,
        settings.activation_checkpointing,
        shards=hardware.devices if hardware.strategy == "fsdp2" else 1,
    )
    parts = memory.count_parts(backbone, settings.optimizer.lr, settings.vision_lr_scale)
    trained = memory.TrainingSummary(settings.method, hardware.precision, parts, estimated)
    write_json(job.folder / TRAINED, trained.to_json())
    if announce is not None:
        announce(trained)

    if job.reference_names:
        rows = add_reference(
            backbone,
            job.rows,
            job.folder / REFERENCE,
            names=job.reference_names,
            device=device,
            precision=hardware.precision,
            rows_at_once=rows_at_once,
            log_probs_of=log_probs_of_sampler(backbone, job.update, job.sampling),
        )
        job = replace(job, rows=rows)

    # FSDP2: whether whole gradients fit beside this memory until a step's last pass. Rank 0 decides for all ranks.
    if device.type == "cuda":
        gradients = memory.FLOAT32_BYTES * sum(memory.numel(p) for p in backbone.model.parameters() if p.requires_grad)
        gpu_memory = torch.cuda.get_device_properties(device).total_memory
        job = replace(job, reduced_once=has_room_for_gradients(estimated.total, gradients, gpu_memory))

    # The hidden states of frozen layers are stored if a row is used more than once. Then no tower runs either.
    if settings.freeze_layers and job.online is None and job.steps * settings.batch_size > len(job.rows):
        states = _open_layer_states(backbone, job)
        if isinstance(states, str):
            say(
                f"{job.folder.name}: the lower {settings.freeze_layers} layers are frozen, but run in each step: their "
                f"hidden states cannot be kept, because {states}"
            )
        else:
            job = replace(job, kept=states)

    # The frozen tower's features are stored if they fit. Rows that MixedStream makes have other pictures each time.
    features = backbone.tower_features
    if (
        features is not None
        and settings.tower_features
        and job.kept is None
        and job.online is None
        and set(features.parts) <= set(find_frozen_parts(settings))
        and not isinstance(job.stream, MixedStream)
    ):
        refusal = features.prepare(backbone, job.all_paths, device, hardware.precision)
        job = replace(job, tower_features=refusal is None)
        if refusal is not None:
            say(f"{job.folder.name}: {refusal}")

    spent_before = list(_list_spent_before(backbone, job)) if stage is not None else []

    # The steps, from the last resume point, on all ranks.
    start = resume.find_newest(job.folder / SCRATCH, say) if strategies.keeps_resume_points(hardware) else None
    log = TrainLog(job.folder / TRAIN_LOG, start.step if start else 0, say)
    with closing(log):
        train_here = partial(_train, backbone, job, start, log, callbacks)
        spent, *_ = ranks.current().run_on_all(train_here, _train_on_other_rank, find_spec(backbone), job, start)
    # The meter is settled before the checkpoint exists, so a kill leaves both, or the training is resumed.
    if stage is not None:
        stage.settle(done, [*spent_before, *spent])

    # Trainer and module refer to each other and hold the optimiser, so only the garbage collector frees them.
    gc.collect()
    give_back_freed_memory()
    save_checkpoint(backbone, done, lambda folder: modes.finish(backbone, settings, before, folder, done, job.kept_in))
    if leaving.is_asked():  # the request came in the last step
        raise KeyboardInterrupt
    return done


def _prepare_model(backbone: Backbone, job: FitJob) -> modes.State:
    return modes.prepare(backbone, job.settings, job.trainer.precision, derive(job.seed, "adapter") % 2**63)


def _open_layer_states(backbone: Backbone, job: FitJob) -> LayerStates | str:
    """Return the store of the hidden states below the first layer that trains, or why they cannot be kept."""
    hardware = job.trainer
    if isinstance(job.stream, MixedStream):
        return "rows are made in each step"
    if ranks.current().world_size > 1 and strategies.pass_together(hardware):
        return f"trainer.strategy = {hardware.strategy!r} splits the layers between ranks"
    store = FeatureStore.of(hardware.tower_features_folder, hardware.tower_features_gb)
    earlier_device = backbone.device
    backbone.to(device_of(hardware))
    try:
        return layer_states.prepare(backbone, job.all_paths, store, hardware.precision)
    finally:
        backbone.to(earlier_device)


def _list_spent_before(backbone: Backbone, job: FitJob) -> Iterator[meter.Debit]:
    """Yield a debit for each result that is computed before the first step and kept.

    These are the frozen tower's features or the frozen layers' hidden states, and the log-probabilities of paths. Each
    debit is complete, also where an earlier training has left the result.
    """
    forward = count_forward_flops(backbone)
    if job.kept is not None:
        below = count_kept_states_flops(backbone)
        for row, length in zip(job.all_paths, backbone.lengths(job.all_paths), strict=True):
            amounts = Amounts(tokens=length.total, squares=length.total**2)
            for image in row["images"]:
                amounts += count_picture_work(backbone, image, trained=True)[1]
            name = f"states of {name_model(backbone)} below layer {job.settings.freeze_layers}: {_hash_row(row)}"
            yield meter.Debit("method", meter.Spent(flops=below.of(amounts)), once=name, lasting=True)
    if job.tower_features:
        for image, trained in list_pictures(job.all_paths):
            name, amounts = count_picture_work(backbone, image, trained)
            yield meter.Debit("method", meter.Spent(flops=forward.of(amounts)), once=name, lasting=True)
    # Forward passes over whole paths: before the first step, and over the mismatched paths of all steps.
    passes: list[Length] = []
    if job.reference_names:
        passes += backbone.lengths([path for row in job.rows for path in list_row_paths(row)])
    if job.update is not None and job.update.data == "verdicts":
        mismatched = backbone.lengths([list_row_paths(row)[1] for row in job.rows])
        stream = EpochStream(job.rows, job.settings.batch_size, job.seed)
        for step in range(job.steps):
            passes += [mismatched[key] for key, _ in stream.keyed_rows(step) if key is not None]
    for length in passes:
        amounts = Amounts(tokens=length.total, targets=length.response, squares=length.total**2)
        yield meter.Debit("method", meter.Spent(prefilled_tokens=length.total, flops=forward.of(amounts)))


def _hash_row(row: Row) -> str:
    """Return a hash of the row's content. Rows of equal content share their hidden states."""
    texts = [row["question"], row.get("response", "")]
    for question, answer in row.get("history", ()):
        texts += [question, answer]
    return hashlib.sha256("\x1f".join([*map(str, row["images"]), *texts]).encode()).hexdigest()


def _train_on_other_rank(spec: ModelSpec, job: FitJob, start: resume.ResumePoint | None) -> list[meter.Debit]:
    """Train on a rank other than 0. It opens the model itself, on the meta device where rank 0 sends the weights."""
    close_shared()
    backbone = spec.open(META if strategies.hands_out(job.trainer) else None)
    _prepare_model(backbone, job)
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
    """Make the steps from ``start`` on. Each rank calls it; only rank 0 has the log and the callbacks.

    Returns the debits of the whole training, steps before ``start`` included.
    """
    settings, hardware, rank = job.settings, job.trainer, ranks.current()
    precision, device = choose_precision(hardware), device_of(hardware)
    module = _build_module(backbone, job)

    # Each rank has its share of a step's rows, in training and in validation.
    stream = job.stream or EpochStream(job.rows, settings.batch_size, job.seed)
    if job.online is not None:
        stream = OnlineStream(job.online, backbone, precision)
    divergence = Divergence(hardware.max_grad_norm_ratio, settings.optimizer.clip)
    first_step = start.step if start else 0
    monitor = TrainingMonitor(
        backbone, divergence=divergence, advice=_list_remedies(job), start=first_step, kept=job.kept is not None
    )
    is_on_gpu = device.type == "cuda"
    shares: dict[str, Any] = {
        "rank": rank.rank,
        "ranks": rank.world_size,
        "tokens": settings.tokens_per_micro_batch,
        "pixels": choose_pixel_dtype(precision),
    }
    trained_paths = job.paths_per_row * len(job.rows)  # stored states are in the order of all_paths: training first
    step_data = DATA["rows" if job.update is None else job.update.data] if job.online is None else ResponseData
    data = step_data(
        stream,
        backbone,
        settings.micro_batch_size,
        job.steps,
        together=strategies.pass_together(hardware),
        kept=job.kept and job.kept.select(slice(trained_paths)),
        **shares,
    )
    workers = hardware.workers if job.online is None else 0  # a worker has no model to sample from
    loader = StepLoader(data, first_step, workers, is_on_gpu, observe=monitor.observe)
    val_loader = None
    validation: dict[str, Any] = {"limit_val_batches": 0}
    if job.validation_every is not None:
        val_stream = OnceStream(job.validated_rows, settings.micro_batch_size * rank.world_size)
        val_data = StepData(
            val_stream,
            backbone,
            settings.micro_batch_size,
            len(val_stream.batches),
            together=True,
            kept=job.kept and job.kept.select(slice(trained_paths, None)),
            **shares,
        )
        val_loader = StepLoader(val_data, 0, 0, is_on_gpu, observe=monitor.observe_validation)
        validation = {"val_check_interval": job.validation_every, "num_sanity_val_steps": 0}

    # Our callbacks write the log and the resume points, so Lightning's own are off. The monitor comes first: it ends a
    # diverged training before the others write.
    our_callbacks: list[pl.Callback] = [monitor]
    if job.kept is not None:
        our_callbacks.append(FillStates(backbone, job.kept, job.all_paths))
    if log is not None:
        log.monitor = monitor
        our_callbacks.append(log)
    keeps_points = strategies.keeps_resume_points(hardware)
    if keeps_points:
        our_callbacks.append(
            resume.ResumePoints(
                job.folder / SCRATCH,
                hardware.checkpoint_every,
                hardware.checkpoint_minutes,
                job.validation_every,
                start,
                before=log.sync if log is not None else lambda: None,
                monitor=monitor,
            )
        )
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "The .srun. command is available")  # the ranks have been started already
    trainer = pl.Trainer(
        **strategies.place_on_ranks(hardware, settings.optimizer.clip),
        # With bf16-true the weights are bfloat16 already. Lightning would round the rotary frequencies too.
        precision="32-true" if precision == "bf16-true" else precision,
        max_steps=job.steps,
        max_epochs=-1,
        callbacks=[*our_callbacks, *callbacks],
        log_every_n_steps=hardware.log_every,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        **validation,
    )

    with warnings.catch_warnings(), ExitStack() as contexts:
        if job.tower_features:
            # Each rank computes its share of the missing features. Then all ranks read the stored features.
            features = backbone.tower_features
            assert features is not None  # ``fit`` has checked it, and all ranks open the model by the same spec
            contexts.enter_context(features.store.protect_files())
            if strategies.hands_out(hardware):
                strategies.hand_out_vision(backbone, device)
            share = slice(rank.rank, None, rank.world_size)
            features.fill(backbone, job.all_paths, device, precision, share)
            rank.barrier()
            contexts.enter_context(features.use("read"))
        if job.kept is not None:
            contexts.enter_context(job.kept.store.protect_files())
        rank.barrier()  # under DeepSpeed each rank has read the model from the disk, which takes unequal time
        warnings.simplefilter("ignore")  # Lightning's advice on workers and logging
        if keeps_points:
            contexts.enter_context(leaving.stop_between_steps(decides=rank.is_main))
        contexts.enter_context(rank.limit_waits())
        try:
            trainer.fit(module, loader, val_loader)
        except SystemExit as e:  # Lightning raises it for a KeyboardInterrupt
            raise KeyboardInterrupt from e
    if trainer.global_step != job.steps:
        raise MathSEError(f"the training in {job.folder} made {trainer.global_step} of {job.steps} steps")
    module.eval()
    strategies.gather(module)

    # Drop references that would keep the module, and through it the optimiser, as long as a callback or the model.
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for name in ("log", "log_dict"):  # bound methods of the module, set by Lightning
            vars(callback).pop(name, None)
    spent = monitor.list_spent()
    module.trainer = None  # sharded layers refer to the module
    return spent


def _build_module(backbone: Backbone, job: FitJob) -> SFTModule:
    options: dict[str, Any] = {
        "optimizer": job.settings.optimizer,
        "vision_lr_scale": job.settings.vision_lr_scale,
        "steps": job.steps,
        "seed": job.seed,
        "reduced_once": job.reduced_once,
    }
    if job.online is not None:
        assert job.sampling is not None
        return OnlineModule(backbone, job.update, job.sampling, job.online, **options)
    if job.update is not None:
        if job.update.data == "groups":
            return GroupModule(backbone, job.update, job.sampling, **options)
        return {"pairs": PairModule, "verdicts": VerdictModule}[job.update.data](backbone, job.update, **options)
    if job.status_tokens is not None:
        return ORMModule(backbone, status_tokens=job.status_tokens, **options)
    return SFTModule(backbone, **options)


def _list_remedies(job: FitJob) -> str:
    """Return the remedies for a training that diverges, a part of the error's sentence.

    Another learning rate starts the stage anew in a branch. ``max_grad_norm_ratio`` only decides when to stop, so a
    higher value continues from the resume point.
    """
    section = "sft" if job.status_tokens is None else "orm.fit"
    optimizer, precision = job.settings.optimizer, job.trainer.precision
    rate = f"{section}.optimizer.lr below {optimizer.lr:g}"
    if hasattr(job.update, "lr_scale"):
        rate = f"evolution.update.lr_scale below {job.update.lr_scale:g}"
    remedies = [rate, f"{section}.optimizer.clip below {optimizer.clip:g}"]
    if precision != "32-true":
        remedies.append(f"trainer.precision={'bf16-mixed' if precision == 'bf16-true' else '32-true'}")
    return (
        f"pass resume=branch and {', or '.join(remedies)}, or, to continue with the same settings, a higher "
        "trainer.max_grad_norm_ratio"
    )


def save_checkpoint(
    backbone: Backbone,
    done: Path,
    finish: Callable[[Path], object] = lambda folder: None,
    unchanged: bool = False,
    plain: bool = False,
) -> Path:
    """Write a stage's checkpoint folder atomically and return it.

    Args:
        done: the folder.
        finish: called with the unfinished folder first, to write further files into it.
        unchanged: whether no training has changed the weights. Weights that were read from a folder are then linked
            and not copied.
        plain: whether programs that know only transformers' layout open the folder. It then has this layout.
    """
    unfinished = done.parent / SCRATCH / CHECKPOINT
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    finish(unfinished)
    if not (unchanged and reference.write(backbone, unfinished, plain)):
        backbone.save(unfinished)
    publish_folder(unfinished, done)
    return done


def device_of(settings: TrainerSettings) -> torch.device:
    """The device of a model outside of training: the GPU of this process, if the trainer uses GPUs."""
    return ranks.find_device(settings.accelerator)


def dtype_of(settings: TrainerSettings) -> str:
    """The dtype of a model outside of training, from ``trainer.sampling_dtype``."""
    if settings.sampling_dtype in ("float32", "bfloat16"):
        return str(settings.sampling_dtype)
    if device_of(settings).type == "cpu":
        return "bfloat16" if settings.sampling_dtype == "fastest" and cpu_prefers_bfloat16() else "float32"
    return "bfloat16" if choose_precision(settings).startswith("bf16") else "float32"


class FillStates(pl.Callback):
    """Before the first step each rank computes its share of the missing hidden states.

    Only now has each rank the whole model on its device.
    """

    def __init__(self, backbone: Backbone, kept: LayerStates, rows: Sequence[Row]) -> None:
        self.backbone, self.kept, self.rows = backbone, kept, rows

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        rank = ranks.current()
        self.kept.fill(self.backbone, self.rows, slice(rank.rank, None, rank.world_size))
        rank.barrier()


class TrainLog(pl.Callback):
    """Writes ``train_log.jsonl``: a line every ``log_every`` steps, with the figures of ``monitor``.

    Args:
        path: the file.
        start: the step of the resume point. Lines of later steps are dropped, and damaged lines too.
        say: called with a sentence about damaged lines.
    """

    monitor: TrainingMonitor | None = None

    def __init__(self, path: Path, start: int, say: Callable[[str], None] = lambda sentence: None) -> None:
        rows, damaged = [], 0
        if path.exists() and start:
            for line in path.read_bytes().splitlines(keepends=True):
                # A full disk or a kill has torn this line. Its step is after the resume point.
                if not line.endswith(b"\n"):
                    continue
                try:
                    row = json.loads(line)
                    if row["step"] <= start:
                        rows.append(row)
                except (ValueError, TypeError, KeyError):
                    damaged += 1
        if damaged:
            say(f"{path}: {damaged} damaged lines are left out; the training itself is not affected")
        write_jsonl(path, rows)
        self.file = path.open("a")

    def sync(self) -> None:
        """Flush the lines to the disk, before a resume point that depends on them."""
        os.fsync(self.file.fileno())

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        if not is_logged(trainer):
            return
        line = {
            "step": trainer.global_step,
            "loss": round(float(outputs["loss"]), 6),
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
        }
        for name, value in outputs.items():
            if name not in ("loss", "grad_norm"):  # figures of an update
                line[name] = round(float(value), 6)
        figures = self.monitor.figures if self.monitor is not None else {}
        self._write({**line, **figures})

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = {k: round(float(v), 6) for k, v in trainer.callback_metrics.items() if k.startswith("val_")}
        self._write({"step": trainer.global_step, **metrics})

    def _write(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def close(self) -> None:
        self.file.close()
