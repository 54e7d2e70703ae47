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
    # thinking aloud, hedges, points, and Chinese ways to say it
    ("<think>The answer: 5</think>\n\\boxed{6}", "6"),
    ("<think>answer: 5</think> So it is \\boxed{7}.", "7"),
    ("The answer is approximately 0.75.", "approximately 0.75"),
    ("It meets the axis at the point (1, 2)", "(1, 2)"),
    ("答:共有12人。", "共有12人"),
    ("正确的选项是C", "C"),
    ("True", "True"),
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


# By the reason why the two are one answer, whichever of them is the reference.
EQUAL_BECAUSE: dict[str, list[tuple[str, str]]] = {
    "roots, products and sums of them, fractions": [
        ("\\frac{2\\sqrt{3}}{3}", "\\frac{2}{\\sqrt{3}}"), ("\\frac{\\sqrt{2}}{2}", "1/\\sqrt{2}"),
        ("1+\\sqrt{2}", "\\sqrt{2}+1"), ("\\sqrt{12}", "2\\sqrt{3}"), ("\\frac{1}{\\sqrt{2}-1}", "\\sqrt{2}+1"),
        ("2\\times\\sqrt{3}", "2√3"), ("\\frac{4}{3}\\pi", "\\frac{4\\pi}{3}"), ("\\frac{\\sqrt{16}}{2}", "2"),
        ("2^{10}", "1024"), ("-\\frac{1}{2}", "\\frac{-1}{2}"), ("\\frac{1}{-2}", "\\frac{-1}{2}"), ("½", "0.5"),
        ("1½", "1.5"), ("１／２", "1/2"), ("3\\frac{3}{4}", "15/4"),
    ],
    "expressions and equations": [
        ("2x+1", "1+2x"), ("2ab", "2ba"), ("a^2b", "ba^2"), ("x^2-1", "(x+1)(x-1)"), ("n(n+1)/2", "\\frac{n(n+1)}{2}"),
        ("y=2x+1", "y=1+2x"), ("y = 2x + 1", "2x - y + 1 = 0"), ("x^{2}+y^{2}=4", "y^2+x^2=4"),
        ("\\frac{x^2}{4}+\\frac{y^2}{3}=1", "x^2/4+y^2/3=1"), ("\\alpha+\\beta", "β+α"), ("90°-\\alpha", "90^\\circ-α"),
    ],
    "sets and solutions": [
        ("\\{1,2\\}", "\\{2,1\\}"), ("{1, 2, 3}", "\\left\\{3,2,1\\right\\}"), ("x=1 or x=2", "2 or 1"),
        ("x=1 or x=2", "x=2 或 x=1"), ("x_1=1,x_2=3", "x_1=3,x_2=1"), ("±2", "2 or -2"), ("\\pm 2", "-2, 2"),
        ("x=\\pm\\sqrt{3}", "\\sqrt{3} or -\\sqrt{3}"), ("1和3", "3或1"), ("1、3", "1, 3"), ("x=3, y=4", "y=4, x=3"),
    ],
    "tuples and points": [
        ("(0.5, 3)", "(\\frac{1}{2}, 3)"), ("A(1,2)", "(1, 2)"), ("(1/2, 1/3)", "(\\dfrac12,\\dfrac13)"),
        ("\\left(\\frac{3}{2},-1\\right)", "(1.5,-1)"),
    ],
    "intervals and inequalities": [
        ("(1,3]", "1<x\\leq 3"), ("x>3", "(3,+\\infty)"), ("x\\ge 3", "[3,\\infty)"), ("(-\\infty,2)", "x<2"),
        ("3<x", "x>3"), ("1\\le x\\le 5", "[1,5]"), ("5\\geq x\\geq 1", "1≤x≤5"), ("x ∈ [1,5]", "1≤x≤5"),
        ("(-∞,-1)∪(1,+∞)", "x<-1或x>1"), ("x>1 or x<-1", "(-\\infty,-1)\\cup(1,\\infty)"), ("x⩾2", "[2,+∞)"),
    ],
    "matrices": [
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}"),
        ("[[1,2],[3,4]]", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"),
        ("\\left(\\begin{array}{cc}1&0\\\\0&1\\end{array}\\right)", "\\begin{pmatrix}1&0\\\\0&1\\end{pmatrix}"),
        ("\\begin{pmatrix}0.5\\\\2\\end{pmatrix}", "\\begin{pmatrix}\\frac12\\\\2\\end{pmatrix}"),
    ],
    "ratios": [
        ("2:3", "4:6"), ("2:3", "2/3"), ("2∶3", "2:3"), ("1:2:3", "2:4:6"), ("\\frac{2}{3}", "2 : 3"),
    ],
    "powers of ten and number words": [
        ("3\\times10^5", "300000"), ("3×10^{5}", "3e5"), ("1.2\\times 10^{-3}", "0.0012"), ("5 million", "5000000"),
        ("1.5 thousand", "1500"), ("2 dozen", "24"), ("two", "2"), ("two units", "2"), ("minus five", "-5"),
    ],
    "units of one kind": [
        ("50 cm", "0.5 m"), ("1.5 h", "90 min"), ("100 cm^2", "0.01 m^2"), ("2 kg", "2000 g"), ("1 L", "1000 ml"),
        ("2 ft", "24 inches"), ("2\\sqrt{3}\\text{ cm}", "2\\sqrt{3}"), ("12\\pi \\text{ cm}^2", "12π"),
        ("\\sqrt{3}cm", "√3"), ("\\$1,234.50", "1234.5"),
    ],
    "Chinese": [
        ("二分之一", "1/2"), ("百分之五十", "50%"), ("三分之二", "\\frac{2}{3}"), ("五", "5"), ("十二", "12"),
        ("二十三", "23"), ("三个", "3"), ("负二", "-2"), ("5万", "50000"), ("3亿", "300000000"), ("50cm", "0.5米"),
        ("1小时", "60分钟"), ("1000平方厘米", "0.1平方米"), ("是", "yes"), ("正确", "对"), ("错误", "false"),
        ("无解", "no solution"), ("空集", "∅"), ("增函数", "increasing"), ("BC的长为5", "5"), ("∠A=60°", "60"),
        ("角A为60度", "60°"), ("长度为5厘米", "5cm"), ("面积是12", "12"), ("25摄氏度", "25℃"), ("¥5", "5元"),
        ("等边三角形", "等边三角形。"), ("△ABC", "\\triangle ABC"), ("AB\\parallel CD", "AB∥CD"), ("x\\neq 2", "x≠2"),
    ],
    "several options": [
        ("ABD", "A, B, D"), ("A、B、D", "ABD"), ("A和C", "AC"), ("(A)(C)", "AC"), ("A and C", "C, A"),
    ],
    "千 is a thousand, but not in 千克 and 千米": [
        ("12千克", "12"), ("12千米", "12"), ("12千", "12000"), ("3千克", "3000克"),
    ],
    "a bracketed denominator": [
        ("-b/(2a)", "-\\frac{b}{2a}"), ("\\frac{1}{2a}", "1/(2a)"), ("\\frac{xy}{ab}", "xy/(ab)"),
    ],
    "roots of a higher degree that come out": [
        ("\\sqrt[3]{8}", "2"), ("∛27", "3"), ("8^{1/3}", "2"), ("\\sqrt[4]{\\frac{1}{16}}", "1/2"),
        ("\\sqrt[3]{-8}", "-2"),
    ],
    "logarithms that are whole": [
        ("\\log_2 8", "3"), ("\\log_{10}1000", "3"), ("log_3(9)", "2"), ("\\log_28", "3"),
    ],
    "sines of usual angles": [
        ("sin 30°", "1/2"), ("\\sin 60^{\\circ}", "\\frac{\\sqrt{3}}{2}"), ("cos 60°", "0.5"), ("tan45°", "1"),
        ("2\\sin 45°", "\\sqrt{2}"), ("cos 120°", "-1/2"), ("tan 150°", "-\\frac{\\sqrt{3}}{3}"),
    ],
    "numbers in words": [
        ("twenty-one", "21"), ("one hundred and five", "105"), ("two thousand three hundred", "2300"),
        ("twelve apples", "12"), ("two dozen", "24"), ("forty cm", "40"),
    ],
    "Chinese numerals": [
        ("一百二十", "120"), ("一百零五", "105"), ("三千", "3000"), ("两万", "20000"), ("十", "10"),
        ("一百二十人", "120"),
        ("二十千克", "20"),
    ],
    "statements that hold, in any order": [
        ("①②", "②①"), ("①③④", "①、④、③"), ("①和②", "②①"),
    ],
    "a segment from either end": [
        ("AB", "BA"), ("线段AB", "BA"),
    ],
    "a relation from right to left": [
        ("∠1=∠2", "∠2=∠1"), ("AB∥CD", "CD∥AB"), ("a \\perp b", "b⊥a"), ("AB=CD", "CD = AB"),
    ],
    "truth in words": [
        ("True", "yes"), ("true", "正确"), ("False", "no"),
    ],
    "parts of one quantity": [
        ("3 h 30 min", "3.5 h"), ("3 h 30 min", "210 min"), ("2小时15分钟", "135分钟"), ("5 ft 6 in", "66 inches"),
        ("1 m 20 cm", "1.2 m"),
    ],
    "speeds": [
        ("36 km/h", "10 m/s"), ("72千米/时", "20米/秒"),
    ],
    "blanks between thousands": [
        ("1 000", "1000"), ("12 345 678", "12345678"), ("1 000 m", "1 km"),
    ],
    "what says how sure the answer is, or what it counts": [
        ("approximately 0.75", "0.75"), ("≈ 3.14", "3.14"), ("about 12 cm", "12"), ("大约12", "12"), ("共有12人", "12"),
        ("the point (1, 2)", "(1,2)"), ("点(1,2)", "(1,2)"),
    ],
}  # fmt: skip
EITHER_WAY = [(*pair, reason) for reason, pairs in EQUAL_BECAUSE.items() for pair in pairs]


