"""Answers from a model: ``predictions.jsonl`` grows batch by batch, and a rerun goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mathse.evaluation.benchmarks.base import Benchmark, Item
from mathse.evaluation.decoding import Decoding
from mathse.evaluation.files import PREDICTIONS, UNASKED
from mathse.evaluation.opened import Opened
from mathse.evaluation.own import STUDENT
from mathse.evaluation.predictions import Answer
from mathse.inference import prompts
from mathse.inference.generate import Ask, batched, generated
from mathse.inference.serving.student import ServedStudent
from mathse.models.base import Backbone
from mathse.models.row import Row
from mathse.runs.store import BatchLog, read_jsonl, write_jsonl
from mathse.seeds import derive
from mathse.types import mended

Student = Backbone | ServedStudent


def answers(
    opened: Opened, how: Decoding, model: Callable[[], Student], advance: Callable[[int], None]
) -> list[Answer]:
    """``how.n`` answers to each item, in the benchmark's order; ``model`` is called only if something is left to ask.

    A problem that the model cannot take (a picture too many, a prompt beyond its context) is answered "" and listed.
    """
    refused = unasked(opened, how, model)
    problems = [item.problem for item in opened.items if item.problem.id not in refused]
    skipped = [[item.problem for item in opened.items if item.problem.id in refused]] if refused else []
    batches = [*skipped, *batched(problems, how.batch_size)]
    log = BatchLog(opened.folder / PREDICTIONS, [len(b) * how.n for b in batches])
    advance(sum(len(b) * how.n for b in batches[: log.done]))
    if skipped and not log.done:
        log.append(_rows([(p.id, [""] * how.n) for p in skipped[0]]))
        advance(len(skipped[0]) * how.n)
    if log.done < len(batches):
        _ask(opened, how, model(), list(enumerate(batches))[log.done :], log, advance)
    return _in_order(opened, log.rows())


def _ask(
    opened: Opened,
    how: Decoding,
    backbone: Student,
    todo: Sequence[tuple[int, Sequence[Any]]],
    log: BatchLog,
    advance: Callable[[int], None],
) -> None:
    """Every remaining batch, in order; draws depend on its number alone."""
    items = {item.problem.id: item for item in opened.items}
    asks = (
        Ask(
            [row_of(opened.bench, backbone, items[p.id]) for p in batch],
            {"n": how.n, "max_new_tokens": how.max_new_tokens, **how.sampling, **_draw(opened, how, k)},
        )
        for k, batch in todo
    )
    replies = backbone.generated(asks) if isinstance(backbone, ServedStudent) else generated(backbone, asks)
    for (_, batch), texts in zip(todo, replies, strict=True):
        log.append(_rows([(p.id, row) for p, row in zip(batch, texts, strict=True)]))
        advance(len(batch) * how.n)


def _draw(opened: Opened, how: Decoding, batch: int) -> dict[str, int]:
    return {"seed": derive(how.seed, "evaluate", opened.name, batch)} if how.sampling else {}


def row_of(bench: Benchmark, backbone: Student, item: Item) -> Row:
    """What the student is asked: the benchmark's own words, or (prompt=student) those it was trained with."""
    if bench.prompt == STUDENT:
        question = prompts.generation_prompt(item.problem, backbone.prompt_style)
        return Row(question=question, images=item.problem.images)
    return Row(question=item.prompt, images=item.problem.images)


def unasked(opened: Opened, how: Decoding, model: Callable[[], Student]) -> dict[str, str]:
    """Reason by id of the problems that the model cannot take; decided once, and kept in ``unasked.jsonl``."""
    file = opened.folder / UNASKED
    if not file.exists():
        backbone = model()
        room = backbone.context - how.max_new_tokens
        rows = ((item.problem.id, row_of(opened.bench, backbone, item)) for item in opened.items)
        reasons = ((i, backbone.refusal(row) or backbone.too_long(row, room)) for i, row in rows)
        write_jsonl(file, [{"id": i, "reason": reason} for i, reason in reasons if reason])
    return {row["id"]: row["reason"] for row in read_jsonl(file)}


def _rows(answered: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, Any]]:
    return [
        Answer(identity, text, k).to_json(several=len(texts) > 1)
        for identity, texts in answered
        for k, text in enumerate(texts)
    ]


def _in_order(opened: Opened, rows: Any) -> list[Answer]:
    found: dict[str, list[Answer]] = {}
    for row in map(mended, rows):
        found.setdefault(row["id"], []).append(Answer(row["id"], row["response"], row.get("sample", 0)))
    return [answer for item in opened.items for answer in sorted(found[item.problem.id], key=lambda a: a.sample)]
