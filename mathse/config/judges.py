"""Settings of the judges, which return a verdict on a path: a class for each option (docs: mathse/judges).

``JudgeConfig`` has the settings of every judge, including a user's own: how verdicts are made, and how the run's ORM is
opened and queried. A run has one ORM. With any judge, the ORM may give feedback, filter the distilled paths or be
measured. The subclasses add the settings of one judge.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import fields
from functools import partial
from typing import Any, ClassVar, Literal, cast

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import SETTINGS, Section, settings_of

# The run passes these to a judge's class, as far as the class has parameters of these names.
RUN_GIVES = ("orm", "teacher", "seed", "open_judge", "check_steps")
NAME = "Name of the judge in verdicts, reports and stage identities."
PARTS = "Names of judges that must all accept a path. The first judge writes the verdict."
MUST_BE_SET = "???"  # OmegaConf's sign of a missing value


@dataclass(config=SETTINGS)
class JudgeConfig(Section):
    """Settings that the section of every judge has."""

    asks: ClassVar[tuple[str, ...]] = ()  # models of the run that make its verdicts: "orm", "teacher"

    name: str = Field(
        default="",
        description="Name of the judge in verdicts, reports and stage identities. For your own class: its dotted path.",
    )
    checkpoint: str | None = Field(
        default=None, description="Folder of a trained ORM's checkpoint. null: the run trains an ORM."
    )
    threshold: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description='Lowest P(correct) of an accepted path, whose verdict is "correct" as well.',
    )
    batch_size: int = Field(default=256, ge=1, description="Number of paths that are judged at a time.")
    max_new_tokens: int = Field(default=200, ge=1, description="Most tokens of the ORM's critique.")
    explain: Literal["all", "read"] = Field(
        default="all",
        description="Wrong paths for which an ORM in this process with orm.order=verdict_first writes an explanation. "
        "all: every path; read: only the drafts that a reflection shows to its writer.",
    )
    engine: Literal["hf", "vllm"] = Field(
        default="hf",
        description="Place where the ORM runs. vllm: the engine of generator=vllm, in turn with the students; hf: this "
        "process, or judge.server. The settings below it belong to judge.server; the engine has its own.",
    )
    server: str | None = Field(
        default=None,
        description="Address of the server of the ORM, up to and with /v1. null: the ORM runs in this process.",
    )
    model: str | None = Field(
        default=None,
        description="Name of the served ORM. null: requests name the ORM's folder, or the {name} of judge.command.",
    )
    command: str | None = Field(
        default=None, description="Command that starts an engine for the ORM, as generator.command."
    )
    start_timeout: float = Field(default=900.0, gt=0, description="Seconds until a started engine must answer.")
    api_key_env: str | None = Field(
        default=None, description="Environment variable that holds the API key. null: the server needs none."
    )
    image_side: int = Field(default=4096, ge=28, description="Longest side of a sent image in pixels.")
    cache_dir: str = Field(
        default="outputs/.answers", description="Folder of a served model's answers by content. Runs share it."
    )
    max_concurrency: int = Field(default=64, ge=1, description="Most requests in flight at a time.")
    timeout: float = Field(default=600.0, gt=0, description="Time limit for a whole answer in seconds.")
    max_retries: int = Field(
        default=8, ge=0, description="Most retries of a failed request, with growing pauses between them."
    )


@dataclass(config=SETTINGS)
class ORMJudgeConfig(JudgeConfig):
    asks: ClassVar[tuple[str, ...]] = ("orm",)

    _target_: str = "mathse.judges.orm.trained_orm"
    name: str = Field(default="orm", description=NAME)


@dataclass(config=SETTINGS)
class TeacherJudgeConfig(JudgeConfig):
    asks: ClassVar[tuple[str, ...]] = ("teacher",)

    _target_: str = "mathse.judges.teacher.TeacherJudge"
    name: str = Field(default="teacher", description=NAME)


@dataclass(config=SETTINGS)
class AnswerJudgeConfig(JudgeConfig):
    _target_: str = "mathse.judges.answer.AnswerJudge"
    name: str = Field(default="answer", description=NAME)


@dataclass(config=SETTINGS)
class AgreementJudgeConfig(JudgeConfig):
    _target_: str = "mathse.judges.agreement.AgreementJudge"
    name: str = Field(default="orm_and_answer", description=NAME)
    parts: list[str] = Field(default_factory=lambda: ["orm", "answer"], description=PARTS)

    @property
    def asks(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(model for part in self.parts for model in judge_named(part, self).asks))


@dataclass(config=SETTINGS)
class RandomJudgeConfig(JudgeConfig):
    _target_: str = "mathse.judges.controls.RandomJudge"
    name: str = Field(default="random", description=NAME)
    rate: float = Field(default=0.5, ge=0, le=1, description="Share of the paths that the judge accepts.")


@dataclass(config=SETTINGS)
class NoisyJudgeConfig(JudgeConfig):
    _target_: str = "mathse.judges.controls.NoisyJudge"
    name: str = Field(default="noisy", description=NAME)
    rate: float = Field(default=0.5, ge=0, le=1, description="Share of the verdicts that the judge inverts.")


@dataclass(config=SETTINGS)
class MajorityJudgeConfig(JudgeConfig):
    """Accepts the most frequent answer of a problem's samples, if at least a share of ``threshold`` has it."""

    _target_: str = "mathse.judges.votes.MajorityJudge"
    name: str = Field(default="majority", description=NAME)
    ties: Literal["reject", "accept"] = Field(
        default="reject",
        description="Treatment of two answers with equally many votes. reject: neither wins; accept: both win.",
    )
    weights: str | None = Field(
        default=None,
        description="Judge whose P(correct) is the weight of a sample's vote: orm. null: all votes are equal.",
    )

    @property
    def asks(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.weights is None else tuple(judge_named(self.weights, self).asks)


@dataclass(config=SETTINGS)
class CheckedJudgeConfig(JudgeConfig):
    """Checks each step with the data's own checker, without the reference answer."""

    _target_: str = "mathse.judges.checked.CheckedJudge"
    name: str = Field(default="checked", description=NAME)


@dataclass(config=SETTINGS)
class AcceptJudgeConfig(JudgeConfig):
    """Accepts every path that is not empty."""

    _target_: str = "mathse.judges.controls.AcceptJudge"
    name: str = Field(default="accept", description=NAME)


@dataclass(config=SETTINGS)
class CheckedVotesJudgeConfig(AgreementJudgeConfig):
    name: str = Field(default="checked_votes", description=NAME)
    parts: list[str] = Field(default_factory=lambda: ["majority", "checked"], description=PARTS)


@dataclass(config=SETTINGS)
class ORMVotesJudgeConfig(AgreementJudgeConfig):
    name: str = Field(default="orm_and_votes", description=NAME)
    parts: list[str] = Field(default_factory=lambda: ["orm", "majority"], description=PARTS)


JUDGES: tuple[type[Any], ...] = (
    ORMJudgeConfig,
    TeacherJudgeConfig,
    AnswerJudgeConfig,
    AgreementJudgeConfig,
    RandomJudgeConfig,
    NoisyJudgeConfig,
    MajorityJudgeConfig,
    CheckedJudgeConfig,
    AcceptJudgeConfig,
    CheckedVotesJudgeConfig,
    ORMVotesJudgeConfig,
)
BY_NAME: dict[str, type[Any]] = {settings_of(schema)["name"].default: schema for schema in JUDGES}
OF_EVERY_JUDGE = frozenset(f.name for f in fields(JudgeConfig))


@dataclass(config=SETTINGS)
class OwnJudgeConfig(JudgeConfig):
    """A judge of the user: its fields are the parameters of its class."""

    takes: ClassVar[tuple[str, ...]] = ()  # parameters of the class that are settings


def make_own_judge(target: str, call: Callable[..., Any], values: Mapping[Any, Any]) -> type[OwnJudgeConfig]:
    """Make the settings class of a user's judge: the parameters of its class, beside the settings of every judge.

    Args:
        target: dotted path of the judge's class.
        call: the class.
        values: its section. A class with ``**kwargs`` has all further keys as settings.
    """
    parameters = inspect.signature(call).parameters
    defaults = {
        name: MUST_BE_SET if p.default is p.empty else p.default
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name not in (*RUN_GIVES, "name")
    }
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        no_settings = {"_target_", *RUN_GIVES, *OF_EVERY_JUDGE}
        defaults |= {str(key): value for key, value in values.items() if key not in no_settings}
    # A factory copies each default, so that two objects share no list.
    values_by_field: dict[str, Any] = {"_target_": target, "name": target, **defaults}
    body: dict[str, Any] = {
        name: Field(default_factory=partial(deepcopy, value)) for name, value in values_by_field.items()
    }
    body |= {
        "__annotations__": dict.fromkeys(values_by_field, Any),
        "__module__": __name__,
        "asks": tuple(model for model in ("orm", "teacher") if model in parameters),
        "takes": tuple(defaults),
    }
    return cast("type[OwnJudgeConfig]", dataclass(config=SETTINGS)(type("OwnJudgeConfig", (OwnJudgeConfig,), body)))


def judge_named(chosen: Any, judge: JudgeConfig) -> Any:
    """Return the settings of a judge that is chosen beside the run's ``judge``: for distilled paths, for feedback, or
    as a part of another judge.

    Args:
        chosen: settings, which are returned unchanged, or a name. The name of the run's judge stands for ``judge``
            itself. Any other judge takes the values of ``judge`` for the settings that both have.
        judge: the settings of the run's judge.
    """
    if isinstance(chosen, JudgeConfig):
        return chosen
    if chosen == judge.name:
        return judge
    schema = BY_NAME[chosen]
    both = {f.name for f in fields(schema)} & {f.name for f in fields(judge)} - {"name", "_target_"}
    return schema(**{name: getattr(judge, name) for name in both})


def list_own_settings(judge: JudgeConfig) -> list[str]:
    """List the settings that this judge has and that not every judge has."""
    return [f.name for f in fields(judge) if f.name not in {"_target_", *OF_EVERY_JUDGE}]


def add_target(section: Any) -> Any:
    """Add to a judge's section the class that its name stands for.

    Runs of earlier versions recorded a name without a class, and ``rate`` for every judge. ``judge.name=answer`` and
    ``judge: {name: answer}`` also choose a judge. The name of a user's class is its dotted path.
    """
    if not isinstance(section, Mapping):
        return section
    name, target = section.get("name"), section.get("_target_")
    if target is not None and target not in {schema._target_ for schema in JUDGES}:
        return {**section, "name": target}
    schema = BY_NAME.get(str(name))
    if schema is None or target == schema._target_:
        return section
    # Settings that only other judges have are left out. Unknown keys stay, for the strict reading to report.
    foreign: set[str] = set()
    for other in JUDGES:
        foreign |= {f.name for f in fields(other)} - {f.name for f in fields(schema)}
    return {key: value for key, value in section.items() if key not in foreign} | {"_target_": schema._target_}
