"""What ``mathse plan`` says of engines: requests, tokens and hours, by stage and node."""

from __future__ import annotations

from pathlib import Path

from run_builder import write_stage

from mathse.commands.plan.engines import EngineSpeed, choose_speed, plan_engines
from mathse.config.generators import VLLMGenerator
from mathse.config.schema import TrainConfig
from mathse.evolution.planner import Range, StagePlan
from mathse.runs.store import read_json, write_json, write_jsonl

STAGES = (
    StagePlan("base", evaluated=100),
    StagePlan("round_01", samples=Range(0, 4000), verdicts=Range(0, 4000), evaluated=100),
    StagePlan("reflection"),
)


def engine_lines(settings: TrainConfig, speed: EngineSpeed) -> list[str]:
    plan = plan_engines(settings, STAGES, speed)
    return list(plan.lines()) if plan else []


def config(**judge: str) -> TrainConfig:
    settings = TrainConfig(generator=VLLMGenerator(base_urls=["http://a:1/v1", "http://b:1/v1"], max_new_tokens=500))
    settings.evolution.samples_per_problem = 4
    settings.judge.engine, settings.judge.max_new_tokens = judge.get("engine", "vllm"), 200
    return settings


def test_samples_of_a_problem_are_one_request_and_two_nodes_need_half_the_time() -> None:
    lines = engine_lines(config(), EngineSpeed(10_000, answer=300, verdict=90))
    assert lines[0] == "engines, base: 100 requests, 30,000 tokens to write, 0.0 h"
    assert lines[1] == "engines, round_01: 100-5,100 requests, 30,000-1,590,000 tokens to write, 0.0-0.0 h"
    assert lines[2].endswith("60,000-1,620,000 tokens to write, 0.0-0.0 h, on 2 nodes") and len(lines) == 3


def test_what_is_not_known_is_said_and_not_made_up() -> None:
    lines = engine_lines(config(engine="hf"), EngineSpeed())
    assert lines[1] == "engines, round_01: 100-1,100 requests, 50,000-2,050,000 tokens to write"
    assert "upper bounds" in lines[-2] and "--engine-speed" in lines[-1]
    assert not engine_lines(TrainConfig(), EngineSpeed())


def test_the_plan_as_json_has_the_engines_work() -> None:
    plan = plan_engines(config(), STAGES, EngineSpeed(10_000, answer=360, verdict=90))
    assert plan is not None
    written = plan.to_json()
    assert written["nodes"] == 2 and list(written["stages"]) == ["base", "round_01"]
    assert written["stages"]["base"] == {"requests": 100, "tokens": 36_000, "hours": (0.0005, 0.0005)}
    assert written["total"]["requests"] == [200, 5_200]


def test_a_run_behind_engines_gives_its_speed_and_lengths(tmp_path: Path) -> None:
    stage = tmp_path / "round_01"
    write_jsonl(stage / "paths.jsonl", [{"id": str(k)} for k in range(4)])
    write_stage(stage)
    write_json(tmp_path / "run.json", {"name": "x", "task": "evolve", "seed": 0, "config": {}})
    manifest = read_json(stage / "stage.json")
    write_json(stage / "stage.json", {**manifest, "time_s": {"sample": 2.0, "judge": 9.0}})
    usage = [{"run": "x"}, *({"key": str(k), "job": "answer", "completion_tokens": 50} for k in range(4))]
    write_jsonl(tmp_path / "student_usage.jsonl", usage)
    speed = choose_speed(EngineSpeed(verdict=7.0), tmp_path)
    assert (speed.tokens_per_second, speed.answer, speed.verdict) == (100.0, 50.0, 7.0)
    run = read_json(tmp_path / "run.json")
    write_json(
        tmp_path / "run.json", {**run, "config": {"generator": {"base_urls": ["http://a:1/v1", "http://b:1/v1"]}}}
    )
    assert choose_speed(EngineSpeed(), tmp_path).tokens_per_second == 50.0  # of a node
