"""The client against a real server: everything is answered once, in order, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from api_server import KEY, MODEL, ApiServer, Body, text_of

from llm.conftest import NewClient, number_of, row, rows
from mathse.errors import ConfigError, TeacherError
from mathse.inference.llm import connection, online
from mathse.inference.llm.client import ChatClient, ChatReply, ChatRequest


def ends_with(client: ChatClient, requests: list[ChatRequest]) -> str:
    """The sentence that ``requests`` end the run with."""
    with pytest.raises(TeacherError) as error:
        client.complete(requests)
    said = str(error.value)
    assert "\n" not in said and KEY not in said
    return said


# --- what is given ----------------------------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_their_requests(api: ApiServer, connect: NewClient) -> None:
    api.answer = lambda body: f"answer {number_of(text_of(body))}"
    api.mood = lambda text, nth: "500" if number_of(text) % 3 == 0 and nth == 1 else None  # some come late
    replies = connect().complete(rows(30))
    assert [r.text for r in replies] == [f"answer {k}" for k in range(30)]
    assert {r.model for r in replies} == {MODEL}
    assert all(r.usage.prompt_tokens == 2 and r.usage.completion_tokens == 2 for r in replies)


def test_an_answer_is_asked_for_once_by_whoever_shares_the_folder(api: ApiServer, connect: NewClient) -> None:
    first = connect().complete(rows(5))
    second = connect().complete(rows(8))
    assert len(api.asked) == 8 and set(api.billed.values()) == {1}
    assert [r.cached for r in first] == [False] * 5 and [r.cached for r in second] == [True] * 5 + [False] * 3
    assert [r.texts for r in second[:5]] == [r.texts for r in first]


HALF = "half an emoji \ud83d"  # legal JSON, and no text


@pytest.mark.parametrize("mode", ["online", "batch"])
def test_half_a_character_in_an_answer_is_replaced_whether_it_is_new_or_was_kept_so(
    api: ApiServer, connect: NewClient, mode: str
) -> None:
    api.answer = lambda body: HALF
    client = connect(mode=mode, poll_seconds=0.05)
    assert [r.text for r in client.complete([row(1)])] == ["half an emoji \ufffd"]
    [file] = client.cache.folder.glob("??/*.json")
    file.write_text(file.read_text().replace("\ufffd", "\\ud83d"))
    assert [(r.text, r.cached) for r in connect(mode=mode).complete([row(1)])] == [("half an emoji \ufffd", True)]


def test_equal_requests_of_one_call_are_asked_once(api: ApiServer, connect: NewClient) -> None:
    api.delay = 0.05
    replies = connect().complete([row(1), row(2), row(1), row(1)])
    assert len(api.asked) == 2 and len({r.key for r in replies}) == 2


def test_the_same_words_asked_again_are_another_request(api: ApiServer, connect: NewClient) -> None:
    connect().complete([row(1), row(1, again=1), row(1, seed=5), row(1, temperature=0.7), row(1, prompt_version="x/2")])
    assert len(api.asked) == 5


def test_nothing_is_asked_but_what_was_requested(api: ApiServer, connect: NewClient) -> None:
    connect()
    assert not api.seen
    connect().complete(rows(3))
    assert api.seen == {"POST /v1/chat/completions": 3}


def test_settings_go_out_as_they_are_and_what_is_unset_does_not(api: ApiServer, connect: NewClient) -> None:
    schema = {"type": "object"}
    full = row(1, temperature=0.5, max_tokens=9, n=2, seed=3, top_p=0.9, schema=schema, logprobs=True)
    connect(max_concurrency=1).complete([full, row(2, temperature=None)])
    sent, bare = api.asked
    assert sent["messages"] == full.messages
    assert {k: v for k, v in sent.items() if k not in ("messages", "response_format")} == {
        "model": MODEL, "temperature": 0.5, "max_tokens": 9, "n": 2, "seed": 3, "top_p": 0.9,
        "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert set(bare) == {"model", "messages", "max_tokens"}


def test_fewer_choices_than_asked_for_are_given_as_they_are(api: ApiServer, connect: NewClient) -> None:
    api.answer = lambda body: ["one", "two"] if number_of(text_of(body)) else ["a", "b", "c", "d"]
    few, many = connect().complete([row(1, n=3), row(0, n=3)])
    assert few.texts == ["one", "two"] and many.texts == ["a", "b", "c"]


def test_requests_are_drawn_as_they_are_needed(api: ApiServer, connect: NewClient) -> None:
    drawn: list[int] = []

    def lazily() -> Iterator[ChatRequest]:
        for k in range(60):
            drawn.append(k - len(api.asked))
            yield row(k)

    connect(max_concurrency=4).complete(lazily())
    assert max(drawn) <= 4 * online.READ_AHEAD + 4


def test_progress_is_told_of_every_row(connect: NewClient) -> None:
    told: list[int] = []
    connect().complete(rows(7), told.append)
    connect().complete(rows(9), told.append)
    assert sum(told) == 16


def test_it_works_inside_a_running_event_loop(connect: NewClient) -> None:
    async def notebook() -> int:
        return len(connect().complete(rows(3)))

    assert asyncio.run(notebook()) == 3


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["429", "500", "503", "half", "not_json", "no_choices", "reset"])
def test_what_fails_for_the_moment_is_asked_again(api: ApiServer, connect: NewClient, trouble: str) -> None:
    api.mood = lambda text, nth: trouble if nth <= 2 else None
    replies = connect().complete(rows(4))
    assert {r.outcome for r in replies} == {"answered"}
    assert set(api.tries.values()) == {3} and set(api.billed.values()) == {1}


def test_a_reply_that_does_not_end_is_left_at_a_limit_of_size(
    api: ApiServer, connect: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_REPLY_BYTES", 10_000)
    api.answer = lambda body: "a" * 20_000 if "row 0" in text_of(body) else "short"
    replies = connect(max_retries=1).complete(rows(3))
    assert [r.outcome for r in replies] == ["failed", "answered", "answered"]
    assert api.tries and max(api.tries.values()) == 2


def test_a_server_that_hangs_is_left_at_the_timeout(api: ApiServer, connect: NewClient) -> None:
    api.mood = lambda text, nth: "hang" if nth == 1 else None
    assert {r.outcome for r in connect(timeout=0.3).complete(rows(2))} == {"answered"}
    assert set(api.tries.values()) == {2}


def test_everybody_waits_as_long_as_the_server_asks(api: ApiServer, connect: NewClient) -> None:
    api.mood = lambda text, nth: "429" if number_of(text) == 0 and nth == 1 else None
    api.retry_after = 0.25
    client = connect()
    asked_for: list[float] = []
    hold = client.limits.pause
    client.limits.pause = lambda seconds: (asked_for.append(seconds), hold(seconds))[1]  # type: ignore[method-assign]
    client.complete(rows(3))
    assert asked_for == [0.25] and len(api.times) == 4
    start = time.monotonic()
    client.limits.pause(0.3)
    client.complete(rows(5))
    assert min(api.times[4:]) - start >= 0.3


BILLED = [
    ("refusal", "refused"),
    ("filtered", "refused"),
    ("empty", "empty"),
    ("null", "empty"),
    ("cut_off", "cut_off"),
    ("wrong_model", "answered"),
]


@pytest.mark.parametrize(("mood", "outcome"), BILLED)
def test_an_unusable_answer_is_an_outcome_and_is_never_asked_again(
    api: ApiServer, connect: NewClient, mood: str, outcome: str
) -> None:
    api.mood = lambda text, nth: mood if number_of(text) == 1 else None
    for cached in (False, True):
        client = connect()
        replies = client.complete(rows(3))
        assert [r.outcome for r in replies] == ["answered", outcome, "answered"]
        assert replies[1].cached is cached
        assert client.account.totals()["outcomes"][outcome] == (3 if outcome == "answered" else 1)
    assert len(api.asked) == 3


def test_who_answered_is_counted_by_name(api: ApiServer, connect: NewClient) -> None:
    api.mood = lambda text, nth: "wrong_model" if number_of(text) == 1 else None
    client = connect()
    client.complete(rows(3))
    assert client.account.totals()["models"] == {MODEL: 2, "other-model": 1}


def test_a_row_that_the_server_cannot_take_is_given_up_untried(api: ApiServer, connect: NewClient) -> None:
    api.mood = lambda text, nth: "too_long" if number_of(text) == 1 else None
    replies = connect(max_concurrency=1).complete(rows(3))
    assert [r.outcome for r in replies] == ["answered", "rejected", "answered"]
    assert "maximum context length" in str(replies[1].error)
    assert set(api.tries.values()) == {1}


def test_a_server_that_takes_no_row_at_all_ends_the_run(api: ApiServer, connect: NewClient) -> None:
    api.mood = lambda text, nth: "too_long"
    said = ends_with(connect(max_concurrency=2), rows(50))
    assert "maximum context length" in said and len(api.asked) <= online.MAX_REJECTED + 2


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("400", "change what it names below teacher"),
        ("401", "the key in OPENAI_API_KEY"),
        ("404", "check teacher.model"),
        ("quota", "raise the account's limits"),
    ],
)
def test_what_no_row_would_survive_ends_the_run_at_once(
    api: ApiServer, connect: NewClient, trouble: str, words: str
) -> None:
    api.mood = lambda text, nth: trouble
    said = ends_with(connect(max_concurrency=2), rows(20))
    assert words in said and api.url in said and "goes on from there" in said
    assert len(api.asked) <= 2 and not api.billed


def test_a_key_that_is_not_let_in_is_told_without_the_key(
    api: ApiServer, connect: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.key = "another-key-altogether"
    assert "401" in ends_with(connect(), rows(1))
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "set OPENAI_API_KEY" in ends_with(connect(), rows(1))
    api.key = None  # a server of one's own
    assert connect(api_key_env=None).complete(rows(1))[0].outcome == "answered"
    api.key = KEY
    assert "set teacher.api_key_env" in ends_with(connect(api_key_env=None), rows(2))


def test_answers_under_way_are_kept_when_the_run_ends(api: ApiServer, connect: NewClient) -> None:
    api.delay = 0.1
    api.mood = lambda text, nth: "401" if number_of(text) == 9 and nth == 1 else None
    client = connect(max_concurrency=4)
    ends_with(client, rows(20))
    assert len(api.billed) == len(client.account) > 0
    connect().complete(rows(20))
    assert set(api.billed.values()) == {1}


def test_a_server_that_is_down_ends_the_run(connect: NewClient) -> None:
    said = ends_with(connect(base_url="http://127.0.0.1:9/v1", max_retries=1), rows(3))
    assert "no connection" in said and "after 2 tries" in said


def test_a_server_that_only_fails_ends_the_run(api: ApiServer, connect: NewClient) -> None:
    api.mood = lambda text, nth: "500"
    assert "after 3 tries" in ends_with(connect(max_retries=2, max_concurrency=2), rows(3))


def test_a_row_that_always_fails_is_given_up_where_others_are_answered(api: ApiServer, connect: NewClient) -> None:
    api.delay = 0.01
    api.mood = lambda text, nth: "not_json" if number_of(text) == 0 else None
    client = connect(max_retries=2, max_concurrency=2)
    replies = client.complete(rows(30))
    assert [r.outcome for r in replies] == ["failed"] + ["answered"] * 29
    assert api.tries["row 0"] == 3 and client.account.totals()["outcomes"] == {"answered": 29, "failed": 1}


def test_a_row_that_fails_alone_is_given_up_at_the_second_start(
    api: ApiServer, connect: NewClient, tmp_path: Path
) -> None:
    connect().complete(rows(3))
    api.mood = lambda text, nth: "500" if number_of(text) == 3 else None
    client = connect(max_retries=1)
    client.account_in(tmp_path)
    ends_with(client, rows(4))  # it may be the server's bad hour
    client = connect(max_retries=1)
    client.account_in(tmp_path)
    assert [r.outcome for r in client.complete(rows(4))] == ["answered"] * 3 + ["failed"]


def test_a_full_disk_ends_the_run_before_more_is_paid(
    api: ApiServer, connect: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(max_concurrency=2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(client.cache, "put", full)
    with pytest.raises(OSError, match="No space"):
        client.complete(rows(50))
    assert len(api.billed) <= 4


# --- what the server cannot say ---------------------------------------------------------------------------------------


def test_a_server_without_structured_output_is_asked_in_words(api: ApiServer, connect: NewClient) -> None:
    client = connect(max_concurrency=1)
    api.mood = lambda text, nth: "no_schema" if "response_format" in api.asked[-1] else None
    replies = client.complete(rows(3, schema={"type": "object"}))
    assert {r.outcome for r in replies} == {"answered"}
    assert ["response_format" in body for body in api.asked] == [True, False, False, False]
    assert connect().complete(rows(3, schema={"type": "object"}))[0].cached


def test_the_limit_of_tokens_is_named_as_the_server_wants_it(
    api: ApiServer, connect: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from api_server import ERRORS

    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    monkeypatch.setitem(ERRORS, "400", (400, "unsupported_parameter", words))
    api.mood = lambda text, nth: "400" if "max_tokens" in api.asked[-1] else None
    assert connect(max_concurrency=1).complete(rows(2))[0].outcome == "answered"
    assert ["max_tokens" in body for body in api.asked] == [True, False, False]


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_no_more_are_under_way_than_allowed(api: ApiServer, connect: NewClient) -> None:
    api.delay = 0.03
    connect(max_concurrency=3).complete(rows(15))
    assert 1 < api.most_under_way <= 3


def test_a_slot_is_the_next_requests_while_its_answer_goes_to_the_disk(api: ApiServer, connect: NewClient) -> None:
    client, second_is_there = connect(max_concurrency=1), threading.Event()
    store, waited = client.store, []

    def slow_disk(reply: ChatReply, request: ChatRequest) -> None:
        waited.append(second_is_there.wait(10))
        store(reply, request)

    def answer(body: Body) -> str:
        if len(api.asked) == 2:
            second_is_there.set()
        return "so"

    client.store, api.answer = slow_disk, answer  # type: ignore[method-assign]
    assert len(client.complete(rows(2))) == 2 and waited == [True, True] and api.most_under_way == 1


def test_connections_are_in_pools_of_bounded_size(
    api: ApiServer, connect: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.delay = 0.2
    monkeypatch.setattr(online, "POOL_CONNECTIONS", 2)
    client, opened = connect(max_concurrency=5), []
    connected = client.open_async

    def counted(url: str) -> openai.AsyncOpenAI:
        opened.append(connected(url))
        return opened[-1]

    client.open_async = counted  # type: ignore[method-assign]
    assert len(client.complete(rows(10))) == 10 and len(opened) == 3 and api.most_under_way == 5
    assert all(pool.is_closed() for pool in opened)


def test_each_try_keeps_the_pace_of_requests_and_tokens(api: ApiServer, connect: NewClient) -> None:
    api.mood = lambda text, nth: "500" if number_of(text) == 0 and nth == 1 else None
    client = connect(requests_per_minute=60_000, tokens_per_minute=60_000_000)
    booked: list[float] = []
    corrected: list[float] = []
    book, correct = client.limits.book, client.limits.tokens.correct
    client.limits.book = lambda tokens: (booked.append(tokens), book(tokens))[1]  # type: ignore[method-assign]
    client.limits.tokens.correct = lambda units: (corrected.append(units), correct(units))[1]  # type: ignore[method-assign]
    client.complete(rows(4, max_tokens=80))
    assert len(booked) == 5 == len(api.times)
    assert all(tokens > 80 for tokens in booked)  # the answer, and the prompt
    assert sorted(corrected) == sorted(9 - tokens for tokens in booked[:4])  # to what the answers came to


def test_the_budget_is_a_hard_stop_and_the_run_goes_on_when_it_is_raised(
    api: ApiServer, connect: NewClient, tmp_path: Path
) -> None:
    price = {"input": 0.0, "output": 1_000_000.0}  # a dollar a word
    api.answer = lambda body: "twelve exactly"

    def client(budget: float) -> ChatClient:
        new = connect(price=price, budget_usd=budget, max_concurrency=4)
        new.account_in(tmp_path / "run")
        return new

    said = ends_with(client(11), rows(20, max_tokens=3))
    assert "teacher.budget_usd = 11" in said and f"hydra.run.dir={tmp_path / 'run'}" in said
    assert len(api.asked) == 5  # after $10, an answer of up to $3 could exceed 11
    assert "$10.0000 are spent" in ends_with(client(12.5), rows(20, max_tokens=3))
    assert len(api.asked) == 5
    rich = client(1000)
    assert len(rich.complete(rows(20, max_tokens=3))) == 20
    assert rich.account.totals()["usd"] == 40 and set(api.billed.values()) == {1}


def test_another_run_s_answers_cost_this_one_nothing(connect: NewClient, tmp_path: Path) -> None:
    for run, paid in (("a", 4), ("b", 0)):
        client = connect(price={"input": 1.0, "output": 2.0})
        client.account_in(tmp_path / run)
        client.complete(rows(4))
        totals = client.account.totals()
        assert (totals["requests"], totals["paid"]["requests"]) == (4, paid)
        assert totals["usd"] == pytest.approx(4 * (2 + 2 * 7) / 1e6)
        assert totals["jobs"]["solve"]["requests"] == 4


# --- settings that cannot work ----------------------------------------------------------------------------------------


def test_settings_that_cannot_work_are_refused(connect: NewClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="base_url = ''"):
        connect(base_url=" ")
    with pytest.raises(ConfigError, match="no price is known for 'my-model'"):
        connect(model="my-model", budget_usd=1.0)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigError, match="'OPENAI_API_KEY': this environment variable is not set"):
        connect(base_url=None)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret\x01-key")
    with pytest.raises(ConfigError) as error:
        connect(base_url=None)
    assert "sk-secret" not in str(error.value)


def test_the_openai_api_is_what_null_means_whatever_the_environment_says(
    connect: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    assert str(connect(base_url=None).open_sync().base_url) == "https://api.openai.com/v1/"


# --- secrets ----------------------------------------------------------------------------------------------------------


def test_a_key_that_the_server_repeats_is_not_kept(api: ApiServer, connect: NewClient, tmp_path: Path) -> None:
    api.answer = lambda body: f"Your key is {KEY}."
    (reply,) = connect().complete(rows(1))
    assert reply.text == "Your key is [key]."
    kept = [file.read_text() for file in (tmp_path / "cache").rglob("*.json")]
    assert kept and not any(KEY in text for text in kept)


def test_outcomes_are_the_same_for_every_mixture_of_troubles(api: ApiServer, connect: NewClient) -> None:
    """A small one of the 500 rows that tests/llm/test_kills.py has."""
    first = ["429", "500", "half", "not_json", "reset", "no_choices", None]
    last = {7: "refusal", 8: "empty", 9: "cut_off", 10: "too_long", 11: "wrong_model"}
    api.mood = lambda text, nth: (nth == 1 and first[number_of(text) % 7]) or last.get(number_of(text) % 12)
    replies = connect().complete(rows(84))
    assert len(replies) == 84 and set(api.billed.values()) == {1}
    assert Counter(r.outcome for r in replies) == {
        "answered": 84 * 8 // 12, "refused": 7, "empty": 7, "cut_off": 7, "rejected": 7}  # fmt: skip
    assert json.loads(json.dumps([r.to_json() for r in replies]))
