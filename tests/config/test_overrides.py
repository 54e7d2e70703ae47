"""What Hydra refuses is told in the same style as what we refuse."""

from __future__ import annotations

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from mathse.config.overrides import explain, refuse_early
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.errors import ConfigError

from .conftest import composed

BACKBONES = (
    "available: causal_lm, cogvlm2, hf, internvl2_5, internvl3, qwen2_5_vl, qwen2vl, qwen3_vl, smollm2, "
    "smollm2_vision, tiny"
)
JUDGES = (
    "available: accept, answer, checked, checked_votes, majority, noisy, orm, orm_and_answer, orm_and_votes, random, "
    "teacher"
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evolution.rouns=2"], "evolution.rouns: no such setting; did you mean evolution.rounds?"),
        (["expermient=smoke"], "expermient: no such setting; did you mean experiment?"),
        (["+evolution.round=2"], "evolution.round = 2: is a group of settings (evolution.round.sample_size, "
         "evolution.round.draw, evolution.round.restarts), not a "
                                 "value; did you mean evolution.rounds?"),
        (["+seed=2"], "+seed=2: seed is a setting already; write seed=2"),
        (["+experiment=smoke"], "+experiment=smoke: experiment is chosen already; write experiment=smoke"),
        (["sweep=lr"], "sweep=lr: no sweep is chosen that this could replace; write +sweep=lr"),
        (["experiment/rounds=k1"], "experiment/rounds=k1: no experiment/rounds is chosen that this could replace; "
                                   "write +experiment/rounds=k1"),
        (["backbone=qwen2v"], f"backbone=qwen2v: no such option; {BACKBONES}; did you mean qwen2vl?"),
        (["judge=nobody"], f"judge=nobody: no such option; {JUDGES}"),
        (["backbone@orm.backbone=tinny"], f"backbone@orm.backbone=tinny: no such option; {BACKBONES}; "
                                          "did you mean tiny?"),
        (["data.path=missing.jsonl"], "data.path: the chosen data has no such setting; it belongs to data=jsonl"),
        (["orm.backbone.path=x"], "orm.backbone.path: the chosen orm.backbone has no such setting; it belongs to "
                                  "backbone@orm.backbone=one of tiny, qwen2vl, internvl2_5, cogvlm2, qwen2_5_vl, "
                                  "qwen3_vl, internvl3, causal_lm, smollm2, smollm2_vision, hf"),
        (["name=optuna", "sft.lr=1"], "sft.lr: no such setting; did you mean sft.optimizer.lr?"),
        (["experiment=controls/answer", "sft.lr=1"], "sft.lr: no such setting; did you mean sft.optimizer.lr?"),
        (["seed=1,2"], "seed = 1,2: several values are a sweep, which needs -m; a list is written seed=[1,2]"),
        (["smoke"], "smoke: a setting is written key=value; did you mean experiment=smoke?"),
        (["name=a:{"], "name=a:{: not readable; write key=value, and quote special characters: 'name=\"a:{\"'"),
        (["~callbacks.reflct"], "callbacks.reflct: no such setting"),
        (["jugde=x", "sft.lr=1", "seed=3"], "jugde: no such setting; did you mean judge?\n"
                                            "sft.lr: no such setting; did you mean sft.optimizer.lr?"),
    ],
)  # fmt: skip
def test_what_hydra_refuses_is_told_in_our_words(arguments, said):
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        composed(*arguments)
    assert explain(caught.value, arguments, TrainConfig) == said


def test_a_group_of_the_other_program_is_no_setting_of_this_one():
    with pytest.raises(HydraException) as caught:
        composed("judge=orm", name="evaluate")
    assert explain(caught.value, ["judge=orm"], EvaluateConfig).startswith("judge=orm: a group of train.py")
    with pytest.raises(HydraException) as caught:
        composed("benchmark=mathvista")
    assert explain(caught.value, ["benchmark=mathvista"], TrainConfig) == "benchmark=mathvista: a group of evaluate.py"


def mistakes(*arguments):
    """What is said of a command line that Hydra refuses."""
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        composed(*(a for a in arguments if not a.startswith("--")))
    return explain(caught.value, arguments, TrainConfig).splitlines()


