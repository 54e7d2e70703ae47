"""Paths and test answers as data that a page's script lists, filters, sorts and draws.

A run may have a hundred thousand paths. An index has the numbers for filters and sorting; parts of moderate size have
the texts and pictures, and the script loads a part when it shows a path in it. A part is a file with a call of
``mathse(name, value)``: a page that is opened from a disk can load scripts but cannot fetch files.

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

PART_CHARS = 400_000  # characters of a part, approximately
MAX_ROWS = 100_000  # rows of a group; the page gives the number of further rows
MAX_FORMULAS = 20_000  # formulas of a listing, about half a minute; later formulas are shown as TeX
MAX_BYTES_BESIDE, MAX_BYTES_INSIDE = 200_000_000, 1_500_000  # pictures beside a page, and in it
MAX_MISFITS = 20  # after so many pictures in a row without room, no further picture is read
MAX_CHARS_INSIDE = 3_000  # characters of a text in the page itself
NAMED, FIRST_WRONG = 1, 2  # flags of a step: the judge names it; by the label it is the first wrong step
DECISIONS = ("accepted", "rejected", "unparsed")  # the index has their positions

Text = list[str | int]
Write = Callable[[str, str], None]  # (name of a part, its value as JSON)


class Listing:
    """Takes items one at a time and writes each part as soon as it is full.

    Args:
        stamp: hash of the run's present state; a page refuses parts with another stamp.
        write: called with the name of a part and its value as JSON.
        image_png: returns the PNG of an image reference; may raise MathSEError.
        picture_bytes: limit for all pictures.
        text_chars: limit for each text.
    """

    def __init__(
        self,
        stamp: str,
        write: Write,
        image_png: Callable[[str], bytes],
        picture_bytes: int = MAX_BYTES_BESIDE,
        text_chars: int = MAX_PATH_CHARS,
    ) -> None:
        self._stamp, self._image_png, self._text_chars = stamp, image_png, text_chars
        self._picture_budget, self._formula_budget = picture_bytes, MAX_FORMULAS
        self._misfits = 0  # pictures in a row without room
        self._rows, self._problems = Parts("rows", stamp, write), Parts("problems", stamp, write)
        self._groups: dict[str, dict[str, Any]] = {}
        # Texts of the index -> their positions in it.
        self._kinds: dict[str, int] = {}
        self._origins: dict[str, int] = {}
        self._problem_ids: dict[str, int] = {}
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
            "problems": list(self._problem_ids),
            "kind": self._kind_of_problem,
            **self._columns,
            "parts": {"rows": self._rows.finish(), "problems": self._problems.finish()},
        }

    # --- a row ---

    def _row(self, item: GalleryItem) -> dict[str, Any]:
        """Return the path with its flagged steps, the verdict with its critique, and the rewrite or the draft."""
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
            decision = f", {item.reflection_decision}" if item.reflection_decision else ""
            row["also"] = {
                "title": f"reflection: its rewrite{decision}",
                "steps": self._steps(item, reflection.revised, None),
                "critique": None,
            }
        return row

    def _steps(
        self, item: GalleryItem, path: ReasoningPath, verdict: Verdict | None, label: Verdict | None = None
    ) -> list[Any]:
        """Return [flags, text] for each step."""
        named = first_step(verdict.error_step) if verdict and verdict.status == "wrong" else None
        wrong = first_step(label.error_step) if label and label.status == "wrong" else None
        steps: list[Any] = []
        room = self._text_chars
        for number, text in domain_of(item.problem).steps(path.text):
            if room <= 0:
                steps.append([0, ["…"]])
                break
            flags = NAMED * (number is not None and number == named)
            flags |= FIRST_WRONG * (number is not None and number == wrong)
            steps.append([flags, self._text(text, self._rows, room)])
            room -= len(text)
        return steps

    def _critique(self, verdict: Verdict) -> list[Any] | None:
        """Return [judge, text]; None for a verdict without text."""
        text = verdict.error_analysis or (verdict.raw if verdict.status == "unparsed" else None)
        return [printable(verdict.judge or ""), self._text(text, self._rows, self._text_chars)] if text else None

    # --- a problem ---

    def _problem(self, item: GalleryItem) -> int:
        """Return the number of the item's problem. A new problem is written."""
        problem_id = printable(item.path.problem_id)
        if problem_id not in self._problem_ids:
            self._problem_ids[problem_id] = len(self._problem_ids)
            kind = printable(kind_of(item.problem))
            self._kind_of_problem.append(self._kinds.setdefault(kind, len(self._kinds)))
            self._problems.add(self._problem_row(item.problem) if item.problem else None)
        return self._problem_ids[problem_id]

    def _problem_row(self, problem: Problem) -> dict[str, Any]:
        return {
            "question": self._text(problem.question, self._problems, self._text_chars),
            "choices": [self._text(choice, self._problems, 300) for choice in problem.choices],
            "answer": self._to_text(split_answer(problem.answer[:200]), self._problems),
            "source": printable(problem.source),
            "pictures": [self._picture(ref) for ref in problem.images],
        }

    def _picture(self, ref: str) -> dict[str, Any]:
        left_out = {"missing": f"picture left out, to keep this page small: {printable(ref[:200])}"}
        if self._misfits == MAX_MISFITS:
            return left_out
        try:
            png = self._image_png(ref)
            width, height = png_size(png)
        except (MathSEError, OSError, ValueError) as e:
            return {"missing": f"picture not available: {printable(str(e)[:200])}"}
        if len(png) > self._picture_budget:
            self._misfits += 1
            return left_out
        self._misfits = 0
        self._picture_budget -= len(png)
        return {"width": width, "height": height, "png": base64.b64encode(png).decode("ascii")}

    # --- a text ---

    def _text(self, text: str, part: Parts, max_chars: int) -> Text:
        """Return the beginning of a problem's or a model's text. A formula across the cut is shown as TeX."""
        beginning = text[:max_chars]
        shown = self._to_text(split_formulas(beginning) if self._formula_budget else [(beginning, None)], part)
        if len(text) > max_chars:
            shown.append(f" … ({len(text) - max_chars:,} more characters)")
        return shown

    def _to_text(self, sources: Iterable[tuple[str, str | None]], part: Parts) -> Text:
        """Convert (source, formula or None) to a list of texts and numbers of formulas."""
        text: Text = []
        for source, formula in sources:
            if formula is not None:
                number, is_new = part.formula(formula)
                self._formula_budget -= is_new and self._formula_budget > 0
                text.append(number)
            elif source:
                text.append(printable(source))
        return text


