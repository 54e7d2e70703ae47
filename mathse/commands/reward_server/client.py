"""Reward functions that ask ``mathse reward-server``. This file needs nothing but Python: it may be copied.

TRL     GRPOTrainer(reward_funcs=mathse_reward, ...); with a column ``problem_id`` (each export has one) the run's own
        problems are judged, with their pictures; else the prompts are the questions
verl    custom_reward_function.path=THIS_FILE custom_reward_function.name=compute_score; ``extra_info`` holds
        ``problem_id`` or ``question``

The server's address is that of the variable MATHSE_REWARD_SERVER, or http://127.0.0.1:8087.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import Any

ADDRESS = "http://127.0.0.1:8087"
ROWS = 256  # of a request
PATIENCE = 600.0  # seconds for an answer


def mathse_reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """TRL's form: P(correct) of each completion. ``columns``: those of the data set, one entry a completion."""
    request_body: dict[str, list[Any]] = {"completions": completions}
    if columns.get("problem_id") is not None:
        request_body["problem_ids"] = columns["problem_id"]
    else:
        request_body["prompts"] = prompts
        if columns.get("answer") is not None:
            request_body["answers"] = columns["answer"]
    parts = (
        {name: values[k : k + ROWS] for name, values in request_body.items()} for k in range(0, len(completions), ROWS)
    )
    return [reward for part in parts for reward in rewards(part)]


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **more: Any
) -> float:
    """verl's form: P(correct) of one solution."""
    info = extra_info or {}
    request_body: dict[str, list[Any]] = {"completions": [solution_str]}
    if info.get("problem_id") is not None:
        request_body["problem_ids"] = [info["problem_id"]]
    else:
        request_body["prompts"] = [info["question"]]
        if isinstance(ground_truth, str):
            request_body["answers"] = [ground_truth]
    return rewards(request_body)[0]


def rewards(request_body: dict[str, list[Any]]) -> list[float]:
    """What the server says to a request. Raises ValueError with its sentence where it refuses, OSError without it."""
    address = os.environ.get("MATHSE_REWARD_SERVER", ADDRESS).rstrip("/")
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/reward", json.dumps(request_body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            scores: list[float] = json.load(answer)["rewards"]
            return scores
    except urllib.error.HTTPError as error:
        with error:
            sentence = json.load(error)["error"]["message"]
        raise ValueError(f"{address}: {sentence}") from None
