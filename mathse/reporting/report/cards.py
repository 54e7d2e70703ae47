"""The gallery's markup: a card a path, pictures stored once, filters.

All texts are a model's or a data set's: they pass ``with_formulas`` or ``safe``, which escape them.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mathse.errors import MathSEError
from mathse.reporting.report.formulas import answer_with_formulas, with_formulas
from mathse.reporting.report.gallery import GalleryItem, steps
from mathse.reporting.report.svg import safe
from mathse.scoring.metrics import first_step
from mathse.types import Problem, ReasoningPath, Verdict

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


def png_size(png: bytes) -> tuple[int, int]:
    """(width, height) in px from the header. Raises ValueError if it is no PNG."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError("not a PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def cards(groups: Mapping[str, Sequence[GalleryItem]], pictures: PagePictures) -> str:
    """The gallery's filters and cards. Without scripts all cards are shown."""
    if not groups:
        return ""
    # Pictures are taken a turn a group, so that a small budget does not all go to the first.
    for turn in range(max(map(len, groups.values()))):
        for items in groups.values():
            if turn < len(items) and (problem := items[turn].problem):
                for ref in problem.images:
                    pictures.show(ref)
    drawn = "".join(_card(item, pictures) for items in groups.values() for item in items)
    options = "".join(f'<option value="{safe(g)}">{safe(g)} ({len(items)})</option>' for g, items in groups.items())
    return f"""
<form class="filters" id="filters" hidden>
  <label>Paths of <select name="group"><option value="">every stage</option>{options}</select></label>
  <label>Verdict <select name="decision"><option value="">any</option><option>accepted</option><option>rejected</option>
    <option>unparsed</option></select></label>
  <label>Judge was <select name="judge"><option value="">right or wrong</option><option>right</option>
    <option>wrong</option></select></label>
  <label class="grow">Search
    <input type="search" name="words" placeholder="words of a question, path or critique"></label>
  <output id="shown" aria-live="polite"></output>
</form>
{pictures.defs()}<div class="cards" id="cards">{drawn}</div>"""


def problem_card(problem: Problem, pictures: PagePictures) -> str:
    """A card of a problem alone."""
    source = f'<p class="where">{safe(problem.source)} · <code>{_cut(problem.id, 120)}</code></p>'
    return f'<article class="card">{_problem(problem, pictures)}{source}</article>'


def _card(item: GalleryItem, pictures: PagePictures) -> str:
    """The problem, the path with its flagged steps, the verdict with its critique, and what it was rewritten into."""
    if item.problem is None:
        problem = f'<p class="nopic">problem <code>{_cut(item.path.problem_id, 120)}</code>: not available here</p>'
    else:
        problem = _problem(item.problem, pictures)

    verdict = '<p class="verdict">not judged</p>'
    if item.verdict is not None:
        score = "" if item.verdict.score is None else f'<span class="p">P(correct) {item.verdict.score:.2f}</span>'
        truth = {True: '<span class="ok">judge right</span>', False: '<span class="off">judge wrong</span>', None: ""}
        step = f", names {_cut(item.verdict.error_step, 60)}" if item.verdict.error_step else ""
        verdict = (
            f'<p class="verdict"><span><b class="{item.decision}">{item.decision}</b>{step}</span>'
            f"{truth[item.judge_right]}{score}</p>" + _critique(item.verdict)
        )

    rewrite, reflection = "", item.reflection
    if reflection is not None and item.path.id == reflection.revised.id:
        critique = _critique(reflection.feedback) if reflection.feedback else ""
        draft = _path(reflection.draft, reflection.feedback)
        rewrite = f"<details><summary>the draft it rewrites</summary>{draft}{critique}</details>"
    elif reflection is not None:
        became = f", {item.reflection_decision}" if item.reflection_decision else ""
        revised = _path(reflection.revised, None)
        rewrite = f"<details><summary>reflection: its rewrite{became}</summary>{revised}</details>"

    judge = {True: "right", False: "wrong", None: ""}[item.judge_right]
    return (
        f'<article class="card" data-group="{safe(item.group)}" data-decision="{item.decision or ""}" '
        f'data-judge="{judge}">{problem}{_path(item.path, item.verdict, item.label)}{verdict}{rewrite}'
        f'<p class="where">{safe(item.group)} · <code>{_cut(item.path.id, 120)}</code></p></article>'
    )


def _problem(problem: Problem, pictures: PagePictures) -> str:
    images = "".join(pictures.show(ref) for ref in problem.images)
    choices = "".join(f"<li>{_shown(choice, 300)}</li>" for choice in problem.choices)
    drawn = f'<div class="pictures">{images}</div><p class="question">{_shown(problem.question)}</p>'
    if choices:
        drawn += f'<ol class="choices" type="A">{choices}</ol>'
    if problem.answer:
        drawn += f'<p class="reference">reference answer <b>{answer_with_formulas(problem.answer[:200])}</b></p>'
    return drawn


def _path(path: ReasoningPath, verdict: Verdict | None, label: Verdict | None = None) -> str:
    """A path step by step; flagged are the step that the judge names and, where there is a label, the first wrong."""
    named = first_step(verdict.error_step) if verdict and verdict.status == "wrong" else None
    wrong = first_step(label.error_step) if label and label.status == "wrong" else None
    lines, room = [], MAX_SHOWN  # characters
    for number, text in steps(path.text):
        if room <= 0:
            lines.append("<li>…</li>")
            break
        flags = []
        if number is not None and number == named:
            flags.append("named by the judge")
        if number is not None and number == wrong:
            flags.append("first wrong step")
        flag = f'<span class="flag">{" · ".join(flags)}</span>' if flags else ""
        look = ' class="named"' if flags and number == named else ' class="true"' if flags else ""
        lines.append(f"<li{look}>{_shown(text, room)}{flag}</li>")
        room -= len(text)
    return f'<ol class="steps">{"".join(lines) or "<li><i>an empty path</i></li>"}</ol>'


def _critique(verdict: Verdict) -> str:
    text = verdict.error_analysis or (verdict.raw if verdict.status == "unparsed" else None)
    by = f" by {safe(verdict.judge)}" if verdict.judge else ""
    return f'<details><summary>critique{by}</summary><p class="words">{_shown(text)}</p></details>' if text else ""


def _shown(text: str, most: int = MAX_SHOWN) -> str:
    """A text of a problem or a model, its formulas drawn; one that the cut goes through is shown as it was."""
    more = f" … ({len(text) - most:,} more characters)" if len(text) > most else ""
    return with_formulas(text[:most]) + more


def _cut(text: str, most: int) -> str:
    """An id, a file's path or a message, which holds no formulas."""
    return safe(text) if len(text) <= most else f"{safe(text[:most])} … ({len(text) - most:,} more characters)"
