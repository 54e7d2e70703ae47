"""Reflection (Algorithm 1, lines 14-16): wrong drafts are rewritten, judged like any path, merged by the same code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path

from mathse.config.loop import NOBODY
from mathse.evolution import stages
from mathse.evolution.measure import acceptance
from mathse.evolution.standing import Evolution
from mathse.evolution.state import Judged, not_rewritten
from mathse.inference import prompts
from mathse.inference.generate import Ask, generated
from mathse.inference.rows import reflect_row
from mathse.judges import judge_paths
from mathse.judges.teachers import AT_ONCE, in_calls, prompt_version
from mathse.models.row import Row
from mathse.runs.layout import FEEDBACK_VERDICTS, REFLECTIONS, VERDICTS
from mathse.runs.rows import Chained, JsonlRows, Mapped
from mathse.runs.store import BatchLog, write_jsonl
from mathse.seeds import derive
from mathse.types import Lineage, ReasoningPath, Reflection, Verdict


def reflect(loop: Evolution, name: str) -> None:
    """Make the reflection stage ``name``: the state goes on with what was accepted; the next fit trains on it."""
    loop.stage = stage = stages.open_reflection(loop, name)
    settings = loop.config.evolution.reflect
    if not stage.done:
        drafts = loop.state.to_reflect(settings.all_drafts)
        feedback = _feedback(loop, drafts)
        loop.judged = []
        reflections: Sequence[Reflection] = []
        for attempt in range(settings.tries):
            pending = not_rewritten(drafts, loop.judged, loop.models.accepts)
            written = _rewrite(loop, pending, feedback, attempt)
            reflections = Chained(reflections, written)
            revised: Sequence[ReasoningPath] = Mapped(attrgetter("revised"), written)
            folder = _tries(stage.path, attempt)
            judged = stages.judge(loop, revised, loop.config.judge, folder, "verdicts on rewrites")
            loop.judged = Chained(loop.judged, judged)
        write_jsonl(stage.path / REFLECTIONS, reflections)
        write_jsonl(stage.path / VERDICTS, (j.verdict for j in loop.judged))
        loop.call("on_paths_judged")
        loop.state.save(stage.path)
        figures = {"drafts": len(drafts), "rewritten": len(reflections), **acceptance(loop, loop.judged)}
        loop.finish(figures, stages.inputs(loop))
    loop.state_loaded_from(stage)


Feedback = Callable[[Judged], Verdict | None]


def _feedback(loop: Evolution, drafts: Sequence[Judged]) -> Feedback:
    """What the writer is told of each draft: the ORM's word, the teacher's, or nothing (Table 3)."""
    stage, source = loop.stage, loop.config.evolution.reflect.feedback
    if source == NOBODY:
        return lambda draft: None
    if source == loop.config.judge.name == "orm":  # it has not changed since; a teacher may be the student, who has
        return attrgetter("verdict")
    judge = loop.models.judge(source)
    with loop.context.work(stage, "judge", f"feedback by {source}", len(drafts)) as advance:
        words = judge_paths(
            judge,
            loop.problems.by_id,
            Mapped(attrgetter("path"), drafts),
            stage.path / FEEDBACK_VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    place = {word.path_id: k for k, word in enumerate(words)}
    return lambda draft: words[place[draft.path.id]]


def _rewrite(loop: Evolution, drafts: Sequence[Judged], feedback: Feedback, attempt: int) -> Sequence[Reflection]:
    """One rewrite of each draft, appended batch by batch; an unusable answer is an empty path, judged as such."""
    by_student = loop.config.evolution.reflect.writer == "student"
    size = loop.models.generator.batch_size if by_student else AT_ONCE
    batches = [drafts[k : k + size] for k in range(0, len(drafts), size)]
    log = BatchLog(_tries(loop.stage.path, attempt) / REFLECTIONS, [len(b) for b in batches])
    write = _by_student if by_student else _by_teacher
    with loop.context.work(loop.stage, "sample", "rewrites", len(drafts)) as advance:
        for written in write(loop, batches, log.done, feedback, attempt):
            log.append(written)
            advance(len(written))
    return JsonlRows(log.path, Reflection)


def _by_teacher(
    loop: Evolution,
    batches: Sequence[Sequence[Judged]],
    done: int,
    feedback: Feedback,
    attempt: int,
) -> Iterator[list[Reflection]]:
    """The rewrites of each batch from the ``done``-th on."""
    stage = loop.stage.name
    for call in in_calls(loop.models.teacher, batches[done:]):
        drafts = [d for batch in call for d in batch]
        problems = [loop.problems.by_id[d.path.problem_id] for d in drafts]
        words = [feedback(d) for d in drafts]
        texts = loop.models.teacher.reflect(problems, [d.path for d in drafts], words, attempt)
        versions = (prompt_version(loop.models.teacher, "reflect", p) for p in problems)
        made = (
            _reflection(stage, draft, word, text, loop.teacher_name, version, 0, attempt)
            for draft, word, text, version in zip(drafts, words, texts, versions, strict=True)
        )
        yield from (list(islice(made, len(batch))) for batch in call)


def _by_student(
    loop: Evolution,
    batches: Sequence[Sequence[Judged]],
    done: int,
    feedback: Feedback,
    attempt: int,
) -> Iterator[list[Reflection]]:
    """As ``_by_teacher``; each batch has a seed of its own."""
    stage = loop.stage.name
    if done == len(batches):
        return
    backbone = loop.models.of(loop.student)
    style = backbone.prompt_style
    seeds = [derive(loop.config.seed, stage, "rewrite", attempt, k) for k in range(len(batches))]

    def asked(draft: Judged) -> Row:
        return reflect_row(style, loop.problems.by_id[draft.path.problem_id], draft.path.text, feedback(draft))

    how = {"max_new_tokens": loop.models.generator.max_new_tokens, **loop.models.generator.sampling}
    todo = list(zip(batches, seeds, strict=True))[done:]
    asks = (Ask([asked(d) for d in batch], {"seed": seed, **how}) for batch, seed in todo)
    writer = loop.student.name
    for (batch, seed), texts in zip(todo, generated(backbone, asks), strict=True):
        versions = (prompts.version("reflect", style, loop.problems.by_id[d.path.problem_id]) for d in batch)
        yield [
            _reflection(stage, d, feedback(d), row[0], writer, version, seed, attempt)
            for d, row, version in zip(batch, texts, versions, strict=True)
        ]


def _reflection(
    stage: str,
    draft: Judged,
    word: Verdict | None,
    text: str | None,
    writer: str,
    version: str,
    seed: int,
    attempt: int,
) -> Reflection:
    lineage = Lineage("reflection", stage, writer, parent=draft.path.id, seed=seed, prompt=version)
    revised = ReasoningPath(f"{stage}/{attempt}/{draft.path.id}", draft.path.problem_id, text or "", lineage)
    return Reflection(draft.path, word, revised)


def _tries(folder: Path, attempt: int) -> Path:
    made = folder / f"try_{attempt + 1}"
    made.mkdir(exist_ok=True)
    return made
