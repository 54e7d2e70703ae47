"""The updates: which loss a student learns by, each option with settings of its own (docs: mathse/training/updates)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import SETTINGS, Section


@dataclass(config=SETTINGS)
class OnlineUpdate(Section):
    """What updates share that learn from responses of the current student."""

    steps: int = Field(default=100, ge=1, description="Number of optimizer steps of an online round.")
    problems_per_step: int = Field(default=32, ge=1, description="Number of problems that a step samples groups for.")
    max_draws: int = Field(
        default=3,
        ge=1,
        description="Most draws of problems_per_step problems for a step. A step draws again until it has that many "
        "groups whose responses differ in their outcome. 1: a step learns from its first draw as it is.",
    )
    staleness: int = Field(
        default=0,
        ge=0,
        description="Number of optimizer steps between sampling and learning. 0: a step samples from its own weights.",
    )
    lr_scale: float = Field(default=0.1, gt=0, description="Learning rate as a share of sft.optimizer.lr.")
    mismatch: Literal["none", "truncate", "mask"] = Field(
        default="truncate",
        description="Weights for the difference between sampler and trainer. truncate: the ratio, at most "
        "mismatch_high; mask: 0 outside of [mismatch_low, mismatch_high]; none: no weights.",
    )
    mismatch_level: Literal["token", "sequence", "sequence_mean"] = Field(
        default="token",
        description="Ratio of trainer to sampler. token: of each token; sequence: the product over a response; "
        "sequence_mean: its geometric mean.",
    )
    mismatch_low: float = Field(default=0.5, ge=0, le=1, description="Smallest weight (mismatch=mask).")
    mismatch_high: float = Field(default=2.0, ge=1, description="Largest weight.")


@dataclass(config=SETTINGS)
class PolicyGradientUpdate(OnlineUpdate):
    """Groups of responses that the current student samples. update=grpo, dr_grpo, rloo, gspo and cispo are settings of
    this class."""

    _target_: str = "mathse.training.updates.policy_gradient.PolicyGradient"
    baseline: Literal["mean", "leave_one_out", "none"] = Field(
        default="mean",
        description="Reward that a response is compared with: the mean of its group, the mean of the other responses "
        "of its group, or 0.",
    )
    scale: Literal["group_std", "batch_std", "none"] = Field(
        default="group_std", description="Standard deviation of the rewards that advantages are divided by."
    )
    ratio: Literal["token", "sequence", "weight"] = Field(
        default="token",
        description="Ratio of the student to the student at the start of the update. token: PPO's, of each token; "
        "sequence: the geometric mean over a response (GSPO); weight: of each token, as a constant weight of its "
        "log-probability (CISPO).",
    )
    clip_low: float = Field(default=0.2, ge=0, le=1, description="Lower bound of the ratio is 1 - clip_low.")
    clip_high: float = Field(default=0.2, ge=0, description="Upper bound of the ratio is 1 + clip_high.")
    dual_clip: float | None = Field(
        default=None,
        gt=1,
        description="Bound of the loss of a response with a negative advantage, as a multiple of that advantage. null: "
        "none.",
    )
    aggregation: Literal["tokens", "sequences", "constant"] = Field(
        default="tokens",
        description="Average over a batch. tokens: over all its tokens; sequences: over its responses, each the mean "
        "of its tokens; constant: the sum over its tokens, divided by responses times the longest allowed response.",
    )
    kl: Literal["k2", "k3", "k3+"] = Field(
        default="k3+",
        description="Estimator of the divergence from the reference (beta > 0). k3+: the value of k3 with the gradient "
        "of k2, which is that of the divergence.",
    )
    beta: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the divergence from the reference, the student at the start of the stage. 0: no "
        "reference is kept.",
    )


@dataclass(config=SETTINGS)
class CritiqueUpdate(OnlineUpdate):
    """Self-distillation on failed responses: the teacher is the student that is shown the judge's critique."""

    _target_: str = "mathse.training.updates.critique.CritiqueDistillation"
    aggregation: Literal["tokens", "sequences", "constant"] = Field(
        default="tokens", description="Average over a batch, as in update=grpo."
    )
    max_signal: float = Field(
        default=10.0, gt=0, description="Bound of |log teacher - log student| of a token, in nats."
    )
    shuffled: bool = Field(
        default=False,
        description="Control: show the teacher the critique of another failed response of the batch.",
    )
