"""Whatever a model, a server or a stranger writes, a parser gives one of its documented outcomes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from fuzz.hostile import fuzz, json_texts, texts
from mathse.config.secrets import holds_secret
from mathse.config.sizes import bytes_of
from mathse.data.answer_form import answer_form
from mathse.data.decontamination.question_text import normalised
from mathse.data.domains import MATH
from mathse.data.json_records import read_records
from mathse.data.language import language
from mathse.data.readers.llava import options_of, question_of
from mathse.data.synthetic.critique import check as check_path
from mathse.errors import DataError
from mathse.evaluation.benchmarks.arithmetic import NoNumber, number_of
from mathse.evaluation.benchmarks.marker import mapped_response, marked_answer
from mathse.evaluation.benchmarks.mathverse import judgement
from mathse.evaluation.benchmarks.mathvision_answer import find_answer, quick_value
from mathse.inference.llm.chat import ChatRequest
from mathse.inference.llm.faults import BrokenReply
from mathse.inference.llm.serialization import read_reply
from mathse.inference.prompts.feedback import parse_annotation, parse_feedback
from mathse.reporting.formulas import answer_with_formulas, with_formulas
from mathse.reporting.progress.wording import clean
from mathse.scoring.answers import extract_answer, same_answer
from mathse.scoring.answers.compare import choice_index

FEW, MANY = 40, 10_000


def answers(pair: tuple[str, str]) -> None:
    left, right = pair
    for text in pair:
        assert extract_answer(text) is None or isinstance(extract_answer(text), str)
    assert same_answer(left, right) in (True, False)
    assert same_answer(left, right, ("12", "A", left)) in (True, False)
    if left.isalnum() and left.isascii():
        assert same_answer(left, left)
    index = choice_index(left, ("12", "½", right, "A"))
    assert index is None or 0 <= index < 4


class Tags(HTMLParser):
    """What a browser would make of a page's piece."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[str]]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, [name for name, _ in attributes]))


def markup(text: str) -> None:
    for made in (with_formulas(text), answer_with_formulas(text)):
        tags = Tags()
        tags.feed(made)
        for tag, attributes in tags.seen:
            assert tag not in ("script", "img", "iframe", "a", "style", "object"), made
            assert not [name for name in attributes if name.startswith("on") or name in ("href", "src", "style")], made


def displayed(text: str) -> None:
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c in "\u2028\u2029\u202e" for c in clean(text))
    assert all(isinstance(piece, str) for _, piece in MATH.steps(text))


def critiques(text: str) -> None:
    for feedback in (parse_feedback(text), parse_feedback(text, binary=True), parse_annotation(text)):
        assert feedback.status in ("correct", "wrong", "unparsed")
    checked = check_path("range", (1, 2, 3), text)
    assert checked.error_step in (None, 1, 2, 3, 4)


REQUEST = ChatRequest([], max_tokens=8, logprobs=True)


def replies(body: str) -> None:
    with suppress(BrokenReply):
        reply = read_reply(body, REQUEST, "key")
        assert reply.texts and all(isinstance(text, str) for text in reply.texts)


def files(data: tuple[str, str]) -> None:
    text, suffix = data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{suffix}"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with suppress(DataError):
            for record in read_records(path):
                assert isinstance(record.values, dict) or record.reason


def questions(text: str) -> None:
    assert normalised(text) is not None and language(text) is not None
    assert answer_form(text) is not None
    assert isinstance(question_of(text)[0], str) and isinstance(options_of(text), list)


def official(text: str) -> None:
    assert isinstance(find_answer(text), str) and isinstance(mapped_response(text), str)
    assert marked_answer(text) is None or isinstance(marked_answer(text), str)
    assert judgement(text) in (True, False, None)
    assert quick_value(text)[0] in (True, False)
    with suppress(NoNumber):
        assert isinstance(number_of(text), int | float)


def settings_texts(text: str) -> None:
    assert holds_secret(text) in (True, False)
    assert bytes_of(text) is None or isinstance(bytes_of(text), int)


PARSERS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "answers": (st.tuples(texts, texts), answers),
    "markup": (texts, markup),
    "displayed": (texts, displayed),
    "critiques": (json_texts, critiques),
    "replies": (json_texts.map(lambda text: f'{{"choices": [{{"message": {text}}}]}}') | json_texts, replies),
    "files": (st.tuples(json_texts, st.sampled_from([".jsonl", ".json", ".json.gz"])), files),
    "questions": (texts, questions),
    "official": (texts, official),
    "settings": (texts, settings_texts),
}


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_a_text_of_any_kind_has_one_of_the_documented_outcomes(name: str, examples: int) -> None:
    drawn, check = PARSERS[name]
    fuzz(drawn, check, examples)
