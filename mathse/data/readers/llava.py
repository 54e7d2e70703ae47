"""The conversation format of LLaVA, which several sets use.

    {"image": FILE, "conversations": [{"from": "human", "value": ...}, {"from": "gpt", "value": ...}]}

A question comes without its wrapping: image tags, hints on how to answer, and choices inside the text. Our own prompts
put these back in the same form for all sets. A tag between the words of a question stays, as our own mark. A tag before
or behind the question only announces a picture, which LLaVA's own training puts first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mathse.data.json_records import BadRow, kind
from mathse.data.picture_marks import MARK, count, marks_disagree
from mathse.data.readers.base import RecordOrigin, Values, find_image, make_row
from mathse.scoring.answers import MARKER, choice_index, extract_answer

# The wrapping of a question, in the order of its removal.
_TAG = re.compile(r"\s*<image\s*\d*>\s*|\s*<ImageHere>\s*")
_PLACE = re.compile(r"<image\s*(\d*)>|<ImageHere>")
_HINT = re.compile(r"\A\s*(?:hint|提示)\s*[::][^\n]*\n+", re.IGNORECASE)
_ORDER = re.compile(  # "According to the question shown in the image, please first ... Question: ..."
    r"\A(?:[^\n]{0,300}?\n)?\s*(?:question|问题|题目)\s*[::]\s*", re.IGNORECASE
)
# Choices: their heading, the first choice, the mark before each choice, and the signs around a choice's text.
_LIST = re.compile(r"\n?\s*(?:choices?|options?|选项)\s*[::]?\s*(?=\(?A[).:、.])", re.IGNORECASE)
_FIRST = re.compile(r"(?:(?<=[\s。?:))])|\A)\(?A[).:、.]\s*(?=\S)")
_OPTION = re.compile(r"(?:(?<=[\s,;,;])|\A)\(?([A-J])[).:、.]\s*")
_EDGES = re.compile(r"\A\s+|[\s,;,;]+\Z")
# Instructions at the end.
_TAIL = re.compile(r"\s*Answer with the option'?s letter[^\n]*\Z|\s*Please [^\n]*(?:letter|directly)[^\n]*\Z")


def read_conversation(
    name: str, values: Values, origin: RecordOrigin, folders: Sequence[str], **more: Any
) -> Iterator[dict[str, Any]]:
    """Yield a row for each exchange of a record. Raises BadRow for a record without an exchange."""
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

    # A tag without a number marks the place of a picture. A numbered tag may be repeated as a reference to it.
    images = [find_image(ref, origin, folders) for ref in images_of(values)]
    marked = [_PLACE.sub(lambda tag: "" if tag[1] else MARK, prompt) for prompt in texts[::2]]
    places = sum(map(count, marked))
    if places != len(images) and any(map(_has_words_around_a_mark, marked)):
        raise BadRow(marks_disagree(places, len(images)))

    # Turns alternate: prompt, reply, prompt, reply.
    for prompt, reply in zip(texts[::2], texts[1::2], strict=False):
        yield make_exchange_row(name, prompt, reply, images, **more)


def make_exchange_row(name: str, prompt: str, reply: str, images: Sequence[str], **more: Any) -> dict[str, Any]:
    """Make a row of a prompt and its reply; the reply is a solution if it holds more than the answer."""
    question, choices = question_of(prompt, len(images))
    answer = extract_answer(reply)
    if answer is None:
        raise BadRow(f"no final answer in the reply ({reply.strip()[:60]!r}); leave the row out")
    if choices and (index := choice_index(answer, choices)) is not None:
        answer = chr(ord("A") + index)
    # A reply with at most 24 characters beyond the answer is no solution.
    bare = reply.replace(MARKER, "").replace("The answer is", "").replace("Answer:", "")
    solution = reply.strip() if len(bare.strip()) > len(answer) + 24 else None
    return make_row(name, None, question, answer, images=images, choices=choices, solution=solution, **more)


def question_of(text: str, pictures: int = 0) -> tuple[str, list[str]]:
    """Split a prompt into its question and choices.

    ("Find x.", ["12", "13"]) for "<image>\\nHint: ...\\nQuestion: Find x.\\nChoices:\\n(A) 12\\n(B) 13".

    The tags stay, as ``<image>``, if a tag lies between words of the question or in the choices, and there is a tag for
    each of ``pictures`` in their order.
    """
    numbers = [number or "" for number in _PLACE.findall(text)]
    if pictures and numbers in ([""] * pictures, [str(k) for k in range(1, pictures + 1)]):
        marked = _PLACE.sub(MARK, text).strip()
        while marked.startswith(MARK):
            marked = marked.removeprefix(MARK).lstrip()
        in_front = pictures - count(marked)
        question, choices = _unwrap(marked)
        if in_front:
            question = f"{MARK * in_front}\n{question}"
        in_choices = count("", choices) > 0
        if count(question, choices) == pictures and (in_choices or _has_words_around_a_mark(question)):
            return question, choices
    return _unwrap(_TAG.sub("\n", text))


def _has_words_around_a_mark(text: str) -> bool:
    """Whether a mark has words on both of its sides."""
    before, *behind = text.split(MARK)
    return any("".join([before, *behind[:k]]).strip() and "".join(behind[k:]).strip() for k in range(len(behind)))


def _unwrap(text: str) -> tuple[str, list[str]]:
    """Take question and choices out of a prompt without tags."""
    text = _HINT.sub("", text.strip())
    text = _TAIL.sub("", _ORDER.sub("", text, count=1)).strip()
    # Choices begin at "Choices:", else at the first "(A)" that other choices follow.
    head = _LIST.search(text) or next((m for m in _FIRST.finditer(text) if options_of(text[m.start() :])), None)
    choices = options_of(text[head.start() :].lstrip()) if head else []
    if not head or not choices:
        return text, []
    return text[: head.start()].strip(), choices


def images_of(values: Values) -> list[Any]:
    """List the images that a record names: several, a single path, or none."""
    images = values.get("image", values.get("images"))
    if images in (None, ""):
        return []
    return list(images) if isinstance(images, (list, tuple)) else [images]


def options_of(text: str) -> list[str]:
    """Read the options of "A. 3;B. 4" or "(A) 3 (B) 4".

    Returns [] unless the text is a list of at least two options, in the order of their letters, and nothing else.
    """
    text = _LIST.sub("", text, count=1)
    marks = list(_OPTION.finditer(text))
    if len(marks) < 2 or marks[0].start() or [m[1] for m in marks] != list("ABCDEFGHIJ"[: len(marks)]):
        return []
    ends = [*(m.start() for m in marks[1:]), len(text)]
    options = [_EDGES.sub("", text[m.end() : end]) for m, end in zip(marks, ends, strict=True)]
    return options if all(options) else []
