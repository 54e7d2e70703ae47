"""MathVerse: the official prompts, an LLM that extracts and judges, and groups over the versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mathse.errors import ConfigError
from mathse.evaluation.benchmark import GIVEN, NOT_SCORED, Extraction
from mathse.evaluation.benchmarks import make
from mathse.evaluation.benchmarks.mathverse import extraction_prompt, judge_prompt, judgement, query
from tests.benchmarks.cases import Scripted, rows, verse_row, write


def without_prompts(row):
    return {key: value for key, value in row.items() if not key.startswith("query_")}


def test_the_builder_makes_both_released_prompts_of_every_row(fixtures):
    table = rows(fixtures / "benchmarks" / "mathverse" / "testmini_text_only.jsonl.gz")
    assert table
    for row in table:
        assert query(without_prompts(row), "query_wo") == row["query_wo"]
        assert query(without_prompts(row), "query_cot") == row["query_cot"]


def test_the_builder_makes_the_prompts_of_each_version_in_the_authors_template(fixtures):
    file = fixtures / "benchmarks" / "mathverse" / "output_testmini_template.json"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    items = make("mathverse", prompt="query_cot").load(file, need_images=False)
    assert "Vision Only" in {item.raw["problem_version"] for item in items}
    for item in items:
        assert item.prompt == item.raw["query_cot"] == query(without_prompts(item.raw), "query_cot")
        assert query(without_prompts(item.raw), "query_wo") == item.raw["query_wo"]


def items_of(tmp_path: Path, *table, **options):
    bench = make("mathverse", **options)
    return bench, bench.load(write(tmp_path / "testmini.jsonl", list(table)))


def judged(tmp_path: Path, reply: str | None):
    bench, items = items_of(tmp_path, verse_row())
    (row,) = bench.score(items, ["It is 14."], [Extraction("14", GIVEN)], Scripted(reply))
    return row


@pytest.mark.parametrize(
    ("reply", "correct"), [("1", True), ("0", False), ("Judgement: 0", False), (" Judgement:1\n", True)]
)
def test_a_judges_0_or_1_is_the_verdict(reply, correct, tmp_path):
    row = judged(tmp_path, reply)
    assert (row.correct, row.decided_by, row.note) == (correct, "given+llm:mathverse-judge/1", "")


@pytest.mark.parametrize("reply", ["The answer 10 is wrong", "", None, "11", "10", "1.", "I cannot judge this.", "yes"])
def test_any_other_reply_is_not_scored_and_says_why(reply, tmp_path):
    row = judged(tmp_path, reply)
    assert (row.correct, row.decided_by, judgement(reply)) == (None, NOT_SCORED, None)
    assert "neither 0 nor 1" in row.note


def test_without_an_llm_nothing_is_scored(tmp_path):
    bench, items = items_of(tmp_path, verse_row())
    extractions = bench.extract(items, ["14"], None)
    assert bench.score(items, ["14"], extractions, None)[0].note == "the answer was not extracted"
    assert bench.score(items, ["14"], [Extraction("14", GIVEN)], None)[0].note == "there is no judge"
    assert "version" not in bench.buckets(items, bench.score(items, ["14"], extractions, None))


def test_the_extractor_sees_the_last_words_and_its_tag_is_removed(tmp_path):
    bench, items = items_of(tmp_path, verse_row())
    llm = Scripted("Extracted Answer: 14\n")
    response = " ".join(f"w{k}" for k in range(40)) + "\nso 14"
    assert bench.extract(items, [response], llm) == [Extraction("14", "llm:mathverse-extract/1")]
    ((version, prompt),) = llm.asked
    assert version == "mathverse-extract/1"
    assert prompt.startswith("I am providing you a response from a model to a math problem")
    assert prompt.endswith(
        "\n\n7.\n\nModel response: '" + " ".join(response.split(" ")[-30:]) + "'\nExtracted Answer: "
    )
    assert "w10 " not in prompt
    assert extraction_prompt(response, -1).endswith(f"'{response}'\nExtracted Answer: ")


def test_an_extractor_that_refuses_leaves_the_row_unscored(tmp_path):
    bench, items = items_of(tmp_path, verse_row())
    assert bench.extract(items, ["14"], Scripted(None)) == [Extraction(None, NOT_SCORED)]


def test_the_judge_sees_the_question_that_a_vision_only_row_lacks(tmp_path):
    table = [
        verse_row(),
        verse_row(sample_index="2", problem_version="Vision Only", question=""),
        verse_row(sample_index="3", problem_version="Vision Only", question="", question_for_eval="Its own."),
        verse_row(sample_index="4", problem_version="Vision Only", question="", problem_index="9"),
    ]
    bench, items = items_of(tmp_path, *table)
    llm = Scripted("1")
    bench.score(items, [""] * 4, [Extraction("{a}", GIVEN)] * 4, llm)
    shown = [prompt.rpartition("[Question]: ")[2] for _, prompt in llm.asked]
    ending = "\n[Standard Answer]: 14\n[Model_answer] : {a}\nJudgement:"
    assert shown == [f"Find x.{ending}", f"Find x.{ending}", f"Its own.{ending}", ending]


def test_the_judges_examples_are_the_authors_with_single_braces():
    prompt = judge_prompt("q", "a", "b")
    assert prompt.count("Judgement: ") == 5
    assert "\\frac{x^2}{81}" in prompt
    assert "{{" not in prompt


def test_groups_are_by_version_subject_and_subfield_and_text_only_stands_apart(tmp_path):
    table = [
        verse_row(sample_index="1"),
        verse_row(sample_index="2", problem_version="Vision Only", question=""),
        verse_row(sample_index="3", problem_version="Text Only", image=""),
    ]
    bench, items = items_of(tmp_path, *table)
    llm = Scripted(lambda prompt: "0" if "wrong" in prompt else "1")
    extractions = [Extraction(text, GIVEN) for text in ("14", "wrong", "14")]
    buckets = bench.buckets(items, bench.score(items, [""] * 3, extractions, llm))
    half, one = {"accuracy": 0.5, "correct": 1, "total": 2}, {"accuracy": 1.0, "correct": 1, "total": 1}
    assert buckets["total"] == half
    assert buckets["version"] == {
        "Text Dominant": one,
        "Vision Only": {"accuracy": 0.0, "correct": 0, "total": 1},
        "Text Only": one,
    }
    assert buckets["subject"] == {"Plane Geometry": half}
    assert buckets["subfield"] == {"Plane Geometry-Angle": half}
    text_only = bench.score(items[2:], [""], extractions[2:], llm)
    assert bench.buckets(items[2:], text_only)["total"] == one  # a file of nothing else


def test_the_protocol_names_both_llms_and_their_prompts(tmp_path):
    bench, items = items_of(tmp_path, verse_row())
    extractions = bench.extract(items, ["14"], Scripted("14"))
    bench.score(items, ["14"], extractions, Scripted("1"))
    protocol = bench.protocol()
    assert (protocol["extractor"], protocol["judge"]) == ("scripted", "scripted")
    assert "mathverse-judge/1" in protocol["scoring"]
    json.dumps(protocol)


def test_an_unknown_kind_of_question_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="\"question_type\" = 'essay', allowed: multi-choice, free-form"):
        items_of(tmp_path, verse_row(question_type="essay"))
