"""We-Math's official extraction and aggregates, on real rows where the fixtures are, and rule by rule."""

from __future__ import annotations

import json
from itertools import product

import pytest

from mathse.commands.convert_data import convert
from mathse.data.decontamination.benchmark_files import problems_of
from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmarks import make


@pytest.fixture
def published(fixtures):
    return fixtures / "real" / "wemath" / "testmini.json"


def row(group, key, **more):
    return {"ID": group, "key": key, "question": "How long is a?", "answer": "B", "image_path": "",
            "option": "A. 1 cm;B. 2.5 cm; C. 3 cm.; D. No correct answer", **more}  # fmt: skip


def items_of(tmp_path, *table, **settings):
    (tmp_path / "testmini.json").write_text(json.dumps(table))
    bench = make("wemath", **settings)
    return bench, bench.load(tmp_path / "testmini.json", need_images=False)


def test_real_rows_have_their_options_pictures_and_an_id_of_their_own(published):
    items = make("wemath").load(published)
    assert len(items) == 14 and len({item.problem.id for item in items}) == 14
    assert all(len(item.problem.images) == 1 for item in items)
    first = items[0]
    assert first.problem.id == "2steps_2/2steps_1"
    assert first.problem.choices == ("3, 5, 4", "3, 50, 40", "300, 50, 40", "30, 50, 40.", "No correct answer")
    assert f"Option: {first.raw['option']}\nRegarding the format" in first.prompt
    assert all(item.problem.choices[-1] == "No correct answer" for item in items)


def test_converted_rows_are_the_same_problems(tmp_path, published):
    convert(published.parent, tmp_path / "own.jsonl", "wemath")
    one, other = (make("wemath").load(file) for file in (published, tmp_path / "own.jsonl"))
    for a, b in zip(one, other, strict=True):
        assert (a.problem.question, a.problem.choices, a.problem.answer) == (
            b.problem.question, b.problem.choices, b.problem.answer)  # fmt: skip
        assert a.problem.id == b.problem.id and a.raw["key"] == b.raw["key"]


def test_its_file_can_be_kept_out_of_training_data(published):
    problems = list(problems_of(published))
    assert len(problems) == 14 and all(problem.images for problem in problems)
    assert problems[0].id == "2steps_2"


FOUND = [
    ("<Thought process>: <<2 + 1>> <Answer>: <<B>>", "B"), ("<Answer>: <<C. 3 cm>>", "C"), ("Answer: D.", "D"),
    ("The Answer is B", ""), ("Answer B, no: Answer A", "A"), ("", ""), ("Answer:", ""), ("<Answer>: b", ""),
    ("B", "B"), ("As one sees, it is 2.5 cm", "A"),  # without "Answer" the rule reads the first letter
]  # fmt: skip


@pytest.mark.parametrize(("response", "letter"), FOUND)
def test_the_answer_is_the_first_letter_behind_the_last_answer(response, letter, tmp_path):
    bench, items = items_of(tmp_path, row("2steps_1", "2steps_1"))
    (extraction,) = bench.extract(items, [response])
    assert extraction.text == letter
    (verdict,) = bench.score(items, [response], [extraction])
    assert verdict.correct is (letter == "B")


def test_a_students_own_sentence_is_mapped(tmp_path):
    bench, items = items_of(tmp_path, row("2steps_1", "2steps_1"))
    mapped = bench.mapped("Step 1: ...\nThe answer to this problem is B.")
    assert bench.extract(items, [mapped])[0].text == "B"
    assert bench.mapped("no marker") == "no marker"


def scored(tmp_path, groups):
    """Buckets where each step of each group was right or wrong."""
    table, responses = [], []
    for number, (steps, marks) in enumerate(groups):
        names = [f"{steps}steps_{k}" for k in (*range(1, steps + 1), "multi")]
        table += [row(f"{steps}steps_{number}", name) for name, _ in zip(names, marks, strict=False)]
        responses += ["Answer: B" if mark else "Answer: A" for mark in marks]
    bench, items = items_of(tmp_path, *table)
    return bench.buckets(items, bench.score(items, responses, bench.extract(items, responses)))


def test_the_four_outcomes_are_the_authors(tmp_path):
    groups = [(2, marks) for marks in product((True, False), repeat=3)]  # first step, second step, both
    found = scored(tmp_path, groups)
    # Worked out by hand from the definitions: of eight, composite right in four.
    assert found["One-step(S1)"] == {"accuracy": 0.5, "correct": 8, "total": 16}
    assert found["Two-step(S2)"] == {"accuracy": 0.5, "correct": 4, "total": 8}
    assert found["composite problems"] == "8"
    assert found["InsufficientKnowledge (Strict)"] == "37.50% (3)"
    assert found["InadequateGeneralization (Strict)"] == "12.50% (1)"
    assert found["CompleteMastery (Strict)"] == "12.50% (1)" and found["CompleteMastery (Loose)"] == "37.50% (3)"
    assert found["RoteMemorization (Strict)"] == "75.00% (3)" and found["RoteMemorization (Loose)"] == "25.00% (1)"
    assert found["Score (Strict)"] == "18.75%" and found["Score (Loose)"] == "43.75%"


def test_three_steps_count_too_and_a_problem_without_all_its_steps_does_not(tmp_path):
    found = scored(tmp_path, [(3, (True, True, True, True)), (3, (True, True, False, True)), (2, (True,))])
    assert found["composite problems"] == "2"
    assert found["CompleteMastery (Strict)"] == "50.00% (1)" and found["RoteMemorization (Loose)"] == "0.00% (0)"
    assert found["Three-step(S3)"]["total"] == 2 and found["One-step(S1)"]["total"] == 7


def test_nothing_composite_gives_accuracies_alone(tmp_path, published):
    bench = make("wemath")
    items = bench.load(published)
    responses = [f"<Answer>: <<{item.problem.answer}>>" for item in items]
    verdicts = bench.score(items, responses, bench.extract(items, responses))
    assert all(verdict.correct for verdict in verdicts)
    assert [*bench.buckets(items, verdicts)] == ["One-step(S1)"]


@pytest.mark.slow  # it starts a process that loads math-verify
def test_math_verify_reads_the_letter(published):
    bench = make("wemath")
    items = bench.load(published)
    boxed = [f"\\boxed{{{item.problem.answer}}}" for item in items]
    assert bench.second_opinions(items, boxed) == [True] * 14


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="benchmark.wemath.problems=data/testmini.json"):
        make("wemath").load(None)
    with pytest.raises(DataError, match=r'"key" .* is none of 2steps_1'):
        items_of(tmp_path, row("2steps_1", "4steps_1"))
    with pytest.raises(DataError, match=r'"answer" .* is none of 4 options'):
        items_of(tmp_path, row("2steps_1", "2steps_1", answer="E"))
    with pytest.raises(DataError, match="is already at"):
        items_of(tmp_path, row("2steps_1", "2steps_1"), row("2steps_1", "2steps_1"))
    with pytest.raises(DataError, match=r'no row of wemath \(it has no "ID"\)'):
        items_of(tmp_path, {"id": "1", "question": "x", "answer": "A"})
