from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mathse.config.backbones import TinyBackboneConfig
from mathse.config.compose import compose_train
from mathse.config.data import JsonlDataConfig, SyntheticDataConfig
from mathse.config.parse import build, flatten, parse
from mathse.config.schema import MergeCorrectPathsConfig, TrainConfig
from mathse.errors import ConfigError


def test_nothing_set_gives_the_defaults_of_the_schema(read):
    by_hydra, by_hand = read(), parse(OmegaConf.create({}))
    assert by_hydra.callbacks == {name: read().callbacks[name] for name in ("merge", "reflect", "evaluate")}
    by_hydra.callbacks = {}
    assert by_hydra == by_hand
    assert by_hand.data.seed == by_hand.seed == 0  # ${seed} is followed
    assert by_hand.orm.fit.optimizer.lr == TrainConfig().orm.fit.optimizer.lr


def test_sections_become_their_dataclasses(read, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    config = read("data=jsonl", f"data.path={rows}", "teacher=replay", "seed=3", "backbone@orm.backbone=tiny")
    assert config.data == JsonlDataConfig(path=str(rows), seed=3)
    assert isinstance(config.orm.backbone, TinyBackboneConfig)
    assert isinstance(config.callbacks["merge"], MergeCorrectPathsConfig)


def test_a_wrong_value_that_others_follow_is_one_mistake_from_python_too():
    with pytest.raises(ConfigError) as refused:
        compose_train(["sft.method=nope"])
    assert [sentence.partition(" = ")[0] for sentence in str(refused.value).splitlines()] == ["sft.method"]


def test_every_mistake_is_named_at_once(refusal):
    said = refusal("seed=x", "evolution.rounds=-1", "+expermient=smoke", "sft.epochs=3", "evolution.init=bsae")
    assert said == [
        "expermient: no such setting; did you mean experiment?",
        "seed = 'x': must be a whole number",
        "evolution.rounds = -1: must be >= 0",
        "evolution.init = 'bsae': must be one of base, previous; did you mean base?",
        "sft.epochs = 3 and sft.max_steps = 300: exactly one is set; to count in epochs, also pass sft.max_steps=null",
    ]


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("evolution.round=2", "evolution.round = 2: is a group of settings (evolution.round.sample_size, "
         "evolution.round.draw, evolution.round.restarts), not a value; "
                              "did you mean evolution.rounds?"),
        ("+evolution.rouns=2", "evolution.rouns: no such setting; did you mean evolution.rounds?"),
        ("+sft.lr=1", "sft.lr: no such setting; did you mean sft.optimizer.lr?"),
        ("sft.optimizer.lr=0", "sft.optimizer.lr = 0: must be > 0"),
        ("sft.optimizer.lr=inf", "sft.optimizer.lr = inf: must be a finite number"),
        ("sft.optimizer.lr=nan", "sft.optimizer.lr = nan: must be a finite number"),
        ("resume=lats", "resume = 'lats': must be one of last, branch or null; did you mean last?"),
        ("judge.threshold=1.5", "judge.threshold = 1.5: must be >= 0 and <= 1"),
        ("seed=true", "seed = true: must be a whole number"),
        ("seed=1.5", "seed = 1.5: must be a whole number"),
        ("seed=null", "seed = null: must be a whole number"),
        ("orm.see_answer=1", "orm.see_answer = 1: must be true or false"),
        ("orm.students=300", "orm.students = 300: must be a list, each item a whole number, such as [a,b]"),
        ("orm.students=[a]", "orm.students = ['a']: must be a list, each item a whole number, such as [a,b]"),
        ("evolution.round.sample_size=x", "evolution.round.sample_size = 'x': must be a whole number or null"),
        ("~logger", "logger = null: must be a group of settings; choose logger=one of csv, mlflow, several, "
                    "tensorboard, wandb"),
        ("+callbacks.x.y=1", "callbacks.x = {'y': 1}: must have a _target_, a class such as "
                             "mathse.evolution.callbacks.MergeCorrectPaths"),
        ("+callbacks.merge.rate=1", "callbacks.merge.rate: no such setting"),
    ],
)  # fmt: skip
def test_one_mistake_gives_one_sentence_with_key_value_and_what_is_allowed(refusal, override, sentence):
    assert refusal(override) == [sentence]


def test_a_list_of_words_is_told_which_there_are(refusal):
    published = "backbone.path=HuggingFaceTB/SmolLM2-135M-Instruct"
    sets = "each item one of svamp, gsm8k, multiarith, mawps, such as [svamp,gsm8k]; did you mean gsm8k?"
    assert refusal("experiment=words", published, "data.sets=[svamp,gsm8]") == [
        f"data.sets = ['svamp', 'gsm8']: must be a list, {sets}"
    ]


