"""The judges: who returns a verdict on a path, each option with settings of its own (docs: mathse/judges).

What stands in ``Judge`` stands in the section of every judge, a user's own too. It says how verdicts are taken, and how
the run's ORM is opened and asked: whoever judges, the ORM may give feedback, filter the distilled paths or be measured,
and a run has one ORM. What follows in a subclass is that judge's alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, make_dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from mathse.config.allow import allow

# a judge's class gets those that its parameters name
RUN_GIVES = ("orm", "teacher", "seed", "open_judge", "check_steps")
MUST_BE_SET = "???"  # OmegaConf's sign of a value that nobody has given


@dataclass
class Judge:
    """Settings that the section of every judge has."""

    asks: ClassVar[tuple[str, ...]] = ()  # models of the run that its verdicts come from: "orm", "teacher"

    name: str = ""  # as verdicts, reports and stage identities have it; a class of the user's own: its dotted path
    checkpoint: str | None = None  # a trained ORM's folder, instead of training one in this run
    threshold: float = allow(0.5, low=0, high=1)  # accept if the verdict is "correct" and P(correct) >= threshold
    batch_size: int = allow(256, low=1)  # paths that are judged at a time
    max_new_tokens: int = allow(200, low=1)  # of the ORM's critique, at most
    # an ORM in this process that writes its status first (orm.order=verdict_first) explains every path that it calls
    # wrong (all), or only the drafts that a reflection gives to its writer (read); nobody reads the other explanations
    explain: Literal["all", "read"] = "all"
    # vllm: the ORM's weights take turns with the students' in the engine of generator=vllm; hf: in this process, or at
    # ``server``. The settings below are for ``server``; the engine has its own.
    engine: Literal["hf", "vllm"] = "hf"
    server: str | None = None  # where the ORM is served, up to and with /v1; null: in this process
    model: str | None = None  # its name there; null: requests name the ORM's folder, or the command's {name}
    command: str | None = None  # what starts an engine for it, as generator.command
    start_timeout: float = allow(900.0, above=0)  # seconds until a started engine answers
    api_key_env: str | None = None  # the environment variable with the key; null: the server wants none
    image_side: int = allow(4096, low=28)  # pixels, long side of what is sent
    cache_dir: str = "outputs/.answers"  # a served model's answers by content, shared by runs
    max_concurrency: int = allow(64, low=1)  # requests at a time, at most
    timeout: float = allow(600.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)  # of a request that failed, with growing pauses


@dataclass
class ORMJudge(Judge):
    asks: ClassVar[tuple[str, ...]] = ("orm",)

    _target_: str = "mathse.judges.orm.trained_orm"
    name: str = "orm"


@dataclass
class TeacherJudge(Judge):
    asks: ClassVar[tuple[str, ...]] = ("teacher",)

    _target_: str = "mathse.judges.teacher.TeacherJudge"
    name: str = "teacher"


@dataclass
class AnswerJudge(Judge):
    _target_: str = "mathse.judges.answer.AnswerJudge"
    name: str = "answer"


@dataclass
class AgreementJudge(Judge):
    _target_: str = "mathse.judges.agreement.AgreementJudge"
    name: str = "orm_and_answer"
    parts: list[str] = field(default_factory=lambda: ["orm", "answer"])  # all must accept; the first one's words stay

    @property
    def asks(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(model for part in self.parts for model in judge_named(part, self).asks))


@dataclass
class RandomJudge(Judge):
    _target_: str = "mathse.judges.controls.RandomJudge"
    name: str = "random"
    rate: float = allow(0.5, low=0, high=1)  # the share that it accepts


@dataclass
class NoisyJudge(Judge):
    _target_: str = "mathse.judges.controls.NoisyJudge"
    name: str = "noisy"
    rate: float = allow(0.5, low=0, high=1)  # the share that it turns round


@dataclass
class MajorityJudge(Judge):
    """The answer that most samples of a problem come to, from a share of ``threshold`` of its samples on."""

    _target_: str = "mathse.judges.votes.MajorityJudge"
    name: str = "majority"
    ties: Literal["reject", "accept"] = "reject"  # two answers with equally many votes: none counts, or each
    weights: str | None = None  # the judge whose P(correct) weighs a sample's vote: orm; null: votes weigh the same

    @property
    def asks(self) -> tuple[str, ...]:  # type: ignore[override]
        return () if self.weights is None else tuple(judge_named(self.weights, self).asks)


@dataclass
class CheckedJudge(Judge):
    """The data's own check of steps, without the reference answer."""

    _target_: str = "mathse.judges.checked.CheckedJudge"
    name: str = "checked"


