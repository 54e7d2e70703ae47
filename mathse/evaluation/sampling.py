"""Answers from a model: ``predictions.jsonl`` grows batch by batch, and a rerun continues after the last batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mathse.config import build
from mathse.config.schema import EvaluateConfig
from mathse.evaluation.benchmark import STUDENT_PROMPT, Benchmark, Item
from mathse.evaluation.folder import UNASKED
from mathse.evaluation.opened import OpenedBenchmark
from mathse.evaluation.predictions import Answer
from mathse.inference.generate import PromptBatch, batch_by_length, generate_batches
from mathse.inference.rows import problem_row, solve_row
from mathse.inference.serving.student import ServedStudent
from mathse.models.base import Backbone
from mathse.models.row import Row
from mathse.runs.layout import PREDICTIONS
from mathse.runs.store import BatchLog, read_jsonl, write_jsonl
from mathse.seeds import derive
from mathse.types import Problem, whole_characters

Student = Backbone | ServedStudent


@dataclass(frozen=True)
class Decoding:
    """The decoding of answers: greedy, or ``n`` samples for each problem."""

    n: int  # answers to a problem
    batch_size: int  # the value of the setting, which identities record
    problems_at_once: int  # problems in a batch
    max_new_tokens: int
    seed: int
    sampling: Mapping[str, Any] = field(default_factory=dict)  # temperature, top_p, top_k; empty: greedy

    def to_json(self) -> dict[str, Any]:
        """Return the values for the protocol and the answers' identity. Greedy answers do not depend on the seed."""
        values: dict[str, Any] = {"decoding": "greedy"}
        if self.sampling:
            values = {"decoding": "sampling", **self.sampling, "seed": self.seed}
        return {**values, "n_samples": self.n, "max_new_tokens": self.max_new_tokens}


def decoding_of(config: EvaluateConfig) -> Decoding:
    """Return the decoding of the settings.

    All answers have the limit of ``evaluation``. Greedy answers have its batch size, samples that of ``generator``.
    """
    settings = config.evaluation
    if config.decoding != "sampling" and config.n_samples == 1:
        return Decoding(1, settings.batch_size, settings.batch_size, settings.max_new_tokens, config.seed)
    generator, n = build(config.generator), config.n_samples
    return Decoding(
        n,
        generator.batch_size,
        generator.problems_at_once(n),
        settings.max_new_tokens,
        config.seed,
        dict(generator.sampling),
    )


def sample_answers(
    opened: OpenedBenchmark, decoding: Decoding, student: Callable[[], Student], advance: Callable[[int], None]
) -> list[Answer]:
    """Sample ``decoding.n`` answers to each item, and return all answers in the benchmark's order.

    A problem that the model cannot take (too many pictures, a prompt longer than its context) gets the answer "" and is
    listed in ``unasked.jsonl``.

    Args:
        opened: the benchmark.
        decoding: number of answers, limits and sampling.
        student: opens the model; called only if answers are missing.
        advance: called with the number of answers in each finished batch.
    """
    # 1. Batches. The empty answers to all refused problems are the first batch.
    items = {item.problem.id: item for item in opened.items}
    refused = find_refused(opened, decoding, student)
    skipped = [item.problem for item in opened.items if item.problem.id in refused]
    askable = [item.problem for item in opened.items if item.problem.id not in refused]
    batches: list[Sequence[Problem]] = list(batch_by_length(askable, decoding.problems_at_once))
    if skipped:
        batches.insert(0, skipped)
    log = BatchLog(opened.folder / PREDICTIONS, [len(batch) * decoding.n for batch in batches])
    advance(sum(len(batch) * decoding.n for batch in batches[: log.done]))

    # 2. Sample the batches that an earlier start did not finish, and append each to the file.
    def append(batch: Sequence[Problem], texts: Sequence[Sequence[str]]) -> None:
        rows = []
        for problem, samples in zip(batch, texts, strict=True):
            for sample, text in enumerate(samples):
                rows.append(Answer(problem.id, text, sample).to_json(several=decoding.n > 1))
        log.append(rows)
        advance(len(batch) * decoding.n)

    if skipped and not log.done:
        append(skipped, [[""] * decoding.n] * len(skipped))
    if remaining := list(enumerate(batches))[log.done :]:
        model = student()

        def prompt_batches() -> Iterator[PromptBatch]:
            for number, batch in remaining:
                rows = [row_of(opened.bench, model, items[problem.id]) for problem in batch]
                options = {"n": decoding.n, "max_new_tokens": decoding.max_new_tokens, **decoding.sampling}
                if decoding.sampling:
                    # The seed depends only on the number of the batch, so a rerun draws the same samples.
                    options["seed"] = derive(decoding.seed, "evaluate", opened.name, number)
                yield PromptBatch(rows, options)

        for (_, batch), texts in zip(remaining, generate_batches(model, prompt_batches()), strict=True):
            append(batch, texts)

    # 3. Read all answers from the file, in the benchmark's order.
    answers_to: dict[str, list[Answer]] = {}
    for row in map(whole_characters, log.rows()):
        answers_to.setdefault(row["id"], []).append(Answer(row["id"], row["response"], row.get("sample", 0)))
    in_order: list[Answer] = []
    for problem_id in items:
        in_order += sorted(answers_to[problem_id], key=lambda answer: answer.sample)
    return in_order


def row_of(bench: Benchmark, student: Student, item: Item) -> Row:
    """Return the student's prompt: the benchmark's, or with prompt=student the prompt of its training."""
    if bench.prompt == STUDENT_PROMPT:
        return solve_row(student.prompt_style, item.problem)
    return problem_row(item.prompt, item.problem)


def find_refused(opened: OpenedBenchmark, decoding: Decoding, student: Callable[[], Student]) -> dict[str, str]:
    """Return id -> reason of the problems that the model cannot take, from ``unasked.jsonl``.

    The first call decides and writes the file.
    """
    file = opened.folder / UNASKED
    if not file.exists():
        model = student()
        prompt_limit = model.context - decoding.max_new_tokens  # tokens
        refusals = []
        for item in opened.items:
            row = row_of(opened.bench, model, item)
            if reason := model.refusal(row) or model.too_long(row, prompt_limit):
                refusals.append({"id": item.problem.id, "reason": reason})
        write_jsonl(file, refusals)
    return {row["id"]: row["reason"] for row in read_jsonl(file)}
