"""The rows that an update other than SFT learns from (``evolution.update``): pairs, verdicts, paths with advantages.

A stage keeps them in its folder: pairs in preferences.jsonl, the others in responses.jsonl.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch

from mathse.errors import ConfigError
from mathse.evolution.evolution_run import EvolutionRun, is_reflection
from mathse.evolution.state import Judged, join_verdicts
from mathse.evolution.training_rows import Preference, make_preference_row, pair_paths
from mathse.inference.rows import solve_row
from mathse.models.row import Row
from mathse.runs.layout import PREFERENCES, REFLECTIONS, RESPONSES, VERDICTS
from mathse.runs.reader import read_stage
from mathse.runs.rows import Chained, JsonlRows, Mapped
from mathse.runs.store import write_jsonl
from mathse.seeds import rng
from mathse.types import Problem, PromptStyle, ReasoningPath, Record, Reflection, Verdict


@dataclass(frozen=True)
class Response(Record):
    """A judged path as an update learns from it.

    Attributes:
        right: whether the judge accepts it.
        mismatched: the text of a path of another problem; None for an update from groups.
        advantage: None for an update from verdicts.
    """

    path: ReasoningPath
    right: bool
    mismatched: str | None = None
    advantage: float | None = None

    @property
    def id(self) -> str:
        return self.path.id


UpdateRows = Sequence[Preference] | Sequence[Response]


def collect_rows(loop: EvolutionRun, update: Any) -> UpdateRows:
    """Write the rows of the current stage for ``update``, and return them."""
    folder = loop.stage.path
    if update.data == "pairs":
        most = getattr(update, "pairs_per_problem", None)
        write_jsonl(folder / PREFERENCES, pair_paths(loop.state.train, loop.state.incorrect, most))
        return JsonlRows(folder / PREFERENCES, Preference)
    if update.data == "verdicts":
        write_jsonl(folder / RESPONSES, _match_verdicts(loop))
    else:
        write_jsonl(folder / RESPONSES, _compute_advantages(loop, update))
    return JsonlRows(folder / RESPONSES, Response)


def make_update_row(style: PromptStyle, problems: Mapping[str, Problem], row: Preference | Response) -> Row:
    """Return the row of a training. Every path answers the question, whatever ``evolution.reflect.row`` says."""
    if isinstance(row, Preference):
        return make_preference_row(style, problems[row.chosen.problem_id], row)
    made = Row(**solve_row(style, problems[row.path.problem_id], row.path.text), id=row.id)
    if row.advantage is not None:
        made["advantage"] = row.advantage
    if row.mismatched is not None:
        made["right"], made["mismatched"] = row.right, row.mismatched
    return made


def _match_verdicts(loop: EvolutionRun) -> Iterator[Response]:
    """Yield each judged path with a path of another problem, drawn at random.

    These are the paths of the stage, and the rewrites that were judged since the last training. Paths without a
    readable verdict and empty paths are left out.
    """
    judged = loop.judged
    if loop.state_stage is not None and is_reflection(loop.state_stage):
        reflection = read_stage(loop.state_stage.path)
        rewrites = Mapped(attrgetter("revised"), reflection.records(REFLECTIONS, Reflection))
        judged = Chained(join_verdicts(rewrites, reflection.records(VERDICTS, Verdict)), judged)
    usable = [item for item in judged if item.verdict.status != "unparsed" and item.path.text.strip()]

    # The partner of a path is the next path of another problem in a random order of all paths.
    order = list(range(len(usable)))
    rng(loop.context.derive_seed(loop.stage, "mismatched")).shuffle(order)
    partners: dict[int, int] = {}
    for position, k in enumerate(order):
        following = (order[(position + step) % len(order)] for step in range(1, len(order)))
        problem = usable[k].path.problem_id
        partner = next((other for other in following if usable[other].path.problem_id != problem), None)
        if partner is None:  # all paths belong to one problem
            return
        partners[k] = partner
    for k, item in enumerate(usable):
        yield Response(item.path, loop.models.accepts(item.verdict), mismatched=usable[partners[k]].path.text)


def _compute_advantages(loop: EvolutionRun, update: Any) -> Iterator[Response]:
    """Yield each path of the stage that has an advantage other than 0 in the group of its problem's paths."""
    groups: dict[str, list[Judged]] = {}
    for item in loop.judged:
        groups.setdefault(item.path.problem_id, []).append(item)
    if not groups:
        return
    size = max(map(len, groups.values()))
    rewards = torch.zeros(len(groups), size)  # (groups, samples)
    judged = torch.zeros(len(groups), size, dtype=torch.bool)
    for i, group in enumerate(groups.values()):
        for j, item in enumerate(group):
            rewards[i, j] = float(loop.models.accepts(item.verdict))
            judged[i, j] = item.verdict.status != "unparsed"

    advantages = update.advantages(rewards, judged)
    if tuple(advantages.shape) != tuple(rewards.shape):
        raise ConfigError(
            f"evolution.update._target_: advantages() returned the shape {tuple(advantages.shape)} for rewards of "
            f"the shape {tuple(rewards.shape)}; it returns one advantage per path"
        )
    for i, group in enumerate(groups.values()):
        for j, item in enumerate(group):
            if judged[i, j] and advantages[i, j]:
                yield Response(item.path, bool(rewards[i, j]), advantage=float(advantages[i, j]))
