"""``mathse evaluate`` begins with what a checkpoint says of itself; what the user sets goes over it."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from run_builder import write_stage

from mathse.config import backbones, data
from mathse.config.compose import compose_evaluate
from mathse.config.generators import HFGeneratorConfig
from mathse.config.schema import EvaluateConfig, TrainConfig
from mathse.errors import ConfigError
from mathse.runs.store import read_json, write_json

MODEL_TYPE = {"qwen2_vl": {"vocab_size": 151_936}, "internvl": {}, "llama": {}, "cogvlm2": {}}


def model(folder: Path, model_type: str = "qwen2_vl", **others: Any) -> Path:
    """A model's folder, as far as settings look into it."""
    write_json(folder / "config.json", {"model_type": model_type, **MODEL_TYPE.get(model_type, {}), **others})
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run of Qwen2-VL on science problems of a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plants.jsonl").write_text("{}\n")
    config = TrainConfig(
        backbone=backbones.Qwen2VLBackboneConfig(path="gone/qwen", max_pixels=50_176),
        data=data.JsonlDataConfig(path="plants.jsonl", test_share=0.3),
        generator=HFGeneratorConfig(temperature=0.9, top_p=0.8, max_new_tokens=700, batch_size=4),
    )
    config.task_domain.name, config.task_domain.texts = "science", "mathse.data.domains.science"
    config.evaluation.max_new_tokens, config.evaluation.batch_size = 600, 3
    config.judge.max_new_tokens = 500
    config.orm.backbone = backbones.InternVL25BackboneConfig(path="gone/intern", eval_tiles=2)
    folder = tmp_path / "outputs" / "run"
    write_json(folder / "run.json", {"name": "run", "task": "evolve", "seed": 0, "config": asdict(config)})
    model(folder / "final" / "checkpoint")
    model(folder / "orm" / "checkpoint", "internvl")
    write_json(folder / "orm" / "checkpoint" / "orm.json", {"kind": "generative"})
    for stage in ("final", "orm"):
        write_stage(folder / stage)
    return folder


def read(*overrides: str) -> EvaluateConfig:
    return compose_evaluate(overrides)[0]


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(*overrides)
    return str(caught.value)


def test_a_checkpoint_is_opened_and_asked_as_its_run_did(run: Path) -> None:
    config = read(f"checkpoint={run}/final/checkpoint")
    assert isinstance(config.backbone, backbones.Qwen2VLBackboneConfig) and config.backbone.max_pixels == 50_176
    assert (config.evaluation.max_new_tokens, config.evaluation.batch_size) == (600, 3)
    generator = config.generator
    assert (generator.temperature, generator.top_p, generator.batch_size) == (0.9, 0.8, 4)
    assert generator.max_new_tokens == 600
    assert config.task_domain.name == "science"
    assert isinstance(config.data, data.JsonlDataConfig) and (config.data.path, config.data.test_share) == (
        "plants.jsonl",
        0.3,
    )


def test_settings_of_the_user_go_over_those_of_the_run(run: Path) -> None:
    checkpoint = f"checkpoint={run}/final/checkpoint"
    config = read(checkpoint, "backbone.max_pixels=100352", "evaluation.max_new_tokens=5", "data.test_share=0.1")
    assert (config.backbone.max_pixels, config.backbone.min_pixels) == (100_352, 3136)
    assert (config.evaluation.max_new_tokens, config.evaluation.batch_size) == (5, 3)
    assert (config.data.test_share, config.data.path) == (0.1, "plants.jsonl")
    chosen = read(checkpoint, "backbone=qwen2vl", "data=synthetic", "task_domain=math")  # the family that it is
    assert chosen.backbone.max_pixels == 50_176
    assert isinstance(chosen.data, data.SyntheticDataConfig) and chosen.task_domain.name == "math"


def test_an_orm_is_opened_as_its_run_did(run: Path) -> None:
    labelled = f"benchmark.orm_test.paths={run.parents[1]}/plants.jsonl"
    measured = read(f"checkpoint={run}/orm/checkpoint", "benchmark=orm_test", labelled)
    assert measured.backbone.eval_tiles == 2 and measured.judge.max_new_tokens == 500
    orm = (f"judge.checkpoint={run}/orm/checkpoint", "selector=orm", "n_samples=2")
    weighed = read(f"checkpoint={run}/final/checkpoint", *orm)
    assert isinstance(weighed.backbone, backbones.Qwen2VLBackboneConfig)
    assert (
        isinstance(weighed.judge.backbone, backbones.InternVL25BackboneConfig)
        and weighed.judge.backbone.eval_tiles == 2
    )
    assert weighed.judge.max_new_tokens == 500


