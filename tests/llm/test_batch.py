"""The Batch API: the same answers at half the price, each batch sent once, and what came back without an answer sent
again."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from api_server import ERRORS, KEY, ApiServer, text_of

from llm.conftest import NewClient, number_of, row, rows
from mathse.errors import TeacherError
from mathse.inference.llm.client import ChatClient
from mathse.inference.llm.records import BatchRecord, Records

PRICE = {"input": 1.0, "output": 2.0}


@pytest.fixture
def batched(connect: NewClient) -> NewClient:
    return lambda **how: connect(**{"mode": "batch", "poll_seconds": 0.02, "price": PRICE, **how})


def sizes(api: ApiServer) -> list[int]:
    """Lines of each batch that was made."""
    return [len(api.files[b["input_file_id"]].splitlines()) for b in api.batches.values()]


def test_a_batch_gives_what_online_requests_would_at_half_the_price(
    api: ApiServer, connect: NewClient, batched: NewClient, tmp_path: Path
) -> None:
    api.answer = lambda body: f"answer {number_of(text_of(body))}"
    by_batch, online = batched(), connect(cache_dir=tmp_path / "other", price=PRICE)
    told: list[int] = []
    replies = by_batch.complete(rows(12), told.append)
    direct = online.complete(rows(12))
    assert [r.texts for r in replies] == [r.texts for r in direct] == [[f"answer {k}"] for k in range(12)]
    assert [r.usage for r in replies] == [r.usage for r in direct]
    assert by_batch.account.totals()["paid"]["usd"] == pytest.approx(online.account.totals()["paid"]["usd"] / 2)
    assert sizes(api) == [12] and sum(told) == 12
    line = json.loads(next(iter(api.files.values())).splitlines()[0])
    assert line["method"] == "POST" and line["url"] == "/v1/chat/completions" and line["body"] == api.asked[0]
    assert not list((tmp_path / "cache" / "batches").iterdir())


def test_answers_on_the_disk_are_not_sent_again(api: ApiServer, connect: NewClient, batched: NewClient) -> None:
    connect().complete(rows(3))
    batched().complete([*rows(5), row(4)])
    batched().complete(rows(5))
    assert sizes(api) == [2] and set(api.billed.values()) == {1}


def test_lines_without_an_answer_are_sent_again(api: ApiServer, batched: NewClient) -> None:
    api.mood = lambda text, nth: "500" if number_of(text) % 3 == 0 and nth == 1 else None
    assert {r.outcome for r in batched().complete(rows(9))} == {"answered"}
    assert sizes(api) == [9, 3] and set(api.billed.values()) == {1}


def test_lines_of_an_expired_batch_are_sent_again(api: ApiServer, batched: NewClient) -> None:
    api.batch_mood = lambda number: "expired" if number == 1 else None
    assert {r.outcome for r in batched().complete(rows(8))} == {"answered"}
    assert sizes(api) == [8, 4] and set(api.billed.values()) == {1}


def test_too_many_tokens_at_a_time_are_sent_in_halves(api: ApiServer, batched: NewClient) -> None:
    api.batch_mood = lambda number: "token_limit" if number == 1 else None
    assert {r.outcome for r in batched().complete(rows(9))} == {"answered"}
    assert sizes(api) == [9, 5, 4]


def test_rows_that_are_refused_are_outcomes(api: ApiServer, batched: NewClient) -> None:
    api.mood = lambda text, nth: {0: "too_long", 1: "refusal", 2: "cut_off"}.get(number_of(text))
    replies = batched().complete(rows(4))
    assert [r.outcome for r in replies] == ["rejected", "refused", "cut_off", "answered"]
    assert sizes(api) == [4]


def test_a_row_that_never_comes_back_is_given_up(api: ApiServer, batched: NewClient) -> None:
    api.mood = lambda text, nth: "500" if number_of(text) == 1 else None
    replies = batched(max_retries=2).complete(rows(3))
    assert [r.outcome for r in replies] == ["answered", "failed", "answered"]
    assert sizes(api) == [3, 1, 1, 1]


def ends_with(client: ChatClient, count: int) -> str:
    with pytest.raises(TeacherError) as error:
        client.complete(rows(count))
    assert KEY not in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_a_batch_that_the_server_cannot_use_ends_the_run_and_is_put_away(
    api: ApiServer, batched: NewClient, tmp_path: Path
) -> None:
    api.batch_mood = lambda number: "failed" if number == 1 else None
    assert "batch batch_1 failed: the batch is no good ([key])" in ends_with(batched(), 3)
    assert {r.outcome for r in batched().complete(rows(3))} == {"answered"}


def test_a_setting_that_no_line_survives_ends_the_run_and_what_was_answered_is_kept(
    api: ApiServer, batched: NewClient
) -> None:
    api.mood = lambda text, nth: "400" if number_of(text) == 1 and nth == 1 else None
    assert "Unsupported value" in ends_with(batched(), 4)
    assert {r.outcome for r in batched().complete(rows(4))} == {"answered"}
    assert sizes(api) == [4, 1]


def test_a_server_without_structured_output_is_asked_in_words(
    api: ApiServer, batched: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.mood = lambda text, nth: "no_schema" if "response_format" in api.asked[-1] else None
    replies = batched().complete(rows(3, schema={"type": "object"}))
    assert {r.outcome for r in replies} == {"answered"} and sizes(api) == [3, 3]


@pytest.mark.parametrize("kind", ["files", "batches", "batch", "content", "list"])
def test_the_moment_s_faults_of_any_call_are_waited_out(
    api: ApiServer, batched: NewClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each call to the server fails twice first."""
    import openai.resources as resources

    owner, name = {
        "files": (resources.Files, "create"),
        "batches": (resources.Batches, "create"),
        "batch": (resources.Batches, "retrieve"),
        "content": (resources.Files, "content"),
        "list": (resources.Batches, "list"),
    }[kind]
    real, failures = getattr(owner, name), iter(("503", "429"))

    def failing(self: object, *args: object, **kwargs: object) -> object:
        if (trouble := next(failures, None)) is None:
            return real(self, *args, **kwargs)
        status, code, message = ERRORS[trouble]
        import httpx
        import openai

        try:
            import httpx2
        except ImportError:
            httpx2 = httpx
        response = httpx2.Response(status, request=httpx2.Request("POST", api.url))
        kind = {503: openai.InternalServerError, 429: openai.RateLimitError}[status]
        raise kind(message, response=response, body={"code": code, "message": message})

    monkeypatch.setattr(owner, name, failing)
    if kind == "list":
        client = batched()
        lost = BatchRecord.new("a run that died while it was sending", {})
        lost.add(row(0).key(client.model), row(0), 0.0)
        Records(client.cache.folder).save(lost)
    assert {r.outcome for r in batched().complete(rows(3))} == {"answered"}
    assert sizes(api) == [3] and next(failures, None) is None


