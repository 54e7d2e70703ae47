"""MathVista's official verdicts, groups and prompts, on real outputs where the fixtures are, and rule by rule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import GIVEN, NOT_SCORED, Extraction, Item, Scored
from mathse.evaluation.benchmarks import make
from mathse.evaluation.benchmarks.mathvista import MathVista, extraction_prompt, query, solution_query
from tests.benchmarks.cases import Scripted, choice_row, outputs, rows, vista_row, write


@pytest.fixture(scope="module")
def published(fixtures: Path) -> dict[str, Item]:
    """testmini, by pid."""
    file = fixtures / "benchmarks" / "mathvista" / "testmini.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    return {item.problem.id: item for item in make("mathvista").load(file, need_images=False)}


def scored(
    bench: MathVista, table: list[dict[str, Any]], published: dict[str, Item]
) -> tuple[list[Item], list[Scored]]:
    """Under the groups of the output file, as MathVista's script counts: some published outputs have older skills than
    the data set of today."""
    asked = [published[row["pid"]] for row in table]
    items = [replace(i, raw={**i.raw, "metadata": row["metadata"]}) for i, row in zip(asked, table, strict=True)]
    extractions = [Extraction(row["extraction"], GIVEN) for row in table]
    return items, bench.score(items, [row["response"] or "" for row in table], extractions)


def counts(buckets: dict[str, Any]) -> dict[tuple[str, str], tuple[int, int]]:
    """(group, key) -> (correct, total)."""
    average = buckets["average"]
    found = {("average", ""): (average["correct"], average["total"])}
    for group, keys in buckets.items():
        if group != "average":
            found |= {(group, key): (value["correct"], value["total"]) for key, value in keys.items()}
    return found


def test_real_outputs_get_the_released_scripts_predictions_and_verdicts(fixtures, published):
    files = outputs(fixtures / "benchmarks" / "mathvista", ".scores.json")
    assert files
    for name, file in files.items():
        table = rows(file)
        _, verdicts = scored(make("mathvista"), table, published)
        assert [v.prediction for v in verdicts] == [row["expected_released_prediction"] for row in table], name
        assert [v.correct for v in verdicts] == [row["expected_released_true"] for row in table], name


def test_real_outputs_get_every_published_bucket_under_the_rule_they_were_made_with(fixtures, published):
    folder = fixtures / "benchmarks" / "mathvista"
    for name, file in outputs(folder, ".scores.json").items():
        table, wanted = rows(file), counts(json.loads((folder / f"{name}.scores.json").read_text()))
        found = {}
        for rule in ("released", "strict"):
            bench = make("mathvista", rule=rule)
            found[rule] = counts(bench.buckets(*scored(bench, table, published)))
        assert len(wanted) >= 74
        assert wanted in found.values(), name


def test_the_strict_rule_reproduces_the_stored_verdicts_of_2023(fixtures, published):
    agreeing = 0
    for file in outputs(fixtures / "benchmarks" / "mathvista", ".scores.json").values():
        table = rows(file)
        _, verdicts = scored(make("mathvista", rule="strict"), table, published)
        agreeing += [v.correct for v in verdicts] == [row["stored_true_false"] for row in table]
    assert agreeing >= 5  # one published file obeys the released rule


def test_the_builder_makes_the_released_query_of_every_row(published):
    for item in published.values():
        built = query({key: value for key, value in item.raw.items() if key != "query"})
        assert built == item.raw["query"].strip() == item.prompt


def item_of(row: dict[str, Any], tmp_path: Path, **options: Any) -> tuple[MathVista, Item]:
    bench = make("mathvista", **options)
    return bench, bench.load(write(tmp_path / "rows.jsonl", [row]))[0]


CHOICES = ("tokyo", "osaka city", "kyoto")
NORMAL_FORMS = [
    # an option by its letter in brackets anywhere, by the bare capital, by the smallest edit distance
    (choice_row(*CHOICES), "B", "osaka city"), (choice_row(*CHOICES), " C ", "kyoto"),
    (choice_row(*CHOICES), "It is (b), not (A)", "osaka city"), (choice_row(*CHOICES), "D", "tokyo"),
    (choice_row(*CHOICES), "c", "tokyo"), (choice_row(*CHOICES), "osakacity", "osaka city"),
    (choice_row(*CHOICES), "", "tokyo"), (choice_row("no", "no doubt"), "there is almost no doubt", "no doubt"),
    # integers: int(float(x))
    (vista_row(), "3", "3"), (vista_row(), "3.9", "3"), (vista_row(), " 1e3 ", "1000"), (vista_row(), "1,000", None),
    (vista_row(), "three", None), (vista_row(), "inf", None), (vista_row(), "nan", None),
    # floats: to the row's precision, which the hub gives as a float
    (vista_row(answer_type="float", precision=1), "12", "12.0"), (vista_row(answer_type="float"), "0.25", None),
    (vista_row(answer_type="float", precision=1), "0.25", "0.2"),
    (vista_row(answer_type="float", precision=2.0), "1.005", "1.0"),
    # lists: unchanged
    (vista_row(answer_type="list"), "[1, 2]", "[1, 2]"), (vista_row(answer_type="list"), "[1,2]", "[1,2]"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "extraction", "prediction"), NORMAL_FORMS)
def test_an_extraction_is_normalised_as_the_official_script_does(row, extraction, prediction, tmp_path):
    bench, item = item_of(row, tmp_path)
    assert bench.normalized(extraction, item.raw) == prediction


def test_the_strict_rule_takes_no_decimal_for_an_integer(tmp_path):
    bench, item = item_of(vista_row(), tmp_path, rule="strict")
    assert [bench.normalized(text, item.raw) for text in ("3", "3.0", "3.9")] == ["3", None, None]


def test_empty_extractions_pick_no_option_where_they_are_ignored(tmp_path):
    bench, item = item_of(choice_row(*CHOICES), tmp_path, ignore_empty=True)
    assert bench.normalized("", item.raw) is None
    assert bench.normalized("B", item.raw) == "osaka city"


RULED = [
    (vista_row(), "", ""), (vista_row(), " 12 ", "12"), (vista_row(answer_type="float", precision=1), "12", "12.0"),
    (choice_row(*CHOICES), "kyoto", "kyoto"), (vista_row(), 'The answer is "7".', "7"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "response", "extraction"), RULED)
def test_what_is_an_answer_and_no_more_needs_no_llm(row, response, extraction, tmp_path):
    bench, item = item_of(row, tmp_path)
    assert bench.extract([item], [response], None) == [Extraction(extraction)]


def test_other_responses_are_left_to_the_llm_which_sees_the_official_prompt(tmp_path):
    bench, item = item_of(choice_row(*CHOICES), tmp_path)
    llm = Scripted(" B\n")
    found = bench.extract([item, item], ["I would say B", "kyoto"], llm)
    assert found == [Extraction("B", "llm:mathvista-extract/1"), Extraction("kyoto")]
    ((_, prompt),) = llm.asked
    assert prompt.startswith("Please read the following example. Then extract the answer")
    assert prompt.endswith(f"\n\nExtracted answer: B\n\n{item.prompt}\n\nI would say B\n\nExtracted answer: ")
    assert prompt == extraction_prompt(item, "I would say B")


@pytest.mark.parametrize("llm", [None, Scripted(None)])
def test_without_an_llm_or_with_a_refusal_a_row_is_not_scored(llm, tmp_path):
    bench, item = item_of(vista_row(), tmp_path)
    extractions = bench.extract([item], ["There are three."], llm)
    (row,) = bench.score([item], ["There are three."], extractions)
    assert (row.correct, row.decided_by) == (None, NOT_SCORED)
    assert bench.buckets([item], [row])["average"] == {"accuracy": 0.0, "correct": 0, "total": 0}


def test_a_split_without_public_answers_is_not_scored(tmp_path):
    bench, item = item_of(vista_row(answer=""), tmp_path)
    assert bench.score([item], ["3"], [Extraction("3")])[0].correct is None


def test_quick_extraction_reads_its_sentence_within_a_response(tmp_path):
    response = 'So there are 7. The answer is "7". Good luck.'
    bench, item = item_of(vista_row(), tmp_path, quick_extract=True)
    assert bench.extract([item], [response], None) == [Extraction("7")]
    assert make("mathvista").extract([item], [response], None)[0].text is None


def test_the_students_marker_becomes_what_the_quick_rule_reads(tmp_path):
    bench, item = item_of(choice_row(*CHOICES), tmp_path)
    response = "Step 1: Look.\nThe answer to this problem is (C) kyoto."
    assert bench.extract([item], [response], None)[0].text is None
    (extraction,) = bench.extract([item], [bench.mapped(response)], None)
    assert bench.score([item], [response], [extraction])[0].prediction == "kyoto"
    assert bench.mapped("I do not know") == "I do not know"


def test_groups_count_each_skill_and_name_grades_as_the_score_files_do(tmp_path):
    bench, item = item_of(vista_row(), tmp_path)
    buckets = bench.buckets([item], bench.score([item], ["3"], [Extraction("3")]))
    assert buckets["average"] == {"accuracy": 1.0, "correct": 1, "total": 1}
    assert list(buckets["skills"]) == ["arithmetic reasoning", "numeric commonsense"]
    assert list(buckets["grade"]) == ["daily life"]


def test_prompts_are_chosen_by_name(tmp_path):
    row = choice_row("1", "2", unit="cm")
    _, item = item_of(row, tmp_path)
    hint = "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end."
    assert item.prompt == f"{hint}\nQuestion: How many? (Unit: cm)\nChoices:\n(A) 1\n(B) 2"
    assert solution_query(row) == f"Question: How many? (Unit: cm)\nChoices:\n(A) 1\n(B) 2\n{hint}\nSolution:"
    assert item_of(row, tmp_path, prompt="plain")[1].prompt == "How many?\n(A) 1\n(B) 2"
    with pytest.raises(ConfigError, match="benchmark.mathvista.prompt = 'qeury': .*did you mean query"):
        make("mathvista", prompt="qeury")


def test_a_row_of_an_output_file_is_scored_but_not_asked(tmp_path):
    row = vista_row(image="")
    del row["question"]
    file = write(tmp_path / "output.jsonl", [row])
    assert make("mathvista").load(file, need_images=False)[0].problem.answer == "3"
    with pytest.raises(DataError, match="a row without question"):
        make("mathvista").load(file)
