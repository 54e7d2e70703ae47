"""MATH-Vision's official answers, verdicts and aggregates, on real outputs where the fixtures are, and rule by rule."""

from __future__ import annotations

import json
import math
from importlib import metadata
from pathlib import Path

import pytest

from mathse.errors import ConfigError, DataError
from mathse.evaluation.benchmark import GIVEN, NOT_SCORED, Extraction
from mathse.evaluation.benchmarks import make, mathvision, official_latex
from mathse.evaluation.benchmarks.arithmetic import NoNumber, number_of
from mathse.evaluation.benchmarks.bounded import Workers
from mathse.evaluation.benchmarks.mathvision_answer import equal, find_answer, quick_value
from tests.benchmarks.cases import outputs, rows, vision_row, write

EITHER_WAY = {"3013"}  # 4/3 against \frac{4}{3}: published as wrong, and right by the released script


@pytest.fixture(scope="module")
def published(fixtures: Path):
    """The test split, by id."""
    file = fixtures / "benchmarks" / "mathvision" / "test.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs {file}")
    return {item.problem.id: item for item in make("mathvision").load(file, need_images=False)}


@pytest.mark.slow
def test_real_outputs_get_the_published_answers_verdicts_and_keys(fixtures, published):
    folder = fixtures / "benchmarks" / "mathvision"
    files = outputs(folder, "_result.json")
    assert files
    for name, file in files.items():
        table, bench = rows(file), make("mathvision")
        items, responses = [published[row["id"]] for row in table], [row["response"] for row in table]
        extractions = bench.extract(items, responses)
        verdicts = bench.score(items, responses, extractions)
        assert sum(e.text != row["model_answer"] for e, row in zip(extractions, table, strict=True)) <= 1, name
        wrong = [v.id for v, row in zip(verdicts, table, strict=True) if v.correct != row["correct"]]
        assert set(wrong) <= EITHER_WAY, name
        assert not any(v.note for v in verdicts), name  # no comparison ran out of time
        if not wrong:
            assert bench.buckets(items, verdicts) == json.loads((folder / f"{name}_result.json").read_text()), name


FOUND = [
    ("\\boxed{\\text{(B)}}", "b"), ("(C)", "c"), ("The correct answer is C.", "c"), ("A\nbecause", "a"),
    ("We get 5.\n\nTherefore it is (D).", "d"), ("It is 12.50.", "12.50"), ("the answer is x = 3. So there", "3"),
    ("\\boxed{3} and \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"), ("$\\boxed{x \\approx 3.14}$", "3.14"),
    ("\\boxed{5\\text{ km}}", "5"), ("\\boxed{90^\\circ}", "90"), ("\\boxed{.5}", "\\frac{1}{2}"),
    ("\\boxed{3/4}", "\\frac{3}{4}"), ("\\boxed{\\sqrt2}", "\\sqrt{2}"), ("\\boxed{\\frac12}", "\\frac12"),
    ("\\boxed{\\frac12\\sqrt3}", "\\frac{1}{2}\\sqrt{3}"), ("\\boxed{2\\dfrac{1}{2}\\%}", "2\\frac{1}{2}"),
    # forms that the official rule does not read
    ("Answer: C", "answer:c"), ("C. 12", "c.12"), ("The answer is 12 cm.", "12cm"), ("†Answer: 60", "†answer:60"),
]  # fmt: skip


@pytest.mark.parametrize(("response", "answer"), FOUND)
def test_the_answer_is_found_as_the_official_script_finds_it(response, answer):
    assert find_answer(response) == answer