@pytest.mark.parametrize(("one", "other", "reason"), EITHER_WAY)
def test_two_forms_of_one_answer_are_equal_whichever_is_the_reference(one: str, other: str, reason: str) -> None:
    assert same_answer(one, other), reason
    assert same_answer(other, one), reason


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


# By the reason why the two are different, whichever of them is the reference.
DIFFERENT_BECAUSE: dict[str, list[tuple[str, str]]] = {
    "a part is missing or other": [
        ("1, 2", "1, 2, 3"), ("{1,2}", "{1,3}"), ("3 or 4", "3"), ("±2", "2"), ("\\pm 2", "\\pm 3"),
        ("(1,2)", "(1,2,3)"), ("x=3,y=4", "x=4,y=3"),
    ],
    "another interval": [
        ("x>3", "x≥3"), ("(1,3]", "[1,3)"), ("x>3", "x<3"), ("(1,3)", "1≤x≤3"), ("(-∞,2)", "(-∞,2]"),
        ("x<-1 or x>1", "-1<x<1"),
    ],
    "another ratio": [
        ("2:3", "3:2"), ("1:2:3", "1:2:4"),
    ],
    "another matrix": [
        ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1&2\\end{pmatrix}"),
    ],
    "another unit": [
        ("50 cm", "50 m"), ("1 h", "60 s"), ("5 cm", "5 s"), ("60°", "60%"),
        ("2\\sqrt{3}\\text{ cm}", "2\\sqrt{3}\\text{ m}"), ("36 km/h", "36 m/s"), ("12千克", "12克"),
        ("3 h 30 min", "3.3 h"),
    ],
    "another number": [
        ("5万", "5000"), ("12000", "12千米"), ("二分之一", "2"), ("五", "6"), ("十二", "2"), ("一百二十", "102"),
        ("twenty-one", "20"), ("one two", "12"), ("一二", "12"), ("1 00", "100"), ("1 0000", "10000"),
        ("3×10^5", "3×10^4"), ("1200", "1,20"), ("\\sqrt[3]{8}", "3"), ("\\log_2 8", "4"), ("sin 30°", "0.6"),
        ("cos 60°", "sin 60°"), ("\\sqrt[3]{9}", "3"),
    ],
    "a rounded value is not the exact one": [
        ("\\sqrt{2}", "1.414"), ("\\pi", "3.14"), ("12\\pi", "12"),
    ],
    "what stands behind the number says that it is another, or wrong": [
        ("12不对", "12"), ("12 wrong", "12"), ("12 is not right", "12"), ("12 tenths", "12"), ("12 thirds", "12"),
        ("12的平方", "12"), ("12平方", "12"), ("12 squared", "12"), ("12 or more", "12"), ("12多", "12"),
        ("12以上", "12"),        ("12错了", "12"),
    ],
    "other words": [
        ("是", "否"), ("无解", "0"), ("增函数", "减函数"), ("第二象限", "第三象限"), ("Friday", "day"),
        ("face", "cafe"),
    ],
    "other options or statements": [
        ("ABD", "ABC"), ("AB", "ABC"), ("A", "AB"), ("①②", "①③"), ("①", "①②"), ("(A) (B) (C) (D)", "A"),
        ("(A) is wrong, so (C)", "A"), ("A. 3 B. 4 C. 5", "A"),
    ],
    "another object": [
        ("AB", "AC"), ("ab", "ba and c"), ("on", "no"), ("∠1=∠2", "∠1=∠3"), ("AB∥CD", "AB∥CE"), ("AB∥CD", "AB⊥CD"),
    ],
    "another expression": [
        ("2x+1", "2x-1"), ("y=2x+1", "x=2y+1"), ("x^2", "x^3"), ("\\frac{2}{\\sqrt{3}}", "\\frac{3}{\\sqrt{2}}"),
        ("sin x", "cos x"), ("x+y=1", "x-y=1"), ("\\frac{1}{2a}", "\\frac{a}{2}"),
    ],
}  # fmt: skip
NEVER_EQUAL = [(*pair, reason) for reason, pairs in DIFFERENT_BECAUSE.items() for pair in pairs]


@pytest.mark.parametrize(("one", "other", "reason"), NEVER_EQUAL)
def test_two_answers_are_different_whichever_is_the_reference(one: str, other: str, reason: str) -> None:
    assert not same_answer(one, other), reason
    assert not same_answer(other, one), reason


@pytest.mark.parametrize(("prediction", "reference", "choices"), DIFFERENT)
def test_different_answers_are_not_equal(prediction: str | None, reference: str, choices: tuple[str, ...]) -> None:
    assert not same_answer(prediction, reference, choices)


HOSTILE = ["±1,", "x<1 or ", "(1,2),", "1:", "sqrt(", "(a+b)^16*", "[[1,", "\\begin{pmatrix}1&", "万", "二分之",
           "\\boxed{", "{", "}", "1,", "9", "9/", "负", "minus ", " below zero", "A or ",
           "a dozen ", " ", "\\frac{", "\\frac{1}{", "The answer is ", "答案是", "(A", "$",
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
