"""MathVL-test, which everybody brings along: rules first, then math-verify, then an LLM."""

from __future__ import annotations

import pytest

from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmarks import make
from tests.benchmarks.cases import Scripted, write

CHOICE = {"id": "1", "question": "求x。", "answer": "B", "options": ["3", "4"], "question_type": "choice"}
OPEN = {"id": "2", "question": "求y。", "answer": "x^2-2x+1"}


def items_of(tmp_path, *table):
    bench = make("mathvl_test")
    return bench, bench.load(write(tmp_path / "own.jsonl", list(table)))


def test_a_choice_is_right_by_letter_or_text_and_needs_no_llm(tmp_path):
    bench, items = items_of(tmp_path, CHOICE)
    responses = ["因此选B。", "本题的答案是4", "故选:A", "我不知道"]
    llm = Scripted("1")
    rows = bench.score(items * 4, responses, bench.extract(items * 4, responses), llm)
    assert [row.correct for row in rows] == [True, True, False, False]
    assert llm.asked == []
    assert bench.buckets(items * 4, rows)["question_type"]["choice"] == {"accuracy": 0.5, "correct": 2, "total": 4}


def test_an_open_answer_is_right_by_rule_or_by_math_verify(tmp_path):
    bench, items = items_of(tmp_path, OPEN, OPEN | {"id": "3", "answer": "\\sin(2x)"})
    responses = ["本题的答案是$(x-1)^2$。", "本题的答案是$2\\sin(x)\\cos(x)$。"]
    rows = bench.score(items, responses, bench.extract(items, responses), None)
    assert [(row.correct, row.decided_by) for row in rows] == [(True, "rule+rule"), (True, "rule+math-verify")]


@pytest.mark.parametrize(("reply", "correct"), [("1", True), ("Judgement: 0", False), ("maybe", None), (None, None)])
def test_an_open_answer_that_both_refuse_is_judged_by_the_llm_if_there_is_one(reply, correct, tmp_path):
    bench, items = items_of(tmp_path, OPEN)
    responses = ["本题的答案是某个完全平方式"]
    extractions = bench.extract(items, responses)
    assert bench.score(items, responses, extractions, None)[0].correct is False
    llm = Scripted(reply)
    assert bench.score(items, responses, extractions, llm)[0].correct is correct
    assert llm.asked[0][1].endswith("[Standard Answer]: x^2-2x+1\n[Model_answer] : 某个完全平方式\nJudgement:")


def test_images_come_as_a_list_or_one_by_one(tmp_path):
    table = [CHOICE | {"image": "images/1.png"}, OPEN | {"images": ["images/1.png", "images/1.png"]}]
    _, items = items_of(tmp_path, *table)
    assert [len(item.problem.images) for item in items] == [1, 2]


def test_a_missing_file_or_a_row_of_another_form_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="not public; give your own file.*benchmark.mathvl_test.problems=FILE"):
        make("mathvl_test").load(None)
    with pytest.raises(DataError, match=r'own\.jsonl:1: "options" is a list'):
        items_of(tmp_path, CHOICE | {"options": "A"})


def test_the_protocol_says_that_it_is_our_own():
    assert "MathSE's own" in make("mathvl_test").protocol()["scoring"]
    assert make("mathvl_test").mapped("†Answer: 5") == "†Answer: 5"
