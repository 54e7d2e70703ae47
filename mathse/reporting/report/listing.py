"""Paths and test answers as data that a page's script lists, filters, sorts and draws.

A run may have a hundred thousand paths. One index holds the numbers by which they are filtered and sorted; parts of
moderate size hold the texts and pictures, and the script loads a part when it shows one of its paths. A part is a call
of ``mathse(name, value)`` in a file of its own: a page opened from a disk may load a script, but fetch nothing.

A text is a list of strings, which the script shows as text, and of numbers of formulas. Formulas are markup, which
``formulas`` writes from known elements only; no other text of a model or a data set becomes markup.
"""

from __future__ import annotations

import base64
import json
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mathse.data.domains import domain_of
from mathse.data.domains.domain import MAX_PATH_CHARS
from mathse.errors import MathSEError
from mathse.reporting.charts import printable
from mathse.reporting.formulas import split_answer, split_formulas
from mathse.reporting.report.gallery import GalleryItem
from mathse.runs.store import make_folder, publish_folder
from mathse.scoring.metrics import first_step
from mathse.types import Problem, ReasoningPath, Verdict

PART = 400_000  # characters of a part, about
MAX_ROWS = 100_000  # of a group; the page gives the number of further rows
MAX_FORMULAS = 20_000  # converted for one listing: half a minute or so; later ones stay as they are written
PICTURES_BESIDE, PICTURES_INSIDE = 200_000_000, 1_500_000  # bytes of pictures beside a page, and in it
NOT_FITTING = 20  # pictures in a row for which there was no room left: no further one is read
SHORT = 3_000  # characters of a text in the page itself
NAMED, FIRST_WRONG = 1, 2  # of a step: the judge names it; the label says that it is the first wrong one
DECISIONS = ("accepted", "rejected", "unparsed")  # by their numbers in the index
KIND = ("kind", "subject", "category")  # where data sources write what kind of problem one is

Text = list[str | int]
Write = Callable[[str, str], None]  # (name of a part, its value as JSON)


