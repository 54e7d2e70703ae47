"""The client's parts by themselves: keys, claims, account, pace, faults, prices, pictures, bodies."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from api_server import MODEL
from PIL import Image

from llm.conftest import row
from mathse.data.images import load_image
from mathse.errors import DataError
from mathse.inference.llm.account import Account
from mathse.inference.llm.cache import AnswerCache, Claims
from mathse.inference.llm.chat import ChatReply, ChatRequest, Usage
from mathse.inference.llm.faults import MAX_WAIT_SECONDS, BrokenReply, read_fault_body, retry_after
from mathse.inference.llm.images import MAX_PICTURE_BYTES, data_url, picture_of
from mathse.inference.llm.limits import Limits, Pace
from mathse.inference.llm.pricing import (
    OPENAI_URL,
    PRICES,
    Price,
    _by_genai_prices,
    bound_cost,
    image_tokens,
    price_of,
    prompt_tokens,
)
from mathse.inference.llm.serialization import read_reply
from mathse.runs.layout import USAGE

ROOT = Path(__file__).resolve().parents[2]


# --- keys -------------------------------------------------------------------------------------------------------------


def test_the_key_is_the_content_of_the_request() -> None:
    base = row(1)
    others = [
        row(2), row(1, temperature=0.5), row(1, temperature=None), row(1, max_tokens=5), row(1, n=2), row(1, seed=0),
        row(1, top_p=0.5), row(1, schema={"type": "object"}), row(1, prompt_version="solve/2"), row(1, logprobs=True),
        row(1, again=1),
    ]  # fmt: skip
    keys = {r.key(MODEL) for r in (base, *others)} | {base.key("other")}
    assert len(keys) == len(others) + 2
    assert row(1).key(MODEL) == base.key(MODEL) and len(base.key(MODEL)) == 64


def test_another_picture_is_another_request(tmp_path: Path) -> None:
    urls = []
    for shade in (1, 2):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(tmp_path / "x.png")
        urls.append(data_url(str(tmp_path / "x.png"), 64))
    one, two = (
        ChatRequest([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": u}}]}]) for u in urls
    )
    assert one.key(MODEL) != two.key(MODEL)


# --- the cache and its claims -----------------------------------------------------------------------------------------


def test_an_answer_reads_back_as_it_was_kept(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "a" / "b")
    assert cache.get("ab" * 32) is None
    reply = ChatReply(
        ["三", "b"], "no", "stop", Usage(3, 2, 1), "m", outcome="refused", finish_reasons=["stop", "stop"]
    )
    before = os.umask(0)
    cache.put("ab" * 32, reply.to_json())
    os.umask(before)
    assert cache.file("ab" * 32).stat().st_mode & 0o777 == 0o600  # its owner's alone
    stored = cache.get("ab" * 32)
    assert stored is not None
    assert ChatReply.from_json(stored, "ab" * 32) == replace(reply, cached=True, key="ab" * 32)


def test_half_a_character_is_replaced_wherever_a_reply_has_words() -> None:
    half, token = "\ud83d", {"token": "\ud83d", "logprob": -1.0, "top_logprobs": [{"token": "\ude00", "logprob": -2.0}]}
    message = {"content": [{"type": "text", "text": half}, {"type": "text", "text": "!"}], "refusal": half}
    choice = {"message": message, "finish_reason": half, "logprobs": {"content": [token]}}
    reply = read_reply(json.dumps({"model": half, "choices": [choice]}), row(1, logprobs=True), "key")
    assert (reply.texts, reply.refusal, reply.finish_reasons, reply.model) == (
        ["\ufffd!"],
        "\ufffd",
        ["\ufffd"],
        "\ufffd",
    )
    assert reply.logprobs == [[{"token": "\ufffd", "logprob": -1.0, "top": {"\ufffd": -2.0}}]]


def test_a_damaged_answer_is_named(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    cache.put("ab" * 32, {})
    cache.file("ab" * 32).write_text('{"re')
    with pytest.raises(DataError, match=f"{'ab' * 32}.json"):
        cache.get("ab" * 32)


CLAIM = """
import sys
from pathlib import Path
from mathse.inference.llm.cache import AnswerCache
print(AnswerCache(Path(sys.argv[1])).claims.take(sys.argv[2]), flush=True)
input()
"""


def test_a_claim_is_one_process_s_until_it_ends_however_it_ends(tmp_path: Path) -> None:
    claims = AnswerCache(tmp_path).claims
    command = [sys.executable, "-c", CLAIM, str(tmp_path), "key"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        assert not claims.take("key") and claims.take("another key")
        other.kill()
    assert claims.take("key")


def test_a_claim_is_one_caller_s_within_a_process(tmp_path: Path) -> None:
    first, second = AnswerCache(tmp_path).claims, AnswerCache(tmp_path / "." / "").claims
    assert first is second is Claims.of(tmp_path)
    assert first.take("key") and not second.take("key")
    first.give_back("key")
    assert second.take("key")
    second.give_back("key")


def test_a_forked_child_does_not_inherit_a_claim(tmp_path: Path) -> None:
    assert AnswerCache(tmp_path).claims.take("key")
    child = os.fork()
    if child == 0:
        os._exit(0 if not AnswerCache(tmp_path).claims.take("key") else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not AnswerCache(tmp_path).claims.take("key")  # the child's end has not dropped it


# --- the account ------------------------------------------------------------------------------------------------------


def reply(key: str, outcome: Any = "answered", **how: Any) -> ChatReply:
    return ChatReply(["x"], outcome=outcome, usage=Usage(10, 5), model=MODEL, key=key, **how)


def test_an_account_goes_on_where_a_killed_process_left_it(tmp_path: Path) -> None:
    account = Account(tmp_path / USAGE)
    account.note("solve", reply("a"), 0.1, paid=True)
    account.note("solve", reply("b", "refused"), 0.2, paid=False)
    with open(tmp_path / USAGE, "ab") as file:
        file.write(b'{"key": "c", "jo')  # cut short
    again = Account(tmp_path / USAGE)
    assert (again.run, again.spent, again.answered, len(again)) == (account.run, 0.1, 1, 2)
    assert again.totals() == account.totals()
    again.note("solve", reply("a"), 0.1, paid=True)
    again.note("annotate", reply("c"), 0.3, paid=True)
    assert Account(tmp_path / USAGE).totals()["jobs"]["annotate"]["usd"] == 0.3
    assert Account(tmp_path / USAGE).totals()["usd"] == 0.6


def test_the_last_word_on_a_request_counts(tmp_path: Path) -> None:
    account = Account(tmp_path / USAGE)
    account.note("solve", ChatReply(outcome="failed", key="a"), 0.0, paid=True)
    assert account.outcome("a") == "failed" and account.answered == 0
    account.note("solve", reply("a"), 0.5, paid=True)
    assert Account(tmp_path / USAGE).totals()["outcomes"] == {"answered": 1}
    assert Account(tmp_path / USAGE).spent == 0.5


def test_totals_do_not_depend_on_the_order_of_answers() -> None:
    forward, backward = Account(), Account()
    notes = [(f"k{k}", 0.1 + k * 1e-7) for k in range(50)]
    for account, order in ((forward, notes), (backward, notes[::-1])):
        for key, usd in order:
            account.note("solve", reply(key), usd, paid=True)
    assert json.dumps(forward.totals()) == json.dumps(backward.totals())


def test_an_unknown_price_is_no_price() -> None:
    account = Account()
    account.note("solve", reply("a"), None, paid=True)
    assert account.totals()["usd"] is None and account.spent == 0


def test_what_is_under_way_is_in_the_budget() -> None:
    account = Account(budget_usd=1.0)
    assert account.reserve(0.6) and not account.reserve(0.6)
    account.release(0.6)
    account.note("solve", reply("a"), 0.3, paid=True)
    assert account.reserve(0.6) and not account.reserve(0.2)


# --- pace -------------------------------------------------------------------------------------------------------------


def test_a_pace_spreads_evenly_and_takes_back_what_was_not_used() -> None:
    now = [0.0]
    pace = Pace(60, lambda: now[0])
    assert [pace.book(1) for _ in range(3)] == [0, 1, 2]
    now[0] = 10.0
    assert pace.book(30) == 0 and pace.book(1) == 30
    pace.correct(-21)
    assert pace.book(1) == 10
    assert [Pace(None, lambda: 0.0).book(10**9) for _ in range(2)] == [0, 0] and not Pace(None).limited


def test_a_pause_holds_all_and_the_longest_one_counts() -> None:
    now = [0.0]
    limits = Limits(None, None, lambda: now[0])
    assert limits.paused == 0
    limits.pause(5)
    limits.pause(2)
    assert limits.paused == 5
    now[0] = 5.0
    assert limits.paused == 0 and limits.book(100) == 0


# --- faults -----------------------------------------------------------------------------------------------------------

FAULTS = [
    (429, "rate_limit_exceeded", "Rate limit reached", "transient"),
    (429, "insufficient_quota", "You exceeded your current quota", "run"),
    (500, "", "x", "transient"),
    (503, "", "x", "transient"),
    (408, "", "x", "transient"),
    (409, "", "x", "transient"),
    (401, "invalid_api_key", "x", "run"),
    (403, "", "Country not supported", "run"),
    (403, "", "Your input was flagged", "row"),
    (404, "model_not_found", "x", "run"),
    (400, "context_length_exceeded", "x", "row"),
    (400, "BadRequestError", "This model's maximum context length is 4096 tokens. However, you requested 5000", "row"),
    (400, "exceed_context_size_error", "the request exceeds the available context size", "row"),
    (400, "content_filter", "x", "row"),
    (400, "", "Failed to load image: cannot identify image file", "row"),
    (413, "", "Request entity too large", "row"),
    (400, "unsupported_parameter", "Unsupported parameter: 'seed'", "run"),
    (400, "", "This model does not support image input", "run"),
    (422, "", "seed: extra fields not permitted", "run"),
]


@pytest.mark.parametrize(("status", "code", "message", "whose"), FAULTS)
def test_each_fault_is_somebody_s(status: int, code: str, message: str, whose: str) -> None:
    for body in ({"message": message, "code": code}, {"error": {"message": message, "code": code}}):
        assert read_fault_body(status, body, None).scope == whose


def test_a_server_that_asks_for_more_than_patience_ends_the_run() -> None:
    body = {"message": "limit"}
    assert read_fault_body(429, body, None, {"retry-after": str(MAX_WAIT_SECONDS)}).scope == "transient"
    assert read_fault_body(429, body, None, {"retry-after": str(MAX_WAIT_SECONDS + 1)}).scope == "run"
    assert read_fault_body(429, body, None, {"retry-after": "inf"}).scope == "run"


def test_retry_after_is_read_in_each_of_its_forms() -> None:
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert 25 < (retry_after({"retry-after": formatdate(__import__("time").time() + 30)}) or 0) <= 30
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


def test_no_words_of_a_server_hold_a_key() -> None:
    body = {"message": "Incorrect key: my-own-secret, see sk-proj-0123456789abcdef or [my-own-secret]"}
    said = read_fault_body(401, body, "my-own-secret").message
    assert said == "401: Incorrect key: [key], see [key] or [[key]]"
    assert read_fault_body(401, {"message": "no one"}, "no").message == "401: no one"  # a placeholder is no secret
    assert len(read_fault_body(500, {"message": "x" * 9999}, None).message) < 400


# --- bodies -----------------------------------------------------------------------------------------------------------


def body(**changes: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "12"}}
    return {"model": "m", "choices": [choice | changes.pop("choice", {})], **changes}


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", '{"choices": []}', '{"choices": [{}]}', '{"choices": [null]}', "[" * 10**5]
)
def test_a_body_that_is_no_completion_is_broken(text: str) -> None:
    with pytest.raises(BrokenReply):
        read_reply(text, row(1), "k")


def test_every_cut_of_a_body_is_broken() -> None:
    whole = json.dumps(body(usage={"prompt_tokens": 3}))
    assert read_reply(whole, row(1), "k").text == "12"
    for cut in range(len(whole)):
        with pytest.raises(BrokenReply):
            read_reply(whole[:cut], row(1), "k")


def test_choices_are_put_in_order_and_parts_together() -> None:
    choices = [
        {"index": 1, "finish_reason": None, "message": {"content": [{"type": "text", "text": "a"}, {"text": "b"}, 3]}},
        {"index": 0, "finish_reason": "length", "message": {"content": None}},
    ]
    got = read_reply(json.dumps({"choices": choices}), row(1, n=2), "k")
    assert got.texts == ["", "ab"] and got.outcome == "answered" and got.model == ""
    assert got.finish_reasons == ["length", ""] and got.usage == Usage()
    assert read_reply(json.dumps({"choices": choices}), row(1), "k").outcome == "cut_off"


def test_usage_that_is_no_number_counts_as_none() -> None:
    usage = {"prompt_tokens": "3", "completion_tokens": -1, "prompt_tokens_details": {"cached_tokens": 2}}
    assert read_reply(json.dumps(body(usage=usage)), row(1), "k").usage == Usage(0, 0, 2)


def test_log_probabilities_are_given_where_all_choices_have_them() -> None:
    token = {"token": "CORRECT", "logprob": -0.1, "top_logprobs": [{"token": "WRONG", "logprob": -2.0}]}
    with_them = json.dumps(body(choice={"logprobs": {"content": [token]}}))
    given = read_reply(with_them, row(1, logprobs=True), "k").logprobs
    assert given == [[{"token": "CORRECT", "logprob": -0.1, "top": {"WRONG": -2.0}}]]
    assert read_reply(with_them, row(1), "k").logprobs is None
    assert read_reply(json.dumps(body()), row(1, logprobs=True), "k").logprobs is None
    assert (
        read_reply(json.dumps(body(choice={"logprobs": {"content": [{}]}})), row(1, logprobs=True), "k").logprobs
        is None
    )


# --- prices -----------------------------------------------------------------------------------------------------------


def test_a_dated_name_has_its_family_s_price_or_its_own() -> None:
    assert price_of("gpt-4o-2024-08-06") == PRICES["gpt-4o"] == price_of("openai/gpt-4o")
    assert price_of("gpt-4o-2024-05-13") != PRICES["gpt-4o"]
    assert price_of("gpt-4o-mini-2024-07-18") == PRICES["gpt-4o-mini"]


@pytest.mark.parametrize(
    ("model", "server", "price"),
    [
        ("gpt-4-turbo", None, Price(10, 30)),
        ("claude-sonnet-4-5", "https://api.anthropic.com/v1", Price(3, 15, 0.3)),  # of a prompt below 200,000 tokens
        ("Qwen/Qwen2-VL-7B-Instruct", "http://localhost:8000/v1", None),  # a server of one's own costs no dollar
        ("claude-sonnet-4-5", None, None),  # not to be had there
        ("no-such-model", None, None),
        (
            "gpt-4o",
            "http://localhost:8000/v1",
            PRICES["gpt-4o"],
        ),  # a proxy; the settings say otherwise where it is none
    ],
)
def test_other_models_have_the_price_that_genai_prices_knows_of_their_server(
    model: str, server: str | None, price: Price | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a price was looked up on the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert price_of(model, server) == price


def test_our_prices_agree_with_those_of_genai_prices() -> None:
    """But for what cached tokens of a model without a price for them cost, and what it does not list."""
    for model, ours in PRICES.items():
        theirs = _by_genai_prices(model, OPENAI_URL)
        assert theirs is None or (theirs.input, theirs.output, theirs.cached) == (ours.input, ours.output, ours.cached)


def test_cached_tokens_have_their_own_price() -> None:
    usage = Usage(1_000_000, 1_000_000, 400_000)
    assert Price(2, 8, 0.5).of(usage) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 8)
    assert Price(2, 8).of(usage) == 10


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        ("gpt-4o", (1024, 1024), 765),  # the examples of OpenAI's guide
        ("gpt-4o-2024-08-06", (2048, 4096), 1105),
        ("gpt-4o", (200, 100), 255),
        ("gpt-4o-mini", (128, 64), 8500),
        ("gpt-4.1-mini", (1024, 1024), 1659),
        ("openai/gpt-4.1-nano", (5000, 5000), 3779),
        ("my-model", (280, 280), 100),
    ],
)
def test_a_picture_comes_to_so_many_tokens(model: str, size: tuple[int, int], tokens: int) -> None:
    assert image_tokens(model, *size) == tokens


def test_what_a_request_can_cost_covers_prompt_picture_and_every_choice(tmp_path: Path) -> None:
    Image.new("RGB", (1024, 1024)).save(tmp_path / "x.png")
    part = {"type": "image_url", "image_url": {"url": data_url(str(tmp_path / "x.png"), 2048)}}
    content = [part, {"type": "text", "text": "三角形 ABC"}]
    request = ChatRequest([{"role": "user", "content": content}], max_tokens=100, n=3)
    assert prompt_tokens(request, MODEL, bytes_a_token=1) == 765 + 13 + 16
    assert bound_cost(request, MODEL, Price(1, 2)) == pytest.approx((765 + 13 + 16 + 2 * 300) / 1e6)


# --- pictures ---------------------------------------------------------------------------------------------------------


def saved(folder: Path, name: str, image: Image.Image, **how: Any) -> str:
    image.save(folder / name, **how)
    return str(folder / name)


def test_a_plain_file_within_bounds_goes_as_it_is(tmp_path: Path) -> None:
    picture = Image.effect_noise((60, 40), 50)
    for name, kind in (("a.png", "png"), ("a.jpg", "jpeg")):
        ref = saved(tmp_path, name, picture.convert("RGB"))
        start, _, data = data_url(ref, 64).partition(",")
        assert start == f"data:image/{kind};base64" and base64.b64decode(data) == Path(ref).read_bytes()


def test_what_goes_out_is_what_the_students_see(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    noise = Image.effect_noise((60, 40), 50).convert("RGB")
    clear = noise.convert("RGBA")
    clear.putalpha(90)
    refs = [
        saved(tmp_path, "turned.png", noise, exif=turned),
        saved(tmp_path, "clear.png", clear),
        saved(tmp_path, "palette.gif", noise.convert("P")),
        saved(tmp_path, "a.webp", noise, lossless=True),
        "digits:0001-0002-0003",
    ]
    for ref in refs:
        url = data_url(ref, 256)
        assert url.startswith("data:image/png;base64,")
        assert picture_of(url).convert("RGB").tobytes() == load_image(ref).tobytes(), ref


def test_a_large_picture_is_scaled_down_and_a_huge_one_is_a_photograph(tmp_path: Path) -> None:
    noise = Image.effect_noise((600, 1200), 200).convert("RGB")
    assert picture_of(data_url(saved(tmp_path, "a.png", noise), 512)).size == (256, 512)
    colours = Image.frombytes("RGB", (1250, 1250), os.urandom(1250 * 1250 * 3))
    huge = data_url(saved(tmp_path, "b.png", colours, compress_level=1), 4096)
    assert huge.startswith("data:image/jpeg") and len(base64.b64decode(huge.partition(",")[2])) < MAX_PICTURE_BYTES


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png"):
        data_url(str(tmp_path / "x.png"), 64)
    with pytest.raises(DataError, match=r"none\.png"):
        data_url(str(tmp_path / "none.png"), 64)
