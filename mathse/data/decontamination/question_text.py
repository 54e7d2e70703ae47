"""A normal form of questions in which equal questions are equal strings, and the comparison of similar questions.

    normalised("<image>Find $x$,\\\\n if y = 80.0.\\nChoices:\\n(A) 12\\n(B) 13").text == "findxify=80"

Case, spacing, punctuation, LaTeX markup, image tags, hints on how to answer and lists of choices do not identify a
problem, and a sign equals its word ("∠ABC", "angle ABC"). Numbers do: "five", "5" and "5.0" are the same number, and a
question with another number is another question, even with equal words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

GRAM = 4  # characters
LONG, SHORT = 100, 25  # letters from which a normalised text is distinctive; SHORT if it holds two numbers
MAX_TEXT = 8_000  # characters of a question that are read

Grams = NDArray[np.uint64]  # hashes of a text's 4-grams, each once, sorted

# What stands around a question: image tags, a hint above it, its heading, choices below it.
_TAGS = re.compile(r"<image\s*\d*>|<imagehere>|<img>", re.IGNORECASE)
_HINT = re.compile(r"\A\s*(?:hint|提示)\s*[::][^\n]*\n", re.IGNORECASE)
_HEAD = re.compile(r"\A\s*(?:question|problem|问题|题目)\s*[::]\s*", re.IGNORECASE)
_CHOICES = re.compile(
    # "Choices: (A) ..." to the end; or "(A) 12 (B) 13" after a blank or the question's end, with no new sentence in A.
    r"\s*(?:choices?|options?|选项)\s*[::]\s*\(?A[).:、,\s].*\Z"
    r"|(?:(?<=\s)|(?<=[::?。?.]))(?-i:\(?A[).:、]\s?(?:(?![.?!]\s+[A-Z][a-z])[^?]){1,200}?[\s;,]\(?B[).:、]).*\Z",
    re.IGNORECASE | re.DOTALL,
)
# LaTeX commands that change the look of a formula and not its meaning.
_WRAPPER = (
    r"\\(?:left|right|text(?:bf|it|rm)?|math(?:rm|bf|it|sf)|mbox|operatorname|displaystyle|d?frac(?=\d)|quad)(?![a-z])"
)
_MARKUP = re.compile(_WRAPPER + r"|\\[,;!: ]|\\n(?![a-z])|[\\${}~`\"'*_]")
# One sign a meaning: "\\times" and "×" are the same.
_SIGNS = {r"\\times": "×", r"\\cdot": "·", r"\\(?:circ|degree)": "°", r"\\angle": "∠", r"\\triangle": "△", r"\\pi": "π"}
# And a sign is its word: one copy of a problem has "AB ⊥ CD", another "AB perpendicular to CD". In some copies the word
# is joined to the one before it: "Rttriangle", "tanangle".
_WORDS = {
    r"\\odot|\bcircles?": "⊙",
    r"(?:\b|(?<=rt))triangles?": "△",
    r"(?:\b|(?<=tan)|(?<=sin)|(?<=cos))angles?": "∠",
    r"\\parallel|\bparallel(?: to| with)?": "∥",
    r"\\perp|\bperpendicular(?: to)?": "⊥",
    r"\bparallelograms?": "▱",
    r"\\widehat|\barcs?": "⁀",
    r"\bdegrees?": "°",
}
_WORD = [(re.compile(rf"(?:{pattern})(?![a-z])"), sign) for pattern, sign in _WORDS.items()]
_SIGN = [(re.compile(rf"{pattern}(?![a-z])"), sign) for pattern, sign in _SIGNS.items()]
_PUNCTUATION = re.compile(r"[^\w+\-=<>/^%°|√πθαβγ∠△⊥∥⊙▱⁀×·.]|_")  # and blanks
_FULL_STOP = re.compile(r"(?<!\d)\.|\.(?!\d)")  # a point that is not inside a number
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# A minus belongs to a number unless it stands after another term, as in "5 - 3".
_SIGNED = re.compile(r"(?:(?<![\w.)\]|-])-)?\d+(?:\.\d+)?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

_HAN = re.compile(r"[\u3400-\u9fff]")

# Numbers that are spelt out, as digits.
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_NUMERALS = {name: str(n) for n, name in enumerate(_ONES.split())}
_NUMERALS |= {name: str(10 * n) for n, name in enumerate(_TENS.split(), start=2)}
_NUMERALS |= {"hundred": "100", "thousand": "1000"}
_NUMERAL = re.compile(rf"\b({'|'.join(_NUMERALS)})\b")


@dataclass(frozen=True)
class NormalisedQuestion:
    """A normalised question. ``text``: the text for comparison. ``numbers``: in their order, with their signs.
    ``spelt``: the text before words became signs, the basis of the stored hash lists."""

    text: str
    numbers: tuple[str, ...] = ()
    spelt: str = ""

    @property
    def is_distinctive(self) -> bool:
        """Whether the text identifies a problem, which "What is the perimeter of the shape?" does not."""
        size = len(self.spelt) + 2 * len(_HAN.findall(self.spelt))  # a Chinese character says as much as three letters
        return size >= LONG or (len(self.numbers) >= 2 and size >= SHORT)

    @cached_property
    def grams(self) -> Grams:
        """Hash each run of GRAM characters, equally on every machine; a shorter text has a single hash."""
        codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
        if len(codes) < GRAM:
            codes = np.append(codes, np.zeros(GRAM - len(codes), dtype=np.uint64))
        # (len(codes) - GRAM + 1,): a polynomial of the characters' code points, modulo 2^64
        runs = np.zeros(len(codes) - GRAM + 1, dtype=np.uint64)
        for k in range(GRAM):
            runs = runs * np.uint64(0x9E3779B97F4A7C15) + codes[k : len(codes) - GRAM + 1 + k]
        return np.unique(mixed(runs))


def normalised(question: str) -> NormalisedQuestion:
    """Normalise a question."""
    # Remove the wrapping of the question.
    text = _TAGS.sub(" ", question[:MAX_TEXT])
    text = _HEAD.sub("", _HINT.sub("", text), count=1)
    text = _CHOICES.sub("", text)
    # Unify the spelling of signs, numbers and markup.
    text = unicodedata.normalize("NFKC", text).casefold()
    for pattern, sign in _SIGN:
        text = pattern.sub(sign, text)
    text = _with_plain_numbers(text)
    in_signs = text
    for pattern, sign in _WORD:
        in_signs = pattern.sub(sign, in_signs)
    numbers = tuple(number.replace(" ", "") for number in _SIGNED.findall(_MARKUP.sub(" ", text)))
    return NormalisedQuestion(_letters(in_signs), numbers, _letters(text, but="⊙▱⁀"))


def _with_plain_numbers(text: str) -> str:
    """ "five", "5" and "5.0" -> "5"."""
    text = _NUMERAL.sub(lambda m: _NUMERALS[m[1]], _THOUSANDS.sub("", text))
    return _NUMBER.sub(lambda m: m[0].rstrip("0").rstrip(".") if "." in m[0] else m[0].lstrip("0") or "0", text)


def _letters(text: str, but: str = "") -> str:
    """Without markup, punctuation and the signs ``but``. Blanks go, yet "1 2" must not become 12."""
    apart = re.sub(r"(?<=\d)\s+(?=\d)", "|", _MARKUP.sub(" ", text))
    return _FULL_STOP.sub("", _PUNCTUATION.sub("", apart).translate(dict.fromkeys(map(ord, but))))


def mixed(values: Grams) -> Grams:
    """Values each of whose bits depends on all bits of the old value (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def jaccard(left: Grams, right: Grams) -> float:
    """The share of grams that both sets hold, of those that either holds (Jaccard similarity)."""
    common = np.intersect1d(left, right, assume_unique=True).size
    return common / max(1, left.size + right.size - common)


def share_inside(inner: Grams, outer: Grams) -> float:
    """The share of the inner grams that the outer ones hold."""
    return np.intersect1d(inner, outer, assume_unique=True).size / max(1, inner.size)


def differ_in_numbers_only(left: NormalisedQuestion, right: NormalisedQuestion) -> bool:
    """Whether two questions are of one template: the same words about other numbers."""
    if not left.text or left.numbers == right.numbers or len(left.numbers) != len(right.numbers):
        return False
    return _SIGNED.sub("#", left.text) == _SIGNED.sub("#", right.text)


def is_subsequence(few: Sequence[str], many: Sequence[str]) -> bool:
    """Whether ``many`` holds all of ``few`` in their order, with others between them or not."""
    rest = iter(many)
    return all(number in rest for number in few)
