"""Comparison of two answers. Cheap rules come first, so that numbers and letters never reach the expensive rules."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mathse.scoring.answers.algebra import same_expression, to_radians
from mathse.scoring.answers.forms import same_form
from mathse.scoring.answers.moments import same_moment
from mathse.scoring.answers.names import sort_names
from mathse.scoring.answers.options import find_named_options, read_option_letter
from mathse.scoring.answers.plain import MAX_ANSWER, fold_case, remove_blanks, to_plain
from mathse.scoring.answers.quantity import are_equal_quantities, read_quantity, split_unit
from mathse.scoring.answers.question import UNASKED, Question, read_question
from mathse.scoring.answers.units import DEGREE, RADIAN

_NAME = re.compile(  # "x =", "f(x) =", "m∠Q =", "AB的长为", "面积是"
    r"(?:m ?)?(?:[∠△] ?)?[A-Za-z]{1,3}(?:_\w)?'?(?:\([-a-z0-9.]{1,4}\))? ?=(?!=)"
    r"|\([a-zA-Z](?: ?, ?[a-zA-Z]){1,3}\) ?=(?= ?\()"
    r"|(?:(?:角|∠|△|线段)? ?[A-Za-z]{1,3}(?:的(?:长度|度数|长|值|面积|周长))?|长度?|度数|值|面积|周长|体积|概率)"
    r"(?:为|是|等于)(?=.)|= ?"
)
_FUNCTION = re.compile(r"^[a-z]\([a-z]\) ?=")
# Words that express uncertainty or announce a number: "about 12", "共有12", "the point (1, 2)".
_AROUND = re.compile(
    r"(?:(?:approximately|approx\.?|about|roughly|around|the point|point|coordinates) |≈ ?|[大]?约为?|点"
    r"|[一总]?共?有|共)(?=[-0-9(.A-Za-z]*[0-9(])",
    re.IGNORECASE,
)
_SYMMETRIC = "=∥⊥≅∽"  # symmetric relations
_CIRCLED = re.compile("[①-⑳](?:[ ,、和]{0,2}[①-⑳]){0,19}")
# A text without any of these has neither parts nor terms. The last two lines are products of letters: AB, aB, Rr, mn.
_STRUCTURE = re.compile(
    r"[-+*/^=<>±∪()\[\]{},;:、或和√∞°!|比]|sqrt|pi|\\| or | and | to "
    r"|[0-9][a-zA-Z]|[a-zA-Z][0-9]|(?:sin|cos|tan|log|ln) "
    r"|^[A-Z]{2,}$|[a-z][A-Z]"
    r"|^[B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]{2,4}$"
)
_AROUND_MEANING = re.compile(
    r"^(?:there (?:is|are) |it(?: is|'s) |(?:this|that|the statement) is |(?:it|(?:the )?equation) has |方程|它)"
    r"|(?<=solution) exists$|(?<=solutions) exist$"
)
_SYNONYM_GROUPS = (
    ("yes", "true", "correct", "是", "对", "正确", "是的", "能", "可以"),
    ("no", "false", "incorrect", "否", "错", "错误", "不是", "不正确", "不能", "不可以", "不对"),
    ("none", "no solution", "no solutions", "no real solution", "no real solutions", "no real root", "no real roots",
     "∅", "{}", "无解", "empty set", "the empty set", "空集", "无实数解", "无实根", "没有解", "无实数根"),
    ("increasing", "增", "递增", "增函数", "单调递增"), ("decreasing", "减", "递减", "减函数", "单调递减"),
    ("does not exist", "dne", "undefined", "不存在"),
    ("infinity", "∞", "+∞", "infinite", "infinitely many", "无穷大", "无数", "无数个", "infinitely many solutions"),
)  # fmt: skip
_SYNONYMS: dict[str, int] = {}  # number of its group, by synonym
for _number, _group in enumerate(_SYNONYM_GROUPS):
    _SYNONYMS.update(dict.fromkeys(_group, _number))
_TRUTH_AND_MORE = re.compile(r"(yes|no|true|false|是的|不是|是|否|对|错)[,.;:] ?(.*)")
_CONTRARY = re.compile(r"\b(?:yes|no|true|false|or|maybe)\b|或|但")
_MAX_DEPTH = 3


def same_answer(prediction: str | None, reference: str, choices: Sequence[str] = (), question: str = "") -> bool:
    """Compare a prediction with the reference answer.

    Numbers are compared exactly (1/2 = 0.50, never 0.333 = 1/3). A unit on a single side is ignored, units of the same
    kind are converted, and other units differ. 50% equals 50 and 0.5; 0.25% is not 0.25. Tuples, intervals and matrices
    are compared element by element, sets in any order, expressions as fractions of sums of products. Any other answer
    is compared as text in plain form. No answer equals an empty reference.

    Args:
        choices: with choices, each side may be an option's letter or text. An option counts if it is the only option
            that the text leaves open.
        question: gives the nouns that may be counted, and decides between a set and a pair.
    """
    if prediction is None or not reference.strip():
        return False
    if choices and (expected := _find_named(reference, choices)):
        return _find_named(prediction, choices) == expected
    if len(prediction) > MAX_ANSWER or len(reference) > MAX_ANSWER:
        return prediction.strip() == reference.strip()
    asked = read_question(question)
    left, right = to_plain(prediction), to_plain(reference)
    if left == right != "":
        return True
    if _is_same(sort_names(left, asked), sort_names(right, asked), asked):
        return True
    if _CIRCLED.fullmatch(left) and _CIRCLED.fullmatch(right):  # statements that hold: ①③ is ③①
        return set(re.findall("[①-⑳]", left)) == set(re.findall("[①-⑳]", right))
    # The picture shows the options: "B" against "(B) 12", "ABD" against "A, D, B".
    if len(right) > 1 and not read_option_letter(right) and not _is_list_of_letters(right):
        return False
    expected = find_named_options(right)
    return bool(expected) and find_named_options(left) == expected


def choice_index(text: str, choices: Sequence[str]) -> int | None:
    """Find the choice that a text names by its text, letter (A is 0) or value; None unless it names exactly one.

    Texts longer than ``MAX_ANSWER`` are compared unchanged.
    """
    named = _find_named(text, choices)
    return next(iter(named)) if len(named) == 1 else None


def _find_named(text: str, choices: Sequence[str]) -> frozenset[int]:
    if len(text) > MAX_ANSWER:
        equal = [k for k, choice in enumerate(choices) if choice.strip() == text.strip()]
        return frozenset(equal[:1])
    options = [to_plain(choice) if len(choice) <= MAX_ANSWER else "" for choice in choices]
    return find_named_options(to_plain(text), options, _is_same)


def _is_list_of_letters(plain_text: str) -> bool:
    """Whether a text lists options, as "ABD", "A, B, D" and "A和B和D" do, and "face" does not."""
    return re.fullmatch(r"选?\(?[A-J]\)?(?:(?:, ?| ?、| and | & |和)?\(?[A-J]\)?){1,9}", plain_text) is not None


def _is_same(left: str, right: str, question: Question = UNASKED, depth: int = 0) -> bool:
    """Whether two plain texts are the same answer. ``depth``: number of tuples and sets around them."""
    if not left or not right:
        return False
    # 1) Take off names and words around the answer. y = 2x is f(x) = 2x; "x = 5" is "5"; x = 2 and y = 2 differ.
    if "y=" in (left.replace(" ", "")[:2], right.replace(" ", "")[:2]):
        left, right = _FUNCTION.sub("y=", left), _FUNCTION.sub("y=", right)
    if ("=" in left) != ("=" in right) or left[0] != right[0]:
        left, right = _strip_name(left, right), _strip_name(right, left)
    left, right = _strip(_AROUND, left), _strip(_AROUND, right)

    # 2) Compare as texts, times, quantities and fixed phrases.
    if remove_blanks(fold_case(left)) == remove_blanks(fold_case(right)) or _is_reversed(left, right):
        return True
    if (verdict := same_moment(left, right, question.about_time)) is not None:
        return verdict
    a, b = read_quantity(left, question), read_quantity(right, question)
    if a is not None and b is not None:
        return are_equal_quantities(a, b, question=question)
    if (meaning := _find_meaning(right)) is not None:
        return _find_meaning(left) == meaning
    if depth >= _MAX_DEPTH or not (_STRUCTURE.search(left) or _STRUCTURE.search(right)):
        return False

    # 3) Compare part by part, or as expressions.
    form = same_form(left, right, lambda one, other: _is_same(one, other, question, depth + 1), question)
    if form is not None:
        return form
    # Each expression may have a unit: 2sqrt(3) cm is 2sqrt(3), and pi/2 is 90°.
    (left, left_unit), (right, right_unit) = split_unit(left), split_unit(right)
    units = {left_unit, right_unit}
    if DEGREE in units and units <= {DEGREE, RADIAN, None} and "pi" in left + right:
        left = to_radians(left) if left_unit == DEGREE else left
        right = to_radians(right) if right_unit == DEGREE else right
    elif left_unit and right_unit and left_unit != right_unit:
        return False
    return remove_blanks(left) == remove_blanks(right) or same_expression(left, right, question)


def _find_meaning(plain_text: str) -> int | None:
    """Find the number of a text's group of synonyms: "Yes, because it is even" is yes, "yes or no" has none."""
    text = _AROUND_MEANING.sub("", plain_text.casefold())
    if text in _SYNONYMS:
        return _SYNONYMS[text]
    more = _TRUTH_AND_MORE.fullmatch(text)
    return None if more is None or _CONTRARY.search(more[2]) else _SYNONYMS[more[1]]


def _is_reversed(left: str, right: str) -> bool:
    """Whether a symmetric relation has its sides exchanged: "∠1=∠2" and "∠2=∠1", "AB∥CD" and "CD∥AB"."""
    for sign in _SYMMETRIC:
        sides = [remove_blanks(side.strip()) for side in left.split(sign)]
        others = [remove_blanks(side.strip()) for side in right.split(sign)]
        if len(sides) == len(others) == 2 and all(sides):
            return sides == others[::-1]
    return False


def _strip_name(text: str, other: str) -> str:
    """Strip the name of a value: "x = 5" gives "5". An equation beside another equation keeps both sides."""
    match = _NAME.match(text)
    if match is None or "=" in match[0] and ("=" in other or text.count("=") > 1 and not match[0].startswith("(")):
        return text
    return text[match.end() :].strip()


def _strip(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return text[match.end() :] if match else text