def test_callbacks_that_are_no_group_are_refused():
    with pytest.raises(ConfigError, match=r"^callbacks = 3: must be a group of callbacks by name"):
        parse(OmegaConf.create({"callbacks": 3}))


def test_a_broken_reference_names_the_setting_beside_other_mistakes(refusal):
    said = refusal("name=${nope}", "seed=${nope}", "evolution.rounds=-1")
    assert [sentence.partition(" ")[0] for sentence in said] == ["name:", "seed:", "evolution.rounds"]
    assert all("nope" in sentence for sentence in said[:2])


def test_a_default_that_points_at_another_setting_breaks_no_rule(refusal):
    """orm.fit.freeze is sft's; where it cannot be taken, rules are asked about sft's."""
    assert refusal("orm.fit.freeze=3") == ["orm.fit.freeze = 3: must be a list, each item text, such as [a,b]"]


def test_settings_without_an_option_are_refused(refusal):
    (said,) = refusal("+orm.backbone.path=x")
    assert said.startswith("orm.backbone.path: the chosen orm.backbone has no such setting; it belongs to ")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("name=2025", "name", "2025"),
        ("seed=7.0", "seed", 7),
        ("sft.optimizer.lr=1", "sft.optimizer.lr", 1.0),
        ("sft.optimizer.lr=1e-4", "sft.optimizer.lr", 1e-4),
        ("orm.students=[0,5]", "orm.students", [0, 5]),
    ],
)
def test_a_value_that_can_only_mean_one_thing_is_taken(read, override, key, value):
    taken = flatten(read(override))[key]
    assert taken == value and type(taken) is type(value)


def test_a_callback_can_be_left_out_both_ways(read):
    assert set(read("~callbacks.reflect").callbacks) == {"merge", "evaluate"}
    assert set(read("callbacks.reflect=null").callbacks) == {"merge", "evaluate"}


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_teachers.py").write_text(
        "class Mine:\n"
        "    def __init__(self, patience: int = 1, *, model: str = 'm'):\n"
        "        self.patience = patience\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_teachers.Mine"
    sys.modules.pop("my_teachers", None)


def test_a_class_of_ones_own_is_checked_against_its_signature(own_module):
    ok = parse(OmegaConf.create({"teacher": {"_target_": own_module, "patience": 3}}))
    assert ok.teacher == {"_target_": own_module, "patience": 3}
    assert build(ok.teacher).patience == 3
    with pytest.raises(ConfigError, match=r"teacher.patiense: no such setting; my_teachers.Mine takes patience, model"):
        parse(OmegaConf.create({"teacher": {"_target_": own_module, "patiense": 3}}))


def test_a_class_of_ones_own_that_extends_one_of_ours_takes_the_same_settings(tmp_path, monkeypatch):
    (tmp_path / "my_sources.py").write_text(
        "from mathse.data.synthetic import SyntheticData\nclass Mine(SyntheticData):\n    notes = ('mine',)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = parse(OmegaConf.create({"seed": 5, "data": {"_target_": "my_sources.Mine", "pool": 7}}))
    assert config.data == replace(SyntheticDataConfig(seed=5, pool=7), _target_="my_sources.Mine")
    source = build(config.data)
    assert source.notes == ("mine",) and source.sizes["pool"] == 7 and source.seed == 5
    with pytest.raises(ConfigError, match=r"data.pol: no such setting; did you mean data.pool"):
        parse(OmegaConf.create({"data": {"_target_": "my_sources.Mine", "pol": 7}}))


def test_a_class_that_cannot_be_imported_is_refused():
    with pytest.raises(ConfigError, match=r"teacher._target_ = 'nowhere.Mine': cannot be imported"):
        parse(OmegaConf.create({"teacher": {"_target_": "nowhere.Mine"}}))
    with pytest.raises(ConfigError, match=r"logger._target_ = 'math.pi': is neither a class nor a function"):
        parse(OmegaConf.create({"logger": {"_target_": "math.pi"}}))


def test_build_adds_what_only_a_run_has():
    assert build({"_target_": "fractions.Fraction", "numerator": 1}, denominator=2) == Fraction(1, 2)


def test_flatten_gives_plain_values_by_dotted_key(read):
    flat = flatten(read())
    assert flat["evolution.reflect.when"] == "last"
    assert flat["orm.students"] == [300, 600]
    assert flat["callbacks.merge._target_"] == "mathse.evolution.callbacks.MergeCorrectPaths"
    assert all(not hasattr(value, "__dataclass_fields__") for value in flat.values())
