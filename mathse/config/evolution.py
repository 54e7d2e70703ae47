"""The settings of Algorithm 1: distillation, rounds, reflection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mathse.config.allow import allow

NOBODY = "none"  # evolution.reflect.feedback: the writer is told nothing


@dataclass
class Distill:
    size: int | None = allow(None, low=1)  # problems; null: the data's seed set; in task=distill: all
    judge: Any = "${judge.name}"  # who filters: the name of a judge, or a section with a _target_, as judge's


@dataclass
class Round:
    sample_size: int | None = allow(None, low=1)  # problems of D_remain a round tries; null: all (Alg. 1 line 7)
    # which problems a round tries where sample_size leaves some out: all are equally likely, or each as likely as
    # students failed on it in earlier rounds
    draw: Literal["uniform", "failure"] = "uniform"
    # further samples of a problem that go on from the right steps of its newest rejected path, where the verdict names
    # the first wrong step
    restarts: int = allow(0, low=0)


@dataclass
class Reflect:
    when: Literal["last", "every", "never"] = "last"  # after which rounds; PAPER: Alg. 1 says once, Eq. 2 every round
    feedback: str = "orm"  # Table 3's rows: orm, teacher, none; the name of any judge, whose words the writer is given
    writer: Literal["teacher", "student"] = "teacher"  # who rewrites; PAPER: GPT-4o; one sentence says "the model"
    init: Literal["base", "previous"] = "base"  # of the fit after it; PAPER: silent; the authors' README: previous
    # what a rewrite is an answer to in D_SFT: the question (Alg. 1), or question, draft and critique (the authors'
    # README); PAPER: the two differ
    row: Literal["question", "draft"] = "question"
    tries: int = allow(1, low=1)  # rewrites of a draft until one is accepted
    all_drafts: bool = False  # true: every wrong draft is rewritten, also of problems solved later (README)


@dataclass
class DPO:
    """Direct preference optimisation (update=dpo, sft_then_dpo). What is not set here is as ``sft`` has it; a pair is
    two rows of a batch."""

    beta: float = allow(0.1, above=0)  # how far the student may leave its reference: small is far
    label_smoothing: float = allow(0.0, low=0, high=0.5)  # share of the pairs that is taken to be the wrong way round
    # weight of SFT's loss on the accepted paths, without which both paths may lose probability (rpo_alpha, pref_ftx)
    nll_weight: float = allow(0.0, low=0)
    lr_scale: float = allow(0.1, above=0)  # learning rate, as a share of sft.optimizer.lr
    epochs: float = allow(1.0, above=0)  # passes over the pairs
    pairs_per_problem: int | None = allow(4, low=1)  # at most, the newest rejected paths first; null: all


@dataclass
class Evolution:
    rounds: int = allow(2, low=0)  # K; PAPER: not stated, Figure 2 and Table 1 imply 2
    init: Literal["base", "previous"] = "base"  # what a round's fit starts from; PAPER: silent
    samples_per_problem: int = allow(4, low=1)  # paths that the student draws for a problem of a round
    # accepted paths of different texts that D_SFT holds of a problem: one, a number of them, all, or at most as many as
    # a solved problem of the round has on average (balanced)
    keep: int | Literal["one", "all", "balanced"] = allow("one", low=1)
    # whether solved problems are sampled again, new accepted paths replacing the student's older ones: never (Alg. 1),
    # where the student is better on dev problems than the one that wrote those (better), or in every round (all,
    # ReST-EM)
    resample: Literal["never", "better", "all"] = "never"
    # how a round's fit and the final one learn: from D_SFT (the paper), or from pairs of an accepted and a rejected
    # path of a problem (docs: mathse/training/dpo.py), or from the one and then from the other
    update: Literal["sft", "dpo", "sft_then_dpo"] = "sft"
    dpo: DPO = field(default_factory=DPO)
    round: Round = field(default_factory=Round)
    reflect: Reflect = field(default_factory=Reflect)
