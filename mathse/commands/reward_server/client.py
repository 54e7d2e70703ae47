"""Reward functions that call ``mathse reward-server``. This file needs only Python and may be copied.

TRL     GRPOTrainer(reward_funcs=mathse_reward, ...); with a column ``problem_id``, as in every export, the run's own
        problems are judged, with their pictures; without it the prompts are the questions
verl    custom_reward_function.path=THIS_FILE custom_reward_function.name=compute_score; ``extra_info`` has
        ``problem_id`` or ``question``

The environment variable MATHSE_REWARD_SERVER has the server's address (default: http://127.0.0.1:8087). A request to a
server that is busy or starting is repeated.
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
ROWS = 256  # rows per request
PATIENCE = 600.0  # seconds for an answer, also of a busy server
UNREACHABLE = 60.0  # seconds of tries to reach a server
FIRST_WAIT, MAX_WAIT = 0.5, 10.0  # seconds between two tries; each wait is twice the last
RETRIED_STATUS = (408, 429, 502, 503, 504)  # of the server, or of a proxy before it


def mathse_reward(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
    """Return P(correct) of each completion, as TRL calls it. ``columns``: those of the data set, one entry each."""
    request_body: dict[str, list[Any]] = {"completions": completions}
    if columns.get("problem_id") is not None:
        request_body["problem_ids"] = columns["problem_id"]
    else:
        request_body["prompts"] = prompts
        if columns.get("answer") is not None:
            request_body["answers"] = columns["answer"]
    rewards: list[float] = []
    for k in range(0, len(completions), ROWS):
        rewards += request_rewards({name: values[k : k + ROWS] for name, values in request_body.items()})
    return rewards


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: dict[str, Any] | None = None, **more: Any
) -> float:
    """Return P(correct) of one solution, as verl calls it."""
    info = extra_info or {}
    request_body: dict[str, list[Any]] = {"completions": [solution_str]}
    if info.get("problem_id") is not None:
        request_body["problem_ids"] = [info["problem_id"]]
    else:
        request_body["prompts"] = [info["question"]]
        if isinstance(ground_truth, str):
            request_body["answers"] = [ground_truth]
    return request_rewards(request_body)[0]


def request_rewards(request_body: dict[str, list[Any]]) -> list[float]:
    """Return the rewards of a request. Raises ValueError for a refused request, OSError without a server."""
    address = os.environ.get("MATHSE_REWARD_SERVER", ADDRESS).rstrip("/")
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/reward", json.dumps(request_body).encode(), headers)
    start, wait = time.monotonic(), FIRST_WAIT
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                scores: list[float] = json.load(answer)["rewards"]
                return scores
        # The server answered with an error: repeat only if it may be temporary.
        except urllib.error.HTTPError as error:
            with error:
                text = error.read().decode(errors="replace")
            if error.code not in RETRIED_STATUS or time.monotonic() - start > PATIENCE:
                raise ValueError(f"{address}: {_read_message(text)}") from None
        # No answer: the server may be starting.
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() - start > UNREACHABLE:
                raise OSError(f"{address}: {error}") from error
        time.sleep(random.uniform(0.5, 1.0) * wait)  # so that many clients do not return at the same time
        wait = min(2 * wait, MAX_WAIT)


def _read_message(text: str) -> str:
    """Return the server's message, or the first characters of another answer, such as a proxy's."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return text[:200]
