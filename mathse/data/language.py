"""In which language a problem is asked. There is one rule, so that a row is tagged with the language of its prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

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
    is read by whoever reads the larger part; a prompt around it must be in that language, so this is the prompts' rule,
    and the choices count as they stand in the prompt.
    """
    text = "\n".join([question, *choices])
    words = sum(not word.startswith("\\") for word in _WORD.findall(text))
    if len(_HAN.findall(text)) > words:
        return "zh"
    letters = _COMMAND.sub(" ", text)
    return "en" if 2 * len(_LATIN.findall(letters)) >= len(_LETTER.findall(letters)) else "other"
