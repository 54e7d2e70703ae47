"""The settings of a fit, of the student's and of the ORM's."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import SETTINGS, Option, Section, follows


@dataclass(config=SETTINGS)
class OptimizerConfig(Section):
    lr: float = Field(default=2e-3, gt=0, description="Highest learning rate, after the warm-up.")
    weight_decay: float = Field(
        default=0.01, ge=0, description="Weight decay of the matrices. Norms and biases have no weight decay."
    )
    beta1: float = Field(default=0.9, ge=0, le=1, description="AdamW's decay rate of the gradient's mean.")
    beta2: float = Field(default=0.98, ge=0, le=1, description="AdamW's decay rate of the gradient's square.")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon, added to the root of the squared gradient.")
    warmup_ratio: float = Field(
        default=0.05, ge=0, le=1, description="Share of the optimizer steps in which the learning rate rises from 0."
    )
    min_lr_ratio: float = Field(
        default=0.05, ge=0, le=1, description="Last learning rate of the cosine schedule as a share of lr."
    )
    clip: float = Field(default=1.0, gt=0, description="Largest gradient norm; larger gradients are scaled down to it.")


@dataclass(config=SETTINGS)
class AdapterConfig(Section):
    """Low-rank adapters (method=lora, qlora); the checkpoint is the merged model, the adapter lies beside it."""

    rank: int = Field(default=16, ge=1, description="Rank of the two adapter matrices.")
    alpha: float = Field(default=32.0, gt=0, description="Scale of the adapter, which is multiplied by alpha / rank.")
    dropout: float = Field(default=0.05, ge=0, le=1, description="Dropout on the adapter's input.")
    scopes: list[str] = Field(
        default_factory=lambda: ["language"],
        description="Parts of the model that get adapters: language, tower, and vision_expert in CogVLM2.",
    )


@dataclass(config=SETTINGS)
class FitConfig(Section):
    """One fit. Exactly one of ``epochs`` and ``max_steps`` is set."""

    method: Literal["full", "lora", "qlora"] = Field(
        default="full",
        description="Method of fine-tuning. full: all weights; lora: adapters; qlora: adapters on 4-bit weights.",
    )
    lora: AdapterConfig = Field(default_factory=AdapterConfig)
    freeze: list[str] = Field(
        default_factory=list, description="Parts of the model that are not trained: tower, connector, language."
    )
    freeze_layers: int = Field(
        default=0,
        ge=0,
        description="Number of lower layers of the language model that are not trained, nor are the token embeddings. "
        "Their outputs are computed once per row and kept for later epochs (trainer.tower_features_folder and _gb).",
    )
    vision_lr_scale: float = Field(
        default=1.0, gt=0, description="Learning rate of tower and connector as a share of optimizer.lr."
    )
    activation_checkpointing: bool = Field(
        default=False,
        description="Recompute activations in the backward pass: about a third slower, with far less memory.",
    )
    tower_features: bool = Field(
        default=False,
        description="Compute the frozen tower's features of an image once and keep them on disk in bfloat16, for "
        "training, sampling and judging (trainer.tower_features_folder and _gb).",
    )
    max_length: int | None = Field(
        default=None,
        ge=16,
        description="Most tokens of a row, image tokens included. Longer rows are left out and listed. null: no limit.",
    )

    epochs: float | None = Field(
        default=None, gt=0, description="Number of passes over the rows. null: max_steps counts."
    )
    max_steps: int | None = Field(default=300, ge=1, description="Number of optimizer steps. null: epochs counts.")
    batch_size: int = Field(default=64, ge=1, description="Rows per optimizer step (global batch).")
    micro_batch_size: int = Field(
        default=64,
        ge=1,
        description="Most rows per forward pass. Gradients are accumulated over the micro-batches of a global batch.",
    )
    tokens_per_micro_batch: int | None = Field(
        default=None,
        ge=16,
        description="Most tokens per forward pass: rows times longest row, image tokens included. A longer row gets a "
        "forward pass of its own. null: no limit.",
    )
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    val_rows: int = Field(default=128, ge=0, description="Number of dev rows of a validation. 0: no validation.")
    val_every: int = Field(default=100, ge=1, description="Number of optimizer steps between two validations.")

    def steps(self, rows: int) -> int:
        """Optimiser steps of a fit on so many rows."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, round((self.epochs or 1.0) * rows / self.batch_size))

    def rows_at_once(self, tokens: int) -> int:
        """Rows of so many tokens in a micro-batch."""
        bound = self.tokens_per_micro_batch
        return self.micro_batch_size if bound is None else min(self.micro_batch_size, max(1, bound // tokens))


@dataclass(config=SETTINGS)
class StageFitConfig(Section):
    """A stage's own length, batch and rate of training. null: as ``sft`` has it. At most one of ``epochs`` and
    ``max_steps`` is set, and takes the place of both."""

    epochs: float | None = Field(default=None, gt=0, description="Number of passes over the rows. null: as sft.")
    max_steps: int | None = Field(default=None, ge=1, description="Number of optimizer steps. null: as sft.")
    batch_size: int | None = Field(
        default=None, ge=1, description="Rows per optimizer step (global batch). null: as sft."
    )
    lr: float | None = Field(default=None, gt=0, description="Highest learning rate, after the warm-up. null: as sft.")


FitStage = Literal["distill", "round", "final"]


@dataclass(config=SETTINGS)
class SFTConfig(FitConfig):
    """The student's fits. ``distill``, ``round`` and ``final`` set apart what one kind of stage does otherwise."""

    train: str | None = Field(default=None, description="Training rows, a train.jsonl (task=sft).")
    distill: StageFitConfig = Field(default_factory=StageFitConfig)  # on the teacher's solutions
    round: StageFitConfig = Field(default_factory=StageFitConfig)  # of each self-evolving round
    final: StageFitConfig = Field(default_factory=StageFitConfig)  # after the last reflection

    def of_stage(self, stage: FitStage | None) -> SFTConfig:
        """The settings of a stage's fit. None: of a fit that belongs to none of the three."""
        if stage is None:
            return self
        own: StageFitConfig = getattr(self, stage)
        settings = self
        if own.epochs is not None or own.max_steps is not None:
            settings = replace(settings, epochs=own.epochs, max_steps=own.max_steps)
        if own.batch_size is not None:
            settings = replace(settings, batch_size=own.batch_size)
        if own.lr is not None:
            settings = replace(settings, optimizer=replace(settings.optimizer, lr=own.lr))
        return settings


# The ORM is trained the way the student is, with another learning rate.
LIKE_THE_STUDENT = (
    "method",
    "freeze",
    "freeze_layers",
    "vision_lr_scale",
    "activation_checkpointing",
    "tower_features",
    "max_length",
    "tokens_per_micro_batch",
    "lora.rank",
    "lora.alpha",
    "lora.dropout",
    "lora.scopes",
)


@dataclass(config=SETTINGS)
class ORMConfig(Section):
    """The Outcome Reward Model and its data (docs: mathse/judges/orm_rows)."""

    kind: Literal["generative", "binary"] = Field(
        default="generative", description="Kind of ORM: the two rows of Table 5."
    )
    order: Literal["verdict_first", "analysis_first", "solve_first"] = Field(
        default="analysis_first",
        description="First part of a critique: its verdict, its analysis of the steps, or a solution of its own.",
    )
    see_answer: bool = Field(
        default=False,
        description="Show the reference answer in the ORM's prompt, where the ORM can compare strings. The paper "
        "gives none.",
    )
    see_image: bool = Field(
        default=True,
        description="Show the image in the ORM's prompt. The paper gives none; its critiques cite the figure.",
    )
    own_answer: bool = Field(
        default=False,
        description="Let the ORM answer each problem before it sees a path, and show its answer in place of the "
        "reference answer.",
    )
    backbone: Annotated[Any, Option("backbone")] | None = Field(
        default=None, description="Backbone of the ORM. null: the student's backbone."
    )
    students: list[int] = Field(
        default_factory=lambda: [300, 600],
        description="Number of training rows of each weak student that samples paths. 0: the base model.",
    )
    train: str | None = Field(
        default=None,
        description="Own labelled paths (mathse/data/labelled_paths.py) in place of the students' paths. All are used.",
    )
    held: str | None = Field(
        default=None,
        description="Own labelled paths of other problems on which the ORM is measured. It is set where train is set.",
    )
    samples_per_problem: int = Field(
        default=1, ge=1, description="Number of paths that each weak student samples per problem."
    )
    references: bool = Field(
        default=False,
        description="Count reference solutions among the correct paths, where students are seldom correct.",
    )
    temperature: float = Field(default=0.8, ge=0, description="Sampling temperature of the weak students. 0: greedy.")
    jitter: bool = Field(
        default=False,
        description="Shift, rotate and shear the training images slightly, at random for each row (synthetic task).",
    )
    augment: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Final share of made-up errors among the training paths (synthetic task, without train).",
    )
    student_steps: int = Field(default=200, ge=1, description="Number of optimizer steps of a weak student.")
    solver_steps: int = Field(
        default=600,
        ge=0,
        description="Number of optimizer steps of the solver of the ORM's problems that the ORM starts from. 0: it "
        "starts from the base model.",
    )
    fit: FitConfig = Field(
        default_factory=lambda: FitConfig(optimizer=OptimizerConfig(lr=1.5e-3)),
        json_schema_extra=follows({name: f"sft.{name}" for name in LIKE_THE_STUDENT}),
    )