@pytest.mark.parametrize("family", ["tiny", "internvl2_5", "cogvlm2"])
def test_a_family_that_the_checkpoint_cannot_have_is_refused(run: Path, family: str, tmp_path: Path) -> None:
    said = refusal(f"checkpoint={run}/final/checkpoint", f"backbone={family}")
    assert "was made by a run of backbone=qwen2vl" in said and "leave backbone out" in said
    copied = model(tmp_path / "copied")
    assert f"checkpoint = '{copied}': holds a model of" in refusal(
        f"checkpoint={copied}", f"backbone={family}", "benchmark=synthetic"
    )


def test_a_stage_that_was_copied_out_of_its_run_still_says_what_it_is(run: Path, tmp_path: Path) -> None:
    manifest = read_json(run / "final" / "stage.json")
    recorded = {"backbone._target_": "mathse.backbones.qwen2vl.load", "backbone.max_pixels": 50_176}
    recorded |= {"evaluation.max_new_tokens": 600, "data._target_": "mathse.world.SyntheticData", "data.test": 7}
    write_json(run / "final" / "stage.json", {**manifest, "config": recorded})
    copied = shutil.copytree(run / "final", tmp_path / "copied")
    config = read(f"checkpoint={copied}/checkpoint")
    assert (config.backbone.max_pixels, config.evaluation.max_new_tokens, config.data.test) == (50_176, 600, 7)


@pytest.mark.parametrize(
    ("model_type", "others", "family"),
    [
        ("qwen2_vl", {}, backbones.Qwen2VLBackboneConfig),
        ("qwen2_vl", {"vocab_size": 372}, backbones.TinyBackboneConfig),
        ("qwen2_5_vl", {}, backbones.Qwen25VLBackboneConfig),
        ("qwen3_vl", {}, backbones.Qwen3VLBackboneConfig),
        ("internvl", {}, backbones.InternVL25BackboneConfig),
        ("internvl", {"text_config": {"model_type": "qwen2"}}, backbones.InternVL3BackboneConfig),
        ("internvl_chat", {"llm_config": {"model_type": "qwen2"}}, backbones.InternVL3BackboneConfig),
        ("cogvlm2", {}, backbones.CogVLM2BackboneConfig),
        ("llama", {}, backbones.CausalLMBackboneConfig),
        ("llama", {"vision_config": {}}, backbones.HFBackboneConfig),
    ],
)
def test_a_folder_of_no_run_is_of_the_family_that_its_config_shows(
    tmp_path: Path, model_type: str, others: dict[str, Any], family: type
) -> None:
    config = read(f"checkpoint={model(tmp_path / 'model', model_type, **others)}", "benchmark=synthetic")
    assert type(config.backbone) is family
    tiny = family is backbones.TinyBackboneConfig
    assert config.evaluation.max_new_tokens == (80 if tiny else 2048)
    if issubclass(family, backbones.Qwen2VLBackboneConfig):
        assert (config.backbone.min_pixels, config.backbone.max_pixels) == (None, None)  # the folder's own


def test_an_orm_of_no_run_has_the_student_s_limits_where_it_is_of_its_family(run: Path, tmp_path: Path) -> None:
    orm, other = model(tmp_path / "orm"), model(tmp_path / "other", "internvl")
    weighed = (f"checkpoint={run}/final/checkpoint", "selector=orm", "n_samples=2")
    assert read(*weighed, f"judge.checkpoint={orm}").judge.backbone is None
    assert isinstance(read(*weighed, f"judge.checkpoint={other}").judge.backbone, backbones.InternVL25BackboneConfig)


def test_a_tiny_model_says_which_family_it_is_of(tmp_path: Path) -> None:
    section = {"_target_": "mathse.models.qwen2vl.load", "min_pixels": None, "max_pixels": None}
    folder = model(tmp_path / "model", vocab_size=372)
    write_json(folder / "mathse.json", {"backbone": section})
    config = read(f"checkpoint={folder}", "benchmark=synthetic")
    assert isinstance(config.backbone, backbones.Qwen2VLBackboneConfig) and config.backbone.max_pixels is None


