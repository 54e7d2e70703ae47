"""A few of a stage's paths with their verdicts, to look at: the same ones whenever they are asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mathse.data.images import REPORT_SIDE
from mathse.runs.layout import ORM_HELD, PATHS, PREDICTIONS, REFLECTIONS, VERDICTS
from mathse.runs.reader import FinishedStage
from mathse.scoring.answers import extract_answer, same_answer
from mathse.seeds import derive
from mathse.types import Problem, Verdict

Loader = Callable[[str], Image.Image]


@dataclass(frozen=True)
class Sample:
    """A path (or an answer to a test problem, which no judge sees)."""

    problem_id: str
    text: str
    verdict: Verdict | None

    def answer_right(self, problem: Problem) -> bool | None:
        """Whether its final answer matches the reference; None without one."""
        return same_answer(extract_answer(self.text), problem.answer, problem.choices) if problem.answer else None


def samples(stage: FinishedStage, limit: int) -> list[Sample]:
    """At most ``limit`` of the stage's judged paths, else of its answers to the test problems; chosen by their ids."""
    if stage.has(VERDICTS):
        chosen = _choose(_paths(stage), limit)
        wanted = {row["id"] for row in chosen}
        rows = (row for row in stage.rows(VERDICTS) if row["path_id"] in wanted)
        verdicts = {row["path_id"]: Verdict.from_json(row) for row in rows}
        return [Sample(row["problem_id"], row["text"], verdicts.get(row["id"])) for row in chosen]
    if stage.has(ORM_HELD):
        judged = ({**row["path"], "verdict": row["verdict"]} for row in stage.rows(ORM_HELD))
        held = _choose(judged, limit)
        return [Sample(row["problem_id"], row["text"], Verdict.from_json(row["verdict"])) for row in held]
    answers = _choose(stage.rows(PREDICTIONS), limit)
    return [Sample(row["id"], row["response"], None) for row in answers]


def _paths(stage: FinishedStage) -> Iterator[dict[str, Any]]:
    """The paths that verdicts.jsonl speaks of: sampled ones, or the rewrites of a reflection."""
    if stage.has(PATHS):
        yield from stage.rows(PATHS)
    else:
        yield from (row["revised"] for row in stage.rows(REFLECTIONS))


def _choose(rows: Iterator[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    return heapq.nsmallest(limit, rows, key=lambda row: derive(0, "samples", row["id"]))


def picture(problem: Problem, load: Loader) -> Image.Image | None:
    """The problem's images, scaled down for a table and side by side; None where it has none."""
    images = [load(ref) for ref in problem.images]
    for image in images:
        image.thumbnail((REPORT_SIDE, REPORT_SIDE))
    if len(images) < 2:
        return images[0] if images else None
    joined = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)), "white")
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width
    return joined
