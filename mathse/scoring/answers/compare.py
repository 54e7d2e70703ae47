"""Whether two answers are the same; cheap rules first, so that numbers and letters never reach the expensive ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mathse.scoring.answers.algebra import same_expression
from mathse.scoring.answers.forms import same_form
from mathse.scoring.answers.plain import MAX_ANSWER, compact, plain
from mathse.scoring.answers.quantity import equal_quantities, quantity, without_unit

_NAME = re.compile(  # "x =", "m∠Q =", "AB的长为", "面积是"
    r"(?:m ?)?(?:[∠△] ?)?[a-z]{1,3}(?:_\w)? ?="
    r"|(?:(?:角|∠|△|线段)? ?[a-z]{1,3}(?:的(?:长度|度数|长|值|面积|周长))?|长度?|度数|值|面积|周长|体积|概率)"
    r"(?:为|是|等于)(?=.)"
)
# What says how sure an answer is, or of what it is the number or the place: "about 12", "共有12", "the point (1, 2)".
_AROUND = re.compile(
    r"(?:(?:approximately|approx\.?|about|roughly|around|the point|point|coordinates) |≈ ?|[大]?约为?|点"
    r"|[一总]?共有?|有)(?=[-0-9(.a-z]*[0-9(])"
)
_BRACKETED_LETTER = re.compile(r"(?<![a-z0-9\\])\(([a-j])\)(?![a-z0-9(])|(?:^| )([a-j])[.)](?= )")
_SYMMETRIC = "=∥⊥≅∽"  # signs of relations that may be read from right to left
_SEGMENT = re.compile(r"(?:线段|segment |line )?([A-Z])([A-Z])")
_CIRCLED = re.compile("[①-⑳](?:[ ,、和]{0,2}[①-⑳]){0,19}")
_OPTION = re.compile(
    r"(?:the )?(?:option|choice|选项|选)?[ :]*(?:\((?P<bracketed>[a-z])\)(?= |$)|(?P<bare>[a-z])(?:[).:](?= |$)|、|$))"
    r"(?! ?(?:and|or|&|,))"
)
_SEVERAL_LETTERS = re.compile(r"[a-j](?:(?:, ?| ?、| and | & |和)?[a-j]){1,9}")
_FIRST_OF_SEVERAL = tuple("abcdefghij选(")
_STRUCTURE = re.compile(r"[-+*/^=<>±∪()\[\]{},;:、或和√∞°]|sqrt|pi|\\| or | and |[0-9][a-z]")
_SYNONYMS = {synonym: group for group, synonyms in enumerate((
    ("yes", "true", "correct", "是", "对", "正确", "是的"),
    ("no", "false", "incorrect", "否", "错", "错误", "不是", "不正确"),
    ("none", "no solution", "∅", "\\emptyset", "\\varnothing", "{}", "无解", "empty set", "the empty set", "空集"),
    ("increasing", "增", "递增", "增函数"), ("decreasing", "减", "递减", "减函数"),
)) for synonym in synonyms}  # fmt: skip
_MAX_DEPTH = 3


def same_answer(prediction: str | None, reference: str, choices: Sequence[str] = ()) -> bool:
    """Whether ``prediction`` is the ``reference`` answer; both may be an option letter or its text where there are
    ``choices``.

    Numbers are compared exactly (1/2 = 0.50, never 0.333 = 1/3). A unit that only one side names is ignored, units of
    one kind are converted, and others differ. 50% equals 50 and 0.5. Tuples, intervals and matrices are compared
    element by element, sets in any order, expressions as sums of products. Anything else is compared as text in plain
    form. No answer equals an empty reference.
    """
    if prediction is None or not reference.strip():
        return False
    if choices and (expected := choice_index(reference, choices)) is not None:
        return choice_index(prediction, choices) == expected
    if len(prediction) > MAX_ANSWER or len(reference) > MAX_ANSWER:
        return prediction.strip() == reference.strip()
    left, right = plain(prediction), plain(reference)
    if _same(left, right) or _one_segment(prediction, reference):
        return True
    if _CIRCLED.fullmatch(left) and _CIRCLED.fullmatch(right):  # statements that hold: ①③ is ③①
        return set(re.findall("[①-⑳]", left)) == set(re.findall("[①-⑳]", right))
    # "ABD" and "A, D, B" name three options; "face" names none.
    may_be_letters = not (right.isascii() and right.isalpha()) or list(right) == sorted(right)
    if right[:1] in _FIRST_OF_SEVERAL and may_be_letters and (several := _several_letters(right)):
        return _several_letters(left) == several
    expected_letter = option_letter(right)  # the options stand in the picture: "B" against "(B) 12"
    return expected_letter is not None and option_letter(left) == expected_letter


def choice_index(text: str, choices: Sequence[str]) -> int | None:
    """Which of the ``choices`` a text names, by their text, letter (A is 0) or value; None for none.

    Texts longer than ``MAX_ANSWER`` are compared unchanged.
    """
    if len(text) > MAX_ANSWER:
        return next((index for index, choice in enumerate(choices) if choice.strip() == text.strip()), None)
    plain_text = plain(text)
    options = [plain(choice) if len(choice) <= MAX_ANSWER else "" for choice in choices]
    for index, option in enumerate(options):
        if len(option) > 1 and compact(plain_text) == compact(option):
            return index
    letter = option_letter(plain_text)
    if letter is not None and ord(letter) - ord("a") < len(options):
        return ord(letter) - ord("a")
    return next((index for index, option in enumerate(options) if _same(plain_text, option)), None)


def option_letter(plain_text: str) -> str | None:
    """The option that a text begins with; None where it goes on to name others, as in "(A) (B) (C)"."""
    match = _OPTION.match(plain_text)
    if match is None or len({a or b for a, b in _BRACKETED_LETTER.findall(plain_text)}) > 1:
        return None
    return match["bracketed"] or match["bare"]


def _one_segment(prediction: str, reference: str) -> bool:
    """Whether both are the segment between the same two points: AB is BA."""
    one, other = _SEGMENT.fullmatch(prediction.strip()), _SEGMENT.fullmatch(reference.strip())
    return one is not None and other is not None and sorted(one.groups()) == sorted(other.groups())


def _several_letters(plain_text: str) -> frozenset[str]:
    """ "ABD", "A, B, D" and "A和B和D" name three options; letters that repeat, or a lone one, name none."""
    bare = plain_text.replace("(", "").replace(")", "").removeprefix("选")
    letters = re.sub("[^a-j]", "", bare.replace("and", ""))
    named = _SEVERAL_LETTERS.fullmatch(bare) is not None and len(set(letters)) == len(letters)
    return frozenset(letters) if named else frozenset()


def _same(left: str, right: str, depth: int = 0) -> bool:
    """Whether two plain texts are one answer; ``depth``: in how many tuples and sets they are nested."""
    if not left or not right:
        return False
    if ("=" in left) != ("=" in right) or left[0] != right[0]:  # "x = 5" against "5"; x = 2 and y = 2 are two lines
        left, right = _without_name(left, right), _without_name(right, left)
    left, right = _AROUND.sub("", left, count=1), _AROUND.sub("", right, count=1)
    if compact(left) == compact(right) or _turned_round(left, right):
        return True
    a, b = quantity(left), quantity(right)
    if a is not None and b is not None:
        return equal_quantities(a, b)
    if left in _SYNONYMS:
        return _SYNONYMS[left] == _SYNONYMS.get(right)
    if depth >= _MAX_DEPTH or not (_STRUCTURE.search(left) or _STRUCTURE.search(right)):
        return False
    form = same_form(left, right, lambda one, other: _same(one, other, depth + 1))
    if form is not None:
        return form
    # Expressions with at most a unit each: 2sqrt(3) cm is 2sqrt(3).
    (one, unit), (other, other_unit) = without_unit(left), without_unit(right)
    if unit and other_unit and unit != other_unit:
        return False
    return compact(one) == compact(other) or same_expression(one, other)


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
    if match is None or "=" in match[0] and "=" in other:
        return text
    return text[match.end() :].strip()
