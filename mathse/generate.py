"""Sampling: problems in, reasoning paths or predictions out, a durable batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mathse import prompts
from mathse.answers import extract_answer, same_answer
from mathse.backbones.base import Backbone, Row
from mathse.seeds import derive
from mathse.store import BatchLog
from mathse.types import Lineage, Problem, ReasoningPath

Advance = Callable[[int], None]  # told the number of rows of each finished batch


def _ignore(rows: int) -> None:
    pass


class HFGenerator:
    """Samples in this process with transformers' ``generate``; one seed a batch, so a resumed stage draws the same."""

    def __init__(
        self,
        batch_size: int = 256,
        temperature: float = 0.7,
        top_p: float = 1.0,
        top_k: int = 0,
        max_new_tokens: int = 80,
    ) -> None:
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        self.sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k}

    def sample(
        self,
        backbone: Backbone,
        problems: Sequence[Problem],
        file: Path,
        *,
        stage: str,
        model: str,
        seed: int,
        n: int = 1,
        temperature: float | None = None,
        advance: Advance = _ignore,
    ) -> list[ReasoningPath]:
        """n paths a problem, appended to ``file`` batch by batch; what is there already is not sampled again."""
        batches = list(batched(problems, self.batch_size))
        log = BatchLog(file, [len(b) * n for b in batches])
        sampling = self.sampling if temperature is None else {**self.sampling, "temperature": temperature}
        advance(sum(len(b) * n for b in batches[: log.done]))
        for k in range(log.done, len(batches)):
            draw = derive(seed, stage, "sample", k)
            texts = backbone.generate(
                [solve_row(backbone, p) for p in batches[k]],
                n=n,
                seed=draw,
                max_new_tokens=self.max_new_tokens,
                **sampling,
            )
            lineage = Lineage(
                "student", stage, model, seed=draw, prompt=prompts.version("generate", backbone.prompt_style)
            )
            log.append(
                [
                    ReasoningPath(f"{stage}/{p.id}/{i}", p.id, text, lineage)
                    for p, row in zip(batches[k], texts, strict=True)
                    for i, text in enumerate(row)
                ]
            )
            advance(len(batches[k]) * n)
        return list(log.rows(ReasoningPath))


def predict(
    backbone: Backbone,
    problems: Sequence[Problem],
    file: Path,
    *,
    batch_size: int,
    max_new_tokens: int,
    advance: Advance = _ignore,
) -> list[dict[str, Any]]:
    """Greedy answers: rows {"id", "response", "prediction", "answer", "correct"}, appended batch by batch."""
    batches = list(batched(problems, batch_size))
    log = BatchLog(file, [len(b) for b in batches])
    advance(sum(len(b) for b in batches[: log.done]))
    for k in range(log.done, len(batches)):
        texts = backbone.generate([solve_row(backbone, p) for p in batches[k]], max_new_tokens=max_new_tokens)
        log.append([_prediction(p, row[0]) for p, row in zip(batches[k], texts, strict=True)])
        advance(len(batches[k]))
    return list(log.rows())


def _prediction(problem: Problem, response: str) -> dict[str, Any]:
    prediction = extract_answer(response)
    return {
        "id": problem.id,
        "response": response,
        "prediction": prediction,
        "answer": problem.answer,
        "correct": same_answer(prediction, problem.answer, problem.choices),
    }


def solve_row(backbone: Backbone, problem: Problem, response: str | None = None) -> Row:
    """The row that asks for a solution; with ``response``, the one that trains on it."""
    row = Row(question=prompts.generation_prompt(problem, backbone.prompt_style), images=problem.images)
    if response is not None:
        row["response"] = response
    return row


def batched(problems: Sequence[Problem], size: int) -> Iterator[list[Problem]]:
    """Batches of problems with questions of similar length: less padding. The order is fixed by the problems alone."""
    order = sorted(problems, key=lambda p: (len(p.question), p.id))
    return (order[k : k + size] for k in range(0, len(order), size))
