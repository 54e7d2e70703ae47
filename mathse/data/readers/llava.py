"""Conversations as LLaVA wrote them, which several sets do too.

    {"image": FILE, "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}

The question is taken out of its wrapping: image tags, hints on how to answer, and choices that stand in the text. Our
own prompts put these back in one form for all sets. Tags in the midst of a question stay, as our own marks; tags before
or behind it only say that there is a picture, which LLaVA's own training puts first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mathse.data.json_records import BadRow, kind
from mathse.data.picture_marks import MARK, count, marks_disagree
from mathse.data.readers.base import RecordOrigin, Values, found_image, tagged
from mathse.scoring.answers import MARKER, choice_index, extract_answer

# What stands around a question, in the order in which it is taken off.
_TAG = re.compile(r"\s*<image\s*\d*>\s*|\s*<ImageHere>\s*")
_PLACE = re.compile(r"<image\s*(\d*)>|<ImageHere>")
_HINT = re.compile(r"\A\s*(?:hint|提示)\s*[::][^\n]*\n+", re.IGNORECASE)
_ORDER = re.compile(  # "According to the question shown in the image, please first ... Question: ..."
    r"\A(?:[^\n]{0,300}?\n)?\s*(?:question|问题|题目)\s*[::]\s*", re.IGNORECASE
)
# Choices: their heading, the first of them, the mark of each, and what is not part of a choice's text.
_LIST = re.compile(r"\n?\s*(?:choices?|options?|选项)\s*[::]?\s*(?=\(?A[).:、.])", re.IGNORECASE)
_FIRST = re.compile(r"(?:(?<=[\s。?:))])|\A)\(?A[).:、.]\s*(?=\S)")
_OPTION = re.compile(r"(?:(?<=[\s,;,;])|\A)\(?([A-J])[).:、.]\s*")
_EDGES = re.compile(r"\A\s+|[\s,;,;]+\Z")
# Instructions at the end.
_TAIL = re.compile(r"\s*Answer with the option'?s letter[^\n]*\Z|\s*Please [^\n]*(?:letter|directly)[^\n]*\Z")
SHORT = 24  # characters beyond the answer; a longer reply is a solution


def conversation(
    name: str, values: Values, origin: RecordOrigin, folders: Sequence[str], **more: Any
) -> Iterator[dict[str, Any]]:
    """Each exchange of a record as a row. Raises BadRow for a record that holds none."""
    turns = values.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise BadRow(f'"conversations" is a list of turns, got {kind(turns)}; is this file of another set?')
    texts = []
    for turn in turns:
        text = turn.get("value", turn.get("content")) if isinstance(turn, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            raise BadRow('a turn of "conversations" is {"from", "value"} with text in it; correct the record')
        texts.append(text)
    if len(texts) < 2:
        raise BadRow('"conversations" has a question and no reply; leave the row out')
    images = [found_image(ref, origin, folders) for ref in images_of(values)]
    places = sum(count(_PLACE.sub(_mark, prompt)) for prompt in texts[::2])
    if places != len(images) and any(_in_the_midst(_PLACE.sub(_mark, prompt)) for prompt in texts[::2]):
        raise BadRow(marks_disagree(places, len(images)))
    # Turns alternate: prompt, reply, prompt, reply.
    for prompt, reply in zip(texts[::2], texts[1::2], strict=False):
        yield exchange(name, prompt, reply, images, **more)


def exchange(name: str, prompt: str, reply: str, images: Sequence[str], **more: Any) -> dict[str, Any]:
    """A prompt and its reply as a row; the reply is a solution where it says more than the answer."""
    question, choices = question_of(prompt, len(images))
    answer = extract_answer(reply)
    if answer is None:
        raise BadRow(f"no final answer in the reply ({reply.strip()[:60]!r}); leave the row out")
    if choices and (index := choice_index(answer, choices)) is not None:
        answer = chr(ord("A") + index)
    # A reply with little beyond the answer is no solution.
    bare = reply.replace(MARKER, "").replace("The answer is", "").replace("Answer:", "")
    solution = reply.strip() if len(bare.strip()) > len(answer) + SHORT else None
    return tagged(name, None, question, answer, images=images, choices=choices, solution=solution, **more)


def question_of(text: str, pictures: int = 0) -> tuple[str, list[str]]:
    """("Find x.", ["12", "13"]) of "<image>\\nHint: ...\\nQuestion: Find x.\\nChoices:\\n(A) 12\\n(B) 13".

    Where one of the tags stands in the midst of question and choices, and there is one for each of ``pictures`` in
    their order, they stay, as ``<image>``.
    """
    numbers = [number or "" for number in _PLACE.findall(text)]
    if pictures and numbers in ([""] * pictures, [str(k) for k in range(1, pictures + 1)]):
        marked = _PLACE.sub(MARK, text).strip()
        while marked.startswith(MARK):
            marked = marked.removeprefix(MARK).lstrip()
        in_front = pictures - count(marked)
        question, choices = _unwrapped(marked)
        if in_front:
            question = f"{MARK * in_front}\n{question}"
        if count(question, choices) == pictures and (count("", choices) or _in_the_midst(question)):
            return question, choices
    return _unwrapped(_TAG.sub("\n", text))


def _mark(tag: re.Match[str]) -> str:
    """Our mark for a tag without a number; one with a number may be named again and again, as a reference."""
    return "" if tag[1] else MARK


def _in_the_midst(text: str) -> bool:
    """Whether a mark has words on both of its sides."""
    before, *behind = text.split(MARK)
    return any("".join([before, *behind[:k]]).strip() and "".join(behind[k:]).strip() for k in range(len(behind)))


def _unwrapped(text: str) -> tuple[str, list[str]]:
    """Question and choices of a prompt."""
    text = _HINT.sub("", text.strip())
    text = _TAIL.sub("", _ORDER.sub("", text, count=1)).strip()
    # Options begin at "Choices:", else at the first "(A)" that others follow.
    head = _LIST.search(text) or next((m for m in _FIRST.finditer(text) if options_of(text[m.start() :])), None)
    choices = options_of(text[head.start() :].lstrip()) if head else []
    if not head or not choices:
        return text, []
    return text[: head.start()].strip(), choices


def images_of(values: Values) -> list[Any]:
    """The images a record names, one or several, or none."""
    images = values.get("image", values.get("images"))
    return [] if images in (None, "") else list(images) if isinstance(images, (list, tuple)) else [images]


def options_of(text: str) -> list[str]:
    """The texts of options A, B, ... where at least two stand there in their order, and nothing else: of "A. 3;B. 4" or
    "(A) 3 (B) 4"."""
    text = _LIST.sub("", text, count=1)
    marks = list(_OPTION.finditer(text))
    if len(marks) < 2 or marks[0].start() or [m[1] for m in marks] != list("ABCDEFGHIJ"[: len(marks)]):
        return []
    ends = [*(m.start() for m in marks[1:]), len(text)]
    options = [_EDGES.sub("", text[m.end() : end]) for m, end in zip(marks, ends, strict=True)]
    return options if all(options) else []
