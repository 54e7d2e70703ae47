"""The language of a problem. There is one rule, so that a row is tagged with the language its prompt is written in."""

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
    """ "zh" where Chinese characters outnumber words of Latin letters; else "en" or, where most letters are of another
    script, "other". A text without letters counts as English.

    Words, because formulas are full of letters: "如图，在△ABC中，AB=3" has four characters and two words. LaTeX
    commands and single letters are no words. A question that mixes the two, such as "What does the sign 大 mean?",
    is taken for the language of its larger part. The prompt around it must be in that language, so the prompts use this
    rule too, and the choices count as they do in the prompt.
    """
    text = without_marks("\n".join([question, *choices]))
    latin_words = sum(not match.startswith("\\") for match in _WORD.findall(text))
    if len(_HAN.findall(text)) > latin_words:
        return "zh"
    # Formulas and names apart, are most letters Latin ones?
    letters = _COMMAND.sub(" ", text)
    return "en" if 2 * len(_LATIN.findall(letters)) >= len(_LETTER.findall(letters)) else "other"
