"""Conversations: {"image": FILE, "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}.

The question is taken out of its wrapping: image tags, hints on how to answer, and choices that stand in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mathse.data.readers.base import Place, Values, found_image, tagged
from mathse.data.records import BadRow, kind
from mathse.scoring.answers import MARKER, choice_index, extract_answer

_TAG = re.compile(r"\s*<image\s*\d*>\s*|\s*<ImageHere>\s*")
_HINT = re.compile(r"\A\s*(?:hint|提示)\s*[::][^\n]*\n+", re.IGNORECASE)
_ORDER = re.compile(  # "According to the question shown in the image, please first ... Question: ..."
    r"\A(?:[^\n]{0,300}?\n)?\s*(?:question|问题|题目)\s*[::]\s*", re.IGNORECASE
)
_LIST = re.compile(r"\n?\s*(?:choices?|options?|选项)\s*[::]?\s*(?=\(?A[).:、.])", re.IGNORECASE)
_FIRST = re.compile(r"(?:(?<=[\s。?:))])|\A)\(?A[).:、.]\s*(?=\S)")
_OPTION = re.compile(r"(?:(?<=[\s,;,;])|\A)\(?([A-J])[).:、.]\s*")
_EDGES = re.compile(r"\A\s+|[\s,;,;]+\Z")
_TAIL = re.compile(r"\s*Answer with the option'?s letter[^\n]*\Z|\s*Please [^\n]*(?:letter|directly)[^\n]*\Z")
SHORT = 24  # characters beyond the answer from which a reply is a solution


def conversation(
    name: str, values: Values, place: Place, folders: Sequence[str], **more: Any
) -> Iterator[dict[str, Any]]:
    """Each exchange of a record as a row. Raises BadRow for a record that holds none."""
    turns = values.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise BadRow(f'"conversations" is a list of turns, got {kind(turns)}; is this file of another set?')
    texts = [_said(turn) for turn in turns]
    if len(texts) < 2:
        raise BadRow('"conversations" has a question and no reply; leave the row out')
    images = [found_image(ref, place, folders) for ref in images_of(values)]
    for asked, reply in zip(texts[::2], texts[1::2], strict=False):
        yield exchange(name, asked, reply, images, **more)


def exchange(name: str, asked: str, reply: str, images: Sequence[str], **more: Any) -> dict[str, Any]:
    """A question and its reply as a row; the reply is a solution where it says more than the answer."""
    question, choices = question_of(asked)
    answer = extract_answer(reply)
    if answer is None:
        raise BadRow(f"no final answer in the reply ({reply.strip()[:60]!r}); leave the row out")
    if choices and (index := choice_index(answer, choices)) is not None:
        answer = chr(ord("A") + index)
    bare = reply.replace(MARKER, "").replace("The answer is", "").replace("Answer:", "")
    solution = reply.strip() if len(bare.strip()) > len(answer) + SHORT else None
    return tagged(name, None, question, answer, images=images, choices=choices, solution=solution, **more)


def question_of(text: str) -> tuple[str, list[str]]:
    """("Find x.", ["12", "13"]) of "<image>\\nHint: ...\\nQuestion: Find x.\\nChoices:\\n(A) 12\\n(B) 13"."""
    text = _HINT.sub("", _TAG.sub("\n", text).strip())
    text = _TAIL.sub("", _ORDER.sub("", text, count=1)).strip()
    head = _LIST.search(text) or next((m for m in _FIRST.finditer(text) if _options(text[m.start() :])), None)
    choices = _options(text[head.start() :].lstrip()) if head else []
    if not head or not choices:
        return text, []
    return text[: head.start()].strip(), choices


def images_of(values: Values) -> list[Any]:
    """The images a record names, one or several, or none."""
    found = values.get("image", values.get("images"))
    return [] if found in (None, "") else list(found) if isinstance(found, (list, tuple)) else [found]


def _options(text: str) -> list[str]:
    """The texts of options A, B, ... where at least two stand there in their order, and nothing else."""
    text = _LIST.sub("", text, count=1)
    marks = list(_OPTION.finditer(text))
    if len(marks) < 2 or marks[0].start() or [m[1] for m in marks] != list("ABCDEFGHIJ"[: len(marks)]):
        return []
    ends = [*(m.start() for m in marks[1:]), len(text)]
    found = [_EDGES.sub("", text[m.end() : end]) for m, end in zip(marks, ends, strict=True)]
    return found if all(found) else []


def _said(turn: object) -> str:
    said = turn.get("value", turn.get("content")) if isinstance(turn, Mapping) else None
    if not isinstance(said, str) or not said.strip():
        raise BadRow('a turn of "conversations" is {"from", "value"} with text in it; correct the record')
    return said
