"""The answer rules, as tables: one line a case."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mathse.scoring.answers import MARKER, MAX_ANSWER, choice_index, extract_answer, same_answer

EXTRACTED = [
    # the marker phrase
    (f"Step 1: 2 + 3 = 5.\n{MARKER} 5.", "5"),
    (f"{MARKER} 3.50", "3.50"),
    (f"{MARKER}: **42**.", "42"),
    (f"{MARKER}\n\n$\\frac{{1}}{{2}}$.", "\\frac{1}{2}"),
    (f"{MARKER} \\boxed{{\\frac{{1}}{{2}}}}.", "\\frac{1}{2}"),
    (f"{MARKER} \\(x = 3\\).", "x = 3"),
    (f"{MARKER} 12 sq. cm. It fits.", "12 sq. cm"),
    ("The answer is 7, because 3 + 4 = 7.", "7"),
    ("The answer is 7. Wait, that is wrong. The answer is 9.", "9"),
    ("The Final ANSWER IS (B).", "(B)"),
    ("**Answer:** C", "C"),
    ("Look at step 3. The answer is B. 40", "B"),
    ("The answer is 5.<br>", "5.<br>"),
    # Chinese
    ("所以\u201c本题的答案是\u201d:本题的答案是 12。", "12"),
    ("由勾股定理得，答案是5，因为3和4是直角边。", "5"),
    ("答案为：B", "B"),
    ("答案：３６°", "36°"),
    ("故选：D.", "D"),
    # boxed
    ("So \\boxed{3} or rather \\boxed{\\sqrt{2}-1} holds for 9 cases.", "\\sqrt{2}-1"),
    ("Nested: \\boxed{\\text{(A)}}", "\\text{(A)}"),
    ("First \\boxed{4}, then a broken \\boxed{5", "4"),
    ("Empty \\boxed{} after \\boxed{8}", "8"),
    # the last number or option letter
    ("3 + 4 = 7 apples, or 1,200 grams", "1,200"),
    ("It went from 5 to -3", "-3"),
    ("What remains is 5-3", "3"),
    ("The area becomes 24\\pi", "24\\pi"),
    ("which makes 2\\sqrt{13}", "2\\sqrt{13}"),
    # nothing but an answer
    ("5:3", "5:3"),
    (" $\\pi+6\\sqrt{3}$ \n", "\\pi+6\\sqrt{3}"),
    ("24π", "24pi"),
    ("C)", "C)"),
    ("The ratio is \\frac{2}{3}", "\\frac{2}{3}"),
    ("Half is 1/2 of it, that is 50%", "50%"),
    ("We choose option C over the 12 others? No: option C", "C"),
    ("Of 4 it must be (B)", "(B)"),
    ("D", "D"),
    # other ways to announce it
    ("†Answer: 60", "60"),
    ("<answer>60</answer>", "60"),
    ("So x is 42 of 7.\n#### 42", "42"),
    ("The correct option is (B). It has 4 sides.", "B"),
    ("The answers are 2 and 3.", "2 and 3"),
    ("The answer should be 7. Step 3 says 5.", "7"),
    ("The answer must be $2\\pi$.", "2\\pi"),
    ("**Final Answer**: $\\frac{1}{2}$", "\\frac{1}{2}"),
    ("The answer is \\(\\boxed{3}\\).", "3"),
    (f"The answer is 4. {MARKER} 5. 答案:6", "6"),
    ("综上所述,答案应为12。", "12"),
    ("故答案为：5cm.", "5cm"),
    ("因为有3条边，因此选B。", "B"),
    ("应选 C", "C"),
    ("正确答案是:D", "D"),
    ("正确选项为A,因为3是质数", "A"),
    ("本题的答案是 (A)。", "A"),
    ("答案是选项B", "B"),
    ("答案为 $x=\\frac{1}{2}$。", "x=\\frac{1}{2}"),
    ("最终答案：−3", "-3"),
    ("\\boxed{\\begin{pmatrix}1\\\\2\\end{pmatrix}}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
]


@pytest.mark.parametrize(("text", "answer"), EXTRACTED)
def test_final_answer_is_found(text: str, answer: str) -> None:
    found = extract_answer(text)
    assert found is not None
    assert found.strip("()") == answer.strip("()")


@pytest.mark.parametrize("text", ["", "   \n", "I cannot see it", "A triangle is drawn.", f"2 + 3 = 5. {MARKER}"])
def test_text_without_an_answer_gives_none(text: str) -> None:
    assert extract_answer(text) is None


NUMBERS = ("30", "40", "60", "80")
ROOTS = ("\\frac { \\sqrt { 2 } } { 10 }", "\\frac { \\sqrt { 5 } } { 5 }", "$(\\sqrt{2}-1)^{2}$", "$36^{\\circ}$")

EQUAL: list[tuple[str, str, tuple[str, ...]]] = [
    # choices: by letter, by text, by value, in either place
    ("D", "D", NUMBERS), ("(d)", "D", NUMBERS), ("80", "D", NUMBERS), ("D", "80", NUMBERS), ("80.0 cm", "D", NUMBERS),
    ("D. 80", "D", NUMBERS), ("option D", "D", NUMBERS), ("\\text{(D)} 80", "D", NUMBERS), ("选项D", "D", NUMBERS),
    ("选D", "D", NUMBERS), ("Ｄ", "D", NUMBERS), ("D、80", "D", NUMBERS),
    ("\\frac{\\sqrt{5}}{5}", "B", ROOTS), ("√5/5", "B", ROOTS), ("36", "D", ROOTS), ("(\\sqrt2-1)^2", "C", ROOTS),
    ("carriage and  BUS", "B", ("Carriage and Tram", "Carriage and Bus")),
    ("c", "C", ("A", "B", "C", "D", "E")),
    # option letters whose texts stand in the picture
    ("(B)", "B", ()), ("B. 12 cm", "B", ()), ("b", "B", ()),
    # numbers
    ("7", "7.0", ()), ("0.50", ".5", ()), ("1,200", "1200", ()), ("1{,}200", "1200", ()), ("１２", "12", ()),
    ("-3", "−3", ()), ("+3", "3", ()), ("(12)", "12", ()), ("$12$", "12", ()), ("007", "7", ()),
    # percent, units, degrees
    ("50%", "50", ()), ("50\\%", "0.5", ()), ("50 percent", "50%", ()), ("36^{\\circ}", "36", ()),
    ("36°", "36 degrees", ()),
    ("36度", "36^\\circ", ()), ("12 cm", "12", ()), ("12\\text{ cm}", "12 centimeters", ()),
    ("12 cm^2", "12 平方厘米", ()),
    ("12 square units", "12 cm²", ()), ("5 \\mathrm{~m}", "5m", ()), ("7 cubes", "7", ()), ("7个", "7", ()),
    ("\\$5", "5", ()),
    ("60 km/h", "60 kilometers per hour", ()),
    # fractions
    ("\\dfrac{1}{2}", "1/2", ()), ("\\frac12", "0.5", ()), ("-\\frac{3}{4}", "-0.75", ()),
    ("\\frac{-3}{4}", "-3/4", ()),
    ("2/4", "1/2", ()), ("1\\frac{1}{2}", "3/2", ()), ("1 1/2", "1.5", ()), ("\\frac{6}{3}", "2", ()),
    # wrappings and plain text
    ("$\\left( 3, 4 \\right)$", "(3,4)", ()), ("x = 5", "5", ()), ("m\\angle Q = 120", "120", ()),
    ("y=2x+1", "y = 2x + 1", ()),
    ("1 : 1", "1:1", ()), ("2\\sqrt{3}", "2√3", ()), ("x^{2}", "x^2", ()), ("5\\pi", "5π", ()), ("Yes.", "yes", ()),
    ("\\text{no}", "No", ()), ("正方形。", "正方形", ()), ("\\boxed{5}", "5", ()),
]  # fmt: skip


# Equal in either direction.
EITHER_WAY = [
    # roots, products and sums of them, fractions
    ("\\frac{2\\sqrt{3}}{3}", "\\frac{2}{\\sqrt{3}}"), ("\\frac{\\sqrt{2}}{2}", "1/\\sqrt{2}"),
    ("1+\\sqrt{2}", "\\sqrt{2}+1"), ("\\sqrt{12}", "2\\sqrt{3}"), ("\\frac{1}{\\sqrt{2}-1}", "\\sqrt{2}+1"),
    ("2\\times\\sqrt{3}", "2√3"), ("\\frac{4}{3}\\pi", "\\frac{4\\pi}{3}"), ("\\frac{\\sqrt{16}}{2}", "2"),
    ("2^{10}", "1024"), ("-\\frac{1}{2}", "\\frac{-1}{2}"), ("\\frac{1}{-2}", "\\frac{-1}{2}"), ("½", "0.5"),
    ("1½", "1.5"), ("１／２", "1/2"), ("3\\frac{3}{4}", "15/4"),
    # expressions and equations
    ("2x+1", "1+2x"), ("2ab", "2ba"), ("a^2b", "ba^2"), ("x^2-1", "(x+1)(x-1)"), ("n(n+1)/2", "\\frac{n(n+1)}{2}"),
    ("y=2x+1", "y=1+2x"), ("y = 2x + 1", "2x - y + 1 = 0"), ("x^{2}+y^{2}=4", "y^2+x^2=4"),
    ("\\frac{x^2}{4}+\\frac{y^2}{3}=1", "x^2/4+y^2/3=1"), ("\\alpha+\\beta", "β+α"), ("90°-\\alpha", "90^\\circ-α"),
    # sets and solutions
    ("\\{1,2\\}", "\\{2,1\\}"), ("{1, 2, 3}", "\\left\\{3,2,1\\right\\}"), ("x=1 or x=2", "2 or 1"),
    ("x=1 or x=2", "x=2 或 x=1"), ("x_1=1,x_2=3", "x_1=3,x_2=1"), ("±2", "2 or -2"), ("\\pm 2", "-2, 2"),
    ("x=\\pm\\sqrt{3}", "\\sqrt{3} or -\\sqrt{3}"), ("1和3", "3或1"), ("1、3", "1, 3"), ("x=3, y=4", "y=4, x=3"),
    # tuples and points
    ("(0.5, 3)", "(\\frac{1}{2}, 3)"), ("A(1,2)", "(1, 2)"), ("(1/2, 1/3)", "(\\dfrac12,\\dfrac13)"),
    ("\\left(\\frac{3}{2},-1\\right)", "(1.5,-1)"),
    # intervals and inequalities
    ("(1,3]", "1<x\\leq 3"), ("x>3", "(3,+\\infty)"), ("x\\ge 3", "[3,\\infty)"), ("(-\\infty,2)", "x<2"),
    ("3<x", "x>3"), ("1\\le x\\le 5", "[1,5]"), ("5\\geq x\\geq 1", "1≤x≤5"), ("x ∈ [1,5]", "1≤x≤5"),
    ("(-∞,-1)∪(1,+∞)", "x<-1或x>1"), ("x>1 or x<-1", "(-\\infty,-1)\\cup(1,\\infty)"), ("x⩾2", "[2,+∞)"),
    # matrices
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}"),
    ("[[1,2],[3,4]]", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
    ("\\left(\\begin{array}{cc}1&0\\\\0&1\\end{array}\\right)", "\\begin{pmatrix}1&0\\\\0&1\\end{pmatrix}"),
    ("\\begin{pmatrix}0.5\\\\2\\end{pmatrix}", "\\begin{pmatrix}\\frac12\\\\2\\end{pmatrix}"),
    # ratios
    ("2:3", "4:6"), ("2:3", "2/3"), ("2∶3", "2:3"), ("1:2:3", "2:4:6"), ("\\frac{2}{3}", "2 : 3"),
    # powers of ten and number words
    ("3\\times10^5", "300000"), ("3×10^{5}", "3e5"), ("1.2\\times 10^{-3}", "0.0012"), ("5 million", "5000000"),
    ("1.5 thousand", "1500"), ("2 dozen", "24"), ("two", "2"), ("two units", "2"), ("minus five", "-5"),
    # units of one kind
    ("50 cm", "0.5 m"), ("1.5 h", "90 min"), ("100 cm^2", "0.01 m^2"), ("2 kg", "2000 g"), ("1 L", "1000 ml"),
    ("2 ft", "24 inches"), ("2\\sqrt{3}\\text{ cm}", "2\\sqrt{3}"), ("12\\pi \\text{ cm}^2", "12π"),
    ("\\sqrt{3}cm", "√3"), ("\\$1,234.50", "1234.5"),
    # Chinese
    ("二分之一", "1/2"), ("百分之五十", "50%"), ("三分之二", "\\frac{2}{3}"), ("五", "5"), ("十二", "12"),
    ("二十三", "23"), ("三个", "3"), ("负二", "-2"), ("5万", "50000"), ("3亿", "300000000"), ("50cm", "0.5米"),
    ("1小时", "60分钟"), ("1000平方厘米", "0.1平方米"), ("是", "yes"), ("正确", "对"), ("错误", "false"),
    ("无解", "no solution"), ("空集", "∅"), ("增函数", "increasing"), ("BC的长为5", "5"), ("∠A=60°", "60"),
    ("角A为60度", "60°"), ("长度为5厘米", "5cm"), ("面积是12", "12"), ("25摄氏度", "25℃"), ("¥5", "5元"),
    ("等边三角形", "等边三角形。"), ("△ABC", "\\triangle ABC"), ("AB\\parallel CD", "AB∥CD"), ("x\\neq 2", "x≠2"),
    # several options
    ("ABD", "A, B, D"), ("A、B、D", "ABD"), ("A和C", "AC"), ("(A)(C)", "AC"), ("A and C", "C, A"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), EITHER_WAY)
def test_two_forms_of_one_answer_are_equal_whichever_is_the_reference(one: str, other: str) -> None:
    assert same_answer(one, other)
    assert same_answer(other, one)


@pytest.mark.parametrize(("prediction", "reference", "choices"), EQUAL)
def test_two_spellings_of_one_answer_are_equal(prediction: str, reference: str, choices: tuple[str, ...]) -> None:
    assert same_answer(prediction, reference, choices)


DIFFERENT: list[tuple[str | None, str, tuple[str, ...]]] = [
    (None, "5", ()), ("", "5", ()), ("5", "", ()), ("", "", ()), ("$", "$", ()),
    ("C", "D", NUMBERS), ("60", "D", NUMBERS), ("E", "D", NUMBERS), ("8", "D", NUMBERS), ("(A) and (D)", "D", NUMBERS),
    ("(A) or (D)", "A", NUMBERS), ("C. 80", "D", NUMBERS),
    ("(C)", "B", ()), ("Before", "B", ()),
    ("12", "1 2", ()), ("0.333", "1/3", ()), ("1,2", "12", ()), ("1,23", "123", ()), ("--3", "3", ()), ("3", "-3", ()),
    ("5 cm", "5 m", ()), ("5 cm", "5 cm^2", ()), ("5 million", "5", ()), ("5万", "5", ()), ("5\\pi", "5", ()),
    ("5x", "5", ()),
    ("5 or 6", "5", ()), ("50%", "500", ()), ("50%", "50 cm", ()), ("2abc", "2", ()), ("4!", "4", ()),
    ("1/0", "0", ()), ("11/2", "1\\frac{1}{2}", ()), ("1/2/3", "1/2", ()), ("x = 2", "y = 2", ()),
    ("(3,4)", "(4,3)", ()),
    ("__import__('os').getcwd()", "5", ()), ("2+3", "5", ()),
]  # fmt: skip


NEVER_EQUAL = [
    ("1, 2", "1, 2, 3"), ("{1,2}", "{1,3}"), ("x>3", "x≥3"), ("(1,3]", "[1,3)"), ("x>3", "x<3"), ("(1,3)", "1≤x≤3"),
    ("(-∞,2)", "(-∞,2]"), ("x<-1 or x>1", "-1<x<1"), ("2:3", "3:2"), ("1:2:3", "1:2:4"), ("3 or 4", "3"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}"),
    ("5万", "5000"), ("50 cm", "50 m"), ("1 h", "60 s"), ("5 cm", "5 s"), ("二分之一", "2"), ("五", "6"), ("十二", "2"),
    ("是", "否"), ("无解", "0"), ("增函数", "减函数"), ("第二象限", "第三象限"), ("Friday", "day"), ("face", "cafe"),
    ("ABD", "ABC"), ("AB", "ABC"), ("A", "AB"), ("x=3,y=4", "x=4,y=3"), ("±2", "2"), ("\\pm 2", "\\pm 3"),
    ("2x+1", "2x-1"), ("y=2x+1", "x=2y+1"), ("\\sqrt{2}", "1.414"), ("\\pi", "3.14"), ("x^2", "x^3"), ("60°", "60%"),
    ("\\frac{2}{\\sqrt{3}}", "\\frac{3}{\\sqrt{2}}"), ("3×10^5", "3×10^4"), ("1200", "1,20"), ("12\\pi", "12"),
    ("2\\sqrt{3}\\text{ cm}", "2\\sqrt{3}\\text{ m}"), ("sin x", "cos x"), ("(1,2)", "(1,2,3)"), ("x+y=1", "x-y=1"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), NEVER_EQUAL)
def test_two_answers_are_different_whichever_is_the_reference(one: str, other: str) -> None:
    assert not same_answer(one, other)
    assert not same_answer(other, one)


@pytest.mark.parametrize(("prediction", "reference", "choices"), DIFFERENT)
def test_different_answers_are_not_equal(prediction: str | None, reference: str, choices: tuple[str, ...]) -> None:
    assert not same_answer(prediction, reference, choices)


HOSTILE = ["±1,", "x<1 or ", "(1,2),", "1:", "sqrt(", "(a+b)^16*", "[[1,", "\\begin{pmatrix}1&", "万", "二分之",
           "\\boxed{", "{", "}", "1,", "9", "9/", " ", "\\frac{", "\\frac{1}{", "The answer is ", "答案是", "(A", "$",
           "\\text{", ":\n", ".", "sqrt", "^{\\circ", "\ud800", "\x00", "- "]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_megabyte_of_hostile_text_is_answered(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))  # milliseconds each; a runaway pattern would not come back
    answer = extract_answer(text)
    assert answer is None or 0 < len(answer) <= MAX_ANSWER
    assert extract_answer(text + f"\n{MARKER} 5.") == "5"
    assert not same_answer(text, "5")
    assert not same_answer(text[:MAX_ANSWER], "17", ("17", text))
    assert not same_answer("17", text[:MAX_ANSWER], (text, text[:MAX_ANSWER], "17"))


def test_answers_beyond_the_length_cap_are_compared_as_they_stand() -> None:
    long = "1" * (MAX_ANSWER + 1)
    assert same_answer(f" {long}", long)
    assert not same_answer(long, f"{long}.0")


def test_choices_beyond_the_length_cap_are_named_as_they_stand_or_by_their_letter() -> None:
    long = "x" * 5 * MAX_ANSWER
    assert [choice_index(text, (long, "y")) for text in (long, f"{long}\n", long + "x", "A", "y")] == [0, 0, None, 0, 1]
    assert choice_index(long[:MAX_ANSWER], (long, "y")) is None
    assert same_answer("A", long, (long, "y")) and same_answer(long, "(A)", (long, "y"))
    assert not same_answer("B", long, (long, "y")) and not same_answer(long[:-1], long, (long, "y"))


def test_expressions_of_any_size_are_refused_in_no_time() -> None:
    for text in (
        "((a+b)^16)^16",
        "(1+\\sqrt{2}+\\sqrt{3}+\\sqrt{5}+\\sqrt{7})^16",
        "9^{9^{9^{9}}}",
        "-" * 110 + "x",
        "(" * 99,
    ):
        assert not same_answer(text, "x+1")  # milliseconds each; expanded, the first two have thousands of terms


def test_choice_is_found_by_letter_text_or_value() -> None:
    assert [choice_index(text, NUMBERS) for text in ("B", "40", "40.0 cm", "E", "5")] == [1, 1, 1, None, None]


@pytest.mark.parametrize("source", ["dynamath", "mathvision"])
def test_every_reference_answer_of_the_fixtures_equals_itself_behind_the_marker(fixtures: Path, source: str) -> None:
    rows = [json.loads(line) for line in (fixtures / "datasets" / source / "records.jsonl").read_text().splitlines()]
    for row in rows:
        answer, choices = str(row["answer"]), row.get("options", ())
        assert same_answer(extract_answer(f"{MARKER} {answer}."), answer, choices), answer
