"""What a plan and the first line of a run say of memory, what is refused, and that the settings named instead fit."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from e2e.runs import TINY, run

from mathse.__main__ import main
from mathse.config.compose import train_config
from mathse.config.data import SETS
from mathse.config.schema import TrainConfig
from mathse.errors import ConfigError
from mathse.evolution import memory
from mathse.evolution.memory import CPU, Device

GIB = 2**30
CARD = Device("GPU", 80 * GIB)


def config_of(*overrides: str) -> TrainConfig:
    return train_config(overrides)[0]


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in SETS:
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MATHSE_DATA", str(tmp_path))
    return lambda name, *more: config_of(f"+experiment/paper={name}", *more)


def sums(config: TrainConfig, device: Device = CARD) -> dict[str, float]:
    """GiB of each kind of work on a device."""
    return {job.name + " " + job.key: job.need.on_device / GIB for job in memory.list_jobs(config, device)}


# --- the paper's runs, by hand --------------------------------------------------------------------------------------

BILLION = {"qwen2vl": 8.291375616, "internvl2_5": 8.075365376, "cogvlm2": 19.503105280}
FROZEN = {"qwen2vl": 0.631183360 + 0.044575744, "internvl2_5": 0.304012288, "cogvlm2": 4.296961536}


@pytest.mark.parametrize("name", BILLION)
def test_a_run_of_the_paper_fits_on_eight_cards_and_not_on_one(paper: Any, name: str) -> None:
    config = paper(name)
    assert memory.find_too_large(config, CARD) == []
    student = next(job for job in memory.list_jobs(config, CARD) if job.key == "sft" and job.model == "student")
    held = sum(student.need.device[term] for term in ("weights", "gradients", "optimiser"))
    # float32 weights of 4 bytes, and 12 more where they train, in eight shards
    by_hand = (16 * (BILLION[name] - FROZEN[name]) + 4 * FROZEN[name]) * 1e9 / 8
    assert held == pytest.approx(by_hand, rel=1e-6)
    alone = paper(name, "trainer=gpu", "trainer.devices=1")
    assert {job.key for job in memory.find_too_large(alone, CARD)} >= {"sft", "orm.fit"}


@pytest.mark.parametrize("name", BILLION)
def test_adapters_fit_on_one_card_and_are_the_default(name: str) -> None:
    config = config_of(f"backbone={name}", "trainer=gpu")
    assert config.sft.method == config.orm.fit.method == "lora" and memory.find_too_large(config, CARD) == []
    weights = 2 * BILLION[name] * 1e9 / GIB
    assert all(weights < total < 0.92 * 80 for total in sums(config).values())
    assert sums(config)["fit student sft"] < weights + 6


def test_the_plan_of_a_paper_run_shows_the_sums_and_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    small = [f"data.{size}=40" for size in ("seed_size", "pool", "test", "dev", "orm_train", "orm_held")]
    command = ["plan", "+experiment/paper=cogvlm2", "data=paper_sizes", *small]
    assert main([*command, "--device-memory", "80GiB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(k for k, line in enumerate(lines) if line.startswith("memory on a GPU of 80.0 GiB"))
    heading = lines[begin + 1].split()
    assert heading[0] == "work" and {"weights", "gradients", "optimiser", "activations", "sum", "fits"} <= set(heading)
    rows = [line for line in lines[begin + 2 :] if re.match(r"  (fit|sample|evaluate|judge) ", line)]
    assert len(rows) == 5 and all(" yes " in row for row in rows)
    for row in rows:  # the terms of a row add up to its sum
        on_device = row.partition(" yes ")[0]
        amounts = [float(n) * {"M": 1 / 1024, "G": 1}[unit] for n, unit in re.findall(r"([\d.]+) ([MG])iB", on_device)]
        *terms, total = amounts
        assert sum(terms) == pytest.approx(total, rel=0.02)
    assert any("in 8 shards" in line for line in lines)
    assert main([*command, "--device-memory", "60GiB"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("warning: ")]
    settings = "generator.batch_size=8 evaluation.batch_size=8 judge.batch_size=8"
    assert lines[-1] == f"memory: does not fit, and a run would be refused; it fits with {settings}"


def test_a_plan_speaks_of_pictures_only_for_a_model_that_reads_them(tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text("")
    main(["tiny", "causal_lm", str(tmp_path / "model")])
    problems = ["data=jsonl", f"data.path={tmp_path / 'problems.jsonl'}", "teacher=replay"]
    text_alone = config_of("backbone=causal_lm", f"backbone.path={tmp_path / 'model'}", *problems)
    assert "memory: rows of 256 tokens of question" in "\n".join(memory.describe_plan(text_alone, CARD))
    assert "memory: rows of one picture" in "\n".join(memory.describe_plan(config_of("backbone=qwen2vl"), CARD))


def test_the_plan_of_a_paper_run_without_its_data_sets_names_the_option_that_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "+experiment/paper=qwen2vl"]) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert "data.sources.mathvl.root" in first and last.startswith("error: data=paper_sizes plans from")


def test_a_plan_says_what_it_needs_to_know_where_there_is_no_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_read_gpu_memory", list)
    command = ["plan", "backbone=qwen2vl", "data=synthetic", "data.pool=16", "trainer=gpu"]
    assert main([*command, "--json", str(tmp_path / "plan.json")]) == 0
    assert "no GPU was found here; trainer.device_memory=80GiB checks the plan" in capsys.readouterr().out
    planned = json.loads((tmp_path / "plan.json").read_text())["memory"]
    assert planned["has"] is None and planned["fits"] is None and len(planned["work"]) == 5
    with pytest.raises(ConfigError, match="must be an amount of memory such as 80GiB"):
        config_of("trainer.device_memory=much")


def test_a_plan_knows_frozen_layers_and_refuses_more_than_there_are() -> None:
    model = ("backbone=qwen2vl", "sft.method=full")
    plain, frozen = (config_of(*model, f"sft.freeze_layers={k}") for k in (0, 14))
    (whole, half) = (memory.list_jobs(config, CARD)[0].need.device for config in (plain, frozen))
    layer = 233_057_792  # parameters of one of 28 layers
    assert whole["gradients"] - half["gradients"] == 4 * (14 * layer + 152_064 * 3584)
    assert half["weights"] == whole["weights"] and half["activations"] < 0.6 * whole["activations"]
    with pytest.raises(
        ConfigError, match=r"sft\.freeze_layers = 28: the language model has 28 layers.*pass 27 or less"
    ):
        memory.list_jobs(config_of(*model, "sft.freeze_layers=28"), CARD)


# --- what cannot fit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("trainer=gpu", "sft.method=full"), ["sft.method=lora"]),
        (("trainer=ddp", "sft.method=full"), ["trainer=fsdp", "trainer.devices=8"]),
        (("trainer=gpu", "generator.batch_size=512"), ["generator.batch_size=128"]),
        (("trainer=gpu", "judge.batch_size=256"), ["judge.batch_size=128"]),
        (
            ("trainer=gpu", "sft.activation_checkpointing=false", "sft.tokens_per_micro_batch=32000"),
            ["sft.activation_checkpointing=true"],
        ),
    ],
)
def test_the_settings_named_are_the_nearest_and_fit(overrides: tuple[str, ...], expected: list[str]) -> None:
    config = config_of("backbone=qwen2vl", *overrides)
    assert memory.find_too_large(config, CARD)
    assert (settings := memory.find_remedy(config, CARD)) == expected
    with pytest.raises(ConfigError, match=re.escape(f"it fits with: {' '.join(expected)}")) as refused:
        memory.check_memory(config, CARD)
    assert "(weights " in str(refused.value) and "80.0 GiB" in str(refused.value)
    kept = [o for o in overrides if o.partition("=")[0] not in {s.partition("=")[0] for s in settings}]
    memory.check_memory(config_of("backbone=qwen2vl", *kept, *settings), CARD)


def test_where_nothing_helps_the_refusal_says_so() -> None:
    with pytest.raises(ConfigError, match="choose a smaller backbone or more devices"):
        memory.check_memory(config_of("backbone=cogvlm2", "trainer=gpu"), Device("GPU", 24 * GIB))


def test_a_run_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    settings = ("backbone=qwen2vl", "trainer=cpu", "trainer.device_memory=8GiB", "progress=plain")
    with pytest.raises(ConfigError, match=r"sft: to fit student takes"):
        run(tmp_path / "run", *settings)
    assert not (tmp_path / "run").exists()


def test_the_first_line_of_a_run_says_what_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", *TINY, "evolution.rounds=0")
    first = capsys.readouterr().out.splitlines()[0]
    assert re.match(rf"[\d-]+ [\d:]+ estimated memory on {CPU}, .*: fit [\d.]+ \wiB, sample .*; host RAM: ", first), (
        first
    )


@pytest.mark.parametrize("experiment", ["smoke", "demo"])
def test_runs_of_the_tiny_backbone_are_far_from_any_machines_memory(experiment: str) -> None:
    config = config_of(f"experiment={experiment}")
    assert all(job.need.on_device < 3 * GIB for job in memory.list_jobs(config, Device(CPU, None)))


# --- the default data -------------------------------------------------------------------------------------------------


def test_a_large_backbone_wants_to_be_told_its_data_and_all_else_that_it_lacks(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "OPENAI_API_KEY"}
    environment["HF_HOME"] = str(tmp_path)  # an empty cache
    small = "trainer.device_memory=4GiB"
    done = subprocess.run(
        [sys.executable, "train.py", "backbone=qwen2vl", small],
        cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == ""
    error = done.stderr
    assert "8.3 billion parameters on the default data, synthetic sums over pictures of digits" in error
    assert "data=synthetic if you want these sums" in error
    assert "pass teacher=openai" in error and "export OPENAI_API_KEY=" in error
    assert "memory: generator: to sample student takes " in error and "hf download Qwen/Qwen2-VL-7B-Instruct" in error


def test_a_plan_of_a_large_backbone_needs_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "backbone=qwen2vl", "--sample", "8"]) == 0
    said = capsys.readouterr().out
    assert "planned on data=paper_sizes" in said and re.search(r"distill +182,000 ", said)


def test_generator_vllm_without_its_program_is_refused_before_a_run_folder(tmp_path: Path) -> None:
    settings = [
        "experiment=smoke",
        "generator=vllm",
        "generator.program=/nowhere/vllm",
        f"hydra.run.dir={tmp_path}/run",
    ]
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, root / "train.py", *settings], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(
        "error: generator.program = '/nowhere/vllm': there is no such"
    )
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_trainer_gpu_without_a_gpu_is_refused_before_a_run_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="torch finds no GPU here"):
        run(tmp_path / "run", *TINY, "trainer=gpu")
    assert not (tmp_path / "run").exists()


def test_what_a_plan_of_chosen_data_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "backbone=qwen2vl", "data=synthetic", "data.pool=16"]) == 0
    assert main(["plan", "data.pool=16"]) == 0
