"""The compact tokenizer: the world's words are single tokens, everything else round-trips by its bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from small import any_text, problems, world
from transformers import PreTrainedTokenizerFast

from mathse.data.synthetic.problems import facts
from mathse.data.synthetic.solution import KINDS
from mathse.inference import prompts
from mathse.models.tiny_tokenizer import END, PAD, SPECIAL, VOCABULARY, build_tokenizer

TOKENIZER = build_tokenizer()


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def text_of(ids: list[int]) -> str:
    return str(TOKENIZER.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def pieces_of(text: str) -> list[str]:
    return [piece for piece, _ in TOKENIZER.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def world_texts() -> Iterator[str]:
    """All that a model of the synthetic task reads and writes."""
    data, draw = world(), random.Random(0)
    for problem in problems(80):
        corrupted = data.corrupt(problem, draw)
        for text in (problem.solution or "", corrupted):
            word = data.check(problem, text)
            for order in ("verdict_first", "analysis_first", "solve_first"):
                yield prompts.feedback_json(word, order, problem.solution)
            yield prompts.binary_json(word)
            for see_answer in (False, True):
                question, history = prompts.judge_prompt(problem, text, "compact", see_answer)
                yield from (question, *(words for turn in history for words in turn))
            yield prompts.reflection_prompt(problem, text, word, "compact")
            yield text
        yield prompts.generation_prompt(problem, "compact")


def test_every_text_of_the_world_is_whole_tokens_and_round_trips() -> None:
    texts = list(world_texts())
    assert {facts(p)[0] for p in problems(80)} == set(KINDS)
    for text in texts:
        assert len(ids_of(text)) == len(pieces_of(text)), [p for p in pieces_of(text) if len(ids_of(p)) > 1]
        assert text_of(ids_of(text)) == text


def test_a_malformed_path_has_a_verdict_in_whole_tokens_too() -> None:
    data, [problem] = world(), problems(1)
    for cut in range(4):
        word = data.check(problem, "\n".join((problem.solution or "").split("\n")[:cut]))
        said = prompts.feedback_json(word, "analysis_first")
        assert len(ids_of(said)) == len(pieces_of(said))


def test_a_digit_is_one_token_wherever_it_stands() -> None:
    for text in ("7", "1234567890", "x7y", " 42.", "\\frac{3}{4}", "第3步"):
        tokens = [TOKENIZER.decode([i]).strip() for i in ids_of(text)]
        assert [t for t in tokens if t.isdigit()] == [c for c in text if c.isdigit()]


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n\n\t ", "\\frac{\\sqrt{2}}{3} \\cdot x^{2} \\leq \\boxed{5}", "求图中三角形的面积。答案是 12 平方厘米",
     "😀👩‍🔬🏳️‍🌈", "naïve Ω≈ç√∫˜µ≤≥÷", "\x00\x7f\u200b\u2028\ufeff", "Check each step", "CORRECTION INCORRECT wrongly",
     "don't  do   this .. ,, ??", "e\u0301 é", "ﬁ Å Å", "a\r\nb\rc", '{"status": "CORRECT"', "|<|im|>|<|"],
)  # fmt: skip
def test_any_other_text_round_trips_by_its_bytes(text: str) -> None:
    assert text_of(ids_of(text)) == text
    assert not set(ids_of(text)) & set(TOKENIZER.all_special_ids)


def test_random_unicode_round_trips() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        text = any_text(draw, alphabets=["".join(VOCABULARY)])
        assert text_of(ids_of(text)) == text, ascii(text)


def test_text_split_anywhere_between_tokens_decodes_to_its_parts() -> None:
    text = "Step 1: 求 7 + 5 = 12.\nStep 2: \\frac{1}{2}"
    pieces = pieces_of(text)
    assert text_of([i for _, (start, end) in TOKENIZER.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
                    for i in ids_of(text[start:end])]) == text  # fmt: skip
    assert len(pieces) < len(text.encode())


def test_special_tokens_are_single_and_padding_is_not_the_end() -> None:
    assert [ids_of(token) for token in SPECIAL] == [[i] for i in range(len(SPECIAL))]
    assert set(SPECIAL) == set(TOKENIZER.all_special_tokens)
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token) == (END, PAD)
    assert TOKENIZER.eos_token_id != TOKENIZER.pad_token_id


def test_the_tokenizer_is_always_the_same_and_has_no_word_twice() -> None:
    assert build_tokenizer().get_vocab() == TOKENIZER.get_vocab()
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(len(TOKENIZER)))
    assert isinstance(TOKENIZER, PreTrainedTokenizerFast)
