"""A row: the prompt, the images and the response of one exchange with a model. This module does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from PIL.Image import Image

from mathse.data.picture_marks import MARK, without_marks


class Row(TypedDict):
    """One exchange with a model.

    Keys:
        id: name of the row in messages about rows that are left out.
        question: text of the prompt.
        images: files or pictures. If ``marked``, each is at a mark ``<image>`` of the first question of the exchange;
            otherwise all are before that question.
        response: the target text (training only); in a preference pair the accepted path.
        rejected: the rejected path of a preference pair.
        mismatched: a path of another problem, beside a judged path (update=kto); ``right``: its verdict.
        advantage: of a path in the group of its problem's paths.
        reference: log-probability of each path before the training run; of a path of a group, of each token.
        history: earlier turns, (question, answer) each. The images then belong to its first question.
        begun: the beginning of an answer that is to be sampled.
        response_ids: in place of ``response``, the token ids that an online step has sampled, the end token included if
            it was sampled; ``log_probs``: of each, as it was drawn.
        teacher_log_probs: of each of these ids, by a reference or by the teacher of self-distillation.
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


def list_row_paths(row: Row) -> list[Row]:
    """Return the paths of a row, each as a row: two of a preference pair and of a judged path with its mismatched path,
    else one."""
    other = row.get("rejected", row.get("mismatched"))
    return [row] if other is None else [row, Row(**{**row, "response": other})]


class TurnPart(NamedTuple):
    """A part of a user's turn: a picture, or a text if ``image`` is None."""

    image: Any = None
    text: str = ""


def split_turn(text: str, images: Sequence[Any], marked: bool) -> list[TurnPart]:
    """Return a turn's texts and pictures in order."""
    if not marked:
        return [*map(TurnPart, images), TurnPart(text=text)]
    first, *others = text.split(MARK)
    ordered = [TurnPart(text=first)]
    for image, following in zip(images, others, strict=True):
        ordered += [TurnPart(image), TurnPart(text=following)]
    return [part for part in ordered if part.image is not None or part.text]


def iterate_turns(row: Row) -> Iterator[tuple[list[TurnPart], str | None]]:
    """Yield the user's parts of each turn with the answer to it. The answer to the last turn is None."""
    images, marked = row["images"], row.get("marked", False)
    for question, answer in (*row.get("history", ()), (row["question"], None)):
        yield split_turn(question, images, marked), answer
        images, marked = (), False  # all images belong to the first turn


def with_pictures_first(row: Row) -> Row:
    """Return a marked row without its marks, for models that read all pictures before the text."""
    plain = row.copy()
    del plain["marked"]
    if history := row.get("history"):
        (question, answer), *later = history
        plain["history"] = [(without_marks(question), answer), *later]
    else:
        plain["question"] = without_marks(row["question"])
    return plain
