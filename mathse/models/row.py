"""What a model is shown in one exchange. It stands apart from the backbones so that rows can be made without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from PIL.Image import Image

from mathse.data.picture_marks import MARK, without_marks


class Row(TypedDict):
    """One exchange: ``question`` is the prompt text, ``response`` what the model should say (training only).

    ``history`` holds earlier turns, (question, answer) each; the images then belong to its first question. ``marked``:
    they stand where that question has its marks ``<image>``, one each; else all of them stand before it. ``id`` names
    the row where one is left out. ``begun`` is how an answer to be sampled begins.

    Rows of updates other than SFT have more (mathse/training/updates). Of a pair to prefer by, ``response`` is the
    accepted path and ``rejected`` the other. A judged path has its verdict ``right`` and ``mismatched``, a path of
    another problem; a path of a group has its ``advantage``. ``reference`` has the log-probability of each path before
    the first step, of a path of a group that of each token.

    A response that an online step has sampled has ``response_ids`` in place of ``response``: the sampled token ids, the
    end token included if it was sampled, with ``log_probs``, the log-probability of each as it was drawn.
    ``teacher_log_probs``: of each id by a reference or by the teacher of self-distillation.
    """

    id: NotRequired[str]
    question: str
    images: Sequence[str | Path | Image]
    response: NotRequired[str]
    begun: NotRequired[str]
    rejected: NotRequired[str]
    mismatched: NotRequired[str]
    right: NotRequired[bool]
    advantage: NotRequired[float]
    reference: NotRequired[tuple[Any, ...]]
    history: NotRequired[Sequence[tuple[str, str]]]
    marked: NotRequired[bool]
    response_ids: NotRequired[Sequence[int]]
    log_probs: NotRequired[Sequence[float]]
    teacher_log_probs: NotRequired[Sequence[float]]


def paths_of(row: Row) -> list[Row]:
    """The paths of a row, each as a row: two of a pair and of a judged path with its mismatched path, else one."""
    other = row.get("rejected", row.get("mismatched"))
    return [row] if other is None else [row, Row(**{**row, "response": other})]


class Part(NamedTuple):
    """Of what the user says in a turn: a picture, or where that is None a text."""

    image: Any = None
    text: str = ""


def parts(text: str, images: Sequence[Any], marked: bool) -> list[Part]:
    """A turn's text and pictures in order."""
    if not marked:
        return [*map(Part, images), Part(text=text)]
    first, *others = text.split(MARK)
    ordered = [Part(text=first)]
    for image, following in zip(images, others, strict=True):
        ordered += [Part(image), Part(text=following)]
    return [part for part in ordered if part.image is not None or part.text]


def turns(row: Row) -> Iterator[tuple[list[Part], str | None]]:
    """What the user says in each turn, and the answer to it; None behind the last, which is to be answered."""
    images, marked = row["images"], row.get("marked", False)
    for question, answer in (*row.get("history", ()), (row["question"], None)):
        yield parts(question, images, marked), answer
        images, marked = (), False  # they belong to the first turn


def with_pictures_first(row: Row) -> Row:
    """A marked row without its marks, for models that read pictures before all text."""
    plain = row.copy()
    del plain["marked"]
    if history := row.get("history"):
        (question, answer), *later = history
        plain["history"] = [(without_marks(question), answer), *later]
    else:
        plain["question"] = without_marks(row["question"])
    return plain
