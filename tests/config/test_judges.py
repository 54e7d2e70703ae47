"""Judges are options: each has its own settings, and a user's own class is one like ours."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from mathse.config import judges
from mathse.config.judges import AgreementJudge, NoisyJudge, OwnJudge, RandomJudge, judge_named
from mathse.config.overrides import explain
from mathse.config.parse import parse
from mathse.config.schema import TrainConfig, needs_orm
from mathse.errors import ConfigError
from mathse.evolution.keys import flatten_for_identity, list_judging_keys
from mathse.runs.settings import config_slice

from .conftest import composed

ONE_SECTION = {  # as run.json has it of runs before judges were options
    "checkpoint": None, "threshold": 0.4, "rate": 0.3, "batch_size": 8, "max_new_tokens": 8, "server": None,
    "model": None, "command": None, "start_timeout": 900.0, "api_key_env": None, "image_side": 4096,
    "cache_dir": "outputs/.answers", "max_concurrency": 64, "timeout": 600.0, "max_retries": 8,
}  # fmt: skip


class Length:
    """A judge of somebody else's package."""

    def __init__(self, longest: int, unit: str = "characters", *, seed: int, orm: object = None) -> None: ...


class Silent:
    def __init__(self, teacher: object) -> None: ...


@pytest.fixture(autouse=True)
def own_package(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("somebodys")
    package.Length, package.Silent = Length, Silent  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys", package)


def test_each_option_has_its_own_settings(read):
    assert type(read("judge=random", "judge.rate=0.3").judge) is RandomJudge
    assert read("judge=noisy").judge == NoisyJudge(rate=0.1)
    assert read("judge=orm_and_answer", "judge.threshold=0.4").judge == AgreementJudge(threshold=0.4)


@pytest.mark.parametrize("name", [name for name in judges.BY_NAME if name not in ("random", "noisy")])
def test_setting_of_another_judge_is_refused_with_the_judges_that_have_it(name):
    section = {"name": name, "_target_": judges.BY_NAME[name]._target_, "rate": 0.3}
    with pytest.raises(ConfigError, match=r"judge.rate: the chosen judge has no such setting; it belongs to judge="):
        parse(OmegaConf.create({"judge": section}))
    with pytest.raises(HydraException) as caught:
        composed(f"judge={name}", "judge.rate=0.3", "judge.threshold=0.4")
    said = "judge.rate: the chosen judge has no such setting; it belongs to judge=one of random, noisy"
    beside = ["distill.judge=answer", "evolution.reflect.when=never"]  # a majority judges neither of these
    arguments = [f"judge={name}", "judge.rate=0.3", "judge.threshold=0.4", *beside]
    assert explain(caught.value, arguments, TrainConfig) == said


def test_judge_is_chosen_by_its_old_name_too(read):
    assert read("judge.name=answer").judge == judges.AnswerJudge()
    assert read("+experiment/controls=random").judge == RandomJudge(rate=0.5)
    assert read("+experiment/orm_quality=noise_35").judge.rate == 0.35
    with pytest.raises(ConfigError, match=r"judge.name = 'nobody': must be one of orm, teacher, answer"):
        read("judge.name=nobody")


@pytest.mark.parametrize("name", ["orm", "teacher", "answer", "orm_and_answer", "random", "noisy"])
def test_config_that_an_earlier_version_recorded_is_read_and_identities_stay(name):
    old = {"judge": {"name": name, **ONE_SECTION}, "distill": {"judge": name}}
    config = parse(OmegaConf.create(old))
    assert (config.judge.name, config.judge.threshold, config.judge.batch_size) == (name, 0.4, 8)
    recorded = {"judge.name": name, "judge.checkpoint": None, "judge.threshold": 0.4, "judge.batch_size": 8}
    recorded |= {"judge.max_new_tokens": 8, **({"judge.rate": 0.3} if name in ("random", "noisy") else {})}
    keys = list_judging_keys(config, "judge")
    assert {k: v for k, v in config_slice(flatten_for_identity(config), keys).items() if "teacher" not in k} == recorded


def test_judge_of_the_distilled_paths_shares_the_values_of_the_runs_judge(read):
    config = read("judge=random", "judge.rate=0.3", "judge.batch_size=5", "distill.judge=noisy")
    assert judge_named(config.distill.judge, config.judge) == NoisyJudge(rate=0.3, batch_size=5)
    config = read("judge=orm", "distill.judge=random")
    recorded = config_slice(flatten_for_identity(config), list_judging_keys(config, "distill.judge"))
    assert (recorded["distill.judge"], recorded["judge.rate"]) == ("random", 0.5)


def test_class_of_somebody_elses_is_bound_against_its_signature(read, refusal):
    config = read("judge._target_=somebodys.Length", "+judge.longest=400", "judge.threshold=0.8")
    assert isinstance(config.judge, OwnJudge)
    assert (config.judge.longest, config.judge.unit, config.judge.threshold) == (400, "characters", 0.8)
    assert (config.judge.name, config.distill.judge, config.judge.asks) == (*["somebodys.Length"] * 2, ("orm",))
    keys = list_judging_keys(config, "judge")
    recorded = config_slice(flatten_for_identity(config), keys)
    assert (recorded["judge.name"], recorded["judge.longest"]) == ("somebodys.Length", 400)
    assert refusal("judge._target_=somebodys.Length", "+judge.longst=4") == [
        "judge.longst: no such setting; did you mean judge.longest?",
        "judge.longest: is not set, and somebodys.Length has no default for it; pass +judge.longest=VALUE",
    ]
    (unknown,) = refusal("judge._target_=somebodys.Lenght")  # and nothing of a judge.name that nobody has set
    assert unknown.startswith("judge._target_ = 'somebodys.Lenght': cannot be")


def test_class_of_somebody_elses_judges_the_distilled_paths_alone(read):
    config = read("judge=answer", "distill.judge={_target_: somebodys.Length, longest: 9}")
    assert (config.judge.name, config.distill.judge.name, config.distill.judge.longest) == (
        "answer",
        "somebodys.Length",
        9,
    )
    keys = list_judging_keys(config, "distill.judge")
    assert {"distill.judge.name", "distill.judge.longest", "judge.threshold"} <= {*keys}


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        (["judge=orm"], True),
        (["judge=answer"], True),  # the default feedback is the ORM's
        (["judge=answer", "evolution.reflect.feedback=teacher"], False),
        (["judge=answer", "evolution.reflect.when=never"], False),
        (["judge=orm_and_answer", "evolution.reflect.when=never"], True),
        (["judge=orm_and_answer", "judge.parts=[teacher,answer]", "evolution.reflect.when=never"], False),
        (["judge=answer", "distill.judge=orm", "evolution.reflect.when=never"], True),
        (["judge._target_=somebodys.Silent", "evolution.reflect.when=never"], False),
        (["judge=answer", "task=distill"], False),
        (["judge=answer", "task=orm"], True),
    ],
)
def test_judges_settings_say_whether_the_orm_is_needed(read, overrides, needed):
    assert needs_orm(read(*overrides)) == needed


def test_unknown_judges_are_refused_with_the_nearest(refusal):
    told = refusal(
        "distill.judge=answr", "evolution.reflect.feedback=teachr", "judge=orm_and_answer", "judge.parts=[or]"
    )
    names = ", ".join(judges.BY_NAME)
    assert told == [
        f"distill.judge = 'answr': must be one of {names}; did you mean answer?",
        f"evolution.reflect.feedback = 'teachr': must be one of {names}, none; did you mean teacher?",
        "judge.parts = 'or': must be one of orm, teacher, answer, random, noisy, majority, checked, accept; did "
        "you mean orm?",
        "judge.parts = ['or']: must name two judges or more, such as [orm,answer]",
    ]