COMPARED = [
    ("B", "b", True), ("B", "", False), (" ", "b", False), ("$4 \\pi$", "12.566", True),
    ("$140^{\\circ}$", "140", False),
    ("\\frac{4}{3}", "1.333", True), ("1.33", "1.34", False), ("(1/2,3)", "(0.5,3)", True), ("[1,2]", "[1,3]", False),
    ("2\\sqrt{3}", "3.46", True), ("12", "12cm", False), ("x", "x", True), ("x", "y", False), ("5!", "120", True),
    ("x=5", "5", False), ("\\alpha=5", "5", False), ("\\boxed{5}", "5", False), ("(1,\\infty)", "(1.0,\\infty)", True),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer", "verdict"), COMPARED)
def test_two_answers_are_compared_as_the_official_script_compares_them(reference, answer, verdict):
    assert equal(reference, answer, mathvision._BoundedValue()) is verdict


@pytest.mark.parametrize(
    "text", ["12", "007", "0.125", "3.14159", "1.0", "12.50", "999999999.999999", "cm", "pi", "$s_{1}$"]
)
def test_what_needs_no_parser_has_the_parsers_value(text):
    known, value = quick_value(text)
    parsed = mathvision._workers().ask(text)
    assert known
    assert (value, type(value)) == (parsed, type(parsed))


VALUES = ["4*pi", "1/2", "-3**2", "sqrt(3)/2", "(1 + 2)*3", "3 < 4", "1 < 3 < 2", "factorial(5)", "log(100)/log(10)",
          "2**(-3)", "tau", "7 % 4", "sin(pi/6)", "exp(2)", "inf", "10**30/7"]  # fmt: skip


@pytest.mark.parametrize("text", VALUES)
def test_a_printed_expression_has_the_value_that_eval_gives_it(text):
    assert number_of(text) == round(eval(text, vars(math).copy()), 2)  # noqa: S307


@pytest.mark.parametrize(
    "text",
    ["E", "x", "oo", "Abs(-1)", "[1, 2]", "'a'", "(-8)**(1/3)", "1/0", "pi(3)", "sin", "f_{1}(3)", "",
     "2**2**2**2**2**2", "factorial(10**6)", "__import__('os').getcwd()", "(lambda: 1)()", "[x for x in (1,)]",
     "(1).real", "exp(10**6)", "print(1)", "max(1, 2)", "round(2.5)", "(" * 500],
)  # fmt: skip
def test_nothing_but_arithmetic_has_a_value(text):
    with pytest.raises(NoNumber):
        number_of(text)


def item_of(tmp_path, **changes):
    bench = make("mathvision")
    return bench, bench.load(write(tmp_path / "test.jsonl", [vision_row(**changes)]))[0]


def test_an_option_is_right_by_its_letter_and_by_its_text(tmp_path):
    bench, item = item_of(tmp_path, options=["$\\frac{1}{2}$", "$4 \\pi$", "1", "2", "3"])
    responses = ["\\boxed{B}", "\\boxed{4\\pi}", "12.57", "\\boxed{A}", "0.5"]
    verdicts = bench.score([item] * 5, responses, bench.extract([item] * 5, responses))
    assert [v.correct for v in verdicts] == [True, True, True, False, False]


def test_an_answer_that_comes_with_the_file_is_used_as_it_stands_even_empty(tmp_path):
    bench, item = item_of(tmp_path)
    verdicts = bench.score([item] * 2, ["A", "B"], [Extraction("b", GIVEN), Extraction("", GIVEN)])
    assert [(v.correct, v.decided_by) for v in verdicts] == [(True, "given+rule"), (False, "given+rule")]
    assert bench.score([item], ["B"], [Extraction(None, NOT_SCORED)])[0].correct is None


def test_a_hostile_expression_is_unequal_and_listed_and_the_next_one_is_scored(tmp_path, monkeypatch):
    quick = Workers("latex", limit=0.3)
    monkeypatch.setattr(mathvision, "_workers", lambda: quick)
    bench, item = item_of(tmp_path, options=[], answer="7/2")
    responses = ["\\boxed{\\binom{100000000}{50000000}}", "\\boxed{3\\frac{1}{2}}", "\\boxed{\\frac{7}{2}}"]
    hostile, product, right = bench.score([item] * 3, responses, bench.extract([item] * 3, responses))
    quick.close()
    assert hostile.correct is False
    assert hostile.note == "'\\\\binom{100000000}{50000000}' counts as unequal: more than 0.3 s"
    assert (product.correct, right.correct, right.note) == (False, True, "")  # 3\frac{1}{2} is 3 times 1/2 there


def test_the_students_marker_is_read_once_it_is_mapped(tmp_path):
    bench, item = item_of(tmp_path)
    response = "Step 1: Look.\nThe answer to this problem is (B)."
    raw, mapped = (bench.extract([item], [text])[0].text for text in ("†Answer: B", bench.mapped("†Answer: B")))
    assert (raw, mapped) == ("†answer:b", "b")
    assert bench.mapped(response) == "\\boxed{B}"


def test_prompts_are_the_authors_and_leave_out_options_that_are_letters(tmp_path):
    cot = (
        'Please solve the problem step by step and put your answer in one "\\boxed{}". If it is a multiple choice '
        'question, only one letter is allowed in the "\\boxed{}".\n'
    )
    assert item_of(tmp_path)[1].prompt == f"{cot}Which?\n<image1>\n"
    file = write(tmp_path / "test.jsonl", [vision_row(options=["1", "2", "3", "4", "5"])])
    lettered = "(A) 1\n(B) 2\n(C) 3\n(D) 4\n(E) 5\n"
    direct = make("mathvision", prompt="direct").load(file)[0].prompt
    assert direct == f"Which?\n<image1>\n{lettered}\nAnswer the question using a single word or phrase."
    assert make("mathvision").load(file)[0].prompt == f"{cot}Which?\n<image1>\n{lettered}"


def test_keys_and_strings_are_the_official_ones(tmp_path):
    table = [vision_row(id=str(k), level=1 + k % 2) for k in range(3)]
    bench = make("mathvision")
    items = bench.load(write(tmp_path / "test.jsonl", table))
    verdicts = bench.score(items, ["B", "B", "A"], bench.extract(items, ["B", "B", "A"]))
    assert bench.buckets(items, verdicts) == {
        "-all": "2/3=66.67%",
        "-level1": "1/2=50.0%",
        "-level1_arithmetic": "1/2=50.0%",
        "-level2": "1/1=100.0%",
        "-level2_arithmetic": "1/1=100.0%",
        "arithmetic": "2/3=66.67%",
        "arithmetic_level1": "1/2=50.0%",
        "arithmetic_level2": "1/1=100.0%",
    }


def test_rows_that_cannot_be_scored_are_refused(tmp_path):
    with pytest.raises(DataError, match="test.jsonl:1: \"answer\" 'F' is none of A, B, C, D, E"):
        item_of(tmp_path, answer="F")
    file = write(tmp_path / "test.jsonl", [vision_row(id=str(k), image="") for k in range(305)])
    with pytest.raises(DataError, match="305 rows, and testmini has 304"):
        make("mathvision").load(file, split="testmini", need_images=False)


def test_another_antlr_is_refused_with_the_command_that_mends_it(monkeypatch):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "4.13.2" if name.startswith("antlr4") else real(name))
    with pytest.raises(
        ConfigError, match=r"4\.13\.2 is installed.*pip install 'antlr4-python3-runtime==4\.9\.\*' sympy"
    ):
        make("mathvision").score([], [], [])


def test_an_altered_parser_is_refused(monkeypatch, tmp_path):
    other = tmp_path / official_latex.WHEEL.name
    other.write_bytes(official_latex.WHEEL.read_bytes() + b"x")
    monkeypatch.setattr(official_latex, "WHEEL", other)
    with pytest.raises(ConfigError, match="missing or altered"):
        make("mathvision").check()


def test_the_protocol_names_the_parser_that_decided():
    assert make("mathvision").protocol()["parser"].startswith("latex2sympy2 1.9.1 on antlr4 4.9")
