"""Sampling: problems in, reasoning paths or predictions out. Each batch is on the disk before the next is awaited."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from mathse.config.generators import HFGenerator as Settings
from mathse.data.domains import final_answer, has_answer
from mathse.inference import prompts
from mathse.inference.rows import solve_row
from mathse.inference.work import AnswerCosts, Payment
from mathse.models.base import Backbone, Completion
from mathse.models.model_spec import ModelSpec, find_spec, open_shared
from mathse.models.row import Row
from mathse.runs.rows import Chosen, JsonlRows
from mathse.runs.store import BatchLog
from mathse.seeds import derive
from mathse.training import ranks, work_queue
from mathse.types import Lineage, Problem, PromptStyle, ReasoningPath


@dataclass(frozen=True)
class PathPrefix:
    """The correct steps of a rejected path, which further samples continue. ``draft``: the id of that path."""

    text: str
    draft: str | None


@dataclass(frozen=True)
class SampleBatch:
    """Problems with ``n`` samples each. ``first`` is the number of the first sample; above 0, the samples continue
    prefixes."""

    problems: Sequence[Problem]
    n: int
    first: int = 0


NO_PREFIXES: Mapping[str, PathPrefix] = MappingProxyType({})
Advance = Callable[[int], None]  # called with the number of rows of each finished batch


def _ignore(rows: int) -> None:
    pass


@dataclass(frozen=True)
class PromptBatch:
    """A batch of prompts with the arguments of ``Backbone.generate`` or ``complete`` for it."""

    rows: Sequence[Row]
    options: Mapping[str, Any] = field(default_factory=dict)


class ServedWriter(Protocol):
    """A model behind a server, used like a backbone (see mathse.inference.serving)."""

    @property
    def prompt_style(self) -> PromptStyle: ...

    def generate(self, rows: Sequence[Row], **options: Any) -> list[list[str]]: ...

    def generate_batches(self, batches: Iterable[PromptBatch]) -> Iterator[list[list[str]]]: ...


Writer = Backbone | ServedWriter


def generate_batches(writer: Writer, batches: Iterable[PromptBatch]) -> Iterator[list[list[str]]]:
    """Return the texts of each batch, in order, and debit the stage that is being made.

    In a run with several ranks, the next batch goes to the rank that is free. An answer does not depend on the rank
    that computes it.

    Returns:
        By batch and row, the texts of the row's samples.
    """
    if not isinstance(writer, Backbone):
        return writer.generate_batches(batches)
    return (
        [[completion.text for completion in samples] for samples in of_batch]
        for of_batch in complete_batches(writer, batches)
    )


def complete_batches(backbone: Backbone, batches: Iterable[PromptBatch]) -> Iterator[list[list[Completion]]]:
    """Return the completions of each batch as ``generate_batches`` does its texts."""
    for completions, costs in complete_with_costs(backbone, batches):
        for payment in chain.from_iterable(costs):
            payment.pay()
        yield completions


def complete_with_costs(
    backbone: Backbone, batches: Iterable[PromptBatch]
) -> Iterator[tuple[list[list[Completion]], list[list[Payment]]]]:
    """Return the completions of each batch and the cost of each of its rows, which the caller has to pay."""
    costs, pending = AnswerCosts.of(backbone), deque[PromptBatch]()

    def keep_pending() -> Iterator[PromptBatch]:
        for batch in batches:
            pending.append(batch)
            yield batch

    answers = work_queue.map_in_order(keep_pending(), _complete_with(backbone), _open_shared, find_spec(backbone))
    for completions in answers:
        batch = pending.popleft()
        yield completions, [costs.count_local(row, of_row) for row, of_row in zip(batch.rows, completions, strict=True)]


def _open_shared(spec: ModelSpec) -> Callable[[PromptBatch], list[list[Completion]]]:
    """Open the model on another rank, which then completes batches with it."""
    return _complete_with(open_shared(spec, ranks.current().device))


def _complete_with(backbone: Backbone) -> Callable[[PromptBatch], list[list[Completion]]]:
    return lambda batch: backbone.complete(batch.rows, **batch.options)


class Generator:
    """Samples reasoning paths. Each batch has a seed of its own, so a resumed stage draws the same samples.

    Args:
        batch_size: problems per batch; a subclass may count differently in ``problems_at_once``.
        max_new_tokens: length limit of a path.
        sampling: temperature, top_p and the like; temperature 0 is greedy.
    """

    def __init__(self, batch_size: int, max_new_tokens: int, sampling: Mapping[str, Any]) -> None:
        self.batch_size, self.max_new_tokens, self.sampling = batch_size, max_new_tokens, dict(sampling)

    def problems_at_once(self, n: int) -> int:
        """Return the number of problems per batch, with n samples each."""
        return self.batch_size

    def sample(
        self,
        writer: Writer,
        problems: Sequence[Problem],
        file: Path,
        *,
        stage: str,
        model: str,
        seed: int,
        n: int = 1,
        temperature: float | None = None,
        restarts: int = 0,
        prefixes: Mapping[str, PathPrefix] = NO_PREFIXES,
        advance: Advance = _ignore,
    ) -> Sequence[ReasoningPath]:
        """Sample paths, and append them to ``file`` batch by batch; batches in the file are not sampled again.

        Paths are read from the file when they are used, and ``problems`` may be on the disk, so memory holds one batch.

        Args:
            writer: samples the texts.
            problems: to be solved.
            file: paths as JSONL rows.
            stage: name of the stage, for ids, lineage and seeds.
            model: name of the model, for lineage.
            seed: random seed for all sampling of the run.
            n: paths per problem.
            temperature: in the place of the generator's own.
            restarts: further paths per problem that continue its prefix.
            prefixes: by problem id.
            advance: called with the number of paths of each finished batch.
        """
        # A batch is the unit of work: it has its own seed and is written at once, so a kill loses at most one batch and
        # a resumed stage makes the same paths. The order of rows does not depend on the batch size: a file with batches
        # of another size is continued behind its last whole batch of today's size.
        batches = [SampleBatch(b, n) for b in batch_by_length(problems, self.problems_at_once(n))]
        if prefixes:
            with_prefix = Chosen(problems, (k for k, p in enumerate(problems) if p.id in prefixes))
            size = self.problems_at_once(restarts or 1)
            batches += [SampleBatch(b, restarts, first=n) for b in batch_by_length(with_prefix, size)]
        log = BatchLog(file, [len(b.problems) * b.n for b in batches])
        advance(sum(log.sizes[: log.done]))
        sampling = self.sampling if temperature is None else {**self.sampling, "temperature": temperature}
        options = {"max_new_tokens": self.max_new_tokens, **sampling}
        style = writer.prompt_style

        def make_prompts(number: int) -> PromptBatch:
            batch = batches[number]
            rows = []
            for problem in batch.problems:
                prefix = prefixes[problem.id].text if batch.first else None
                rows.append(solve_row(style, problem, begun=prefix))
            return PromptBatch(rows, {"seed": derive(seed, stage, "sample", number), "n": batch.n, **options})

        todo = range(log.done, len(batches))
        for number, texts in zip(todo, generate_batches(writer, map(make_prompts, todo)), strict=True):
            batch, paths = batches[number], []
            batch_seed = derive(seed, stage, "sample", number)
            for problem, samples in zip(batch.problems, texts, strict=True):
                version = prompts.version("generate", style, problem)
                prefix = prefixes[problem.id] if batch.first else PathPrefix("", None)
                lineage = Lineage("student", stage, model, parent=prefix.draft, seed=batch_seed, prompt=version)
                for i, text in enumerate(samples, batch.first):
                    path_id = f"{stage}/{problem.id}/{i}"
                    paths.append(ReasoningPath(path_id, problem.id, prefix.text + text, lineage))
            log.append(paths)
            advance(len(paths))
        return JsonlRows(file, ReasoningPath)


class HFGenerator(Generator):
    """Samples in this process."""

    def __init__(self, settings: Settings) -> None:
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k}
        super().__init__(settings.batch_size, settings.max_new_tokens, sampling)

    def problems_at_once(self, n: int) -> int:
        """Return the number of problems per batch. ``batch_size`` counts sequences, since each has its own KV cache."""
        return max(1, self.batch_size // n)


def predict(
    writer: Writer,
    problems: Sequence[Problem],
    file: Path,
    *,
    batch_size: int,
    max_new_tokens: int,
    advance: Advance = _ignore,
) -> list[dict[str, Any]]:
    """Answer problems greedily, and append the answers to ``file`` batch by batch.

    Returns:
        Rows {"id", "response", "prediction", "answer", "correct"}.
    """
    batches = list(batch_by_length(problems, batch_size))
    log = BatchLog(file, [len(b) for b in batches])
    advance(sum(len(b) for b in batches[: log.done]))
    todo = batches[log.done :]
    options = {"max_new_tokens": max_new_tokens}
    prompt_batches = (PromptBatch([solve_row(writer.prompt_style, p) for p in batch], options) for batch in todo)
    for batch, texts in zip(todo, generate_batches(writer, prompt_batches), strict=True):
        rows = []
        for problem, (response,) in zip(batch, texts, strict=True):
            prediction = final_answer(problem, response)
            rows.append(
                {
                    "id": problem.id,
                    "response": response,
                    "prediction": prediction,
                    "answer": problem.answer,
                    "correct": has_answer(problem, prediction),
                }
            )
        log.append(rows)
        advance(len(batch))
    return list(log.rows())


def batch_by_length(problems: Sequence[Problem], size: int) -> Iterator[Sequence[Problem]]:
    """Group problems with questions of similar length, for little padding. Only the problems decide the order."""
    keys = [(len(p.question), p.id) for p in problems]
    order = Chosen(problems, sorted(range(len(keys)), key=keys.__getitem__))
    return (order[k : k + size] for k in range(0, len(order), size))
