"""Every file of conf/ is composed and parsed."""

from __future__ import annotations

import pytest

from mathse.config.compose import compose_train, compose_unchecked
from mathse.config.data import SETS
from mathse.config.options import CONF, list_groups, list_options
from mathse.config.parse import flatten
from mathse.config.rules import RULES
from mathse.config.schema import TrainConfig

VOTING = ["evolution.reflect.when=never", "distill.judge=accept"]  # a rewrite, or a teacher's solution, has no vote
EVALUATE_ONLY = ("benchmark", "recipe/evaluate", "recipe/answers")  # groups that train.py has not
OPTIONS = [(group, name) for group, names in list_groups().items() for name in names]


@pytest.mark.parametrize(("group", "name"), OPTIONS)
def test_every_option_composes_and_parses(group, name, read, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    jsonl = ["data=jsonl", f"data.path={rows}"]
    mixed = ["+data@data.sources.own=jsonl", f"data.sources.own.path={rows}", "data.counts={own: 1}"]
    sources = {"jsonl": jsonl, "mixture": mixed}
    of_folders = [
        name for name in list_options("data") if "synthetic" not in name and name not in (*sources, "paper_sizes")
    ]
    sources |= {name: [f"data.root={tmp_path}"] for name in of_folders}
    sources["paper"] = ["data=paper", *(f"data.sources.{name}.root={tmp_path}" for name in SETS)]
    beside = {("data", name): [*given, "teacher=replay"] for name, given in sources.items()}
    beside |= {("judge", name): VOTING for name in ("majority", "checked_votes", "orm_and_votes")}
    beside |= {("teacher", "fallible_replay"): ["data=word_problems"]}
    beside |= {("teacher", "replay"): jsonl, ("experiment", "paper_scale"): jsonl}
    beside |= {("experiment/paper", name): jsonl for name in list_options("experiment/paper")}
    # they read no pictures; and smollm2's weights come with packages that need not be installed
    published = "backbone.path=HuggingFaceTB/SmolLM2-135M-Instruct"
    beside |= {("backbone", name): [*jsonl, "teacher=replay", published] for name in ("causal_lm", "smollm2")}
    beside |= {("experiment", name): [published] for name in ("words", "words_study", "words_rounds_study")}
    for study in ("words", "words_update", "words_rounds"):
        beside |= {(f"experiment/{study}", name): [published] for name in list_options(f"experiment/{study}")}
    from_previous = ["evolution.init=previous", "evolution.reflect={init: previous, when: never}"]
    beside |= {("evolution/update", name): from_previous for name in list_options("evolution/update")}
    of_vision = [("backbone", "smollm2_vision"), ("experiment", "pictures")]
    of_vision += [("experiment/smollm2_vision", name) for name in list_options("experiment/smollm2_vision")]
    beside |= dict.fromkeys(of_vision, ["backbone.path=somebody/smollm2-vision"])
    beside = beside.get((group, name), [])
    if (group, name) == ("generator", "server"):
        assert read("generator=server", "generator.model=m", program="evaluate").generator.model == "m"
    elif (group, name) == ("benchmark", "orm_test"):
        (tmp_path / "orm.json").write_text("{}")
        (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
        labelled = [f"checkpoint={tmp_path}", f"benchmark.orm_test.paths={rows}"]
        assert read("benchmark=orm_test", *labelled, program="evaluate").benchmark["orm_test"].threshold == 0.5
    elif group in EVALUATE_ONLY:
        assert read(f"{group}={name}", "backbone=qwen2vl", program="evaluate").seed == 0
    else:
        added = "+" if group.startswith("experiment/") or group == "sweep" else ""  # added, not chosen
        assert read(f"{added}{group}={name}", *beside).seed == 0


def test_settings_that_are_not_checked_have_the_class_of_a_judge_that_is_named():
    settings = compose_unchecked(["+experiment/words_update=sft"])
    assert (settings["judge.name"], settings["judge._target_"]) == ("answer", "mathse.judges.answer.AnswerJudge")


def test_every_config_file_is_reached_by_a_group():
    files = {p.relative_to(CONF).as_posix() for p in CONF.rglob("*.yaml") if "hydra" not in p.parts[len(CONF.parts) :]}
    assert files == {"train.yaml", "evaluate.yaml"} | {f"{group}/{name}.yaml" for group, name in OPTIONS}


def test_evaluate_composes_and_parses(read, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    assert read(f"checkpoint={tmp_path}", program="evaluate").name == "evaluate"


def test_several_benchmarks_are_a_list_and_each_keeps_its_own_options(read, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    chosen = read(
        "benchmark=[mathvista,mathvision]",
        "benchmark.mathvista.rule=strict",
        f"benchmark.mathvision.problems={rows}",
        "backbone=qwen2vl",
        program="evaluate",
    ).benchmark
    assert list(chosen) == ["mathvista", "mathvision"]
    assert (chosen["mathvista"].rule, chosen["mathvista"].problems) == ("strict", None)
    assert (chosen["mathvision"].prompt, chosen["mathvision"].problems) == ("cot", str(rows))


def test_evaluating_a_pretrained_backbone_takes_its_lengths(read):
    tiny, big = (read(f"backbone={b}", "checkpoint=null", "predictions=pyproject.toml", program="evaluate")
                 for b in ("tiny", "internvl2_5"))  # fmt: skip
    assert (tiny.evaluation.max_new_tokens, big.evaluation.max_new_tokens) == (80, 2048)
    assert big.judge.max_new_tokens == 1024


@pytest.mark.parametrize("keys", [["limit=7"], ["evaluation.limit=7"]])
def test_the_limit_of_an_evaluation_has_one_value(read, keys):
    assert read("backbone=qwen2vl", *keys, program="evaluate").evaluation.limit == 7


def test_one_override_moves_backbone_and_recipe(read):
    config = read("backbone=qwen2vl")
    sft = config.sft
    assert config.backbone.path == "Qwen/Qwen2-VL-7B-Instruct"
    assert (sft.method, sft.batch_size, sft.optimizer.lr, sft.optimizer.warmup_ratio) == ("lora", 128, 1e-4, 0.1)
    assert config.orm.fit.optimizer.lr == 1e-4 and config.orm.fit.epochs == 1
    full = read("backbone=qwen2vl", "sft.method=full")  # Table 6
    assert (full.sft.optimizer.lr, full.orm.fit.optimizer.lr) == (1e-5, 2e-5)
    assert config.generator.max_new_tokens == 2048 and config.trainer.accelerator == "auto"


@pytest.mark.parametrize(
    ("backbone", "full", "orm"), [("qwen2vl", 1e-5, 2e-5), ("internvl2_5", 2e-5, 2e-5), ("cogvlm2", 2e-5, 2e-5)]
)
def test_the_method_alone_moves_the_rate_and_a_rate_that_is_set_wins(read, backbone, full, orm):
    def rates(*settings):
        config = read(f"backbone={backbone}", *settings)
        return config.sft.optimizer.lr, config.orm.fit.optimizer.lr

    assert rates("sft.method=full") == (full, orm)  # Table 6; the ORM's: CogVLM2's row
    assert rates("sft.method=lora") == (1e-4, 1e-4)
    assert rates("sft.method=lora", "orm.fit.method=full") == (1e-4, orm)
    assert rates("sft.method=lora", "sft.optimizer.lr=3e-6") == (3e-6, 1e-4)
    assert rates("sft.method=full", "orm.fit.optimizer.lr=5e-6") == (full, 5e-6)
    composed = compose_train(["backbone=" + backbone, "sft.method=qlora"], but=RULES[TrainConfig])[0]
    assert (composed.sft.optimizer.lr, composed.orm.fit.optimizer.lr) == (1e-4, 1e-4)


@pytest.mark.parametrize(
    ("backbone", "full", "lora", "freeze"),
    [
        ("qwen2_5_vl", 2e-7, 2e-4, ["tower", "connector"]),
        ("qwen3_vl", 2e-7, 2e-5, ["tower", "connector"]),
        ("internvl3", 2e-5, 4e-5, ["tower"]),
    ],
)
def test_a_backbone_of_no_table_has_its_authors_recipe(read, backbone, full, lora, freeze):
    for method, rate in (("full", full), ("lora", lora), ("qlora", lora)):
        config = compose_train([f"backbone={backbone}", f"sft.method={method}"], but=RULES[TrainConfig])[0]
        assert (config.sft.optimizer.lr, config.orm.fit.optimizer.lr) == (rate, rate)
    config = read(f"backbone={backbone}")
    assert (config.sft.method, config.sft.batch_size, config.sft.freeze) == ("lora", 128, freeze)
    assert config.orm.fit.freeze == freeze and config.sft.optimizer.warmup_ratio == 0.03
    assert config.orm.fit.optimizer.weight_decay == config.sft.optimizer.weight_decay
    assert config.generator.max_new_tokens == 2048 and config.evaluation.max_new_tokens == 2048


def test_the_tiny_backbone_learns_at_its_own_rate_whatever_the_method(read):
    for method in ("full", "lora"):
        config = read(f"sft.method={method}")
        assert (config.sft.optimizer.lr, config.orm.fit.optimizer.lr) == (2e-3, 1.5e-3)


def test_the_orm_is_trained_the_way_the_student_is(read):
    orm = read("sft.method=lora", "sft.lora.rank=4", "sft.max_length=512").orm.fit
    assert (orm.method, orm.lora.rank, orm.max_length) == ("lora", 4, 512)
    assert read("sft.method=lora", "orm.fit.method=full").orm.fit.method == "full"


def test_smoke_is_as_small_whatever_the_backbone(read):
    tiny, big = read("experiment=smoke"), read("experiment=smoke", "backbone=cogvlm2")
    sizes = [
        (c.sft.epochs, c.sft.max_steps, c.sft.batch_size, c.orm.fit.epochs, c.orm.fit.max_steps, c.orm.fit.batch_size,
         c.orm.students, c.generator, c.evaluation, c.judge)
        for c in (tiny, big)
    ]  # fmt: skip
    sizes[1][7].top_p = sizes[0][7].top_p
    assert sizes[0] == sizes[1]


def test_smoke_is_small_and_its_data_can_be_swapped(read, tmp_path):
    smoke = read("experiment=smoke")
    assert (smoke.name, smoke.judge.name, smoke.data.pool) == ("smoke", "answer", 120)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    real = read("experiment=smoke", "data=jsonl", f"data.path={rows}", "teacher=replay")
    assert real.data.path == str(rows) and real.judge.name == "answer"


def test_the_command_line_wins_over_an_experiment(read):
    assert read("experiment=smoke", "judge=orm", "evolution.rounds=3").evolution.rounds == 3


def test_studies_keep_the_settings_that_their_figures_are_of(read):
    study = read("+experiment/order=analysis_first")
    rows = [(fit.batch_size, fit.max_steps) for fit in (study.sft, study.orm.fit)]
    assert (rows, study.orm.students, study.orm.solver_steps) == ([(64, 300), (64, 450)], [300, 600], 900)


def test_an_experiment_wins_over_the_groups(read):
    assert read("experiment=smoke", "evolution=mathse").evolution.rounds == 1


def test_a_variant_of_a_study_composes(read, tmp_path):
    study = tmp_path / "experiment" / "table3"
    study.mkdir(parents=True)
    (study / "none.yaml").write_text("# @package _global_\nevolution: {reflect: {feedback: none}}\n")
    config = read("+experiment/table3=none", f"hydra.searchpath=[file://{tmp_path}]", "experiment=smoke")
    assert config.evolution.reflect.feedback == "none"
    assert flatten(config)["name"] == "smoke"
