"""kill -9 at any time, and several runs at once: what is on the disk is never paid again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from api_server import ApiServer

from llm.asks import client_of
from llm.conftest import number_of, rows

ROOT = Path(__file__).resolve().parents[2]
ASKS = str(Path(__file__).with_name("asks.py"))

FIRST = ("429", "500", "half", "not_json", "reset", "no_choices", None, None)  # at the first try
LAST = {7: "refusal", 8: "empty", 9: "cut_off", 10: "too_long", 11: "wrong_model"}


def troubled(text: str, nth: int) -> str | None:
    """Everything that can go wrong, some of it for each row."""
    k = number_of(text)
    if k == 5 and nth == 1:
        return "hang"
    return (FIRST[k % len(FIRST)] if nth == 1 else None) or LAST.get(k % 12)


def start(api: ApiServer, place: Path, run: str, count: int, mode: str, timeout: float = 1.5) -> subprocess.Popen[str]:
    command = [sys.executable, ASKS, api.url, str(place / "cache"), str(place / run), str(count), mode, str(timeout)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def killed_at(api: ApiServer, place: Path, at: int, count: int, mode: str, on: str) -> None:
    """A run that dies by SIGKILL while the server stands still at its ``at``-th request of a kind."""
    api.freeze(at, on)
    with start(api, place, "run", count, mode) as process:
        assert api.frozen.wait(60)
        time.sleep(0.3)  # what went out before is written meanwhile
        process.send_signal(signal.SIGKILL)
    api.thaw()


def check(api: ApiServer, place: Path, count: int, mode: str, paid_by_another: int = 0) -> None:
    """All rows have their outcome, each answer was billed once, and the account is that of a run never killed."""
    client = client_of(api.url, str(place / "cache"), str(place / "run"), mode)
    replies = client.complete(rows(count))
    assert len(replies) == count
    expected = Counter(
        {7: "refused", 8: "empty", 9: "cut_off", 10: "rejected"}.get(k % 12, "answered") for k in range(count)
    )
    assert Counter(r.outcome for r in replies) == expected
    assert set(api.billed.values()) == {1} and len(api.billed) == count - expected["rejected"]
    totals = client.account.totals()
    assert totals["requests"] == count
    assert totals["paid"]["requests"] == count - expected["rejected"] - paid_by_another
    assert totals["completion_tokens"] == sum(r.usage.completion_tokens for r in replies)
    assert totals["outcomes"] == dict(expected)


CHAT = "POST /v1/chat/completions"


def test_a_run_that_is_killed_twice_pays_for_each_answer_once(api: ApiServer, tmp_path: Path) -> None:
    api.mood = troubled
    for at in (10, 45):
        killed_at(api, tmp_path, at, 60, "online", CHAT)
    assert 0 < len(api.billed) < 60
    check(api, tmp_path, 60, "online")


def test_two_runs_at_once_share_the_work(api: ApiServer, tmp_path: Path) -> None:
    api.delay = 0.02
    with start(api, tmp_path, "run", 60, "online", 60) as one, start(api, tmp_path, "other", 60, "online", 60) as two:
        assert [p.communicate(timeout=60)[0] for p in (one, two)] == ["60\n", "60\n"]
    assert len(api.asked) == 60 and set(api.billed.values()) == {1}
    totals = [
        client_of(api.url, str(tmp_path / "cache"), str(tmp_path / r), "online").account.totals()
        for r in ("run", "other")
    ]
    assert [t["requests"] for t in totals] == [60, 60]
    assert sum(t["paid"]["requests"] for t in totals) == 60


def test_what_a_killed_run_was_waiting_for_is_taken_over_by_the_other(api: ApiServer, tmp_path: Path) -> None:
    api.freeze(1)
    with start(api, tmp_path, "run", 8, "online", timeout=60) as one:
        assert api.frozen.wait(60)
        with start(api, tmp_path, "other", 8, "online", timeout=60) as two:
            time.sleep(1.5)  # it looks at what the first has claimed
            asked = len(api.asked)
            one.kill()
            one.wait()
            api.thaw()
            assert two.communicate(timeout=60)[0] == "8\n"
    assert asked == 8 and set(api.billed.values()) == {1} and len(api.billed) == 8


def test_what_is_under_way_at_ctrl_c_is_kept(api: ApiServer, tmp_path: Path) -> None:
    api.freeze(1)
    with start(api, tmp_path, "run", 40, "online", timeout=60) as process:
        assert api.frozen.wait(60)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        api.thaw()
        assert process.wait(30) != 0
    assert 1 <= len(api.billed) <= 16  # nothing more was asked
    client = client_of(api.url, str(tmp_path / "cache"), str(tmp_path / "run"), "online")
    assert len(client.account) == len(api.billed)
    client.complete(rows(40))
    assert len(api.billed) == 40 and set(api.billed.values()) == {1}


@pytest.mark.slow
def test_500_rows_of_all_troubles_two_kills_and_a_second_run(api: ApiServer, tmp_path: Path) -> None:
    api.mood = troubled
    for at in (150, 400):
        killed_at(api, tmp_path, at, 500, "online", CHAT)
    with start(api, tmp_path, "other", 500, "online") as other:
        assert other.communicate(timeout=300)[0] == "500\n"
    assert set(api.billed.values()) == {1}
    client = client_of(api.url, str(tmp_path / "cache"), str(tmp_path / "run"), "online")
    assert len(client.complete(rows(500))) == 500
    assert set(api.billed.values()) == {1}
    assert client.account.totals()["paid"]["requests"] < 500


# --- the Batch API ----------------------------------------------------------------------------------------------------

POINTS = ["POST /v1/files", "POST /v1/batches", "GET /v1/batches/ID", "GET /v1/files/ID/content"]


def only_outcomes(text: str, nth: int) -> str | None:
    """What can go wrong with a line of a batch."""
    k = number_of(text)
    return ("500" if k % 6 == 0 and nth == 1 else None) or LAST.get(k % 12)


@pytest.mark.parametrize("point", POINTS)
def test_a_batch_outlives_a_kill_at_any_of_its_points(api: ApiServer, tmp_path: Path, point: str) -> None:
    api.mood = only_outcomes
    killed_at(api, tmp_path, 1, 24, "batch", point)
    check(api, tmp_path, 24, "batch")
    lines = [len(api.files[b["input_file_id"]].splitlines()) for b in api.batches.values()]
    assert sum(lines[:1]) == 24 and all(n < 24 for n in lines[1:])  # later ones hold what came back without an answer


@pytest.mark.slow
def test_500_rows_by_batch_two_kills_and_a_second_run(api: ApiServer, tmp_path: Path) -> None:
    api.mood = only_outcomes
    api.open_batches = False
    killed_at(api, tmp_path, 1, 500, "batch", "POST /v1/batches")
    killed_at(api, tmp_path, 3, 500, "batch", "GET /v1/batches/ID")
    with start(api, tmp_path, "other", 500, "batch") as other:
        time.sleep(1)
        api.open_batches = True
        assert other.communicate(timeout=120)[0] == "500\n"
    other_s = client_of(api.url, str(tmp_path / "cache"), str(tmp_path / "other"), "batch").account
    check(api, tmp_path, 500, "batch", paid_by_another=other_s.totals()["paid"]["requests"])
