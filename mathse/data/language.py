"""The language of a problem, by the same rule for its tag and for its prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from mathse.data.picture_marks import without_marks

Language = Literal["en", "zh", "other"]

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_WORD = re.compile(r"\\[a-zA-Z]+|[a-zA-Z]{2,}")  # a LaTeX command, or a word; single letters are names
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LATIN = re.compile(r"[A-Za-z]")
_LETTER = re.compile(r"[^\W\d_]")


def language(question: str, choices: Sequence[str] = ()) -> Language:
    """Detect the language: "zh" if Chinese characters outnumber words of Latin letters, "other" if most letters belong
    to another script, else "en". A text without letters counts as English.

    Words count, and not letters, because formulas are full of letters: "如图，在△ABC中，AB=3" has four characters and
    two words. LaTeX commands and single letters are no words. A mixed question such as "What does the sign 大 mean?"
    has the language of its larger part. The choices count too, because the prompt shows them.
    """
    text = without_marks("\n".join([question, *choices]))
    latin_words = sum(not match.startswith("\\") for match in _WORD.findall(text))
    if len(_HAN.findall(text)) > latin_words:
        return "zh"
    # Without LaTeX commands, most letters of an English text are Latin.
    letters = _COMMAND.sub(" ", text)
    return "en" if 2 * len(_LATIN.findall(letters)) >= len(_LETTER.findall(letters)) else "other"
