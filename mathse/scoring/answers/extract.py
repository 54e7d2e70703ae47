"""Extraction of the final answer of a solution: from its announcement, its last box, or its last number or option."""

from __future__ import annotations

import re
from collections import deque

from mathse.scoring.answers.plain import CHARACTERS, HAN, MAX_ANSWER

MARKER = "The answer to this problem is"  # the paper's closing phrase, in its generation and reflection prompts
MAX_TEXT = 20_000  # characters of a solution that are read, counted from the end

_MARKERS = re.compile(
    r"\banswers?(?: to this problem)? (?:is|are|should be|must be|would be|=)(?![a-z])|\banswers?[*_]{0,2}:|<answer>"
    r"|\b(?:correct|right|best) (?:option|choice) is\b|(?:^|\n)####"
    r"|本题的答案是|答案应?[是为]|答案:|(?:^|[\n。;])\s*答:|故选|应选|正确的?(?:选项|答案)[是为:]"
    r"|选择?(?=[A-J](?![A-Za-z]))",
    re.IGNORECASE,
)
# Signs between a marker and its answer.
_LEAD = re.compile(r"(?:[\s:*$`=]|\\[(\[]|(?:选项|选|为|是)(?=[A-J:]))*")
# The end of the sentence. The points of "sq. ft" and 3.5 are no end.
_END = re.compile(
    rf"\n|。|</answer>|(?<!\bsq)(?<!\bcu)(?<!\bapprox)[.;!?](?=\s|$|[{HAN}])|,\s?(?=[{HAN}])"
    r"|,? (?:because|since|where|which)\b",
    re.IGNORECASE,
)
_EDGES = ' \t\r*`"$'
# A point; a fraction, root, decimal, percentage or multiple of pi; "(B)", "option B"; a single capital at the end.
_NUMBER_OR_OPTION = re.compile(
    r"(?P<point>\((?: ?-?[0-9][0-9./]{0,12} ?,){1,3} ?-?[0-9][0-9./]{0,12} ?\))"
    r"|(?P<number>(?:(?<![\w)}])-)?(?:\\[dtc]?frac\{[^{}]{1,40}\}\{[^{}]{1,40}\}|[0-9]*\\sqrt\{[^{}]{1,40}\}"
    r"|(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?(?:%| ?\\?pi(?![a-z]))?))"
    r"|\((?P<bracketed>[A-J])\)|\b(?:[Oo]ption|[Cc]hoice) (?P<named>[A-J])\b|(?<![\w\\])(?P<closing>[A-J])[.)]?\s*\Z"
)
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_PROSE = re.compile(r"[a-zA-Z]{3}|[=\n]")


def extract_answer(text: str) -> str | None:
    """Extract the final answer of a solution as written, or None.

    Thoughts in ``<think>...</think>`` are skipped if text follows them. The first of these rules that applies gives the
    answer: the text behind the last marker phrase; the last balanced ``\\boxed{...}``; the whole text if it is short
    and has no words; the last number, point or option letter. A text that breaks off behind its last marker has no
    answer, and a text of more than ``MAX_ANSWER`` characters is no answer.
    """
    text = _cut_thinking(text)
    announced, answer = _find_announced(text)
    if announced:
        return answer
    whole = text.strip().strip(_EDGES)
    if whole.rstrip(".").casefold() in ("true", "false", "yes", "no"):
        return whole.rstrip(".")
    # No word, no equation, not only signs: "(3, -4)", "5:3", "24\\pi".
    if len(whole) <= 60 and not _PROSE.search(_COMMAND.sub("", whole)) and any(map(str.isalnum, whole)):
        return _limit_length(whole.rstrip("."))
    last = _find_last_match(_NUMBER_OR_OPTION, text)
    return None if last is None else _limit_length(next(group for group in last.groups() if group))


def announced_answer(text: str) -> str | None:
    """Extract the answer behind the last marker phrase or in the last box; None for a text without both."""
    return _find_announced(_cut_thinking(text))[1]


def announces(text: str) -> bool:
    """Whether a text announces its answer by a marker phrase or a box."""
    return _find_announced(_cut_thinking(text))[0]


def _cut_thinking(text: str) -> str:
    text = text[-MAX_TEXT:].translate(CHARACTERS)
    after_thinking = text.rpartition("</think>")[2]
    return after_thinking if after_thinking.strip() else text


def _find_announced(text: str) -> tuple[bool, str | None]:
    """Find whether a text announces an answer, and the answer: None if the text breaks off behind its last marker."""
    if (end := _find_last_marker(text)) is not None:
        return True, answer_after(text[end:])
    boxed = boxed_answer(text)
    return boxed is not None, boxed


def _find_last_marker(text: str) -> int | None:
    """Find the end of the last marker: first the paper's phrase, by a fast search, then other markers behind it."""
    position = text.rfind(MARKER)
    start = position + len(MARKER) if position >= 0 else 0
    marker = _find_last_match(_MARKERS, text[start:])
    if marker is not None:
        return start + marker.end()
    return start if position >= 0 else None


def _find_last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    matches = deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None


def answer_after(rest: str) -> str | None:
    """Extract the answer at the beginning of ``rest``, the text behind a marker."""
    lead = _LEAD.match(rest)
    rest = rest[lead.end() if lead else 0 :]
    if (boxed := boxed_answer(rest.partition("\n")[0])) is not None:
        return boxed
    answer = _END.split(rest, maxsplit=1)[0].strip(_EDGES).rstrip(".").removesuffix("\\)").removesuffix("\\]")
    return _limit_length(answer.strip(_EDGES))


def _limit_length(answer: str) -> str | None:
    return answer if 0 < len(answer) <= MAX_ANSWER else None


def boxed_answer(text: str) -> str | None:
    """Extract the content of the last non-empty \\boxed{...} with balanced braces, in O(32 * MAX_ANSWER) steps."""
    start = len(text)
    # Scan from the end backwards, at most 32 boxes: a text may have thousands of unclosed boxes.
    for _ in range(32):
        start = text.rfind("\\boxed{", 0, start)
        if start < 0:
            return None
        inside = text[start + len("\\boxed{") :][:MAX_ANSWER]
        depth = 1
        for end, character in enumerate(inside):
            depth += (character == "{") - (character == "}")
            if depth == 0:
                if content := inside[:end].strip(_EDGES):
                    return content
                break
    return None
