"""Sampling: problems in, reasoning paths or predictions out, a durable batch at a time."""

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
from mathse.inference.work import Payment, Work
from mathse.models.base import Backbone, Completion
from mathse.models.model_spec import ModelSpec, open_shared, spec_of
from mathse.models.row import Row
from mathse.runs.rows import Chosen, JsonlRows
from mathse.runs.store import BatchLog
from mathse.seeds import derive
from mathse.training import ranks, work_queue
from mathse.types import Lineage, Problem, PromptStyle, ReasoningPath


@dataclass(frozen=True)
class Beginning:
    """The right steps of a rejected path, which further samples go on from. ``draft``: the id of that path."""

    text: str
    draft: str | None


@dataclass(frozen=True)
class Batch:
    """Problems with n samples each; ``first``: the number of the first sample, 0 unless they go on from beginnings."""

    problems: Sequence[Problem]
    n: int
    first: int = 0


NO_BEGINNINGS: Mapping[str, Beginning] = MappingProxyType({})
Advance = Callable[[int], None]  # called with the number of rows of each finished batch


def _ignore(rows: int) -> None:
    pass


@dataclass(frozen=True)
class Ask:
    """A batch of prompts, and the arguments of ``Backbone.generate`` or ``complete`` for it."""

    rows: Sequence[Row]
    options: Mapping[str, Any] = field(default_factory=dict)


class Served(Protocol):
    """A model behind a server (see mathse.inference.serving), used like a backbone."""

    @property
    def prompt_style(self) -> PromptStyle: ...

    def generate(self, rows: Sequence[Row], **options: Any) -> list[list[str]]: ...

    def generated(self, asks: Iterable[Ask]) -> Iterator[list[list[str]]]: ...


Writer = Backbone | Served


def generated(writer: Writer, asks: Iterable[Ask]) -> Iterator[list[list[str]]]:
    """``writer.generate`` of each batch, in their order; where the run has several ranks, by whichever is free. An
    answer does not depend on the rank that gave it. The stage that is being made is debited."""
    if not isinstance(writer, Backbone):
        return writer.generated(asks)
    return ([[c.text for c in samples] for samples in answers] for answers in completed(writer, asks))


def completed(backbone: Backbone, asks: Iterable[Ask]) -> Iterator[list[list[Completion]]]:
    """``backbone.complete`` of each batch, likewise."""
    for answers, spent in completed_at(backbone, asks):
        for debit in chain.from_iterable(spent):
            debit.pay()
        yield answers


def completed_at(
    backbone: Backbone, asks: Iterable[Ask]
) -> Iterator[tuple[list[list[Completion]], list[list[Payment]]]]:
    """The same, undebited: with each batch what its rows cost, for whoever has to pay it later."""
    work, queued = Work.of(backbone), deque[Ask]()

    def drawn() -> Iterator[Ask]:
        for ask in asks:
            queued.append(ask)
            yield ask

    for answers in work_queue.in_order(drawn(), _answer_of(backbone), _opened, spec_of(backbone)):
        ask = queued.popleft()
        yield answers, [work.on(row, samples) for row, samples in zip(ask.rows, answers, strict=True)]


def _opened(spec: ModelSpec) -> Callable[[Ask], list[list[Completion]]]:
    """How another rank answers, which opens the model itself."""
    return _answer_of(open_shared(spec, ranks.current().device))


def _answer_of(backbone: Backbone) -> Callable[[Ask], list[list[Completion]]]:
    return lambda ask: backbone.complete(ask.rows, **ask.options)


