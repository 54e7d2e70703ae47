"""The settings of updates: the objective of a round's training run.

Docs: mathse/training/updates. The class of an update says with ``data`` which rows it learns from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import NO_IDENTITY, SETTINGS, Section

NAME = "Name of the update in messages."
Data = Literal["rows", "pairs", "verdicts", "groups"]


@dataclass(config=SETTINGS)
class UpdateConfig(Section):
    """``data``: rows: the paths of D_SFT; pairs: an accepted and a rejected path of a problem; verdicts: the judged
    paths of a stage, each with its verdict; groups: the judged paths of a round, problem by problem."""

    data: ClassVar[Data] = "rows"


@dataclass(config=SETTINGS)
class SFTUpdateConfig(UpdateConfig):
    """Fine-tuning on D_SFT, as in the paper. Its length, batch and rate are those of ``sft``."""

    name: ClassVar[str] = "sft"
    _target_: str = "mathse.training.updates.rows.SFTUpdate"


@dataclass(config=SETTINGS)
class ResponseUpdateConfig(UpdateConfig):
    """An update whose loss is not the cross-entropy of D_SFT. All settings of its training that are not here are those
    of ``sft``."""

    lr_scale: float = Field(default=0.1, gt=0, description="Learning rate as a share of sft.optimizer.lr.")
    epochs: float = Field(default=1.0, gt=0, description="Number of passes over the pairs or paths.")


@dataclass(config=SETTINGS)
class PairUpdateConfig(ResponseUpdateConfig):
    """A pair is two rows of a batch."""

    data: ClassVar[Data] = "pairs"

    beta: float = Field(
        default=0.1,
        gt=0,
        description="Weight of the KL term. A small value lets the student move far from its reference.",
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, le=0.5, description="Assumed share of pairs whose two paths are in the wrong order."
    )
    pairs_per_problem: int | None = Field(
        default=4, ge=1, description="Most pairs of a problem; the newest rejected paths come first. null: all."
    )
    sft_first: bool = Field(
        default=False,
        description="Train on D_SFT first. The result is the start and the reference of the training on pairs.",
    )


@dataclass(config=SETTINGS)
class DPOUpdateConfig(PairUpdateConfig):
    """Direct preference optimisation. update=dpo, sft_then_dpo"""

    _target_: str = "mathse.training.updates.preferences.DPOUpdate"
    name: str = Field(default="dpo", json_schema_extra=NO_IDENTITY, description=NAME)
    nll_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the SFT loss on the accepted paths (rpo_alpha, pref_ftx). Without it both paths may "
        "lose probability.",
    )


@dataclass(config=SETTINGS)
class MPOUpdateConfig(PairUpdateConfig):
    """Mixed preference optimisation: InternVL's sum of three losses, with its weights."""

    _target_: str = "mathse.training.updates.preferences.MPOUpdate"
    name: str = Field(default="mpo", json_schema_extra=NO_IDENTITY, description=NAME)
    preference_weight: float = Field(default=0.8, ge=0, description="Weight of the loss of DPO.")
    quality_weight: float = Field(
        default=0.2, ge=0, description="Weight of the loss of BCO, which classifies each path of a pair."
    )
    generation_weight: float = Field(default=1.0, ge=0, description="Weight of the SFT loss on the accepted paths.")


@dataclass(config=SETTINGS)
class KTOUpdateConfig(ResponseUpdateConfig):
    """Kahneman-Tversky optimisation. Every accepted or rejected path is a row, without a partner."""

    data: ClassVar[Data] = "verdicts"

    _target_: str = "mathse.training.updates.preferences.KTOUpdate"
    name: str = Field(default="kto", json_schema_extra=NO_IDENTITY, description=NAME)
    beta: float = Field(
        default=0.1,
        gt=0,
        description="Weight of the KL term. A small value lets the student move far from its reference.",
    )
    right_weight: float = Field(default=1.0, ge=0, description="Weight of the loss of an accepted path.")
    wrong_weight: float = Field(default=1.0, ge=0, description="Weight of the loss of a rejected path.")


