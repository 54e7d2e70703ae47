"""Whether two answers are the same; cheap rules first, so that numbers and letters never reach the expensive ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mathse.scoring.answers.algebra import in_radians, same_expression
from mathse.scoring.answers.forms import same_form
from mathse.scoring.answers.moments import same_moment
from mathse.scoring.answers.names import in_one_order
from mathse.scoring.answers.options import named_options, option_letter
from mathse.scoring.answers.plain import MAX_ANSWER, compact, folded, plain
from mathse.scoring.answers.quantity import equal_quantities, quantity, without_unit
from mathse.scoring.answers.question import UNASKED, Question, read_question
from mathse.scoring.answers.units import DEGREE, RADIAN

_NAME = re.compile(  # "x =", "f(x) =", "m∠Q =", "AB的长为", "面积是"
    r"(?:m ?)?(?:[∠△] ?)?[A-Za-z]{1,3}(?:_\w)?'?(?:\([-a-z0-9.]{1,4}\))? ?=(?!=)"
    r"|\([a-zA-Z](?: ?, ?[a-zA-Z]){1,3}\) ?=(?= ?\()"
    r"|(?:(?:角|∠|△|线段)? ?[A-Za-z]{1,3}(?:的(?:长度|度数|长|值|面积|周长))?|长度?|度数|值|面积|周长|体积|概率)"
    r"(?:为|是|等于)(?=.)|= ?"
)
_FUNCTION = re.compile(r"^[a-z]\([a-z]\) ?=")
# Words in front that say how sure an answer is, or that a number follows: "about 12", "共有12", "the point (1, 2)".
_AROUND = re.compile(
    r"(?:(?:approximately|approx\.?|about|roughly|around|the point|point|coordinates) |≈ ?|[大]?约为?|点"
    r"|[一总]?共?有|共)(?=[-0-9(.A-Za-z]*[0-9(])",
    re.IGNORECASE,
)
_SYMMETRIC = "=∥⊥≅∽"  # signs of relations that may be read from right to left
_CIRCLED = re.compile("[①-⑳](?:[ ,、和]{0,2}[①-⑳]){0,19}")
# Without one of these a text has neither parts nor terms. The last two lines are products of letters: AB, aB, Rr, mn.
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
_SYNONYMS = {synonym: group for group, synonyms in enumerate((
    ("yes", "true", "correct", "是", "对", "正确", "是的", "能", "可以"),
    ("no", "false", "incorrect", "否", "错", "错误", "不是", "不正确", "不能", "不可以", "不对"),
    ("none", "no solution", "no solutions", "no real solution", "no real solutions", "no real root", "no real roots",
     "∅", "{}", "无解", "empty set", "the empty set", "空集", "无实数解", "无实根", "没有解", "无实数根"),
    ("increasing", "增", "递增", "增函数", "单调递增"), ("decreasing", "减", "递减", "减函数", "单调递减"),
    ("does not exist", "dne", "undefined", "不存在"),
    ("infinity", "∞", "+∞", "infinite", "infinitely many", "无穷大", "无数", "无数个", "infinitely many solutions"),
)) for synonym in synonyms}  # fmt: skip
_TRUTH_AND_MORE = re.compile(r"(yes|no|true|false|是的|不是|是|否|对|错)[,.;:] ?(.*)")
_CONTRARY = re.compile(r"\b(?:yes|no|true|false|or|maybe)\b|或|但")
_MAX_DEPTH = 3


def same_answer(prediction: str | None, reference: str, choices: Sequence[str] = (), question: str = "") -> bool:
    """Whether ``prediction`` is the ``reference`` answer; both may be an option letter or its text where there are
    ``choices``.

    An option counts where it is the only one that a text leaves open. Numbers are compared exactly (1/2 = 0.50, never
    0.333 = 1/3). A unit that only one side names is ignored, units of one kind are converted, and others differ. 50%
    equals 50 and 0.5; 0.25% is not 0.25. Tuples, intervals and matrices are compared element by element, sets in any
    order, expressions as fractions of sums of products. Anything else is compared as text in plain form. No answer
    equals an empty reference.

    Args:
        question: where it is known, its nouns may be counted, and it states whether a set or a pair is asked for.
    """
    if prediction is None or not reference.strip():
        return False
    if choices and (expected := _named(reference, choices)):
        return _named(prediction, choices) == expected
    if len(prediction) > MAX_ANSWER or len(reference) > MAX_ANSWER:
        return prediction.strip() == reference.strip()
    asked = read_question(question)
    left, right = plain(prediction), plain(reference)
    if left == right != "":
        return True
    if _same(in_one_order(left, asked), in_one_order(right, asked), asked):
        return True
    if _CIRCLED.fullmatch(left) and _CIRCLED.fullmatch(right):  # statements that hold: ①③ is ③①
        return set(re.findall("[①-⑳]", left)) == set(re.findall("[①-⑳]", right))
    # The options stand in the picture: "B" against "(B) 12", "ABD" against "A, D, B".
    expected = named_options(right) if len(right) <= 1 or option_letter(right) or _lists_letters(right) else frozenset()
    return bool(expected) and named_options(left) == expected


def choice_index(text: str, choices: Sequence[str]) -> int | None:
    """Which of the ``choices`` a text names, by their text, letter (A is 0) or value; None for none and for several.

    Texts longer than ``MAX_ANSWER`` are compared unchanged.
    """
    named = _named(text, choices)
    return next(iter(named)) if len(named) == 1 else None


def _named(text: str, choices: Sequence[str]) -> frozenset[int]:
    if len(text) > MAX_ANSWER:
        return frozenset([k for k, choice in enumerate(choices) if choice.strip() == text.strip()][:1])
    options = [plain(choice) if len(choice) <= MAX_ANSWER else "" for choice in choices]
    return named_options(plain(text), options, _same)


def _lists_letters(plain_text: str) -> bool:
    """ "ABD", "A, B, D" and "A和B和D" list options; "face" lists none."""
    return re.fullmatch(r"选?\(?[A-J]\)?(?:(?:, ?| ?、| and | & |和)?\(?[A-J]\)?){1,9}", plain_text) is not None


def _same(left: str, right: str, question: Question = UNASKED, depth: int = 0) -> bool:
    """Whether two plain texts are one answer; ``depth``: in how many tuples and sets they are nested."""
    if not left or not right:
        return False
    if "y=" in (left.replace(" ", "")[:2], right.replace(" ", "")[:2]):  # y = 2x is f(x) = 2x
        left, right = _FUNCTION.sub("y=", left), _FUNCTION.sub("y=", right)
    if ("=" in left) != ("=" in right) or left[0] != right[0]:  # "x = 5" against "5"; x = 2 and y = 2 are two lines
        left, right = _without_name(left, right), _without_name(right, left)
    left, right = _without(_AROUND, left), _without(_AROUND, right)
    if compact(folded(left)) == compact(folded(right)) or _turned_round(left, right):
        return True
    if (verdict := same_moment(left, right, question.about_time)) is not None:
        return verdict
    a, b = quantity(left, question), quantity(right, question)
    if a is not None and b is not None:
        return equal_quantities(a, b, question=question)
    if (meaning := _meaning(right)) is not None:
        return _meaning(left) == meaning
    if depth >= _MAX_DEPTH or not (_STRUCTURE.search(left) or _STRUCTURE.search(right)):
        return False
    form = same_form(left, right, lambda one, other: _same(one, other, question, depth + 1), question)
    if form is not None:
        return form
    return _same_expression_and_unit(left, right, question)


def _same_expression_and_unit(left: str, right: str, question: Question) -> bool:
    """Expressions with at most a unit each: 2sqrt(3) cm is 2sqrt(3), and pi/2 is 90°."""
    (one, unit), (other, other_unit) = without_unit(left), without_unit(right)
    if DEGREE in (unit, other_unit) and {unit, other_unit} <= {DEGREE, RADIAN, None} and "pi" in one + other:
        one, other = (in_radians(text) if u == DEGREE else text for text, u in ((one, unit), (other, other_unit)))
    elif unit and other_unit and unit != other_unit:
        return False
    return compact(one) == compact(other) or same_expression(one, other, question)


def _meaning(plain_text: str) -> int | None:
    """The group of synonyms that a text belongs to: "Yes, because it is even" is yes, "yes or no" is neither."""
    text = _AROUND_MEANING.sub("", plain_text.casefold())
    if text in _SYNONYMS:
        return _SYNONYMS[text]
    more = _TRUTH_AND_MORE.fullmatch(text)
    return None if more is None or _CONTRARY.search(more[2]) else _SYNONYMS[more[1]]


def _turned_round(left: str, right: str) -> bool:
    """ "∠1=∠2" and "∠2=∠1", "AB∥CD" and "CD∥AB"."""
    for sign in _SYMMETRIC:
        one, other = left.split(sign), right.split(sign)
        if len(one) == len(other) == 2 and all(map(str.strip, one)):
            return [compact(side.strip()) for side in one] == [compact(side.strip()) for side in reversed(other)]
    return False


def _without_name(text: str, other: str) -> str:
    """ "x = 5" -> "5"; an equation against another equation keeps both sides."""
    match = _NAME.match(text)
    if match is None or "=" in match[0] and ("=" in other or text.count("=") > 1 and not match[0].startswith("(")):
        return text
    return text[match.end() :].strip()


def _without(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.match(text)
    return text[match.end() :] if match else text
