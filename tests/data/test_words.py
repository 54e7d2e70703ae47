"""Word problems: equations become steps, paths are checked against them, and published records are read once each."""

from __future__ import annotations

import json
import random
from fractions import Fraction
from pathlib import Path

import pytest

from mathse.config import data as settings
from mathse.config.teachers import FallibleReplayTeacherConfig
from mathse.data.content_hashes import content_hashes
from mathse.data.json_records import BadRow
from mathse.data.words import FallibleReplayTeacher, WordProblems
from mathse.data.words.equation import evaluate_steps, number_text, operations_of, operations_of_prefix
from mathse.data.words.published import files_of, records_of, row_of
from mathse.data.words.solution import check, corrupt, write_solution, write_wrong_solution
from mathse.data.words.source import OURS, operations
from mathse.errors import DataError
from mathse.scoring.answers import extract_answer, same_answer
from mathse.types import Draft, Lineage, ReasoningPath

CANDY = operations_of("X=((32.0+42.0)-35.0)")


# --- equations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "answer"),
    [
        ("X=((32.0+42.0)-35.0)", "39"),
        ("70-x=27", "43"),
        ("28 + X = 54", "26"),
        ("12/x=4", "3"),
        ("( 7.0 / ( 4.0 + 3.0 ) )", "1"),
        ("2 - 3 - 4", "-5"),
        (".5*4", "2"),
        ("20%*50", "10"),
        ("-3+5", "2"),
        ("0.1+0.2", "0.3"),
    ],
)
def test_an_equation_is_worked_out_exactly(equation: str, answer: str) -> None:
    assert number_text(evaluate_steps(operations_of(equation))[-1][3]) == answer


def test_a_prefix_equation_takes_its_numbers_by_their_place() -> None:
    steps = evaluate_steps(operations_of_prefix("* number0 - number1 2", ["3.0", "12.0"]))
    assert [step[3] for step in steps] == [10, 30]


@pytest.mark.parametrize(
    "equation",
    ["", "x", "x=x", "5=5=5", "3+", "(3+4", "3+4)", "3**4", "1/0", "__import__('os')", "1" * 400, "=3", "("*50 + "1"],
)  # fmt: skip
def test_what_is_no_equation_with_one_answer_makes_no_problem(equation: str) -> None:
    with pytest.raises(BadRow):
        evaluate_steps(operations_of(equation))


def test_a_number_that_does_not_end_is_not_written() -> None:
    with pytest.raises(BadRow, match="more than 2 decimal places"):
        number_text(Fraction(1, 3))


# --- solutions and their check ----------------------------------------------------------------------------------------


def test_a_worked_solution_says_each_operation_and_the_answer() -> None:
    text = "Step 1: 32 + 42 = 74.\nStep 2: 74 - 35 = 39.\nStep 3: The answer to this problem is 39."
    assert write_solution(CANDY) == text
    assert check(CANDY, text).error_step is None


@pytest.mark.parametrize(
    ("path", "step", "analysis"),
    [
        ("Step 1: 32 + 42 = 75.\nStep 2: 75 - 35 = 40.\nStep 3: The answer to this problem is 40.", 1,
         "1 no: 32 + 42 = 74"),
        ("Step 1: 32 + 42 = 74.\nStep 2: 74 + 35 = 109.\nStep 3: The answer to this problem is 109.", 2,
         "1 ok | 2 no: 74 - 35 = 39"),
        ("Step 1: 32 + 42 = 74.\nStep 2: The answer to this problem is 74.", 2,
         "1 ok | 2 no: 74 - 35 = 39"),
        ("Step 1: 32 + 42 = 74.", 2, "1 ok | 2 no: 74 - 35 = 39"),
        ("Step 1: 32 + 42 = 80.\nStep 2: 74 - 35 = 39.\nStep 3: The answer to this problem is 39.", 1,
         "1 no: 32 + 42 = 74"),  # a right answer does not make a false sum right
        ("", 1, "1 no: 32 + 42 = 74"),
        ("Step 1: 1/0 = 4.\nStep 2: The answer to this problem is 4.", 1, "1 no: 32 + 42 = 74"),
        ("Step 1: " + "9" * 5000, 1, "1 no: too long"),
    ],
)  # fmt: skip
def test_the_first_wrong_step_is_named_with_what_should_stand_there(path: str, step: int, analysis: str) -> None:
    assert check(CANDY, path) == type(check(CANDY, ""))(step, analysis)