@dataclass(config=SETTINGS)
class GroupUpdateConfig(ResponseUpdateConfig):
    """An update from groups of paths: paths that the round has sampled, or, online, paths that each step samples."""

    data: ClassVar[Data] = "groups"

    steps: int | None = Field(
        default=None,
        ge=1,
        description="Number of optimizer steps of an online round, each on paths that the student of that step "
        "samples. null: the update learns from the paths that the round samples before it (epochs).",
    )
    problems_per_step: int = Field(
        default=32, ge=1, description="Number of problems that an online step samples groups of paths for."
    )
    max_draws: int = Field(
        default=3,
        ge=1,
        description="Most draws of problems_per_step problems for an online step. A step draws again until it has that "
        "many groups to learn from, such as groups with right and wrong paths. 1: it takes its first draw.",
    )
    staleness: int = Field(
        default=0,
        ge=0,
        description="Number of optimizer steps between sampling and learning, online. 0: a step samples by its own "
        "weights.",
    )
    aggregation: Literal["tokens", "sequences", "constant"] = Field(
        default="tokens",
        description="Average over a batch. tokens: over all its tokens; sequences: over its responses, each the mean "
        "of its tokens; constant: the sum over its tokens, divided by responses times the longest allowed response.",
    )
    mismatch: Literal["none", "truncate", "mask"] = Field(
        default="truncate",
        description="Weights for the difference between sampler and trainer, where the sampler's probabilities are "
        "known (online). truncate: the ratio, at most mismatch_high; mask: 0 outside of [mismatch_low, mismatch_high]; "
        "none: no weights.",
    )
    mismatch_level: Literal["token", "sequence", "sequence_mean"] = Field(
        default="token",
        description="Ratio of trainer to sampler. token: of each token; sequence: the product over a response; "
        "sequence_mean: its geometric mean.",
    )
    mismatch_low: float = Field(default=0.5, ge=0, le=1, description="Smallest weight (mismatch=mask).")
    mismatch_high: float = Field(default=2.0, ge=1, description="Largest weight.")


@dataclass(config=SETTINGS)
class CritiqueUpdateConfig(GroupUpdateConfig):
    """Self-distillation on failed paths, online: the teacher is the student that is shown the judge's critique."""

    _target_: str = "mathse.training.updates.critique.CritiqueDistillation"
    name: str = Field(default="critique", json_schema_extra=NO_IDENTITY, description=NAME)
    max_signal: float = Field(
        default=10.0, gt=0, description="Bound of |log teacher - log student| of a token, in nats."
    )
    shuffled: bool = Field(
        default=False, description="Control: show the teacher the critique of another failed path of the batch."
    )


@dataclass(config=SETTINGS)
class PolicyGradientConfig(GroupUpdateConfig):
    """A policy gradient over groups of paths. update=raft, grpo, dr_grpo, rloo, gspo and cispo are settings of it."""

    _target_: str = "mathse.training.updates.policy_gradient.PolicyGradient"
    name: str = Field(default="policy_gradient", json_schema_extra=NO_IDENTITY, description=NAME)
    baseline: Literal["mean", "leave_one_out", "none"] = Field(
        default="mean",
        description="Reward that a response is compared with: the mean of its group, the mean of the other responses "
        "of its group, or 0.",
    )
    scale: Literal["group_std", "batch_std", "none"] = Field(
        default="group_std", description="Standard deviation of the rewards that advantages are divided by."
    )
    ratio: Literal["none", "token", "sequence", "weight"] = Field(
        default="token",
        description="Ratio of the student to the student at the start of the update. none: no ratio; token: PPO's, of "
        "each token; sequence: the geometric mean over a response (GSPO); weight: of each token, as a constant weight "
        "of its log-probability (CISPO).",
    )
    clip_low: float = Field(default=0.2, ge=0, le=1, description="Lower bound of the ratio is 1 - clip_low.")
    clip_high: float = Field(default=0.2, ge=0, description="Upper bound of the ratio is 1 + clip_high.")
    dual_clip: float | None = Field(
        default=None,
        gt=1,
        description="Bound of the loss of a response with a negative advantage, as a multiple of that advantage. null: "
        "none.",
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


UPDATES: tuple[type[UpdateConfig], ...] = (
    SFTUpdateConfig,
    DPOUpdateConfig,
    MPOUpdateConfig,
    KTOUpdateConfig,
    PolicyGradientConfig,
    CritiqueUpdateConfig,
)


def update_name(section: Any) -> str:
    """The name of an update; of a class of the user's own, its dotted path."""
    return str(section["_target_"] if isinstance(section, Mapping) else section.name)
