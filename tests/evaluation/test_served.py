"""generator=server: a student behind a real HTTP server answers, and each answer is asked for once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from api_server import KEY, ApiServer
from hydra import compose, initialize_config_dir
from small import problems

from mathse.config import parse
from mathse.config.options import CONF
from mathse.config.register import register
from mathse.config.schema import EvaluateConfig
from mathse.errors import ConfigError, TeacherError
from mathse.evaluation.task import evaluate
from mathse.runs.store import read_json, read_jsonl


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDENT_KEY", KEY)


def config_of(folder: Path, url: str, *more: str) -> Any:
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = ["generator=server", f"generator.base_url={url}", "generator.model=gpt-4o-2024-08-06", *more]
        world = [f"data.{name}=6" for name in ("seed_size", "pool", "test", "dev", "orm_train", "orm_held")]
        quiet = ["progress=off", f"generator.cache_dir={folder / 'answers'}", "generator.max_retries=1",
                 "generator.api_key_env=STUDENT_KEY"]  # fmt: skip
        return parse(compose("evaluate", overrides=[*settings, *world, *quiet]), EvaluateConfig)


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "predictions.jsonl"))


def test_a_served_student_is_scored_like_any_other_and_asked_once(tmp_path: Path) -> None:
    with ApiServer(answer=lambda body: "Step 1: so. The answer to this problem is 7.") as api:
        evaluate(config_of(tmp_path, api.url), tmp_path / "run")
        first = sum(api.billed.values())
        evaluate(config_of(tmp_path, api.url), tmp_path / "other")  # another run: answered from the cache
        assert first == sum(api.billed.values()) > 0 and set(api.billed.values()) == {1}
    assert len(rows(tmp_path / "run")) == 6 and rows(tmp_path / "run") == rows(tmp_path / "other")
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["total"] == 6
    assert metrics["correct"] == sum(row["answer"] == "7" for row in rows(tmp_path / "run"))


def test_the_server_is_sent_the_question_after_its_pictures_greedily(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def answer(body: dict[str, Any]) -> str:
        asked.append(body)
        return "7"

    with ApiServer(answer=answer) as api:
        evaluate(config_of(tmp_path, api.url), tmp_path / "run")
    for body in asked:
        [message] = body["messages"]
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]
        assert body["temperature"] == 0
    assert problems(1)[0].question.split()[0] in json.dumps(asked)


def test_samples_are_n_a_problem_and_differ_by_what_the_server_says(tmp_path: Path) -> None:
    with ApiServer(answer=lambda body: f"The answer to this problem is {body.get('seed')}.") as api:
        evaluate(config_of(tmp_path, api.url, "n_samples=3", "selector=majority"), tmp_path / "run")
    samples = list(read_jsonl(tmp_path / "run" / "synthetic" / "samples.jsonl"))
    assert len(samples) == 18


def test_a_row_that_stays_unanswered_ends_the_run_and_nothing_is_made_up(tmp_path: Path) -> None:
    with ApiServer(answer=lambda body: "7", mood=lambda text, nth: "500") as api, pytest.raises(TeacherError):
        evaluate(config_of(tmp_path, api.url), tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_server_needs_its_models_name_and_replaces_a_checkpoint(tmp_path: Path) -> None:
    register()
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for more, said in (
            ([], "generator.model = null: generator=server needs the served model's name"),
            (["generator.model=m", f"checkpoint={tmp_path}"], "checkpoint is set, and generator=server answers"),
        ):
            with pytest.raises(ConfigError, match=said):
                parse(compose("evaluate", overrides=["generator=server", *more]), EvaluateConfig)