class Parts:
    """Values with numbers from 0, cut into parts. Each part has the formulas of its texts."""

    def __init__(self, name: str, stamp: str, write: Write) -> None:
        self._name, self._stamp, self._write = name, stamp, write
        self._starts: list[int] = []  # number of the first value in each written part
        self._next = 0
        self._values: list[str] = []  # as JSON
        self._formulas: dict[str, int] = {}
        self._size = 0

    def formula(self, markup: str) -> tuple[int, bool]:
        """Return the formula's number in the current part, and whether it is new there."""
        is_new = markup not in self._formulas
        if is_new:
            self._size += len(markup)
        return self._formulas.setdefault(markup, len(self._formulas)), is_new

    def add(self, value: Any) -> None:
        self._values.append(script_json(value))
        self._size += len(self._values[-1])
        if self._size >= PART_CHARS:
            self._flush()

    def finish(self) -> list[int]:
        """Write the last part and return the number of each part's first value."""
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
    """Yield a function that writes a page's parts. Their folder appears beside the page when the block ends."""
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
    """Return the folder of a page's parts: ``report_parts`` beside ``report.html``."""
    return page.with_name(f"{page.stem}_parts")


def listing_inside(
    groups: Mapping[str, Iterable[GalleryItem]], image_png: Callable[[str], bytes], stamp: str = ""
) -> Markup:
    """Return a listing for the page itself, as JSON that is safe in markup: {"index": ..., name of a part: part}."""
    inside: dict[str, str] = {}
    listing = Listing(stamp, inside.__setitem__, image_png, MAX_BYTES_INSIDE, MAX_CHARS_INSIDE)
    for item in _in_turns(groups):
        listing.add(item)
    inside["index"] = script_json(listing.index())
    return Markup("{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in inside.items()) + "}")


def _in_turns(groups: Mapping[str, Iterable[GalleryItem]]) -> Iterable[GalleryItem]:
    """Yield an item of each group in turn, so that the first group does not use all bytes for pictures."""
    remaining = [iter(items) for items in groups.values()]
    while remaining:
        for items in list(remaining):
            item = next(items, None)
            if item is None:
                remaining.remove(items)
            else:
                yield item


def script_json(value: Any) -> str:
    """Write JSON for a script element: no text in it ends the element or opens a comment."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def kind_of(problem: Problem | None) -> str:
    """Return a problem's kind from its metadata; without one, its source."""
    if problem is None:
        return "not known"
    for key in ("kind", "subject", "category"):
        if kind := problem.metadata.get(key):
            return str(kind)
    return problem.source or "not known"


def png_size(png: bytes) -> tuple[int, int]:
    """Read (width, height) in px from the header. Raises ValueError if it is no PNG."""
    if png[:8] != b"\x89PNG\r\n\x1a\n" or len(png) < 24:
        raise ValueError("not a PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height
