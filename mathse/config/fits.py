"""The settings of a fit, of the student's and of the ORM's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from mathse.config.allow import allow


@dataclass
class Optimizer:
    lr: float = allow(2e-3, above=0)  # highest learning rate, after the warm-up
    weight_decay: float = allow(0.01, low=0)  # on matrices only, never on norms and biases
    beta1: float = allow(0.9, low=0, high=1)  # AdamW's decay of the gradient's mean
    beta2: float = allow(0.98, low=0, high=1)  # and of its square
    eps: float = allow(1e-8, above=0)  # AdamW's, added to the root of the square
    warmup_ratio: float = allow(0.05, low=0, high=1)  # share of the steps over which lr rises from 0
    min_lr_ratio: float = allow(0.05, low=0, high=1)  # the cosine ends at this share of lr
    clip: float = allow(1.0, above=0)  # gradient norm


@dataclass
class Lora:
    """Low-rank adapters (method=lora, qlora); the checkpoint is the merged model, the adapter lies beside it."""

    rank: int = allow(16, low=1)  # of the two low-rank matrices
    alpha: float = allow(32.0, above=0)  # the adapter counts alpha / rank times
    dropout: float = allow(0.05, low=0, high=1)  # on what goes into the adapter
    scopes: list[str] = field(default_factory=lambda: ["language"])  # language, tower; cogvlm2: vision_expert too


@dataclass
class Fit:
    """One fit. Exactly one of ``epochs`` and ``max_steps`` is set."""

    method: Literal["full", "lora", "qlora"] = "full"  # all weights, or adapters (qlora: on 4 bits)
    lora: Lora = field(default_factory=Lora)
    freeze: list[str] = field(default_factory=list)  # parts that stay as they are: tower, connector, language
    # so many lower layers of the language model, and the token embeddings, stay as they are; what they make of a row is
    # computed once and kept for the later epochs, where trainer.tower_features_folder and _gb say
    freeze_layers: int = allow(0, low=0)
    vision_lr_scale: float = allow(1.0, above=0)  # learning rate of tower and connector, as a share of optimizer.lr
    activation_checkpointing: bool = False  # slower by about a third, far less memory
    # what a frozen tower makes of a picture is computed once and kept on the disk in bfloat16, for fits, sampling and
    # judging (mathse/models/tower_features.py); where and how much: trainer.tower_features_folder and _gb
    tower_features: bool = False
    max_length: int | None = allow(None, low=16)  # tokens of a row, image included; longer rows are left out, listed

    epochs: float | None = allow(None, above=0)  # passes over the rows; or max_steps, one of the two
    max_steps: int | None = allow(300, low=1)  # optimiser steps; or epochs, one of the two
    batch_size: int = allow(64, low=1)  # rows in a global batch
    micro_batch_size: int = allow(64, low=1)  # rows a forward pass, at most; gradients add up to the global batch
    # tokens a forward pass, rows x longest row, images included; a longer row runs alone; null: only rows are bounded
    tokens_per_micro_batch: int | None = allow(None, low=16)
    optimizer: Optimizer = field(default_factory=Optimizer)
    val_rows: int = allow(128, low=0)  # dev rows of a validation; 0: none
    val_every: int = allow(100, low=1)  # optimiser steps between two validations

    def steps(self, rows: int) -> int:
        """Optimiser steps of a fit on so many rows."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, round((self.epochs or 1.0) * rows / self.batch_size))

    def rows_at_once(self, tokens: int) -> int:
        """Rows of so many tokens in a micro-batch."""
        bound = self.tokens_per_micro_batch
        return self.micro_batch_size if bound is None else min(self.micro_batch_size, max(1, bound // tokens))


@dataclass
class StageFit:
    """A stage's own length, batch and rate of training. null: as ``sft`` has it. At most one of ``epochs`` and
    ``max_steps`` is set, and takes the place of both."""

    epochs: float | None = allow(None, above=0)  # passes over the rows
    max_steps: int | None = allow(None, low=1)  # optimiser steps
    batch_size: int | None = allow(None, low=1)  # rows in a global batch
    lr: float | None = allow(None, above=0)  # highest learning rate, after the warm-up


FitStage = Literal["distill", "round", "final"]


@dataclass
class SFT(Fit):
    """The student's fits. ``distill``, ``round`` and ``final`` set apart what one kind of stage does otherwise."""

    train: str | None = None  # task=sft: a train.jsonl
    distill: StageFit = field(default_factory=StageFit)  # on the teacher's solutions
    round: StageFit = field(default_factory=StageFit)  # of each self-evolving round
    final: StageFit = field(default_factory=StageFit)  # after the last reflection

    def of_stage(self, stage: FitStage | None) -> SFT:
        """The settings of a stage's fit. None: of a fit that belongs to none of the three."""
        if stage is None:
            return self
        own: StageFit = getattr(self, stage)
        settings = self
        if own.epochs is not None or own.max_steps is not None:
            settings = replace(settings, epochs=own.epochs, max_steps=own.max_steps)
        if own.batch_size is not None:
            settings = replace(settings, batch_size=own.batch_size)
        if own.lr is not None:
            settings = replace(settings, optimizer=replace(settings.optimizer, lr=own.lr))
        return settings


def _orm_fit() -> Fit:
    """Trained the way the student is, with another learning rate; values point at ``sft``'s."""
    lora = Lora("${sft.lora.rank}", "${sft.lora.alpha}", "${sft.lora.dropout}", "${sft.lora.scopes}")  # type: ignore[arg-type]
    pointed: dict[str, Any] = {
        name: f"${{sft.{name}}}"
        for name in (
            "method",
            "freeze",
            "freeze_layers",
            "vision_lr_scale",
            "activation_checkpointing",
            "tower_features",
            "max_length",
            "tokens_per_micro_batch",
        )
    }
    return Fit(lora=lora, optimizer=Optimizer(lr=1.5e-3), **pointed)


@dataclass
class ORM:
    """The Outcome Reward Model and its data (docs: mathse/judges/orm_rows)."""

    kind: Literal["generative", "binary"] = "generative"  # Table 5's two rows
    # what a critique begins with: its verdict, its look at the steps, or a solution of its own
    order: Literal["verdict_first", "analysis_first", "solve_first"] = "analysis_first"
    see_answer: bool = False  # PAPER: not stated; with the answer in its prompt a judge can compare strings
    see_image: bool = True  # PAPER: not stated; its critiques cite the figure
    # it first answers a problem itself, before it sees a path, and that answer stands where the reference would
    own_answer: bool = False
    backbone: Any = None  # null: the student's backbone
    students: list[int] = field(default_factory=lambda: [300, 600])  # training rows of each weak student; 0: the base
    train: str | None = None  # own paths (mathse/data/labelled_paths.py) instead of the students', all of them used
    held: str | None = None  # others, of other problems, on which the ORM is measured; set where ``train`` is
    samples_per_problem: int = allow(1, low=1)  # paths of each weak student on a problem
    references: bool = False  # reference solutions count among the right paths too, where students seldom are right
    temperature: float = allow(0.8, low=0)  # 0: greedy
    # its training pictures are moved, turned and slanted a little, each row's in its own way (synthetic task)
    jitter: bool = False
    augment: float = allow(0.3, low=0, high=1)  # final share of made-up errors (synthetic task, without ``train``)
    student_steps: int = allow(200, low=1)  # optimiser steps of a weak student
    solver_steps: int = allow(600, low=0)  # the ORM starts from a solver of its own problems; 0: from the base
    fit: Fit = field(default_factory=_orm_fit)