@pytest.mark.parametrize(
    "path",
    [
        "Step 1: 42 - 35 = 7.\nStep 2: 32 + 7 = 39.\nStep 3: The answer to this problem is 39.",  # another way
        "They have 32+42 = 74 pieces.\nThey eat 35, so 74-35=39 are left.\nThe answer to this problem is 39.",
        "Step 1: 32 + 42 - 35 = $39.\nStep 2: The answer to this problem is 39.0.",
    ],
)
def test_another_way_to_the_answer_is_right_if_its_sums_are(path: str) -> None:
    assert check(CANDY, path).error_step is None


def test_a_made_up_error_is_labelled_as_what_it_is() -> None:
    draw = random.Random(0)
    for _ in range(50):
        wrong = [write_wrong_solution(CANDY, kind, draw) for kind in ("operation", "sum")]
        assert all(check(CANDY, text).error_step is not None for text in wrong)
        assert check(CANDY, write_wrong_solution(CANDY, "none", draw)).error_step is None
    labels = [check(CANDY, corrupt(CANDY, draw)).error_step for _ in range(200)]
    assert 25 < labels.count(None) < 80 and {1, 2} <= set(labels)


# --- published records ------------------------------------------------------------------------------------------------

NATALIA = {
    "question": "Natalia sold clips to 48 of her friends in April, and half as many in May. How many altogether?",
    "answer": "She sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = <<48+24=72>>72 clips.\n#### 72",
}
DVDS = {
    "ID": "chal-1",
    "Body": "Each pack costs 76 dollars. There is a discount of 25 dollars",
    "Question": "What do you pay?",
    "Equation": "( 76.0 - 25.0 )",
    "Answer": 51.0,
}
LEFT = " Debby had 32 pieces while her sister had 42 . If they ate 35 , how many are left ? "
CANDIES = {"iIndex": 0, "lAlignments": [80], "lEquations": ["X=((32.0+42.0)-35.0)"], "lSolutions": [39.0]}
CANDIES["sQuestion"] = LEFT
TABLE = """Question,Numbers,Equation,Answer
"Bryan has number0 books on each of number1 shelves . How many ?",56.0 9.0,* number0 number1,504.0
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "gsm_train.jsonl").write_text(json.dumps(NATALIA) + "\n")
    (tmp_path / "SVAMP.json").write_text(json.dumps([DVDS, {**DVDS, "ID": "chal-2", "Answer": 50.0}]))
    (tmp_path / "MultiArith.json").write_text(json.dumps([CANDIES]))
    (tmp_path / "AddSub.json").write_text(json.dumps([{**CANDIES, "sQuestion": LEFT.strip()}]))
    (tmp_path / "mawps_train.csv").write_text(TABLE)
    return tmp_path


def source(root: Path, **more: object) -> WordProblems:
    sets = ["svamp", "gsm8k", "multiarith", "mawps"]
    return WordProblems(settings.WordProblemsConfig(root=str(root), **{"sets": sets, "max_left_out": 1.0, **more}))  # type: ignore[arg-type]


def test_each_published_form_becomes_a_problem_with_its_worked_solution(root: Path) -> None:
    words = source(root)
    problems = {p.metadata["set"]: p for split in words.splits().values() for p in split}
    assert {name: (p.answer, p.images) for name, p in problems.items()} == {
        "svamp": ("51", ()), "gsm8k": ("72", ()), "multiarith": ("39", ()), "mawps": ("504", ()),
    }  # fmt: skip
    assert problems["mawps"].question == "Bryan has 56 books on each of 9 shelves. How many?"
    assert problems["gsm8k"].solution == write_solution(operations(problems["gsm8k"]))
    assert all(words.check(p, p.solution or "").status == "correct" for p in problems.values())


def test_what_repeats_an_earlier_row_is_left_out_and_counted(root: Path) -> None:
    words = source(root)
    reasons = {str(row["reason"]) for row in words.bad_rows}
    assert any("repeats the row at MultiArith.json:1" in reason for reason in reasons)
    assert any("comes to 51, and its answer is '50.0'" in reason for reason in reasons)
    [note] = words.notes
    assert "they repeat an earlier row word for word or nearly: 1 of mawps." in note


NUMBERS = ("three", "1e99999999", "1/0", "nan", "1" * 5000, "-" * 50)
EQUATIONS = ("(" * 200, "1/0", "9" * 200, "x", "", "2**99", "__import__")


def test_records_that_are_no_problem_are_listed_one_by_one_beside_the_others(root: Path) -> None:
    lines = [
        f"How many are number0 and number1 {k} ?,{first} 4.0,+ number0 number1,7.0" for k, first in enumerate(NUMBERS)
    ]
    lines.append(f"How many ?,5.0 4.0,{'+ ' * 5_000}number0,9")
    (root / "mawps_train.csv").write_text(TABLE + "\n".join(lines))
    (root / "SVAMP.json").write_text(json.dumps([DVDS, *({**DVDS, "Equation": equation} for equation in EQUATIONS)]))
    long = {**NATALIA, "answer": "<<999999999999*999999999999=1>>" * 20_000 + "\n#### 1"}
    (root / "gsm_train.jsonl").write_text(json.dumps(NATALIA) + "\n" + json.dumps(long))
    odd = [{**CANDIES, "lSolutions": ["1e9999999"]}, {**CANDIES, "lEquations": [[]]}]
    (root / "MultiArith.json").write_text(json.dumps([CANDIES, *odd]))
    words = source(root)
    assert sum(len(split) for split in words.splits().values()) == 4
    listed = [row for row in words.bad_rows if not str(row["reason"]).startswith("repeats")]
    assert len(listed) == len(lines) + len(EQUATIONS) + 1 + len(odd)


def test_a_table_that_is_none_is_named_with_its_line(root: Path) -> None:
    (root / "mawps_train.csv").write_text(TABLE + '"' + "a" * 200_000 + '",1 2,+ number0 number1,3\n')
    with pytest.raises(DataError, match=r"mawps_train.csv:3: field larger than field limit"):
        source(root)


def test_a_set_s_own_prose_is_taken_where_it_is_asked_for(root: Path) -> None:
    words = source(root, sets=["gsm8k"], solutions="own")
    [problem] = words.distillable()
    assert problem.solution == (
        "Step 1: She sold 48/2 = 24 clips in May.\nStep 2: Altogether 48+24 = 72 clips.\n"
        "Step 3: The answer to this problem is 72."
    )


def test_problems_of_more_steps_than_wanted_are_not_taken(root: Path) -> None:
    words = source(root, most_steps=1)
    assert {p.metadata["set"] for split in words.splits().values() for p in split} == {"svamp", "mawps"}


def test_a_set_without_a_file_is_named(root: Path) -> None:
    (root / "SVAMP.json").unlink()
    with pytest.raises(DataError, match=r"no file of svamp .*leave it out of data.sets"):
        source(root)


def test_the_files_contents_are_part_of_what_stages_depend_on(root: Path) -> None:
    section = settings.WordProblemsConfig(root=str(root), sets=["gsm8k"])
    before = content_hashes(section)
    (root / "SVAMP.json").write_text("[]")
    assert content_hashes(section) == before
    (root / "gsm_train.jsonl").write_text("")
    assert content_hashes(section) != before


def test_all_that_travels_along_can_be_read_and_solved() -> None:
    draw = random.Random(0)
    counts = {}
    for name in ("svamp", "gsm8k"):
        rows = []
        for file in files_of(name, OURS):
            for record in records_of(file):
                try:
                    rows.append(row_of(name, record.values or {}, "equation", None))
                except BadRow:
                    continue
        counts[name] = len(rows)
        for row in draw.sample(rows, 200):
            assert row is not None and same_answer(extract_answer(row["solution"]), row["answer"])
    assert counts == {"svamp": 997, "gsm8k": 1852}


# --- the teacher ------------------------------------------------------------------------------------------------------


def test_a_fallible_teacher_errs_on_the_same_problems_each_time(root: Path) -> None:
    problems = [p for split in source(root).splits().values() for p in split]
    perfect = FallibleReplayTeacher(FallibleReplayTeacherConfig(error_rate=0, seed=0))
    hopeless = FallibleReplayTeacher(FallibleReplayTeacherConfig(error_rate=1, seed=0))
    assert perfect.solve(problems) == [p.solution for p in problems]
    wrong = hopeless.solve(problems)
    assert not any(same_answer(extract_answer(t or ""), p.answer) for t, p in zip(wrong, problems, strict=True))
    paths = [ReasoningPath(p.id, p.id, p.solution or "", Lineage("student", "", "")) for p in problems]
    assert wrong == hopeless.reflect([Draft(p, path, None) for p, path in zip(problems, paths, strict=True)])
    assert {v.status for v in perfect.annotate(problems, paths)} == {"correct"}
    assert {v.status for v in hopeless.annotate(problems, paths)} == {"wrong"}
