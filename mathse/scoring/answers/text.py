"""Short answers in words: "the heart" is "heart", "H_2O" is "H2O", "(C) sulfur" is "Sulfur".

Mathematics has other rules: there "the heart" and "heart" would be two names, and H_2O is not H2O.
"""

from __future__ import annotations

import re
import unicodedata

from mathse.scoring.answers.plain import plain

_ARTICLE = re.compile(r"^(?:the |an (?=[a-z]{2})|a (?=[a-z]{2}))")  # "a cell" is "cell", "a b" are two names
_SIGNS = re.compile(r"[_{}$*`\"'“”‘’]")  # of subscripts, LaTeX, Markdown and quotations
_APART = re.compile(r"[,;:!?()\[\]/。，；：！？（）、-]+")  # what parts words as a blank does
_COUNT_OR_FORMULA = re.compile(r"[0-9]")
_SEPARATOR = re.compile(r"\s*(?:[,;、，；]|\band\b|和)\s*")
_NUMBER_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}


def bare(text: str) -> str:
    """A short text without what says nothing: case, articles in front, quotes, subscripts' signs, typography.

    In a text with digits the signs between them stay: -5 is not 5, and 1/2 not 12.
    """
    text = _SIGNS.sub("", plain(unicodedata.normalize("NFKC", text)).casefold())
    if not _COUNT_OR_FORMULA.search(text):
        text = _APART.sub(" ", text)
    text = " ".join(text.split()).rstrip(".")
    return _ARTICLE.sub("", text)


def same_text(left: str, right: str) -> bool:
    """Whether two short texts say the same; an empty one says nothing."""
    one = bare(left)
    return one != "" and one == bare(right)


def items(text: str) -> list[str]:
    """The items of a list: "[red, green and 1,200]" -> red, green, 1,200."""
    text = text.strip()
    if _BRACKETS.get(text[:1]) == text[-1:]:
        text = text[1:-1]
    parts = _SEPARATOR.split(_NUMBER_COMMA.sub("\0", text))
    return [part.replace("\0", ",").strip() for part in parts if part.strip()]
