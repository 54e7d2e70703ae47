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
        (["sft.batch_size=60"], "sft.micro_batch_size = 64: must divide sft.batch_size = 60; "
                                "pass sft.micro_batch_size=60, for instance"),
        (["sft.method=qlora"], "sft.method = 'qlora': comes with a later version; available now: full"),
        (["trainer.devices=2"], "trainer.strategy = 'auto', trainer.devices = 2: fits on several devices come with a "
                                "later version; available now: strategy=auto devices=1"),
        (["task=sft"], "sft.train = null: task=sft needs a file; pass sft.train=FILE, a train.jsonl of a run"),
        (["task=sft", "sft.train=no.jsonl"], "sft.train = 'no.jsonl': no such file; it is a train.jsonl of a run"),
        (["sft.train=no.jsonl"], "sft.train = 'no.jsonl': only task=sft reads it, and task is evolve"),
        (["data=jsonl", "teacher=replay"], "data.path = null: data=jsonl needs a file; pass data.path=FILE, one JSON "
                                           "object a line"),
        (["data=jsonl", "teacher=replay", "data.path=missing.jsonl"],
         "data.path = 'missing.jsonl': no such file; it has one JSON object a line"),
        (["teacher=replay"], "teacher=replay: repeats the solutions of own problems (data=jsonl); data=synthetic has "
                             "teacher=symbolic"),
        (["judge.checkpoint=nowhere"], "judge.checkpoint = 'nowhere': must be a trained ORM's checkpoint folder, but "
                                       "there is no such folder"),
        (["orm=binary", "orm.order=solve_first"], "orm.order = 'solve_first': orm.kind = 'binary' writes no text to "
                                                  "order; pass orm=generative"),
        (["orm.students=[]"], "orm.students = []: must be at least one training-set size, each >= 0; "
                              "pass orm.students=[300,600], for instance"),
        (["backbone.path=nowhere"], "backbone.path = 'nowhere': neither a folder that exists nor a hub id of the form "
                                    "org/name; pass one of them, or null"),
        (["backbone@orm.backbone=tiny", "orm.backbone.path=./a/b"],
         "orm.backbone.path = './a/b': neither a folder that exists nor a hub id of the form org/name; "
         "pass one of them, or null"),
        (["backbone.heads=3"], "backbone.hidden_size = 128: must be divisible by backbone.heads = 3"),
        (["backbone.max_pixels=784", "backbone.min_pixels=1000"],
         "backbone.max_pixels = 784: must be >= backbone.min_pixels = 1000"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(refusal, overrides, sentence):
    assert refusal(*overrides) == [sentence]


def test_symbolic_teacher_is_refused_for_own_problems(refusal, rows):
    assert refusal("data=jsonl", f"data.path={rows}") == [
        "teacher=symbolic: solves the embedded world only (data=synthetic); pass teacher=replay for own problems"
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
    (tmp_path / "config.json").write_text("{}")
    assert read(f"checkpoint={tmp_path}", program="evaluate").checkpoint == str(tmp_path)
