"""Draws the two pictures of docs/design.md from the code: ``python docs/draw_rooms.py`` writes rooms.svg and walk.svg.

rooms.svg has the core's twelve rooms in the order that tests/test_layers.py holds, and below them the wings, with a
table of who imports from whom.
walk.svg is the way of a JSONL row to final/train.jsonl and into a fit: the steps are listed here (WALK), and each is
looked up in the code: that its function exists, and that the function named beside it calls it. A test compares both
files with what this script draws, so a picture that is out of date fails it.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mathse"

# Plain colours, which every viewer knows, and those of a dark page after them. The ground is part of the picture.
STYLE = """<style>
text { font: 14px system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; fill: #1b1f24; }
.name { font-weight: 600; } .small { font-size: 12px; fill: #626a73; }
.code { font: 12px ui-monospace, "DejaVu Sans Mono", monospace; }
.ground { fill: #fdfdfb; } .box { fill: #f4f4ef; stroke: #d0d0c9; } .self { fill: #d0d0c9; } .imports { fill: #1f5f8b; }
.arrow { stroke: #626a73; stroke-width: 1.5; } .head { fill: #626a73; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e8ea; } .small { fill: #9aa3ac; } .ground { fill: #14171a; } .box { fill: #1d2226; stroke: #3b4249; }
  .self { fill: #3b4249; } .imports { fill: #7db8e0; } .arrow { stroke: #9aa3ac; } .head { fill: #9aa3ac; }
}
</style>"""


# --- rooms ------------------------------------------------------------------------------------------------------------


def rooms() -> tuple[str, ...]:
    """From the ground up, as tests/test_layers.py lists them."""
    names: tuple[str, ...] = _constant("ROOMS")
    return names


def wings() -> dict[str, str]:
    """Each wing's module below mathse/, and how a user reaches it, as tests/test_layers.py lists them."""
    ways: dict[str, str] = _constant("WINGS")
    return ways


def _constant(name: str) -> Any:
    tree = ast.parse((ROOT / "tests" / "test_layers.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"tests/test_layers.py has no {name}")


def files_of(wing: str) -> list[Path]:
    """The files of a wing: a package's, or one module's."""
    place = PACKAGE.joinpath(*wing.split("."))
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def imported(file: Path) -> Iterator[str]:
    """Each module or name that a file imports from mathse, wherever in the file: "models.base"."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mathse"):
            below = (node.module or "").removeprefix("mathse").removeprefix(".")
            yield from (f"{below}.{alias.name}".removeprefix(".") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.removeprefix("mathse.") for a in node.names if a.name.startswith("mathse."))


def draw_rooms() -> str:
    names = rooms()
    of_wings = {file for wing in wings() for file in files_of(wing)}
    core = {name: [file for file in (PACKAGE / name).rglob("*.py") if file not in of_wings] for name in names}
    imports = {name: _rooms_imported_by(core[name]) for name in names}
    upper_first = list(reversed(names))  # the last room on top
    height, left, edge, cell, top = 58, 16, 470, 34, 106
    body = []
    for k, name in enumerate(upper_first):
        x, y = edge + cell * k, top + height * k
        turned = f'transform="rotate(-45 {x + 20} {top - 12})"'
        body.append(f'<text class="name" x="{x + 20}" y="{top - 12}" {turned}>{name}</text>')
        body.append(f'<rect class="box" x="{left}" y="{y}" width="{edge - left - 8}" height="52" rx="4"/>')
        body.append(_text(left + 12, y + 30, name, "name"))
        lines = textwrap.wrap(first_line(PACKAGE / name / "__init__.py"), 52)
        start = y + 30 - 7 * (len(lines) - 1)
        body += [_text(left + 110, start + 15 * i, line, "small") for i, line in enumerate(lines)]
        for i, other in enumerate(upper_first):
            look = "self" if other == name else "imports" if other in imports[name] else "box"
            hint = f"<title>{name} imports from {other}</title>" if look == "imports" else ""
            place = f'x="{edge + cell * i + 2}" y="{y + 11}"'
            body.append(f'<rect class="{look}" {place} width="30" height="30" rx="3">{hint}</rect>')
    # The wings, a smaller row each: they have no column, since no room imports them.
    small, start_of_wings = 30, top + height * len(names) + 36
    body.append(_text(left, start_of_wings - 10, "Wings: a room imports none of them", "name"))
    for k, (wing, way) in enumerate(wings().items()):
        y = start_of_wings + small * k
        body.append(f'<rect class="box" x="{left}" y="{y}" width="{edge - left - 8}" height="26" rx="4"/>')
        body.append(_text(left + 12, y + 18, wing, "name"))
        first, *others = way.split(", ")
        body.append(_text(left + 226, y + 18, f"{first} and {len(others)} more" if others else first, "small"))
        used = _rooms_imported_by(files_of(wing))
        for i, other in enumerate(upper_first):
            look = "imports" if other in used else "box"
            hint = f"<title>{wing} imports from {other}</title>" if look == "imports" else ""
            place = f'x="{edge + cell * i + 2}" y="{y + 2}"'
            body.append(f'<rect class="{look}" {place} width="30" height="22" rx="3">{hint}</rect>')
    foot = start_of_wings + small * len(wings()) + 20
    body.append(_text(left, foot, "A blue square: the row imports from the room of its column.", "small"))
    return _svg(edge + cell * len(names) + 64, foot + 14, "The core's twelve rooms, the wings, and their imports", body)


def _rooms_imported_by(files: Iterable[Path]) -> set[str]:
    """The rooms whose core files these files import; imports of a wing, by itself or by another one, do not count."""
    of_wings = tuple(f"{wing}." for wing in wings())
    used = set()
    for file in files:
        used |= {name.split(".")[0] for name in imported(file) if not f"{name}.".startswith(of_wings)}
    return used


def first_line(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    line = text.split("\n\n")[0].replace("\n", " ").replace("``", "")
    return line if len(line) <= 150 else line[:149].rsplit(" ", 1)[0] + " …"


# --- the walk ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """``function`` is "module:name", called in the body of ``caller``; the row then has the form ``after``."""

    function: str
    caller: str
    text: str
    after: str

    @property
    def room(self) -> str:
        return self.function.split(".")[0].split(":")[0]


WALK = (
    Step(
        "data.row_validation:problem_from", "data.row_validation:validate", "a line of the file is checked", "Problem"
    ),
    Step(
        "inference.generate:Generator.sample",
        "evolution.stages:sample_paths",
        "the student solves it",
        "ReasoningPath (paths.jsonl)",
    ),
    Step("judges:judge_paths", "evolution.stages:judge", "the judge reads the path", "Verdict (verdicts.jsonl)"),
    Step(
        "evolution.state:EvolutionState.absorb",
        "evolution.callbacks:MergeCorrectPaths.on_paths_judged",
        "accepted paths join D_SFT",
        "EvolutionState",
    ),
    Step("runs.store:write_jsonl", "evolution.state:EvolutionState.save", "the state is written", "train.jsonl"),
    Step(
        "evolution.training_rows:make_training_rows",
        "evolution.stages:_fit_on_paths",
        "paths become question and answer",
        "Row",
    ),
    Step("models.base:Backbone.encode", "training.loader:RowEncoder._encode", "tokens and pixels", "tensors"),
    Step("training.fit:fit", "evolution.models:RunModels.fit", "the student is fitted", "checkpoint/"),
)


def definition(name: str) -> ast.AST:
    """The function, class or method "module:name". Raises LookupError where the code has none of this name."""
    module, _, path = name.partition(":")
    file = PACKAGE.joinpath(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if not file.is_file():
        raise LookupError(f"{name}: there is no {file.relative_to(ROOT)}; correct WALK in docs/draw_rooms.py")
    node: ast.AST = ast.parse(file.read_text(encoding="utf-8"))
    for part in path.split("."):
        inside = [n for n in getattr(node, "body", []) if getattr(n, "name", None) == part]
        if not inside:
            raise LookupError(f"{name}: {file.relative_to(ROOT)} defines no {part}; correct WALK in docs/draw_rooms.py")
        node = inside[-1]
    return node


def calls(name: str) -> set[str]:
    """The last part of the name of everything that a function calls: ``lab.generator.sample(...)`` -> "sample"."""
    nodes = (node.func for node in ast.walk(definition(name)) if isinstance(node, ast.Call))
    return {n.attr if isinstance(n, ast.Attribute) else getattr(n, "id", "") for n in nodes}


def check(step: Step) -> None:
    """Raises LookupError where the step does not stand in the code as WALK has it."""
    definition(step.function)
    called = step.function.partition(":")[2].split(".")[-1]
    if called not in calls(step.caller):
        raise LookupError(f"{step.caller} does not call {called}; correct WALK in docs/draw_rooms.py")


def draw_walk() -> str:
    height, left, width = 76, 16, 1040
    body = [_text(left + 12, 20, "a line of problems.jsonl", "name")]
    for k, step in enumerate(WALK):
        check(step)
        y = 44 + height * k
        x = left + 40
        body.append(f'<line class="arrow" x1="{x}" y1="{y - 18}" x2="{x}" y2="{y - 2}" marker-end="url(#in)"/>')
        body.append(f'<rect class="box" x="{left}" y="{y}" width="{width - 2 * left}" height="44" rx="4"/>')
        body.append(_text(left + 12, y + 18, step.room, "name"))
        body.append(_text(left + 110, y + 18, step.text))
        body.append(_text(left + 110, y + 35, f"{step.function}, called by {step.caller}", "code small"))
        body.append(_text(left + 56, y + 61, step.after, "name"))
    passed = list(dict.fromkeys(step.room for step in WALK))
    title = f"The walk of a row through {len(passed)} rooms: {', '.join(passed)}"
    return _svg(width, 44 + height * len(WALK), title, body)


# --- both -------------------------------------------------------------------------------------------------------------


def _text(x: int, y: int, text: str, look: str = "") -> str:
    return f'<text class="{look}" x="{x}" y="{y}">{escape(text)}</text>'


def _svg(width: int, height: int, title: str, body: list[str]) -> str:
    marker = (
        '<defs><marker id="in" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
    )
    box, label = f"0 0 {width} {height}", escape(title)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img" aria-label="{label}">'
    return "\n".join([head, STYLE, marker, GROUND, *body, "</svg>"]) + "\n"


GROUND = '<rect class="ground" width="100%" height="100%"/>'
PICTURES = {"rooms.svg": draw_rooms, "walk.svg": draw_walk}


def main() -> int:
    for name, draw in PICTURES.items():
        (ROOT / "docs" / name).write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
