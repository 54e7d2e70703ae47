"""Rules of the judges that settings choose, and of the ORM that a run trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mathse.config.data import HubDataConfig, JsonlDataConfig, MixtureDataConfig, PublicDataConfig
from mathse.config.evolution import NOBODY
from mathse.config.field_words import suggest_name
from mathse.config.judges import (
    BY_NAME,
    MUST_BE_SET,
    AgreementJudgeConfig,
    CheckedJudgeConfig,
    JudgeConfig,
    MajorityJudgeConfig,
    OwnJudgeConfig,
    judge_named,
)
from mathse.config.mistakes import show
from mathse.config.rules.files import check_checkpoint, check_file
from mathse.config.schema import TrainConfig


def judges_are_known(config: TrainConfig) -> Iterator[str]:
    names = tuple(dict.fromkeys((*BY_NAME, config.judge.name)))
    no_agreement = tuple(name for name, schema in BY_NAME.items() if not issubclass(schema, AgreementJudgeConfig))
    chosen: list[tuple[str, Any, tuple[str, ...]]] = [
        ("distill.judge", config.distill.judge, names),
        ("evolution.reflect.feedback", config.evolution.reflect.feedback, (*names, NOBODY)),
    ]
    if not isinstance(config.judge, OwnJudgeConfig):
        chosen.insert(0, ("judge.name", config.judge.name, tuple(BY_NAME)))
    if isinstance(config.judge, MajorityJudgeConfig) and config.judge.weights is not None:
        chosen += [("judge.weights", config.judge.weights, ("orm",))]
    if isinstance(config.judge, AgreementJudgeConfig):
        chosen += [("judge.parts", part, no_agreement) for part in config.judge.parts]
    for path, judge, allowed in chosen:
        if not isinstance(judge, JudgeConfig) and judge not in allowed:
            yield f"{path} = {show(judge)}: must be one of {', '.join(allowed)}{suggest_name(str(judge), allowed)}"
    if isinstance(config.judge, AgreementJudgeConfig) and len(config.judge.parts) < 2:
        yield f"judge.parts = {config.judge.parts}: must name two judges or more, such as [orm,answer]"


def votes_have_samples(config: TrainConfig) -> Iterator[str]:
    """A majority is of several samples of a problem: of a round, and not of a teacher's solution or a rewrite."""
    evolution = config.evolution
    if _votes(config.judge) and config.task == "evolve":
        if evolution.samples_per_problem < 2:
            yield (
                f"judge = {config.judge.name}: a majority needs two samples of a problem or more, and "
                f"evolution.samples_per_problem = {evolution.samples_per_problem}; pass "
                "evolution.samples_per_problem=4"
            )
        if evolution.reflect.when != "never" and not evolution.reflect.all_drafts:
            yield (
                f"judge = {config.judge.name}: a rewrite is the only one of its problem and has no vote; pass "
                "evolution.reflect.when=never, evolution.reflect.all_drafts=true, or another judge"
            )
    if config.task in ("evolve", "distill") and _votes(_distill_judge(config)):
        yield (
            f"distill.judge = {_distill_judge(config).name}: a teacher writes one solution of a problem, which has no "
            "vote; pass distill.judge=accept to trust the teacher, or distill.judge=checked, answer or orm"
        )


def _distill_judge(config: TrainConfig) -> Any:
    """Its settings; the name itself where there is no such judge, which ``judges_are_known`` says."""
    chosen = config.distill.judge
    known = isinstance(chosen, JudgeConfig) or chosen in (*BY_NAME, config.judge.name)
    return judge_named(chosen, config.judge) if known else chosen


def _votes(judge: Any) -> bool:
    return isinstance(judge, MajorityJudgeConfig) or (
        isinstance(judge, AgreementJudgeConfig) and "majority" in judge.parts
    )


def checked_steps_can_be_checked(config: TrainConfig) -> Iterator[str]:
    known = (JsonlDataConfig, PublicDataConfig, HubDataConfig, MixtureDataConfig)  # ours that have no check of steps
    judges = [("judge", config.judge), ("distill.judge", _distill_judge(config))]
    for path, judge in judges if isinstance(config.data, known) else ():
        if isinstance(judge, CheckedJudgeConfig) or (
            isinstance(judge, AgreementJudgeConfig) and "checked" in judge.parts
        ):
            yield (
                f"{path} = {judge.name}: this data has no check of steps; pass {path}=majority, or data=word_problems "
                "or data=synthetic"
            )


def own_judges_have_their_settings(config: TrainConfig) -> Iterator[str]:
    for path, judge in (("judge", config.judge), ("distill.judge", config.distill.judge)):
        for name in judge.takes if isinstance(judge, OwnJudgeConfig) else ():
            if getattr(judge, name) == MUST_BE_SET:
                remedy = f"pass +{path}.{name}=VALUE"
                yield f"{path}.{name}: is not set, and {judge.name} has no default for it; {remedy}"


def judge_checkpoint_is_a_model(config: TrainConfig) -> Iterator[str]:
    yield from check_checkpoint("judge.checkpoint", config.judge.checkpoint, "a trained ORM's checkpoint folder")


def binary_orm_solves_nothing(config: TrainConfig) -> Iterator[str]:
    if config.orm.kind == "binary" and config.orm.order == "solve_first":
        yield "orm.order = 'solve_first': orm.kind = 'binary' writes no text to order; pass orm=generative"


def orm_sees_one_answer(config: TrainConfig) -> Iterator[str]:
    if config.orm.own_answer and config.orm.see_answer:
        yield "orm.own_answer = true and orm.see_answer = true: the ORM compares with one answer; pass one of them"


def orm_has_its_rows(config: TrainConfig) -> Iterator[str]:
    train, held = config.orm.train, config.orm.held
    for key, value, other_key, other in (("train", train, "held", held), ("held", held, "train", train)):
        if value is None and other is not None:
            yield (
                f"orm.{key} = null: orm.{other_key} is set; an ORM learns from one file and is measured on the other, "
                "pass both"
            )
        yield from check_file(f"orm.{key}", value, "has one labelled path a line")
    if train is not None and config.judge.checkpoint is not None:
        yield f"orm.train = {show(train)}: judge.checkpoint brings an ORM, so none is trained; pass one"


def orm_students_have_sizes(config: TrainConfig) -> Iterator[str]:
    if not config.orm.students or min(config.orm.students) < 0:
        yield (
            f"orm.students = {config.orm.students}: must be at least one training-set size, each >= 0; "
            "pass orm.students=[300,600], for instance"
        )