class Listing:
    """Takes items one at a time and gives away each part as soon as it is full: ``write(name, JSON)``.

    ``stamp``: that of the run in its present state; a page refuses parts of another. ``image_png(reference)`` may raise
    MathSEError. ``most``: characters of a text.
    """

    def __init__(
        self,
        stamp: str,
        write: Write,
        image_png: Callable[[str], bytes],
        pictures: int = PICTURES_BESIDE,
        most: int = MAX_PATH_CHARS,
    ) -> None:
        self._stamp, self._image_png, self._most = stamp, image_png, most
        self._picture_budget, self._formula_budget = pictures, MAX_FORMULAS
        self._not_fitting = 0  # pictures in a row that had no room
        self._rows, self._problems = Parts("rows", stamp, write), Parts("problems", stamp, write)
        self._groups: dict[str, dict[str, Any]] = {}
        self._kinds: dict[str, int] = {}
        self._origins: dict[str, int] = {}
        self._numbers: dict[str, int] = {}  # of the problems, by id
        self._kind_of_problem: list[int] = []
        self._columns: dict[str, list[Any]] = {
            name: [] for name in ("problem", "group", "decision", "right", "origin", "score")
        }

    def add(self, item: GalleryItem) -> None:
        group = self._groups.setdefault(
            item.group, {"title": item.group, "student": item.student, "number": len(self._groups), "all": 0, "rows": 0}
        )
        group["all"] += 1
        if group["rows"] == MAX_ROWS:
            return
        group["rows"] += 1
        origin, score = item.path.lineage.origin, item.verdict.score if item.verdict else None
        row = {
            "problem": self._problem(item),
            "group": group["number"],
            "decision": DECISIONS.index(item.decision) if item.decision else -1,
            "right": -1 if item.right is None else int(item.right),
            "origin": self._origins.setdefault(origin, len(self._origins)),
            "score": None if score is None else round(score, 4),
        }
        for name, value in row.items():
            self._columns[name].append(value)
        self._rows.add(self._row(item))

    def index(self) -> dict[str, Any]:
        """Return the index of all rows. Call it after the last row."""
        return {
            "stamp": self._stamp,
            "groups": list(self._groups.values()),
            "kinds": list(self._kinds),
            "origins": list(self._origins),
            "problems": list(self._numbers),
            "kind": self._kind_of_problem,
            **self._columns,
            "parts": {"rows": self._rows.finish(), "problems": self._problems.finish()},
        }

    # --- a row ---

    def _row(self, item: GalleryItem) -> dict[str, Any]:
        """The path with its flagged steps, the verdict with its critique, and what it was rewritten into."""
        row: dict[str, Any] = {
            "id": printable(item.path.id),
            "steps": self._steps(item, item.path, item.verdict, item.label),
        }
        if item.verdict is not None:
            row["names"] = printable((item.verdict.error_step or "")[:60])
            row["critique"] = self._critique(item.verdict)
        reflection = item.reflection
        if reflection is not None and item.path.id == reflection.revised.id:
            row["also"] = {
                "title": "the draft it rewrites",
                "steps": self._steps(item, reflection.draft, reflection.feedback),
                "critique": self._critique(reflection.feedback) if reflection.feedback else None,
            }
        elif reflection is not None:
            became = f", {item.reflection_decision}" if item.reflection_decision else ""
            row["also"] = {
                "title": f"reflection: its rewrite{became}",
                "steps": self._steps(item, reflection.revised, None),
                "critique": None,
            }
        return row

    def _steps(
        self, item: GalleryItem, path: ReasoningPath, verdict: Verdict | None, label: Verdict | None = None
    ) -> list[Any]:
        """[flags, text] of each step."""
        named = first_step(verdict.error_step) if verdict and verdict.status == "wrong" else None
        wrong = first_step(label.error_step) if label and label.status == "wrong" else None
        drawn: list[Any] = []
        room = self._most  # characters
        for number, text in domain_of(item.problem).steps(path.text):
            if room <= 0:
                drawn.append([0, ["…"]])
                break
            flags = NAMED * (number is not None and number == named)
            flags |= FIRST_WRONG * (number is not None and number == wrong)
            drawn.append([flags, self._text(text, self._rows, room)])
            room -= len(text)
        return drawn

    def _critique(self, verdict: Verdict) -> list[Any] | None:
        """[who wrote it, text]"""
        text = verdict.error_analysis or (verdict.raw if verdict.status == "unparsed" else None)
        return [printable(verdict.judge or ""), self._text(text, self._rows, self._most)] if text else None

    # --- a problem ---

    def _problem(self, item: GalleryItem) -> int:
        """Its number; new ones are written."""
        problem_id = printable(item.path.problem_id)
        if problem_id not in self._numbers:
            self._numbers[problem_id] = len(self._numbers)
            kind = printable(kind_of(item.problem))
            self._kind_of_problem.append(self._kinds.setdefault(kind, len(self._kinds)))
            self._problems.add(self._described(item.problem) if item.problem else None)
        return self._numbers[problem_id]

    def _described(self, problem: Problem) -> dict[str, Any]:
        return {
            "question": self._text(problem.question, self._problems, self._most),
            "choices": [self._text(choice, self._problems, 300) for choice in problem.choices],
            "answer": self._typed(split_answer(problem.answer[:200]), self._problems),
            "source": printable(problem.source),
            "pictures": [self._picture(ref) for ref in problem.images],
        }

    def _picture(self, ref: str) -> dict[str, Any]:
        left_out = {"missing": f"picture left out, to keep this page small: {printable(ref[:200])}"}
        if self._not_fitting == NOT_FITTING:
            return left_out
        try:
            png = self._image_png(ref)
            width, height = png_size(png)
        except (MathSEError, OSError, ValueError) as e:
            return {"missing": f"picture not available: {printable(str(e)[:200])}"}
        if len(png) > self._picture_budget:
            self._not_fitting += 1
            return left_out
        self._not_fitting = 0
        self._picture_budget -= len(png)
        return {"width": width, "height": height, "png": base64.b64encode(png).decode("ascii")}

    # --- a text ---

    def _text(self, text: str, part: Parts, most: int) -> Text:
        """A text of a problem or a model; one that the cut goes through is shown as it was."""
        typed = self._typed(split_formulas(text[:most]) if self._formula_budget else [(text[:most], None)], part)
        return [*typed, f" … ({len(text) - most:,} more characters)"] if len(text) > most else typed

    def _typed(self, drawn: Iterable[tuple[str, str | None]], part: Parts) -> Text:
        typed: Text = []
        for source, formula in drawn:
            if formula is not None:
                number, is_new = part.formula(formula)
                self._formula_budget -= is_new and self._formula_budget > 0
                typed.append(number)
            elif source:
                typed.append(printable(source))
        return typed


