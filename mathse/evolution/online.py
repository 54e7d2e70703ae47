"""The batches of an online round: sampled from the current student, judged, and kept on the disk.

``rollouts.jsonl`` of a stage has a row per sampled response, draw by draw. A draw is one pass of the sampler over
``problems_per_step`` problems, in an order that the seed gives. A step takes draws until it has that many groups whose
responses differ in their outcome, at most ``max_draws``. Groups that are all right or all wrong teach nothing: their
cost is in the ledger, and no step learns from them.

The samples of a draw are written before they are judged, and the draw with its verdicts before a step learns from it.
After a kill both are read again. So no response is sampled twice, no verdict is paid for twice, and a verdict always
belongs to the text that was judged, even where another machine would sample another text.

With ``staleness`` d the responses of a step are sampled d optimiser steps before it, as in an asynchronous trainer with
a sampler ahead of it: the first d + 1 steps learn from samples of the first student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from mathse.errors import ConfigError, DataError
from mathse.evolution.evolution_run import EvolutionRun
from mathse.evolution.models import Student
from mathse.evolution.stages import choose_problems
from mathse.evolution.state import join_verdicts
from mathse.evolution.training_rows import make_solution_rows
from mathse.inference import prompts
from mathse.inference.generate import batch_by_length
from mathse.inference.rows import reflect_row, solve_row
from mathse.inference.work import AnswerCosts
from mathse.judges import Judge, judge_paths
from mathse.models.base import Backbone
from mathse.models.row import Row
from mathse.runs.layout import PATHS, ROLLOUTS, SCRATCH, VERDICTS
from mathse.runs.rows import JsonlRows
from mathse.runs.store import BatchLog, write_jsonl
from mathse.seeds import derive, rng
from mathse.training.groups import Sampling
from mathse.training.online import compute_response_log_probs
from mathse.training.updates.advantages import find_mixed_groups
from mathse.types import Lineage, Problem, ReasoningPath, Record, Verdict


def train_online(loop: EvolutionRun) -> Student:
    """Run the round of an online update: one training run on responses of its own student. D_SFT stays unchanged.

    ``paths.jsonl`` and ``verdicts.jsonl`` of the stage hold the sampled responses, as in other rounds.

    Raises ConfigError for a generator without a temperature and a longest response, DataError without a problem.
    """
    stage, config, update, sampling = loop.stage, loop.config, loop.update, loop.models.describe_sampling()
    if sampling is None:
        raise ConfigError(
            f"generator._target_ = {type(config.generator).__name__}: has no temperature and max_new_tokens, by which "
            "an online update samples; pass generator=hf"
        )
    problems = [loop.problems.by_id[problem_id] for problem_id in choose_problems(loop)]
    if not problems:
        raise DataError(
            f"{stage.name}: no problem is left to sample paths for; raise the pool of data, or lower rounds"
        )
    # PAPER: silent on online updates. They start from the student before, whose paths they judge.
    start = loop.student.checkpoint
    backbone = loop.models.open_for_training(start)
    rollouts = RoundRollouts(
        update,
        problems,
        loop.models.judge(config.judge),
        sampling,
        samples=config.evolution.samples_per_problem,
        rows_at_once=config.generator.batch_size,
        folder=stage.path,
        seed=loop.context.derive_seed(stage, "rollouts"),
        stage=stage.name,
        model=loop.student.name,
        accepts=loop.models.accepts,
        reference=_open_reference(loop, start, sampling) if getattr(update, "needs_reference", False) else None,
    )
    sft = config.sft.of_stage(loop.fit_stage)
    settings = replace(
        sft,
        epochs=None,
        max_steps=update.online.steps,
        batch_size=rollouts.draw_rows,
        optimizer=replace(sft.optimizer, lr=sft.optimizer.lr * getattr(update, "lr_scale", 1.0)),
    )
    loop.models.fit(
        backbone,
        stage,
        [solve_row(backbone.prompt_style, problem) for problem in problems],
        settings,
        label=f"online steps on {len(problems)} problems",
        val_rows=make_solution_rows(backbone.prompt_style, loop.problems.splits["dev"]),
        update=update,
        online=rollouts,
    )
    sampled = JsonlRows(stage.path / ROLLOUTS, Rollout)
    write_jsonl(stage.path / PATHS, (rollout.path for rollout in sampled))
    write_jsonl(stage.path / VERDICTS, (rollout.verdict for rollout in sampled))
    loop.judged = join_verdicts(JsonlRows(stage.path / PATHS, ReasoningPath), JsonlRows(stage.path / VERDICTS, Verdict))
    return Student(stage)


def _open_reference(
    loop: EvolutionRun, start: Path, sampling: Sampling
) -> Callable[[Sequence[Row]], list[list[float]]]:
    """Return the log-probabilities of the student at the start of the stage: a second model in memory."""
    reference = loop.models.open_for_inference(start)
    rows_at_once = max(1, loop.config.generator.batch_size // 4)
    return lambda rows: compute_response_log_probs(reference, rows, sampling, rows_at_once)


@dataclass(frozen=True)
class Sample(Record):
    """A sampled response before its verdict.

    Attributes:
        step: the optimiser step that learns from it, from 0.
        weights: optimiser steps of the student that sampled it; ``step`` unless samples are stale.
        path: its text.
        ids: the sampled token ids, the end token included if it was sampled.
        log_probs: of each id, as it was drawn.
    """

    step: int
    weights: int
    path: ReasoningPath
    ids: list[int]
    log_probs: list[float]


@dataclass(frozen=True)
class Rollout(Sample):
    """A sampled response with its verdict."""

    verdict: Verdict


class RoundRollouts:
    """The batches of an online round (``mathse.training.online.OnlineBatches``).

    Args:
        update: the update, with the attribute ``online``.
        problems: the round's problems.
        judge: gives the verdicts.
        sampling: temperature and the longest response.
        samples: responses per problem.
        rows_at_once: responses that are sampled at a time.
        folder: the stage's.
        seed: random seed for the order of problems and for all sampling of the stage.
        stage, model: names for ids and lineage.
        accepts: whether a verdict accepts a path.
        reference: log-probabilities that the reference gives the response tokens of rows (``beta`` > 0).
    """

    def __init__(
        self,
        update: Any,
        problems: Sequence[Problem],
        judge: Judge,
        sampling: Sampling,
        *,
        samples: int,
        rows_at_once: int,
        folder: Path,
        seed: int,
        stage: str,
        model: str,
        accepts: Callable[[Verdict], bool],
        reference: Callable[[Sequence[Row]], list[list[float]]] | None = None,
    ) -> None:
        self.update, self.problems, self.judge, self.sampling = update, problems, judge, sampling
        self.by_id = {problem.id: problem for problem in problems}
        self.samples, self.rows_at_once, self.online = samples, rows_at_once, update.online
        self.folder, self.seed, self.stage, self.model, self.accepts = folder, seed, stage, model, accepts
        self.reference = reference
        self.per_step = min(self.online.problems_per_step, len(problems))
        self.log = BatchLog(folder / ROLLOUTS, [self.draw_rows] * (self.online.steps * self.online.max_draws))
        self._figures: dict[int, dict[str, float]] = {}
        self._batches: dict[int, list[list[Rollout]]] = {}  # groups by step, of steps to come
        self._stored = self._read()  # draws of the disk, which steps take before they sample
        self._next: list[Rollout] | None = next(self._stored, None)
        self._taken = 0  # draws that steps have taken

    @property
    def draw_rows(self) -> int:
        """Number of responses of a draw."""
        return self.per_step * self.samples

    def _read(self) -> Iterator[list[Rollout]]:
        """Yield the draws that are on the disk when the training run begins, in order."""
        rows = self.log.rows(Rollout)
        for _ in range(self.log.done):
            yield [next(rows) for _ in range(self.draw_rows)]

    def rows(self, step: int, backbone: Backbone) -> list[Row]:
        """Return the rows of a step. Steps come in order; draws of steps before a resume point are skipped."""
        while self._next is not None and self._next[0].step < step:
            self._take_stored()
        for later in range(step, min(step + self.online.staleness, self.online.steps - 1) + 1):
            if later not in self._batches:
                self._batches[later] = self._collect(later, step, backbone)
        return self._as_rows(self._batches.pop(step), backbone)

    def figures(self, step: int) -> Mapping[str, float]:
        return self._figures.pop(step)

    def _collect(self, step: int, weights: int, backbone: Backbone) -> list[list[Rollout]]:
        """Return the groups of a step, from the disk or sampled by the student after ``weights`` optimiser steps."""
        groups: list[list[Rollout]] = []  # the groups to learn from
        draws: list[list[list[Rollout]]] = []
        while len(draws) < self.online.max_draws and len(groups) < self.per_step:
            draw = self._take_stored() if self._next is not None else self._draw(step, weights, backbone)
            draws.append([draw[k : k + self.samples] for k in range(0, len(draw), self.samples)])
            outcomes, judged = self._read_outcomes(draws[-1])
            find_informative = getattr(self.update, "find_informative", find_mixed_groups)
            informative = find_informative(outcomes, judged).tolist()
            groups += [group for group, teaches in zip(draws[-1], informative, strict=True) if teaches]
        self._figures[step] = self._count([*chain.from_iterable(draws)], len(groups))
        # A single draw is the batch. Without a group to learn from, the step has no gradient.
        if self.online.max_draws == 1 or not groups:
            return draws[-1]
        return groups[: self.per_step]

    def _count(self, groups: Sequence[Sequence[Rollout]], informative: int) -> dict[str, float]:
        """Return the figures of all groups that were drawn for a step."""
        outcomes, judged = self._read_outcomes(groups)
        rollouts = [*chain.from_iterable(groups)]
        lengths = [len(rollout.ids) for rollout in rollouts]  # tokens
        return {
            "staleness": float(rollouts[0].step - rollouts[0].weights),
            "reward": float(outcomes[judged].mean()) if bool(judged.any()) else 0.0,
            "unparsed": 1 - float(judged.float().mean()),
            "informative_groups": informative / len(groups),
            "response_tokens": sum(lengths) / len(lengths),
            "samples": float(len(lengths)),
        }

    def _read_outcomes(self, groups: Sequence[Sequence[Rollout]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return 1 for each accepted response, else 0, and whether its verdict is readable, (groups, samples) each."""
        accepted = [[float(self.accepts(rollout.verdict)) for rollout in group] for group in groups]
        judged = [[rollout.verdict.status != "unparsed" for rollout in group] for group in groups]
        return torch.tensor(accepted), torch.tensor(judged)

    def _as_rows(self, groups: Sequence[Sequence[Rollout]], backbone: Backbone) -> list[Row]:
        """Return the responses as training rows with their advantages, and with a teacher's log-probabilities."""
        outcomes, judged = self._read_outcomes(groups)
        advantages = self.update.advantages(outcomes, judged)  # (groups, samples)
        rows = []
        for group, of_group in zip(groups, advantages.tolist(), strict=True):
            for rollout, advantage in zip(group, of_group, strict=True):
                row = solve_row(backbone.prompt_style, self.by_id[rollout.path.problem_id])
                row["id"], row["advantage"] = rollout.path.id, advantage
                row["response_ids"], row["log_probs"] = rollout.ids, rollout.log_probs
                rows.append(row)
        if getattr(self.update, "needs_critique", False):
            rows = self._add_teacher(rows, [*chain.from_iterable(groups)], backbone)
        elif self.reference is not None:
            for row, log_probs in zip(rows, self.reference(rows), strict=True):
                row["teacher_log_probs"] = log_probs
        return rows

    def _add_teacher(self, rows: Sequence[Row], rollouts: Sequence[Rollout], backbone: Backbone) -> list[Row]:
        """Return the rows of failed responses, with the log-probabilities of the student that reads the critique."""
        failed = [k for k, row in enumerate(rows) if row["advantage"]]
        if not failed:  # a step needs a row; this has no advantage and no difference to its teacher
            return [Row(**{**rows[0], "teacher_log_probs": rows[0]["log_probs"]})]
        critiques = [rollouts[k].verdict for k in failed]
        if self.update.shuffled:
            critiques = [*critiques[1:], critiques[0]]
        shown = []
        for k, critique in zip(failed, critiques, strict=True):
            problem = self.by_id[rollouts[k].path.problem_id]
            row = reflect_row(backbone.prompt_style, problem, rollouts[k].path.text, critique)
            row["response_ids"] = rows[k]["response_ids"]
            shown.append(row)
        taught = compute_response_log_probs(backbone, shown, self.sampling, max(1, self.rows_at_once // 4))
        return [Row(**{**rows[k], "teacher_log_probs": log_probs}) for k, log_probs in zip(failed, taught, strict=True)]

    # --- draws ---

    def _take_stored(self) -> list[Rollout]:
        """Return the next draw of the disk."""
        draw, self._next = self._next, next(self._stored, None)
        assert draw is not None
        self._taken += 1
        return draw

    def _draw(self, step: int, weights: int, backbone: Backbone) -> list[Rollout]:
        """Sample and judge the next draw for ``step``, and write it."""
        number, self._taken = self._taken, self._taken + 1
        problems = [self.problems[k] for k in self._choose_problems(number)]
        scratch = self.folder / SCRATCH
        samples_file, verdicts_file = scratch / f"draw_{number}.jsonl", scratch / f"draw_{number}_verdicts.jsonl"
        log = BatchLog(samples_file, [self.draw_rows])
        if not log.done:
            log.append(self._sample(number, step, weights, problems, backbone))
        samples: list[Sample] = list(log.rows(Sample))

        by_id, paths = {problem.id: problem for problem in problems}, [sample.path for sample in samples]
        verdicts = judge_paths(self.judge, by_id, paths, verdicts_file, batch_size=len(paths))
        by_path = {verdict.path_id: verdict for verdict in verdicts}
        rollouts = [Rollout(**vars(sample), verdict=by_path[sample.path.id]) for sample in samples]
        self.log.append(rollouts)
        samples_file.unlink()
        verdicts_file.unlink()
        return rollouts

    def _sample(
        self, number: int, step: int, weights: int, problems: Sequence[Problem], backbone: Backbone
    ) -> list[Sample]:
        """Sample the responses of a draw, problem by problem, and debit the stage."""
        style, costs = backbone.prompt_style, AnswerCosts.of(backbone)
        samples: list[Sample] = []
        for chunk, batch in enumerate(batch_by_length(problems, max(1, self.rows_at_once // self.samples))):
            seed = derive(self.seed, "draw", number, chunk)
            prompt_rows = [solve_row(style, problem) for problem in batch]
            completions = backbone.complete(
                prompt_rows,
                n=self.samples,
                max_new_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                seed=seed,
                with_log_probs=True,
            )
            for problem, row, of_problem in zip(batch, prompt_rows, completions, strict=True):
                for payment in costs.count_local(row, of_problem):
                    payment.pay()
                version = prompts.version("generate", style, problem)
                lineage = Lineage("student", self.stage, f"{self.model}+{weights}", seed=seed, prompt=version)
                for i, completion in enumerate(of_problem):
                    assert completion.log_probs is not None
                    path = ReasoningPath(
                        f"{self.stage}/{problem.id}/{number}/{i}", problem.id, completion.text, lineage
                    )
                    samples.append(Sample(step, weights, path, completion.ids, completion.log_probs))
        return samples

    def _choose_problems(self, draw: int) -> list[int]:
        """Return the positions of a draw's problems. Each epoch has another order, and leaves out the few problems at
        its end that do not make a draw, so a draw has no problem twice."""
        epoch, number = divmod(draw, len(self.problems) // self.per_step)
        order = list(range(len(self.problems)))
        rng(self.seed, "order", epoch).shuffle(order)
        return order[number * self.per_step : (number + 1) * self.per_step]
