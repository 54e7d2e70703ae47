"""Names of other programs and of earlier versions, and our settings for them.

For "did you mean": arguments of Lightning's and transformers' Trainer, of lightning-hydra-template and LLaMA-Factory,
the paper's letters, plain English. ``ELSEWHERE`` and ``GONE`` have a sentence where no one setting is the same thing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

# Their name, in lower case, to the settings that may be meant: the first that the program has.
FIELD_WORDS: dict[str, tuple[str, ...]] = {
    "learning_rate": ("sft.optimizer.lr",),
    "lr": ("sft.optimizer.lr",),
    "weight_decay": ("sft.optimizer.weight_decay",),
    "warmup_ratio": ("sft.optimizer.warmup_ratio",),
    "max_grad_norm": ("sft.optimizer.clip",),
    "gradient_clip_val": ("sft.optimizer.clip",),
    "epochs": ("sft.epochs",),
    "max_epochs": ("sft.epochs",),
    "num_epochs": ("sft.epochs",),
    "num_train_epochs": ("sft.epochs",),
    "max_steps": ("sft.max_steps",),
    "steps": ("sft.max_steps",),
    "gradient_accumulation_steps": ("sft.micro_batch_size",),
    "per_device_train_batch_size": ("sft.micro_batch_size",),
    "micro_batch_size": ("sft.micro_batch_size",),
    "batch_size": ("sft.batch_size", "evaluation.batch_size"),
    "train_batch_size": ("sft.batch_size",),
    "eval_batch_size": ("evaluation.batch_size",),
    "max_length": ("sft.max_length",),
    "max_seq_length": ("sft.max_length",),
    "cutoff_len": ("sft.max_length",),
    "finetuning_type": ("sft.method",),
    "quantization_bit": ("sft.method",),
    "lora_target": ("sft.lora.scopes",),
    "gradient_checkpointing": ("sft.activation_checkpointing",),
    "lora": ("sft.method",),
    "lora_r": ("sft.lora.rank",),
    "lora_rank": ("sft.lora.rank",),
    "lora_alpha": ("sft.lora.alpha",),
    "lora_dropout": ("sft.lora.dropout",),
    "freeze_vision_tower": ("sft.freeze",),
    "k": ("evolution.rounds",),
    "rounds": ("evolution.rounds",),
    "iterations": ("evolution.rounds",),
    "n": ("evolution.samples_per_problem", "n_samples"),
    "n_samples": ("evolution.samples_per_problem",),
    "samples": ("evolution.samples_per_problem", "n_samples"),
    "num_return_sequences": ("evolution.samples_per_problem", "n_samples"),
    "temperature": ("generator.temperature",),
    "top_p": ("generator.top_p",),
    "max_new_tokens": ("generator.max_new_tokens", "evaluation.max_new_tokens"),
    "max_tokens": ("generator.max_new_tokens", "evaluation.max_new_tokens"),
    "threshold": ("judge.threshold",),
    "gpus": ("trainer.devices",),
    "num_gpus": ("trainer.devices",),
    "n_gpu": ("trainer.devices",),
    "nproc_per_node": ("trainer.devices",),
    "num_workers": ("trainer.workers",),
    "bf16": ("trainer.precision",),
    "fp16": ("trainer.precision",),
    "precision": ("trainer.precision",),
    "save_steps": ("trainer.checkpoint_every",),
    "logging_steps": ("trainer.log_every",),
    "model": ("backbone.path", "checkpoint"),
    "model_path": ("backbone.path", "checkpoint"),
    "model_name_or_path": ("backbone.path", "checkpoint"),
    "checkpoint": ("backbone.path",),
    "pretrained": ("backbone.path",),
    "dataset": ("data.path",),
    "data_path": ("data.path",),
    "train_file": ("data.path",),
    "output_dir": ("hydra.run.dir",),
    "out": ("hydra.run.dir",),
    "resume_from_checkpoint": ("resume",),
    "report_to": ("logger",),
    "task_name": ("name",),
    "run_name": ("name",),
    "devices": ("trainer.devices",),
    "eval_dataset": ("data.test_path",),
    "val_size": ("data.dev_share",),
    "image_max_pixels": ("backbone.max_pixels",),
    "ddp_timeout": ("trainer.timeout_minutes",),
    "per_device_eval_batch_size": ("evaluation.batch_size",),
}
OF_HYDRA = ("hydra.run.dir",)  # settings that no schema of ours has

# A name, or the part of a key path before or behind a dot, to what is said of it.
ELSEWHERE = {
    "model": "backbone=NAME chooses the model family and backbone.path=DIR its weights; mathse evaluate checkpoint=DIR "
    "scores a trained model",
    "tags": "name=NAME names a run, and note=TEXT is shown with its figures",
    "paths": "hydra.run.dir=DIR is the run folder, and data.path=FILE the data",
    "debug": "experiment=smoke runs the whole method in a minute, and plan=true prints what a run would do",
    "fast_dev_run": "experiment=smoke runs the whole method in a minute, and plan=true prints what a run would do",
    "ckpt_path": "resume=last goes on with the newest unfinished run, hydra.run.dir=DIR with the run in a folder; "
    "mathse evaluate checkpoint=DIR scores a trained model",
    "hparams_search": "+sweep=NAME with -m tries several values, and hydra/sweeper=tpe with -m searches for the best",
    "accumulate_grad_batches": "sft.batch_size is the rows of an optimiser step and sft.micro_batch_size those of a "
    "forward pass; gradients are accumulated over batch_size / micro_batch_size passes",
    "trainer.callbacks": "+lightning_callbacks.NAME._target_=CLASS adds a callback of Lightning to every fit",
    "logger=many_loggers": "logger=[wandb,tensorboard] writes to several",
}

GONE = {
    "generator.adapters": "is gone: leave it out, and pass generator=vllm, in whose one engine each fit's merged "
    "checkpoint takes the place of the one before (docs/serving.md)",
}


def explain_foreign_name(name: str) -> str | None:
    """The answer to a setting that another program or an earlier version has."""
    if name in GONE:
        return GONE[name]
    parts = name.partition(".")[0], name.rpartition(".")[2], ".".join(name.split(".")[:2])
    meant = next((ELSEWHERE[part] for part in (name, *parts) if part in ELSEWHERE), None)
    return None if meant is None else f"no such setting; {meant}"


def find_nearest(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant: one that differs in its letters' case and its signs alone, what the field calls
    so, the right word one level off, a similar name."""
    others = [n for n in names if not f"{name}.".startswith(f"{n}.")]
    if spelt := match_spelling(name, others):
        return spelt
    if meant := next((n for n in FIELD_WORDS.get(name.casefold(), ()) if n in names or n in OF_HYDRA), None):
        return meant
    section, _, setting = name.partition(".")
    if inside := [n for n in FIELD_WORDS.get(setting.casefold(), ()) if n in names and n.startswith(f"{section}.")]:
        return inside[0]
    same_word = [n for n in others if setting and n.startswith(f"{section}.") and n.endswith(f".{setting}")]
    # sft.lr is meant for this section, trainer.max_epochs for another one
    meant = next((n for n in FIELD_WORDS.get(name.rpartition(".")[2].casefold(), ()) if n in (*names, *OF_HYDRA)), None)
    if meant is not None and meant.startswith(f"{section}."):
        return meant
    if near := get_close_matches(name, same_word, n=1, cutoff=0.0):
        return near[0]
    if meant is not None:
        return meant
    near = get_close_matches(name, others, n=1, cutoff=0.6)
    return near[0] if near else None


def match_spelling(name: str, names: Sequence[str]) -> str | None:
    """The one of ``names`` that differs from ``name`` in case and signs alone: InternVL2.5 for internvl2_5."""
    bare = re.sub(r"[-_. ]", "", name).casefold()
    same = [n for n in names if re.sub(r"[-_. ]", "", n).casefold() == bare]
    return same[0] if len(same) == 1 else None


def suggest_name(name: str, names: Sequence[str]) -> str:
    """``"; did you mean NEAREST?"``, or nothing if no name is near."""
    near = find_nearest(name, names)
    return f"; did you mean {near}?" if near else ""
