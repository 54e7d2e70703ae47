"""Reward functions that ask ``mathse reward-server``. This file needs nothing but Python: it may be copied.

TRL     GRPOTrainer(reward_funcs=mathse_reward, ...); with a column ``problem_id`` (each export has one) the run's own
        problems are judged, with their pictures; else the prompts are the questions
verl    custom_reward_function.path=THIS_FILE custom_reward_function.name=compute_score; ``extra_info`` holds
        ``problem_id`` or ``question``

The server's address is that of the variable MATHSE_REWARD_SERVER, or http://127.0.0.1:8087. Where it is busy or being
started, it is asked again.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from typing import Any

ADDRESS = "http://127.0.0.1:8087"
ROWS = 256  # of a request
PATIENCE = 600.0  # seconds for an answer, of a server that is busy too
UNREACHABLE = 60.0  # seconds for a server that cannot be reached
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two tries; each wait is twice the one before
ASK_AGAIN = (408, 429, 502, 503, 504)  # of the server, or of a proxy before it


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
    begun, wait = time.monotonic(), FIRST_WAIT
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                scores: list[float] = json.load(answer)["rewards"]
                return scores
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            if error.code not in ASK_AGAIN or time.monotonic() - begun > PATIENCE:
                raise ValueError(f"{address}: {_sentence(text)}") from None
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() - begun > UNREACHABLE:
                raise OSError(f"{address}: {error}") from error
        time.sleep(random.uniform(0.5, 1.0) * wait)  # so that many clients do not come back at once
        wait = min(2 * wait, LONGEST_WAIT)


def _sentence(text: str) -> str:
    """The server's, or what a proxy wrote instead."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text[:200]
