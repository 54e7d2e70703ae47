"""The settings of Algorithm 1: distillation, rounds, reflection."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import SETTINGS, Option, Section
from mathse.config.updates import SFTUpdateConfig

NOBODY = "none"  # evolution.reflect.feedback: the writer is told nothing


@dataclass(config=SETTINGS)
class Distill(Section):
    size: int | None = Field(
        default=None, ge=1, description="Number of problems. null: the data's seed set; with task=distill all problems."
    )
    judge: Annotated[Any, Option("judge", or_name=True)] = Field(
        default="${judge.name}",
        description="Judge that filters the teacher's paths: its name, or a section with a _target_ as judge has.",
    )


@dataclass(config=SETTINGS)
class Round(Section):
    sample_size: int | None = Field(
        default=None,
        ge=1,
        description="Number of problems of D_remain that a round tries. null: all (Algorithm 1, line 7).",
    )
    draw: Literal["uniform", "failure"] = Field(
        default="uniform",
        description="How a round draws its problems where sample_size leaves some out. uniform: all are equally "
        "likely; failure: a problem is as likely as students failed on it in earlier rounds.",
    )
    restarts: int = Field(
        default=0,
        ge=0,
        description="Number of further samples of a problem that continue the correct steps of its newest rejected "
        "path. They need a verdict that names the first wrong step.",
    )


@dataclass(config=SETTINGS)
class Reflect(Section):
    when: Literal["last", "every", "never"] = Field(
        default="last",
        description="Rounds after which reflection runs. Algorithm 1 of the paper reflects once, Eq. 2 after every "
        "round.",
    )
    feedback: str = Field(
        default="orm",
        description="Judge that gives the writer its feedback: orm, teacher or none (rows of Table 3), or any judge's "
        "name.",
    )
    writer: Literal["teacher", "student"] = Field(
        default="teacher",
        description="Model that rewrites wrong paths. The paper uses GPT-4o; one of its sentences names the model "
        "itself.",
    )
    init: Literal["base", "previous"] = Field(
        default="base",
        description="Checkpoint from which the fine-tuning after reflection starts. The paper gives none; the authors' "
        "README uses previous.",
    )
    row: Literal["question", "draft"] = Field(
        default="question",
        description="Prompt of a rewrite in D_SFT. question: the question (Algorithm 1); draft: question, draft and "
        "critique (the authors' README).",
    )
    tries: int = Field(default=1, ge=1, description="Most rewrites of a draft; the first accepted rewrite ends them.")
    all_drafts: bool = Field(
        default=False,
        description="Rewrite every wrong draft, including those of problems that were solved later (the authors' "
        "README).",
    )


@dataclass(config=SETTINGS)
class Evolution(Section):
    rounds: int = Field(
        default=2,
        ge=0,
        description="Number of rounds K. The paper states none; its Figure 2 and Table 1 imply 2.",
    )
    init: Literal["base", "previous"] = Field(
        default="base", description="Checkpoint from which a round's fine-tuning starts. The paper gives none."
    )
    samples_per_problem: int = Field(
        default=4, ge=1, description="Number of paths that the student samples for a problem of a round."
    )
    keep: Annotated[int, Field(ge=1)] | Literal["one", "all", "balanced"] = Field(
        default="one",
        description="Number of accepted paths with different texts that D_SFT holds of a problem. balanced: at most as "
        "many as a solved problem of the round has on average.",
    )
    resample: Literal["never", "better", "all"] = Field(
        default="never",
        description="Whether solved problems are sampled again and new accepted paths replace the student's older "
        "paths. never: Algorithm 1; better: where the student beats the author of those paths on dev problems; all: in "
        "every round (ReST-EM).",
    )
    update: Annotated[Any, Option("evolution/update")] = Field(default_factory=SFTUpdateConfig)
    round: Round = Field(default_factory=Round)
    reflect: Reflect = Field(default_factory=Reflect)