def test_mistakes_of_every_kind_come_in_one_answer():
    assert mistakes(
        "smoke", "evolution.init=base,previous", "hydra.nowhere=1", "orm=genrative", "sweep=lr", "+seed=-1",
        "~callbacks.reflct", "no@where=1", "sft.optimiser.lr=1", "sft.batch_size=abc", "evolution.round=2",
        "trainer.strategy=dpp", "callbacks.merge.rat=1",
    ) == [
        "smoke: a setting is written key=value; did you mean experiment=smoke?",
        "evolution.init = base,previous: several values are a sweep, which needs -m; a list is written "
        "evolution.init=[base,previous]",
        "the command line does not compose: Could not override 'hydra.nowhere'. (Key 'nowhere' not in 'HydraConf')",
        "orm=genrative: no such option; available: binary, generative; did you mean generative?",
        "sweep=lr: no sweep is chosen that this could replace; write +sweep=lr",
        "+seed=-1: seed is a setting already; write seed=-1",
        "callbacks.reflct: no such setting",
        "no@where: no such group",
        "seed = -1: must be >= 0",
        "sft.optimiser.lr: no such setting; did you mean sft.optimizer.lr?",
        "sft.batch_size = 'abc': must be a whole number",
        "evolution.round = 2: is a group of settings (evolution.round.sample_size, "
         "evolution.round.draw, evolution.round.restarts), not a value; did you mean "
        "evolution.rounds?",
        "trainer.strategy = 'dpp': must be one of auto, ddp, fsdp2, deepspeed; did you mean ddp?",
        "callbacks.merge.rat: no such setting",
    ]  # fmt: skip


def test_rules_between_settings_are_in_the_same_answer():
    assert mistakes("expermient=smoke", "sft.epochs=3", "evolution.rounds=-1") == [
        "expermient: no such setting; did you mean experiment?",
        "evolution.rounds = -1: must be >= 0",
        "sft.epochs = 3 and sft.max_steps = 300: exactly one is set; to count in epochs, also pass sft.max_steps=null",
    ]


def test_what_hangs_on_an_option_that_there_is_not_is_not_judged():
    """Neither its settings nor rules: with data=synthetic in its place, teacher=replay would be refused."""
    said = mistakes("data=jsonk", "data.path=rows.jsonl", "teacher=replay", "seed=-1")
    assert [sentence.partition(": ")[0] for sentence in said] == ["data=jsonk", "seed = -1"]


def test_a_key_that_is_mistyped_is_not_missed_as_well():
    with pytest.raises(HydraException) as caught:
        composed("chekpoint=x", name="evaluate")
    said = explain(caught.value, ["chekpoint=x"], EvaluateConfig)
    assert said == "chekpoint: no such setting; did you mean checkpoint?"


def test_options_in_a_folder_of_ones_own_are_known(tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "mine.yaml").write_text("_target_: mathse.judges.teachers.ReplayTeacher\n")
    unknown = ["seed=-1", "teacher=mine", "orm=x"]
    for own in ([f"hydra.searchpath=[file://{tmp_path}]"], ["--config-dir", str(tmp_path)]):
        said = explain(HydraException("whatever Hydra says"), [*own, *unknown], TrainConfig)
        assert [sentence.partition(": ")[0] for sentence in said.splitlines()] == ["orm=x", "seed = -1"]
    said = explain(HydraException("x"), [f"hydra.searchpath=[file://{tmp_path}]", "teacher=min"], TrainConfig)
    assert said.endswith("available: fallible_replay, mine, openai, replay, student, symbolic; did you mean mine?")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["benchmark=mathvist"], "benchmark=mathvist: no such option; available: dynamath, logicvista, mathverse, "
                                 "mathvision, mathvista, mathvl_test, mmmu_pro, orm_test, synthetic, wemath; did "
                                 "you mean mathvista?"),
        (["benchmark=[mathvista,mathwision]"], "benchmark=mathwision: no such option; available: dynamath, "
                                               "logicvista, mathverse, mathvision, mathvista, mathvl_test, mmmu_pro, "
                                               "orm_test, synthetic, wemath; did you mean mathvision?"),
        (["benchmark.mathvista.rule=strict"], "benchmark.mathvista.rule: mathvista is not among the benchmarks chosen; "
                                              "pass benchmark=mathvista, or benchmark=[mathvista,...]"),
        (["benchmark=mathvista", "benchmark.mathvista.problms=x"],
         "benchmark.mathvista.problms: no such setting; did you mean benchmark.mathvista.problems?"),
    ],
)  # fmt: skip
def test_a_wrong_benchmark_is_told_with_what_there_is(arguments, said):
    arguments = [*arguments, f"predictions={__file__}"]
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        composed(*arguments, name="evaluate")
    assert explain(caught.value, arguments, EvaluateConfig) == said


