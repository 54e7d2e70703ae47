"""The Outcome Reward Model's training rows: labelled paths, balanced, with the JSON that the ORM is trained to write.

Source: the paper, section "Outcome Reward Model": as many right as wrong paths, the wrong ones with the location of the
error and its analysis.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mathse.config.fits import ORMConfig
from mathse.errors import CheckpointError
from mathse.inference import prompts
from mathse.inference.rows import judge_row
from mathse.models.row import Row
from mathse.runs.layout import ORM_FILE
from mathse.runs.store import read_json
from mathse.seeds import rng
from mathse.types import Lineage, Problem, PromptStyle, ReasoningPath, Verdict

Labelled = tuple[ReasoningPath, Verdict]
FORM = ("kind", "order", "see_answer", "own_answer", "see_image")  # settings in ORM_FILE: form of its prompt and JSON


def label(
    paths: Sequence[ReasoningPath],
    problems: Mapping[str, Problem],
    annotate: Callable[[Problem, ReasoningPath], Verdict],
) -> list[Labelled]:
    """Label each path with ``annotate``. A text that is repeated for the same problem counts once."""
    seen: set[tuple[str, str]] = set()
    labelled = []
    for path in paths:
        if (path.problem_id, path.text) not in seen:
            seen.add((path.problem_id, path.text))
            labelled.append((path, replace(annotate(problems[path.problem_id], path), path_id=path.id)))
    return labelled


def balance(labelled: Sequence[Labelled], seed: int) -> list[Labelled]:
    """Draw N right and N wrong paths, N being the smaller of the two counts, and sort them by id."""
    right = [pair for pair in labelled if pair[1].status == "correct"]
    wrong = [pair for pair in labelled if pair[1].status != "correct"]
    n = min(len(right), len(wrong))
    drawn = [*rng(seed, "balance", "right").sample(right, n), *rng(seed, "balance", "wrong").sample(wrong, n)]
    return sorted(drawn, key=lambda pair: pair[0].id)


def training_row(style: PromptStyle, problem: Problem, path: str, truth: Verdict, settings: ORMConfig) -> Row:
    """Return the judge's prompt for a path with the JSON of its label ``truth`` as the response.

    An ORM with ``own_answer`` will see an answer of its own in the place of the reference; its training rows have the
    reference there.
    """
    row = judge_row(style, problem, path, settings.see_answer or settings.own_answer, settings.see_image)
    row["response"] = target(problem, truth, settings)
    return row


def target(problem: Problem, truth: Verdict, settings: ORMConfig) -> str:
    """Return the JSON that the ORM is trained to write for the label ``truth``."""
    if settings.kind == "binary":
        return prompts.binary_json(truth)
    return prompts.feedback_json(truth, settings.order, problem.solution)


@dataclass(frozen=True)
class MadeUpRows:
    """Makes a training row with a made-up error at each call (augmentation, see ``MixedStream``).

    It holds no model and can be pickled, so that every rank makes the same rows.
    """

    style: PromptStyle
    problems: Sequence[Problem]
    settings: ORMConfig
    corrupt: Callable[[Problem, random.Random], str]  # returns a path with an error
    check: Callable[[Problem, str], Verdict]  # returns the label of that path
    jittered: Callable[[str, random.Random], str] | None = None  # returns another image with the same content

    def __call__(self, draw: random.Random) -> Row:
        problem = draw.choice(self.problems)
        text = self.corrupt(problem, draw)
        row = training_row(self.style, problem, text, self.check(problem, text), self.settings)
        return row if self.jittered is None else with_jitter(row, self.jittered, draw)


def with_jitter(row: Row, jittered: Callable[[str, random.Random], str], draw: random.Random) -> Row:
    """Return the row with its images moved, turned and slanted a little: a model that trains on few pictures then
    generalizes to others."""
    return Row(**{**row, "images": [jittered(str(image), draw) for image in row["images"]]})


def solution_path(problem: Problem, stage: str) -> ReasoningPath:
    """Return a problem's reference solution as a path."""
    return ReasoningPath(
        f"{stage}/{problem.id}/0", problem.id, problem.solution or "", Lineage("teacher", stage, "reference")
    )


def read_orm(checkpoint: Path, key: str = "judge.checkpoint") -> dict[str, Any]:
    """Read the form of an ORM from its checkpoint: kind, order, see_answer, own_answer, see_image.

    Raises CheckpointError, naming the setting ``key``, if the folder holds no ORM.
    """
    if not (checkpoint / ORM_FILE).is_file():
        raise CheckpointError(
            f"{key} = {str(checkpoint)!r}: {ORM_FILE} is missing there; name the checkpoint folder of a trained ORM, "
            "such as outputs/<name>/<time>/orm/checkpoint"
        )
    form: dict[str, Any] = {"own_answer": False, **read_json(checkpoint / ORM_FILE)}  # older files lack own_answer
    return form