class Generator:
    """How paths are drawn; one seed a batch, so a resumed stage draws the same. Temperature 0 is greedy.

    A subclass says how many problems a batch has.
    """

    def __init__(self, batch_size: int, max_new_tokens: int, sampling: Mapping[str, Any]) -> None:
        self.batch_size, self.max_new_tokens, self.sampling = batch_size, max_new_tokens, dict(sampling)

    def problems_at_once(self, n: int) -> int:
        """Problems a batch, of n samples each."""
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
        beginnings: Mapping[str, Beginning] = NO_BEGINNINGS,
        advance: Advance = _ignore,
    ) -> Sequence[ReasoningPath]:
        """n paths a problem, appended to ``file`` batch by batch; batches that it has already are not sampled again.

        Paths are read from the file as they are used, and ``problems`` may be on the disk: memory holds one batch.

        Args:
            restarts: further paths of each problem, by id, that ``beginnings`` has a beginning of.
        """
        # A batch is the unit of work: it has one seed and is written at once, so a kill loses at most one, and a
        # resumed stage makes the same paths. The order of the rows does not depend on a batch's size: a file that was
        # begun with batches of another size is gone on with, behind the last whole batch of today's size.
        whole = [Batch(b, n) for b in batched(problems, self.problems_at_once(n))]
        begun = Chosen(problems, (k for k, p in enumerate(problems) if p.id in beginnings)) if beginnings else ()
        batches = [*whole, *(Batch(b, restarts, first=n) for b in batched(begun, self.problems_at_once(restarts or 1)))]
        log = BatchLog(file, [len(b.problems) * b.n for b in batches])
        advance(sum(log.sizes[: log.done]))
        sampling = self.sampling if temperature is None else {**self.sampling, "temperature": temperature}
        options = {"max_new_tokens": self.max_new_tokens, **sampling}
        style = writer.prompt_style

        def ask(number: int) -> Ask:
            batch = batches[number]
            starts = [beginnings[p.id].text if batch.first else None for p in batch.problems]
            rows = [solve_row(style, p, begun=start) for p, start in zip(batch.problems, starts, strict=True)]
            return Ask(rows, {"seed": derive(seed, stage, "sample", number), "n": batch.n, **options})

        todo = range(log.done, len(batches))
        for number, texts in zip(todo, generated(writer, map(ask, todo)), strict=True):
            batch, paths = batches[number], []
            for problem, samples in zip(batch.problems, texts, strict=True):
                version = prompts.version("generate", style, problem)
                start = beginnings[problem.id] if batch.first else Beginning("", None)
                of_batch = derive(seed, stage, "sample", number)
                lineage = Lineage("student", stage, model, parent=start.draft, seed=of_batch, prompt=version)
                paths += [
                    ReasoningPath(f"{stage}/{problem.id}/{i}", problem.id, start.text + text, lineage)
                    for i, text in enumerate(samples, batch.first)
                ]
            log.append(paths)
            advance(len(paths))
        return JsonlRows(file, ReasoningPath)


class HFGenerator(Generator):
    """Samples in this process."""

    def __init__(self, settings: Settings) -> None:
        sampling = {"temperature": settings.temperature, "top_p": settings.top_p, "top_k": settings.top_k}
        super().__init__(settings.batch_size, settings.max_new_tokens, sampling)

    def problems_at_once(self, n: int) -> int:
        """``batch_size`` counts sequences, since each has keys and values of its own in the memory."""
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
    """Greedy answers: rows {"id", "response", "prediction", "answer", "correct"}, appended batch by batch."""
    batches = list(batched(problems, batch_size))
    log = BatchLog(file, [len(b) for b in batches])
    advance(sum(len(b) for b in batches[: log.done]))
    todo = batches[log.done :]
    asks = (
        Ask([solve_row(writer.prompt_style, p) for p in batch], {"max_new_tokens": max_new_tokens}) for batch in todo
    )
    for batch, texts in zip(todo, generated(writer, asks), strict=True):
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


def batched(problems: Sequence[Problem], size: int) -> Iterator[Sequence[Problem]]:
    """Batches of problems with questions of similar length: less padding. The order is fixed by the problems alone."""
    keys = [(len(p.question), p.id) for p in problems]
    order = Chosen(problems, sorted(range(len(keys)), key=keys.__getitem__))
    return (order[k : k + size] for k in range(0, len(order), size))