def test_in_a_sweep_every_value_is_looked_at():
    error = HydraException("whatever Hydra says")
    said = explain(error, ["-m", "backbone=tiny,tinyy", "seed=1,2"], TrainConfig)
    assert said == f"backbone=tinyy: no such option; {BACKBONES}; did you mean tiny?"


def test_what_is_not_recognised_falls_back_on_hydras_first_line():
    error = HydraException("Something else\nwith details")
    assert explain(error, ["seed=1"], TrainConfig) == "the command line does not compose: Something else"


def test_an_error_of_ours_inside_a_resolver_is_told_as_it_is(tmp_path, monkeypatch):
    pytest.importorskip("mathse.runs.stage_cache")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as ours:
        from mathse.config.register import choose_run_dir

        choose_run_dir("last", "demo", "now")
    wrapped = OmegaConfBaseException("wrapped")
    wrapped.__cause__ = ours.value
    assert explain(wrapped, ["resume=last"], TrainConfig).startswith("resume = 'last': no unfinished run under")


def test_a_glob_that_matches_nothing_is_refused_and_one_that_matches_is_not():
    refuse_early(["-m", "experiment=glob(*)", "seed=1", "seed=glob(*)", "a=:{"], TrainConfig)
    with pytest.raises(ConfigError, match="matches no option, so nothing would run; experiment has demo, "):
        refuse_early(["-m", "experiment=glob(study/*)"], TrainConfig)


def test_an_option_that_is_no_name_is_refused():
    refuse_early(["callbacks=[]", "~logger", "backbone=tiny", "data=synthetic,jsonl"], TrainConfig)
    available = "csv, mlflow, several, tensorboard, wandb"
    with pytest.raises(ConfigError, match=f"logger=null: an option is chosen by its name; available: {available}"):
        refuse_early(["logger=null"], TrainConfig)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("teacher.api_key_env=sk-test1234567890abcdef", "teacher.api_key_env"),
        ("judge.api_key_env=1234-5678", "judge.api_key_env"),  # no key that we know, and no name of a variable either
        ("teacher.api_key_env=OPENAI_API_KEY,sk-test1234567890abcdef", "teacher.api_key_env"),
        ("+teacher.api_key=1234-5678", "teacher.api_key"),
        ("teacher.base_url=https://me:1234-5678@host/v1", "teacher.base_url"),
        ("generator.command='env HF_TOKEN=1234-5678 serve {checkpoint}'", "generator.command"),
        ("logger=sk-test1234567890abcdef", "logger"),
        ("sk-test1234567890abcdef", "an argument"),
        ("sk-test1234567890abcdef=1", "an argument"),
    ],
)
def test_a_key_is_refused_before_hydra_shows_it(argument, named):
    with pytest.raises(ConfigError) as caught:
        refuse_early(["-m", "seed=1,2", "logger=null", argument], TrainConfig)
    (said,) = str(caught.value).splitlines()
    assert said.startswith(f"{named}: ") and said.partition(": ")[2].startswith(("holds a key", "must be the name"))
    assert "1234" not in said


def test_what_only_looks_like_a_key_is_not_refused():
    refuse_early([
        "-m", "teacher.api_key_env=OPENAI_API_KEY", "judge.api_key_env=null", "llm.api_key_env='A_KEY','B_KEY'",
        "generator.api_key_env=choice(A, B)", "teacher.api_key_env=${oc.env:WHICH}", "+callbacks.mine.sort_key=length",
        "+callbacks.mine={_target_: my.Callback, eos_token: 2}", "name=task-0123456789abcdef",
        "backbone.path=models/sk-0123456789abcdef", "teacher.base_url=http://host:8000/v1",
    ], TrainConfig)  # fmt: skip
