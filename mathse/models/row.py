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
        reference: log-probabilities of accepted and rejected path under the model before the training run.
        history: earlier turns, (question, answer) each. The images then belong to its first question.
        begun: the beginning of an answer that is to be sampled.
    """

    id: NotRequired[str]
    question: str
    images: Sequence[str | Path | Image]
    response: NotRequired[str]
    begun: NotRequired[str]
    rejected: NotRequired[str]
    reference: NotRequired[tuple[float, float]]
    history: NotRequired[Sequence[tuple[str, str]]]
    marked: NotRequired[bool]


def split_pair(pair: Row) -> list[Row]:
    """Split a preference pair into two rows, accepted and rejected path; another row is returned in a list."""
    if "rejected" not in pair:
        return [pair]
    return [pair, Row(**{**pair, "response": pair["rejected"]})]


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