class Parts:
    """Values numbered from 0, cut into parts; each part has the formulas of its texts."""

    def __init__(self, name: str, stamp: str, write: Write) -> None:
        self._name, self._stamp, self._write = name, stamp, write
        self._starts: list[int] = []  # the first value's number of each part that has been written
        self._next = 0
        self._values: list[str] = []  # as JSON
        self._formulas: dict[str, int] = {}
        self._size = 0

    def formula(self, markup: str) -> tuple[int, bool]:
        """Its number in the part that is being filled, and whether it is new in it."""
        is_new = markup not in self._formulas
        if is_new:
            self._size += len(markup)
        return self._formulas.setdefault(markup, len(self._formulas)), is_new

    def add(self, value: Any) -> None:
        self._values.append(script_json(value))
        self._size += len(self._values[-1])
        if self._size >= PART:
            self._flush()

    def finish(self) -> list[int]:
        """The number of each part's first value."""
        if self._values:
            self._flush()
        return self._starts

    def _flush(self) -> None:
        name = f"{self._name}_{len(self._starts):04d}"
        rest = f'"stamp":{script_json(self._stamp)},"formulas":{script_json(list(self._formulas))}'
        self._write(name, f'{{"values":[{",".join(self._values)}],{rest}}}')
        self._starts.append(self._next)
        self._next += len(self._values)
        self._values, self._formulas, self._size = [], {}, 0


@contextmanager
def parts_beside(page: Path) -> Iterator[Write]:
    """Give a function that writes a page's parts. Their folder appears beside the page, complete, at the end."""
    folder = parts_folder(page)
    aside = folder.with_name(f".{folder.name}.making")
    shutil.rmtree(aside, ignore_errors=True)
    make_folder(aside)

    def write(name: str, value: str) -> None:
        (aside / f"{name}.js").write_text(f"mathse({json.dumps(name)},{value});\n", encoding="ascii")

    try:
        yield write
        publish_folder(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def parts_folder(page: Path) -> Path:
    """Beside ``report.html`` the folder ``report_parts``."""
    return page.with_name(f"{page.stem}_parts")


def listing_inside(
    groups: Mapping[str, Iterable[GalleryItem]], image_png: Callable[[str], bytes], stamp: str = ""
) -> Markup:
    """A listing inside the page itself, as JSON that may be markup: {"index": ..., name of a part: the part}."""
    inside: dict[str, str] = {}
    listing = Listing(stamp, inside.__setitem__, image_png, PICTURES_INSIDE, SHORT)
    for item in _in_turns(groups):
        listing.add(item)
    inside["index"] = script_json(listing.index())
    return Markup("{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in inside.items()) + "}")


def _in_turns(groups: Mapping[str, Iterable[GalleryItem]]) -> Iterable[GalleryItem]:
    """An item of each group in turn, so that a small budget of pictures does not all go to the first."""
    remaining = [iter(items) for items in groups.values()]
    while remaining:
        for items in list(remaining):
            item = next(items, None)
            if item is None:
                remaining.remove(items)
            else:
                yield item


def script_json(value: Any) -> str:
    """Write JSON for a script or a page's script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def kind_of(problem: Problem | None) -> str:
    """The kind of a problem: as its data names it, else its source."""
    if problem is None:
        return "not known"
    named = (problem.metadata.get(key) for key in KIND)
    return next((str(kind) for kind in named if kind), problem.source or "not known")


def png_size(png: bytes) -> tuple[int, int]:
    """(width, height) in px from the header. Raises ValueError if it is no PNG."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError("not a PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height
