"""What a model is shown in one exchange. It stands apart from the backbones so that rows can be made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from PIL.Image import Image


class Row(TypedDict):
    """One exchange: ``question`` is the prompt text, ``response`` what the model should say (training only).

    ``history`` holds earlier turns, (question, answer) each; the images then belong to its first question. ``id`` names
    the row where one is left out.
    """

    id: NotRequired[str]
    question: str
    images: Sequence[str | Path | Image]
    response: NotRequired[str]
    history: NotRequired[Sequence[tuple[str, str]]]