def test_a_folder_of_no_run_is_not_asked_digit_sums_unasked(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    assert "lies in no run folder" in refusal(f"checkpoint={folder}")
    assert read(f"checkpoint={folder}", "benchmark=mathvision").backbone.max_pixels is None


def test_a_benchmark_is_scored_alone_and_needs_no_file_of_the_run_s_data(run: Path, tmp_path: Path) -> None:
    (tmp_path / "plants.jsonl").unlink()
    checkpoint = f"checkpoint={run}/final/checkpoint"
    assert [*read(checkpoint, "benchmark=mathvision").benchmark] == ["mathvision"]
    own = read(checkpoint, "+benchmark.mine._target_=evaluation.cases.Lenient")
    assert [*own.benchmark] == ["mine"]
    assert "data.path = 'plants.jsonl': no such file" in refusal(checkpoint)


def test_code_that_a_run_names_is_not_run_unasked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = read_json(run / "run.json")
    head["config"]["data"] = {"_target_": "subprocess.check_output", "args": ["true"]}
    write_json(run / "run.json", head)
    checkpoint = f"checkpoint={run}/final/checkpoint"
    assert "data._target_ = 'subprocess.check_output' is not an option of MathSE" in refusal(checkpoint)
    assert isinstance(read(checkpoint, "data=synthetic").data, data.SyntheticDataConfig)
    head["config"]["backbone"] = {"_target_": "mathse.training.agent.run", "command": ["true"]}
    write_json(run / "run.json", head)
    assert "backbone._target_ = 'mathse.training.agent.run'" in refusal(checkpoint, "benchmark=mathvision")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("generator.max_new_tokens=300",), "pass evaluation.max_new_tokens=N"),
        (("generator.temperature=0.2",), "answers are greedy"),
        (("n_samples=2", "evaluation.batch_size=2"), "generator.batch_size"),
        (("backbone.path=elsewhere",), "the weights are those of checkpoint"),
        (("judge.batch_size=3",), "pass judge.checkpoint=DIR too"),
        (("benchmark=mathvision", "data.seed=5"), "no benchmark chosen asks it"),
    ],
)
def test_a_setting_that_changes_nothing_is_an_error(run: Path, settings: tuple[str, ...], named: str) -> None:
    said = refusal(f"checkpoint={run}/final/checkpoint", *settings)
    key = settings[-1].partition("=")[0]
    assert said.startswith(f"{key} is set and would change nothing: ") and named in said and "\n" not in said


def test_samples_and_greedy_answers_have_one_limit(run: Path) -> None:
    config = read(f"checkpoint={run}/final/checkpoint", "n_samples=4", "evaluation.max_new_tokens=9")
    assert config.generator.max_new_tokens == 9
    misspelt = refusal(f"checkpoint={run}/final/checkpoint", "max_new_tokens=9")
    assert "did you mean evaluation.max_new_tokens?" in misspelt


def test_a_served_model_may_write_as_much_as_a_pretrained_one() -> None:
    config = read("generator=server", "generator.model=m", "benchmark=mathvision")
    assert config.evaluation.max_new_tokens == config.generator.max_new_tokens == 2048


@pytest.mark.parametrize("broken", ['{"name": 3}', "[]", "{"])
def test_a_damaged_run_is_told_in_a_sentence(run: Path, broken: str) -> None:
    (run / "run.json").write_text(broken)
    with pytest.raises(Exception, match=r"run\.json") as caught:
        read(f"checkpoint={run}/final/checkpoint")
    assert type(caught.value).__module__ == "mathse.errors"


@pytest.mark.parametrize(
    ("section", "name"),
    [
        (data.SyntheticDataConfig(), "synthetic"),
        (data.JsonlDataConfig(path="my/own problems.v2.jsonl.gz"), "own_problems.v2"),
        (data.PublicDataConfig(name="scienceqa", root="ScienceQA"), "scienceqa"),
        (data.HubDataConfig(root="somebody/some-set"), "some-set"),
        (data.WordProblemsConfig(), "word_problems"),
        ({"_target_": "my_project.data.Sums", "size": 3}, "Sums"),
    ],
)
def test_a_set_is_called_by_its_name(section: Any, name: str) -> None:
    assert data.name_set(section) == name


def test_a_trusted_class_of_the_user_s_own_opens_what_its_run_made(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "somebodys_model.py").write_text("def load(path, pixels=7, dtype=None): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MATHSE_TRUST", "somebodys_model.load")
    head = read_json(run / "run.json")
    head["config"]["backbone"] = {"_target_": "somebodys_model.load", "path": "gone", "pixels": 9}
    write_json(run / "run.json", head)
    config = read(f"checkpoint={run}/final/checkpoint", "backbone.pixels=8")
    assert config.backbone == {"_target_": "somebodys_model.load", "path": "gone", "pixels": 8}
    assert config.evaluation.max_new_tokens == 600
