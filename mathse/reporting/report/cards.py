"""Cards of problems on a page that has no paths, such as a data check's: pictures stored once.

All texts are a data set's: they pass ``with_formulas`` or ``safe``, which escape them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

from mathse.errors import MathSEError
from mathse.reporting.report.formulas import answer_with_formulas, with_formulas
from mathse.reporting.report.listing import png_size
from mathse.reporting.report.svg import safe
from mathse.types import Problem

MAX_SHOWN = 3_000  # characters of a text in a card
PICTURE_BUDGET = 1_500_000  # bytes of pictures in a page; later ones are named, not shown


@dataclass
class PagePictures:
    """Each picture of the page once, as a symbol that cards refer to."""

    image_png: Callable[[str], bytes]
    budget: int = PICTURE_BUDGET
    known: dict[str, str] = field(default_factory=dict)  # reference -> markup of a card's picture
    symbols: list[str] = field(default_factory=list)

    def show(self, ref: str) -> str:
        """The markup that shows the picture, or a sentence why it is not shown."""
        if ref not in self.known:
            self.known[ref] = self._add(ref)
        return self.known[ref]

    def defs(self) -> str:
        """The symbols: once a page, before the cards."""
        return f'<svg width="0" height="0" class="store" aria-hidden="true">{"".join(self.symbols)}</svg>'

    def _add(self, ref: str) -> str:
        try:
            png = self.image_png(ref)
            width, height = png_size(png)
        except (MathSEError, OSError, ValueError) as e:
            return f'<p class="nopic">picture not available: {_cut(str(e), 200)}</p>'
        if len(png) > self.budget:
            return f'<p class="nopic">picture left out, to keep this page small: {_cut(ref, 200)}</p>'
        self.budget -= len(png)
        name = f"pic{len(self.symbols)}"
        data = base64.b64encode(png).decode("ascii")
        self.symbols.append(
            f'<symbol id="{name}" viewBox="0 0 {width} {height}"><image width="{width}" '
            f'height="{height}" href="data:image/png;base64,{data}"/></symbol>'
        )
        return (
            f'<svg class="picture" viewBox="0 0 {width} {height}" style="width:{min(max(width, 210), 320)}px" '
            f'role="img" aria-label="the problem\'s picture"><use href="#{name}"/></svg>'
        )


def problem_card(problem: Problem, pictures: PagePictures) -> str:
    """A card of a problem alone."""
    source = f'<p class="where">{safe(problem.source)} · <code>{_cut(problem.id, 120)}</code></p>'
    return f'<article class="card">{_problem(problem, pictures)}{source}</article>'


def _problem(problem: Problem, pictures: PagePictures) -> str:
    images = "".join(pictures.show(ref) for ref in problem.images)
    choices = "".join(f"<li>{_shown(choice, 300)}</li>" for choice in problem.choices)
    drawn = f'<div class="pictures">{images}</div><p class="question">{_shown(problem.question)}</p>'
    if choices:
        drawn += f'<ol class="choices" type="A">{choices}</ol>'
    if problem.answer:
        drawn += f'<p class="reference">reference answer <b>{answer_with_formulas(problem.answer[:200])}</b></p>'
    return drawn


def _shown(text: str, most: int = MAX_SHOWN) -> str:
    """A text of a problem or a model, its formulas drawn; one that the cut goes through is shown as it was."""
    more = f" … ({len(text) - most:,} more characters)" if len(text) > most else ""
    return with_formulas(text[:most]) + more


def _cut(text: str, most: int) -> str:
    """An id, a file's path or a message, which holds no formulas."""
    return safe(text) if len(text) <= most else f"{safe(text[:most])} … ({len(text) - most:,} more characters)"
