"""conf/experiment/paper: the paper's three runs compose, say what it says, and can be planned without a weight."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from omegaconf import OmegaConf

from mathse.__main__ import main
from mathse.config.data import SETS
from mathse.config.options import CONF

PAPER = ("cogvlm2", "internvl2_5", "qwen2vl")


@pytest.fixture
def paper(read, tmp_path, monkeypatch):
    """``paper("qwen2vl")``: that run's settings, with an empty folder for each set below MATHSE_DATA."""
    for name in SETS:
        (tmp_path / name).mkdir()
    monkeypatch.setenv("MATHSE_DATA", str(tmp_path))
    return lambda name, *more: read(f"+experiment/paper={name}", *more)


@pytest.mark.parametrize(
    ("name", "path", "lr", "warmup"),
    [
        ("cogvlm2", "zai-org/cogvlm2-llama3-chat-19B", 2e-5, 0.01),
        ("internvl2_5", "OpenGVLab/InternVL2_5-8B", 2e-5, 0.03),
        ("qwen2vl", "Qwen/Qwen2-VL-7B-Instruct", 1e-5, 0.1),
    ],
)
def test_a_run_of_the_paper_has_its_row_of_table_6(paper, name, path, lr, warmup):
    config = paper(name)
    optimizer = config.sft.optimizer
    assert (config.backbone.path, config.variant, config.sft.method) == (path, name, "full")
    assert (config.sft.batch_size, optimizer.lr) == (128, lr)
    assert (optimizer.warmup_ratio, optimizer.weight_decay) == (warmup, 0.05)


@pytest.mark.parametrize("name", PAPER)
def test_the_runs_of_the_paper_share_data_sizes_teacher_orm_and_devices(paper, name):
    config = paper(name)
    assert set(config.data.sources) == set(config.data.weights) == set(SETS)
    assert config.data.weights["mathvl"] == 341346
    assert (config.distill.size, config.evolution.rounds, config.evolution.round.sample_size) == (100_000, 2, 127_000)
    assert re.fullmatch(r"gpt-4o-\d{4}-\d\d-\d\d", config.teacher.model)
    assert "cogvlm2" in str(config.orm.backbone) and config.orm.order == "verdict_first"
    assert (config.trainer.devices, config.trainer.strategy, config.trainer.accelerator) == (8, "fsdp2", "gpu")
    assert config.decontaminate.against and config.decontaminate.action == "drop"


def test_a_set_can_be_left_out_and_the_data_swapped(paper, tmp_path):
    assert "mavis" not in paper("qwen2vl", "~data.sources.mavis", "~data.weights.mavis").data.sources
    (tmp_path / "rows.jsonl").write_text("{}\n")
    assert paper("qwen2vl", "data=jsonl", f"data.path={tmp_path / 'rows.jsonl'}").data.test_share == 0.2


def test_each_set_that_is_not_there_is_named(refusal, monkeypatch, tmp_path):
    monkeypatch.setenv("MATHSE_DATA", str(tmp_path))
    said = refusal("+experiment/paper=qwen2vl")
    assert {line.partition(".root")[0].removeprefix("data.sources.") for line in said} == set(SETS)


@pytest.mark.parametrize("name", PAPER)
def test_the_evaluation_in_the_header_composes_with_the_four_benchmarks(read, tmp_path, name):
    header = (CONF / "experiment" / "paper" / f"{name}.yaml").read_text(encoding="utf-8")
    text = " ".join(line.lstrip("# ").rstrip("\\ ") for line in header.splitlines() if line.startswith("#"))
    command = re.search(r"evaluate\.py (.*?llm\.model=\S+)", text)
    assert command is not None
    model_type = {"qwen2vl": "qwen2_vl", "internvl2_5": "internvl", "cogvlm2": "cogvlm2"}[name]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "rows.jsonl").write_text("{}\n")
    words = [re.sub(r"=FILE$", f"={tmp_path / 'rows.jsonl'}", word) for word in shlex.split(command[1])]
    words = [f"checkpoint={tmp_path}" if word.startswith("checkpoint=") else word for word in words]
    config = read(*words, program="evaluate")
    assert list(config.benchmark) == ["mathvista", "mathverse", "mathvision", "mathvl_test"]
    assert config.trainer.accelerator == "gpu" and config.backbone.path


@pytest.mark.parametrize("name", PAPER)
def test_a_run_of_the_paper_is_planned_without_a_weight(fixtures, tmp_path, capsys, monkeypatch, name):
    """The hub cannot be reached in tests, and nothing of these models is on the disk."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    out = tmp_path / "plan.json"
    data = ("data=geometry3k", f"data.root={fixtures / 'datasets' / 'geometry3k_samples'}")
    assert main(["plan", f"+experiment/paper={name}", *data, "--json", str(out)]) == 0
    said = capsys.readouterr().out
    plan = json.loads(out.read_text())
    assert [stage["stage"] for stage in plan["stages"]] == [
        *("base", "orm/student_0", "orm/student_2000", "orm/solver", "orm"),
        *("distill", "round_01", "round_02", "reflection", "final"),
    ]
    assert plan["total"]["usd"][1] > 0 and plan["total"]["disk_bytes"][0] > 7e9
    assert "round_02" in said and not (tmp_path / "hub").exists()


def test_the_papers_sizes_stand_for_its_data_in_a_plan(read):
    """As many problems as data=paper has of its weights, and as its shares make of them, to a thousand or so."""
    data, shares = read("+experiment/paper=qwen2vl", "data=paper_sizes").data, read_paper_data()
    rows = sum(shares["weights"].values())
    test, dev, orm = (round(rows * shares[f"{name}_share"]) for name in ("test", "dev", "orm"))
    counted = (data.test, data.dev, data.orm_train + data.orm_held, data.seed_size + data.pool)
    assert counted == pytest.approx((test, dev, orm, rows - test - dev - orm), abs=1000)


def read_paper_data():
    return OmegaConf.load(CONF / "data" / "paper.yaml")
