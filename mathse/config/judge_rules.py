"""What must hold of the judges that settings choose (see ``mathse.config.rules``)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mathse.config.bind import did_you_mean, show
from mathse.config.judges import BY_NAME, MUST_BE_SET, AgreementJudge, Judge, OwnJudge
from mathse.config.loop import NOBODY
from mathse.config.model_rules import checkpoint_problems
from mathse.config.schema import TrainConfig


def judges_are_known(config: TrainConfig) -> Iterator[str]:
    if not isinstance(config.judge, OwnJudge):
        yield from _unknown("judge.name", config.judge.name, tuple(BY_NAME))
    names = tuple(dict.fromkeys((*BY_NAME, config.judge.name)))
    yield from _unknown("distill.judge", config.distill.judge, names)
    yield from _unknown("evolution.reflect.feedback", config.evolution.reflect.feedback, (*names, NOBODY))
    if isinstance(config.judge, AgreementJudge):
        parts = tuple(name for name, schema in BY_NAME.items() if schema is not AgreementJudge)
        for part in config.judge.parts:
            yield from _unknown("judge.parts", part, parts)
        if len(config.judge.parts) < 2:
            yield f"judge.parts = {config.judge.parts}: must name two judges or more, such as [orm,answer]"


def _unknown(path: str, chosen: Any, names: Sequence[str]) -> Iterator[str]:
    if not isinstance(chosen, Judge) and chosen not in names:
        yield f"{path} = {show(chosen)}: must be one of {', '.join(names)}{did_you_mean(str(chosen), names)}"


def own_judges_have_their_settings(config: TrainConfig) -> Iterator[str]:
    for path, judge in (("judge", config.judge), ("distill.judge", config.distill.judge)):
        if isinstance(judge, OwnJudge):
            for name in judge.takes:
                if getattr(judge, name) == MUST_BE_SET:
                    remedy = f"pass +{path}.{name}=VALUE"
                    yield f"{path}.{name}: is not set, and {judge.name} has no default for it; {remedy}"


def judge_checkpoint_is_a_model(config: TrainConfig) -> Iterator[str]:
    yield from checkpoint_problems("judge.checkpoint", config.judge.checkpoint, "a trained ORM's checkpoint folder")