@dataclass
class AcceptJudge(Judge):
    """Every path that is not empty."""

    _target_: str = "mathse.judges.controls.AcceptJudge"
    name: str = "accept"


@dataclass
class CheckedVotesJudge(AgreementJudge):
    name: str = "checked_votes"
    parts: list[str] = field(default_factory=lambda: ["majority", "checked"])


@dataclass
class ORMVotesJudge(AgreementJudge):
    name: str = "orm_and_votes"
    parts: list[str] = field(default_factory=lambda: ["orm", "majority"])


JUDGES: tuple[type[Any], ...] = (
    ORMJudge,
    TeacherJudge,
    AnswerJudge,
    AgreementJudge,
    RandomJudge,
    NoisyJudge,
    MajorityJudge,
    CheckedJudge,
    AcceptJudge,
    CheckedVotesJudge,
    ORMVotesJudge,
)
BY_NAME: dict[str, type[Any]] = {schema().name: schema for schema in JUDGES}
OF_EVERY_JUDGE = frozenset(f.name for f in fields(Judge))


@dataclass
class OwnJudge(Judge):
    """A judge of the user's own: its fields are made from the signature of its class."""

    takes: ClassVar[tuple[str, ...]] = ()  # arguments of the class that are settings


def own_judge(target: str, call: Callable[..., Any], values: Mapping[Any, Any]) -> OwnJudge:
    """The settings of a class that is not ours: what its signature names, beside what every judge has."""
    parameters = inspect.signature(call).parameters
    defaults = {
        name: MUST_BE_SET if p.default is p.empty else p.default
        for name, p in parameters.items()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name not in (*RUN_GIVES, "name")
    }
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        more = {"_target_", *RUN_GIVES, *OF_EVERY_JUDGE}
        defaults |= {str(key): value for key, value in values.items() if key not in more}
    made_of: dict[str, Any] = {"_target_": target, "name": target, **defaults}
    asks = tuple(model for model in ("orm", "teacher") if model in parameters)
    schema = make_dataclass(
        "OwnJudge",
        [(name, Any, field(default_factory=partial(deepcopy, value))) for name, value in made_of.items()],
        bases=(OwnJudge,),
        namespace={"asks": asks, "takes": tuple(defaults)},
    )
    judge: OwnJudge = schema()
    return judge


def judge_named(chosen: Any, judge: Judge) -> Any:
    """The settings of a judge that is chosen beside the run's ``judge``: for the distilled paths, as feedback, as part
    of another.

    Args:
        chosen: a name, or settings. Of the run's own judge's name: that one. Another has the values of the run's judge
            wherever both have a setting.
    """
    if isinstance(chosen, Judge):
        return chosen
    if chosen == judge.name:
        return judge
    schema = BY_NAME[chosen]
    both = {f.name for f in fields(schema)} & {f.name for f in fields(judge)} - {"name", "_target_"}
    return schema(**{name: getattr(judge, name) for name in both})


def own_settings(judge: Judge) -> list[str]:
    """The settings that this judge alone has."""
    return [f.name for f in fields(judge) if f.name not in {"_target_", *OF_EVERY_JUDGE}]


def with_target(section: Any) -> Any:
    """A judge's section with the class that its name stands for.

    Runs of earlier versions recorded a name and no class, and ``rate`` for every judge; ``judge.name=answer`` and
    ``judge: {name: answer}`` still choose a judge. A class that is not ours is its own name.
    """
    if not isinstance(section, Mapping):
        return section
    name, target = section.get("name"), section.get("_target_")
    if target is not None and target not in {schema()._target_ for schema in JUDGES}:
        return {**section, "name": target}
    schema = BY_NAME.get(str(name))
    if schema is None or target == schema()._target_:
        return section
    of_others = {f.name for other in JUDGES for f in fields(other)} - {f.name for f in fields(schema)}
    return {key: value for key, value in section.items() if key not in of_others} | {"_target_": schema()._target_}
