"""Facts about an answer's form that follow from its question: counted nouns, names and their order, set or pair."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

MAX_QUESTION = 4_000  # characters that are read, counted from the end, which holds the request

_HOW_MANY = re.compile(r"\b(?:how (?:many|much)|number of|what|by what|percent(?:age)?)((?: [a-z]+){1,4})")
_HOW_MANY_HAN = re.compile(r"(?:几|多少)(?:个|名|位)?([\u4e00-\u9fff]{1,4})")
_SEVERAL_OF_ONE = re.compile(
    r"\b(?:solutions?|roots?|zeros|zeroes|solve|all|factors|divisors|multiples|set|elements|x-intercepts|primes|numbers"
    r"|integers|values|legs|dimensions|side lengths|which of)\b|的解|的根|两根|零点|解集|解方程|所有|哪些|哪几"
    r"|集合|因数|约数|质数"
)
_ONE_ORDER = re.compile(
    r"\b(?:ordered|coordinates?|respectively|points?|order|sequence|pairs?|quotient|first|next|blanks?|vertex|vector"
    r"|system|simultaneous|smallest to|least to|terms|mean|median)\b"
    r"|____|分别|依次|坐标|顺序|从[小大]到|方程组|数对|向量|下[一两三]|\( ?\)"
)
_NAMES_IN_BRACKETS = re.compile(r"\(\s*([a-zA-Z])\s*,\s*([a-zA-Z])\s*(?:,\s*([a-zA-Z])\s*)?\)")
_NAMES_LISTED = re.compile(
    r"(?<![A-Za-z])([a-zA-Z])\$?(?:, ?\$?([a-zA-Z])\$?,?)? ?(?:and|,|与|和|、) ?\$?([a-zA-Z])(?![A-Za-z\u0027])"
)


@dataclass(frozen=True)
class Question:
    """``text``: the question in lower case; "" for an unknown question."""

    text: str = ""
    original: str = field(default="", repr=False)

    @cached_property
    def _words(self) -> frozenset[str]:
        return frozenset(map(stem, re.findall("[a-z]+", self.text)))

    @cached_property
    def _counted_words(self) -> frozenset[str]:
        """The words behind "how many" and 几."""
        words: set[str] = set()
        for group in (*_HOW_MANY.findall(self.text), *_HOW_MANY_HAN.findall(self.text)):
            for word in map(stem, group.split()):
                words.add(word)
                # Chinese has no blanks between words, so each beginning of the text may be the noun.
                if not word.isascii():
                    words.update(word[:end] for end in range(1, len(word)))
        return frozenset(words)

    def mentions(self, words: Sequence[str]) -> bool:
        """Whether the question holds all of these words."""
        return all(stem(word) in self._words for word in words)

    def counts(self, words: Sequence[str]) -> bool:
        """Whether the question asks for the number of these: "how many times", 几折."""
        return bool(self._counted_words) and all(stem(word) in self._counted_words for word in words)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the answer's parts in the order of the question; () without names."""
        if brackets := _NAMES_IN_BRACKETS.search(self.original):
            return tuple(name for name in brackets.groups() if name)
        listed = _NAMES_LISTED.findall(self.original)
        return tuple(filter(None, listed[-1])) if listed else ()

    @cached_property
    def wants_a_set(self) -> bool:
        """Whether the question asks for several values in any order."""
        if _ONE_ORDER.search(self.text) or not _SEVERAL_OF_ONE.search(self.text):
            return False
        return not self.names

    @cached_property
    def about_matrices(self) -> bool:
        return re.search(r"matri(?:x|ces)|\\begin\{[bpv]?matrix|矩阵", self.text) is not None

    @cached_property
    def about_directions(self) -> bool:
        """Whether the question is about vectors or rays, so that AB is not BA."""
        return re.search(r"\b(?:vectors?|rays?)\b|\\vec|\\overrightarrow|向量|射线", self.text) is not None

    @cached_property
    def about_percent(self) -> bool:
        return re.search(r"percent|%|百分", self.text) is not None

    @cached_property
    def about_time(self) -> bool:
        return re.search(r"\btime\b|clock|几[点时]|时刻|when\b", self.text) is not None

    @cached_property
    def about_intervals(self) -> bool:
        return (
            re.search(r"interval|inequalit|domain|range|increasing|decreasing|区间|不等式|定义域|值域|范围", self.text)
            is not None
        )


UNASKED = Question()


@lru_cache(maxsize=1024)  # a question repeats with every path
def read_question(text: str) -> Question:
    """Read the end of a question, at most ``MAX_QUESTION`` characters."""
    text = text[-MAX_QUESTION:]
    return Question(" ".join(text.casefold().split()), text)


def stem(word: str) -> str:
    """Strip the plural of a noun: boxes gives box, cherries gives cherry."""
    if len(word) < 4 or not word.endswith("s") or word.endswith("ss"):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses")) else word[:-1]
