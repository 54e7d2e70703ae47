"""``mathse reward-server``: a run's ORM over HTTP, as TRL, verl and OpenAI's clients ask for it."""

from __future__ import annotations

import base64
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from orm_by_heart import saved, six_paths
from run_builder import write_stage

from mathse.__main__ import main
from mathse.commands.reward_server import client
from mathse.commands.reward_server import requests as limits
from mathse.commands.reward_server.requests import Scorer
from mathse.commands.reward_server.server import RewardServer
from mathse.config import backbones, data
from mathse.config.fits import ORM
from mathse.config.schema import TrainConfig
from mathse.data.images import load_image
from mathse.evaluation.run_orm import RunORM
from mathse.runs.reader import read_run
from mathse.runs.store import write_json

ASKED = six_paths()
RIGHT = [label.status == "correct" for _, _, label in ASKED]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("reward") / "run"
    config = asdict(TrainConfig())
    size = 6
    config["data"] = asdict(
        data.SyntheticData(seed=0, seed_size=size, pool=size, test=size, dev=size, orm_train=size, orm_held=size)
    )
    config["backbone"] = asdict(backbones.TinyBackbone(hidden_size=32, layers=1, heads=2, mlp_size=64, vision_size=16))
    write_json(folder / "run.json", {"name": "own", "task": "evolve", "seed": 0, "config": config})
    saved(ORM(order="verdict_first"), folder / "orm" / "checkpoint")
    write_stage(folder / "orm")
    run = read_run(folder)
    server = RewardServer(("127.0.0.1", 0), Scorer(run, RunORM(run, "cpu", 4, explain=True)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def post(url: str, body: Any, kind: str = "application/json") -> tuple[int, dict[str, Any]]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, raw, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def uri(ref: str) -> str:
    file = io.BytesIO()
    load_image(ref).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_rewards_are_high_for_right_paths_alone_in_every_form_of_a_request(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [path.text for _, path, _ in ASKED]
    ids = [problem.id for problem, _, _ in ASKED]
    status, by_id = post(f"{url}/reward", {"problem_ids": ids, "completions": texts})
    assert status == 200 and [reward > 0.5 for reward in by_id["rewards"]] == RIGHT
    assert [verdict["status"] == "correct" for verdict in by_id["verdicts"]] == RIGHT

    # the same with question and pictures in the request, as messages
    spoken = [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in texts]
    asked = {
        "prompts": [[{"role": "user", "content": problem.question}] for problem, _, _ in ASKED],
        "completions": spoken,
        "images": [[uri(ref) for ref in problem.images] for problem, _, _ in ASKED],
    }
    status, by_question = post(f"{url}/reward", asked)
    assert status == 200 and by_question["rewards"] == pytest.approx(by_id["rewards"], abs=1e-3)

    # TRL's and verl's functions
    monkeypatch.setenv("MATHSE_REWARD_SERVER", url)
    monkeypatch.setattr(client, "ROWS", 4)
    assert client.mathse_reward(texts, spoken, problem_id=ids) == pytest.approx(by_id["rewards"], abs=1e-3)
    one = client.compute_score("mathse", texts[0], "", {"problem_id": ids[0]})
    assert one == pytest.approx(by_id["rewards"][0], abs=1e-3)
    with pytest.raises(ValueError, match=r"completions\[0\]: must be a text"):
        client.mathse_reward(["?"], [7])


def test_an_openai_client_gets_the_verdict_as_the_assistants_words(url: str) -> None:
    problem, path, _ = ASKED[1]
    picture = [{"type": "image_url", "image_url": {"url": uri(ref)}} for ref in problem.images]
    messages = [
        {"role": "user", "content": [*picture, {"type": "text", "text": problem.question}]},
        {"role": "assistant", "content": path.text},
    ]
    status, answer = post(f"{url}/v1/chat/completions", {"model": "any", "messages": messages})
    verdict = json.loads(answer["choices"][0]["message"]["content"])
    assert status == 200 and (verdict["status"], verdict["error_step"]) == ("wrong", "Step 1")
    assert verdict["reward"] < 0.5
    with urllib.request.urlopen(f"{url}/v1/models", timeout=60) as models:
        assert json.load(models)["data"][0]["id"] == "own/orm"


def test_a_path_that_is_too_long_to_be_read_earns_nothing(url: str) -> None:
    status, answer = post(f"{url}/reward", {"prompts": ["1 + 1?"] * 2, "completions": ["Step 1. " * 4000, "2"]})
    assert status == 200 and answer["rewards"][0] == 0.0 and answer["verdicts"][0]["status"] == "unparsed"


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 400, "not valid JSON"),
        ([], 400, "a request is a JSON object"),
        ({"completions": ["x"]}, 400, "prompts: is missing"),
        ({"prompts": ["a", "b"], "completions": ["x"]}, 400, "prompts: must be a list of 1 entries"),
        ({"prompts": [None], "completions": ["x"]}, 400, "prompts[0]: is missing"),
        ({"problem_ids": ["nobody"], "completions": ["x"]}, 400, "nobody"),
        (
            {"prompts": ["a"], "completions": ["x"], "images": [["/etc/passwd"]]},
            400,
            "files and addresses are not read",
        ),
        ({"prompts": ["a"], "completions": ["x"], "images": [["data:image/png;base64,AAAA"]]}, 400, "image"),
        ({"prompts": ["a"], "completions": ["x" * (limits.MOST_TEXT + 1)]}, 400, "at most 65,536"),
        ({"prompts": ["a"] * 513, "completions": ["x"] * 513}, 400, "1 to 512"),
    ],
)
def test_a_request_with_a_mistake_is_answered_by_a_sentence(url: str, body: Any, status: int, sentence: str) -> None:
    got, answer = post(f"{url}/reward", body)
    assert (got, sentence in answer["error"]["message"]) == (status, True), answer


def test_what_a_web_page_could_send_and_what_is_too_large_is_not_read(url: str) -> None:
    assert post(f"{url}/reward", {"completions": []}, kind="text/plain")[0] == 415
    assert post(f"{url}/other", {})[0] == 404
    large = urllib.request.Request(
        f"{url}/reward", b"{}", {"Content-Type": "application/json", "Content-Length": str(10**9)}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(large, timeout=60)
    assert refused.value.code == 413
    refused.value.close()


def test_a_run_without_an_orm_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "run.json", {"name": "own", "task": "evolve", "seed": 0, "config": asdict(TrainConfig())})
    assert main(["reward-server", str(tmp_path), "--port", "0", "--accelerator", "cpu"])
    assert "orm.json is missing" in capsys.readouterr().err
