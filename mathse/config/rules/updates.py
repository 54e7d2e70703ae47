"""Rules of the update: where its rows come from, and which settings go with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mathse.config.generators import HFGeneratorConfig
from mathse.config.judges import AcceptJudgeConfig
from mathse.config.mistakes import show
from mathse.config.schema import TrainConfig
from mathse.config.trust import locate
from mathse.config.updates import (
    CritiqueUpdateConfig,
    DPOUpdateConfig,
    GroupUpdateConfig,
    PolicyGradientConfig,
    update_name,
)
from mathse.errors import ConfigError

ROWS_OF = {"pairs": "pairs", "verdicts": "judged paths", "groups": "groups of judged paths"}


def data_of(update: Any) -> str | None:
    """The rows that an update learns from; None where its class cannot be read, which reading its section says."""
    if not isinstance(update, Mapping):
        return str(update.data)
    try:
        return getattr(locate(update["_target_"], "evolution/update"), "data", None)
    except ConfigError:
        return None


def update_rows_are_a_student_s_own(config: TrainConfig) -> Iterator[str]:
    evolution, data = config.evolution, data_of(config.evolution.update)
    if data not in ROWS_OF:
        return
    name = show(update_name(evolution.update))
    if config.task != "evolve":
        yield f"evolution.update = {name}: {ROWS_OF[data]} come up in rounds, and task is {config.task}; leave it out"
    if getattr(evolution.update, "sft_first", False):
        return
    starts = [("evolution.init", evolution.init), ("evolution.reflect.init", evolution.reflect.init)]
    if data == "groups":
        starts = starts[:1]  # a final stage has no groups, and no training
    instead = ", or evolution.update=sft_then_dpo" if isinstance(evolution.update, DPOUpdateConfig) else ""
    for key, init in starts:
        if init != "previous":
            yield (
                f"evolution.update = {name}: goes on from the student whose paths were judged; pass {key}=previous"
                f"{instead}"
            )


def groups_can_be_compared(config: TrainConfig) -> Iterator[str]:
    evolution, update = config.evolution, config.evolution.update
    if data_of(update) != "groups" or config.task != "evolve":
        return
    name = show(update_name(update))
    # RAFT compares with nothing: each accepted path is a row.
    if not isinstance(update, PolicyGradientConfig) or update.baseline != "none":
        if evolution.samples_per_problem < 2 and not isinstance(update, CritiqueUpdateConfig):
            yield (
                f"evolution.samples_per_problem = {evolution.samples_per_problem}: {update_name(update)} compares the "
                "paths of a problem with each other; pass evolution.samples_per_problem=4"
            )
        if isinstance(config.judge, AcceptJudgeConfig):
            yield (
                f"judge = {config.judge.name}: accepts every path, so no path is better than another, and "
                f"{update_name(update)} learns nothing; pass judge=answer or another judge"
            )
    if evolution.reflect.when != "never":
        yield (
            f"evolution.reflect.when = {show(evolution.reflect.when)}: evolution.update = {name} learns from the "
            "student's paths in groups, and a rewrite is in no group; pass evolution.reflect.when=never"
        )
    if evolution.round.restarts:
        yield (
            f"evolution.round.restarts = {evolution.round.restarts}: evolution.update = {name} learns from whole paths "
            "of the student, and a restarted path has a given beginning; pass evolution.round.restarts=0"
        )


def policy_gradients_are_consistent(config: TrainConfig) -> Iterator[str]:
    update, generator = config.evolution.update, config.generator
    if not isinstance(update, PolicyGradientConfig):
        return
    if update.ratio == "sequence" and update.aggregation != "sequences":
        yield (
            f"evolution.update.aggregation = {show(update.aggregation)}: the ratio of a whole path "
            "(evolution.update.ratio=sequence) is averaged over paths; pass evolution.update.aggregation=sequences"
        )
    if update.ratio == "none" and not update.beta and update.steps is None:
        return
    yield from _refuse_truncated_sampling(update, generator)


def online_updates_sample_here(config: TrainConfig) -> Iterator[str]:
    update, generator = config.evolution.update, config.generator
    if not isinstance(update, GroupUpdateConfig):
        return
    if update.mismatch == "mask" and update.mismatch_low > update.mismatch_high:
        yield (
            f"evolution.update.mismatch_low = {update.mismatch_low}: must be at most evolution.update.mismatch_high = "
            f"{update.mismatch_high}"
        )
    name = show(update_name(update))
    if update.steps is None:
        if isinstance(update, CritiqueUpdateConfig):
            yield (
                f"evolution.update.steps = null: evolution.update = {name} learns from paths that its steps sample; "
                "pass evolution.update.steps=100"
            )
        return
    if config.trainer.devices > 1:
        yield (
            f"trainer.devices = {config.trainer.devices}: evolution.update = {name} samples the batch of each step in "
            "one process; pass trainer.devices=1, or evolution.update.steps=null to learn from the round's paths"
        )
    if not isinstance(generator, HFGeneratorConfig):
        yield (
            f"generator = {show(generator_name(generator))}: evolution.update = {name} samples by the weights of each "
            "step, which an engine does not have; pass generator=hf, or evolution.update.steps=null to learn from the "
            "round's paths"
        )
    if isinstance(update, CritiqueUpdateConfig):
        yield from _refuse_truncated_sampling(update, generator)


def generator_name(generator: Any) -> str:
    return str(generator["_target_"] if isinstance(generator, Mapping) else generator._target_)


def _refuse_truncated_sampling(update: GroupUpdateConfig, generator: Any) -> Iterator[str]:
    # The sampler normalises over the tokens that it keeps and the trainer over all, so each ratio would be multiplied
    # by the probability of the kept tokens.
    for key, off in (("top_p", 1.0), ("top_k", 0)):
        value = getattr(generator, key, off)
        if value != off:
            yield (
                f"generator.{key} = {value}: evolution.update = {show(update_name(update))} compares probabilities of "
                f"the sampler with the student's, and the sampler leaves tokens out; pass generator.{key}={off}"
            )