def test_a_batch_that_was_made_though_the_answer_was_lost_is_not_made_twice(api: ApiServer, batched: NewClient) -> None:
    made = api.make_batch

    def lost(body: dict[str, object]) -> dict[str, object]:
        batch = made(body)
        if len(api.batches) == 1:
            raise ConnectionResetError
        return batch

    api.make_batch = lost  # type: ignore[method-assign]
    assert {r.outcome for r in batched().complete(rows(3))} == {"answered"}
    assert sizes(api) == [3]


def test_two_runs_wait_for_one_batch(api: ApiServer, batched: NewClient) -> None:
    api.open_batches = False
    done: list[int] = []
    threads = [threading.Thread(target=lambda: done.append(len(batched().complete(rows(6))))) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    api.open_batches = True
    for thread in threads:
        thread.join(30)
    assert done == [6, 6] and sizes(api) == [6] and set(api.billed.values()) == {1}


def test_the_budget_covers_what_lies_at_the_server(api: ApiServer, batched: NewClient, tmp_path: Path) -> None:
    api.answer = lambda body: "twelve exactly"
    dollars = {"input": 0.0, "output": 1_000_000.0}

    def client(budget: float) -> ChatClient:
        new = batched(price=dollars, budget_usd=budget)
        new.account_in(tmp_path / "run")
        return new

    with pytest.raises(TeacherError, match=r"teacher.budget_usd = 6: \$5.0000 are spent"):
        client(6).complete(rows(10, max_tokens=3))  # a line can cost $1.5, and then costs $1
    assert sizes(api) == [4, 1]
    assert len(client(100).complete(rows(10, max_tokens=3))) == 10
    assert sum(sizes(api)) == 10 and set(api.billed.values()) == {1}


def test_online_requests_do_not_pay_for_what_lies_in_a_batch(
    api: ApiServer, connect: NewClient, batched: NewClient
) -> None:
    record = BatchRecord.new("another run", {})
    client = connect()
    record.batch_id = "batch_1"
    record.add(row(1).key(client.model), row(1), 0.0)
    Records(client.cache.folder).save(record)
    with pytest.raises(TeacherError, match="lie at the Batch API"):
        client.complete(rows(3))
    assert "row 1" not in api.billed
