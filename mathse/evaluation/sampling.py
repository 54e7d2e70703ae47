"""Answers from a model: ``predictions.jsonl`` grows batch by batch, and a rerun goes on where it stopped."""

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
    """How a model answers: greedily, or ``n`` times by sampling."""

    n: int  # answers to a problem
    batch_size: int  # as it was set, and as identities have it
    problems_at_once: int  # a batch
    max_new_tokens: int
    seed: int
    sampling: Mapping[str, Any] = field(default_factory=dict)  # temperature, top_p, top_k; empty: greedy

    def described(self) -> dict[str, Any]:
        """For the protocol and the answers' identity; a seed decides nothing of greedy answers."""
        drawn = {**self.sampling, "seed": self.seed} if self.sampling else {}
        decoding = "sampling" if self.sampling else "greedy"
        return {"decoding": decoding, **drawn, "n_samples": self.n, "max_new_tokens": self.max_new_tokens}


def decoding_of(config: EvaluateConfig) -> Decoding:
    """All answers have ``evaluation``'s limit; greedy ones its batches, samples those of ``generator``."""
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


def answers(
    opened: OpenedBenchmark, decoding: Decoding, student: Callable[[], Student], advance: Callable[[int], None]
) -> list[Answer]:
    """``decoding.n`` answers to each item, in the benchmark's order; ``student`` is called only if something is left to
    ask, ``advance`` with the number of answers of each finished batch.

    A problem that the model cannot take (a picture too many, a prompt beyond its context) is answered "" and listed.
    """
    items = {item.problem.id: item for item in opened.items}
    refused = unasked(opened, decoding, student)
    # The empty answers to all refused problems are the first batch.
    skipped = [item.problem for item in opened.items if item.problem.id in refused]
    askable = [item.problem for item in opened.items if item.problem.id not in refused]
    batches = [*([skipped] if skipped else []), *batch_by_length(askable, decoding.problems_at_once)]
    log = BatchLog(opened.folder / PREDICTIONS, [len(batch) * decoding.n for batch in batches])
    advance(sum(len(batch) * decoding.n for batch in batches[: log.done]))

    def append(batch: Sequence[Problem], texts: Sequence[Sequence[str]]) -> None:
        log.append(
            [
                Answer(problem.id, text, sample).to_json(several=decoding.n > 1)
                for problem, samples in zip(batch, texts, strict=True)
                for sample, text in enumerate(samples)
            ]
        )
        advance(len(batch) * decoding.n)

    if skipped and not log.done:
        append(skipped, [[""] * decoding.n] * len(skipped))
    if remaining := list(enumerate(batches))[log.done :]:
        model = student()

        def asks() -> Iterator[PromptBatch]:
            for number, batch in remaining:
                rows = [row_of(opened.bench, model, items[problem.id]) for problem in batch]
                # A draw depends on the number of its batch alone, so that a rerun draws the same.
                seed = {"seed": derive(decoding.seed, "evaluate", opened.name, number)} if decoding.sampling else {}
                limits = {"n": decoding.n, "max_new_tokens": decoding.max_new_tokens}
                yield PromptBatch(rows, {**limits, **decoding.sampling, **seed})

        for (_, batch), texts in zip(remaining, generate_batches(model, asks()), strict=True):
            append(batch, texts)

    answers_to: dict[str, list[Answer]] = {}
    for row in map(whole_characters, log.rows()):
        answers_to.setdefault(row["id"], []).append(Answer(row["id"], row["response"], row.get("sample", 0)))
    return [answer for identity in items for answer in sorted(answers_to[identity], key=lambda a: a.sample)]


def row_of(bench: Benchmark, student: Student, item: Item) -> Row:
    """What the student is asked: the benchmark's own prompt, or (prompt=student) the one it was trained with."""
    if bench.prompt == STUDENT_PROMPT:
        return solve_row(student.prompt_style, item.problem)
    return problem_row(item.prompt, item.problem)


def unasked(opened: OpenedBenchmark, decoding: Decoding, student: Callable[[], Student]) -> dict[str, str]:
    """Reason by id of the problems that the model cannot take; decided once, and kept in ``unasked.jsonl``."""
    file = opened.folder / UNASKED
    if not file.exists():
        model = student()
        prompt_limit = model.context - decoding.max_new_tokens  # tokens
        rows = ((item.problem.id, row_of(opened.bench, model, item)) for item in opened.items)
        reasons = ((i, model.refusal(row) or model.too_long(row, prompt_limit)) for i, row in rows)
        write_jsonl(file, [{"id": i, "reason": reason} for i, reason in reasons if reason])
    return {row["id"]: row["reason"] for row in read_jsonl(file)}
