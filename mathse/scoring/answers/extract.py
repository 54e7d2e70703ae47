"""Where a solution announces its answer, and the answer behind it."""

from __future__ import annotations

import re
from collections import deque

from mathse.scoring.answers.plain import CHARACTERS, HAN, MAX_ANSWER

MARKER = "The answer to this problem is"  # the paper's closing phrase, in its generation and reflection prompts
MAX_TEXT = 20_000  # characters of a solution that are read, counted from its end

_MARKERS = re.compile(
    r"\banswers?(?: to this problem)? (?:is|are|should be|must be|would be|=)(?![a-z])|\banswers?[*_]{0,2}:|<answer>"
    r"|\b(?:correct|right|best) (?:option|choice) is\b|(?:^|\n)####"
    r"|本题的答案是|答案应?[是为]|答案:|(?:^|[\n。;])\s*答:|故选|应选|正确的?(?:选项|答案)[是为:]"
    r"|选择?(?=[A-J](?![A-Za-z]))",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"(?:[\s:*$`=]|\\[(\[]|(?:选项|选|为|是)(?=[A-J:]))*"
)  # what may stand between a marker and its answer
# The end of the sentence; "sq. ft" is no end, and neither is the point of 3.5.
_END = re.compile(
    rf"\n|。|</answer>|(?<!\bsq)(?<!\bcu)(?<!\bapprox)[.;!?](?=\s|$|[{HAN}])|,\s?(?=[{HAN}])"
    r"|,? (?:because|since|where|which)\b",
    re.IGNORECASE,
)
_EDGES = ' \t\r*`"$'
# A point; a fraction, root, decimal, percentage or multiple of pi; "(B)", "option B"; a lone capital at the end.
_NUMBER_OR_OPTION = re.compile(
    r"(?P<point>\((?: ?-?[0-9][0-9./]{0,12} ?,){1,3} ?-?[0-9][0-9./]{0,12} ?\))"
    r"|(?P<number>(?:(?<![\w)}])-)?(?:\\[dtc]?frac\{[^{}]{1,40}\}\{[^{}]{1,40}\}|[0-9]*\\sqrt\{[^{}]{1,40}\}"
    r"|(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?:/[0-9]+)?(?:%| ?\\?pi(?![a-z]))?))"
    r"|\((?P<bracketed>[A-J])\)|\b(?:[Oo]ption|[Cc]hoice) (?P<named>[A-J])\b|(?<![\w\\])(?P<closing>[A-J])[.)]?\s*\Z"
)
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_PROSE = re.compile(r"[a-zA-Z]{3}|[=\n]")


def extract_answer(text: str) -> str | None:
    """The final answer of a solution, as written, or None.

    Of a text with ``<think>...</think>`` only what follows is read, if anything does. Taken is the first of these that
    is there: what follows the last marker phrase; the last balanced ``\\boxed{...}``; a text that is an answer and no
    more; the last number, point or option letter. A text cut off right after its last marker has no answer, and more
    than ``MAX_ANSWER`` characters are none.
    """
    text = _answering_part(text)
    announced, answer = _announced(text)
    if announced:
        return answer
    whole = text.strip().strip(_EDGES)
    if whole.rstrip(".").casefold() in ("true", "false", "yes", "no"):
        return whole.rstrip(".")
    if len(whole) <= 60 and not _PROSE.search(_COMMAND.sub("", whole)) and any(map(str.isalnum, whole)):
        return _within_bounds(whole.rstrip("."))  # no word, no equation, not only signs: "(3, -4)", "5:3", "24\\pi"
    last = _last_match(_NUMBER_OR_OPTION, text)
    return None if last is None else _within_bounds(next(group for group in last.groups() if group))


def announced_answer(text: str) -> str | None:
    """The answer behind a text's last marker phrase, or in its last box; None where it announces none."""
    return _announced(_answering_part(text))[1]


def announces(text: str) -> bool:
    """Whether a text says where its answer stands, by a marker phrase or a box."""
    return _announced(_answering_part(text))[0]


def _answering_part(text: str) -> str:
    text = text[-MAX_TEXT:].translate(CHARACTERS)
    after_thinking = text.rpartition("</think>")[2]
    return after_thinking if after_thinking.strip() else text


def _announced(text: str) -> tuple[bool, str | None]:
    """Whether an answer is announced, and which; a text that is cut off right after its last marker announces none."""
    if (end := _last_marker(text)) is not None:
        return True, answer_after(text[end:])
    boxed = boxed_answer(text)
    return boxed is not None, boxed


def _last_marker(text: str) -> int | None:
    """Where the last marker ends. The paper's phrase is searched first, which is quick; then markers behind it."""
    position = text.rfind(MARKER)
    start = position + len(MARKER) if position >= 0 else 0
    marker = _last_match(_MARKERS, text[start:])
    if marker is not None:
        return start + marker.end()
    return start if position >= 0 else None


def _last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    matches = deque(pattern.finditer(text), maxlen=1)
    return matches[0] if matches else None


def answer_after(rest: str) -> str | None:
    """The answer that ``rest``, the text behind a marker, begins with."""
    lead = _LEAD.match(rest)
    rest = rest[lead.end() if lead else 0 :]
    if (boxed := boxed_answer(rest.partition("\n")[0])) is not None:
        return boxed
    answer = _END.split(rest, maxsplit=1)[0].strip(_EDGES).rstrip(".").removesuffix("\\)").removesuffix("\\]")
    return _within_bounds(answer.strip(_EDGES))


def _within_bounds(answer: str) -> str | None:
    return answer if 0 < len(answer) <= MAX_ANSWER else None


def boxed_answer(text: str) -> str | None:
    """The content of the last non-empty \\boxed{...} whose braces balance. O(32 * MAX_ANSWER)."""
    start = len(text)
    # From the end backwards; a text of a thousand unclosed boxes must not take a thousand scans.
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
