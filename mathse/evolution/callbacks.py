"""The three callbacks of the method: merging accepted paths, reflecting on rejected drafts, measuring the student.

A callback is a shell over functions of state.py, measure.py and, below, reflection. So an ablation of the paper is one
changed setting.

PAPER: the teacher (GPT-4o) writes the rewrites; one sentence names the model instead; switch:
``evolution.reflect.writer``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from operator import attrgetter

from mathse.config.evolution import NOBODY
from mathse.config.judges import judge_named
from mathse.evolution import stages
from mathse.evolution.evolution_run import REFLECTION, EvolutionRun, is_reflection
from mathse.evolution.hooks import EvolutionCallback
from mathse.evolution.measure import (
    count_teacher_calls,
    list_inputs,
    measure_acceptance,
    measure_judge,
    measure_student,
)
from mathse.evolution.state import Judged, select_pending
from mathse.inference import prompts
from mathse.inference.generate import PromptBatch, generate_batches
from mathse.inference.rows import reflect_row
from mathse.judges import judge_paths
from mathse.judges.teachers import MAX_ROWS_A_CALL, PaidTeacher, group_into_calls, prompt_version
from mathse.judges.teachers.student import StudentTeacher
from mathse.reporting.progress.outlook import Unit
from mathse.runs.layout import FEEDBACK_VERDICTS, REFLECTIONS, VERDICTS
from mathse.runs.rows import Chained, JsonlRows, Mapped
from mathse.runs.store import BatchLog, write_jsonl
from mathse.runs.teacher_calls import ASKED
from mathse.seeds import derive
from mathse.types import Draft, Lineage, ReasoningPath, Reflection, Verdict


class MergeCorrectPaths(EvolutionCallback):
    """Alg. 1 lines 9-11 and 16: accepted paths join D_SFT, rejected drafts join R_incorrect."""

    def on_paths_judged(self, loop: EvolutionRun) -> None:
        evolution = loop.config.evolution
        # With all_drafts a problem may have several drafts, and each draft has a rewrite.
        keep = "all" if evolution.reflect.all_drafts and is_reflection(loop.stage) else evolution.keep
        renew = evolution.resample != "never" and loop.stage.name == loop.round_name
        loop.state = loop.state.absorb(loop.judged, loop.models.accepts, keep, renew)


class ReflectOnErrors(EvolutionCallback):
    """Alg. 1 lines 14-16 after the last round, or after every round (Eq. 2): ``evolution.reflect.when``. With "never",
    a run does not have this callback."""

    def on_round_end(self, loop: EvolutionRun) -> None:
        when = loop.config.evolution.reflect.when
        if when == "every":
            reflect(loop, f"{loop.round_name}/{REFLECTION}")
        elif when == "last" and loop.round == loop.rounds:
            reflect(loop, REFLECTION)


class EvaluateStudent(EvolutionCallback):
    """Measures each new student on test and dev problems, and the ORM on paths of this student."""

    def on_student_fitted(self, loop: EvolutionRun) -> None:
        measure_student(loop, loop.stage, loop.student)
        if loop.stage.name != "final":  # no path is judged after the final stage
            measure_judge(loop, loop.stage, loop.student)


# --- reflection -------------------------------------------------------------------------------------------------------

Feedback = Callable[[Judged], Verdict | None]  # draft -> its critique


def reflect(loop: EvolutionRun, name: str) -> None:
    """Make the reflection stage ``name``: drafts are rewritten, judged like every path, and merged by the same code.
    The next fit trains on the new state."""
    loop.stage = stage = stages.open_reflection(loop, name)
    settings = loop.config.evolution.reflect
    if not stage.done:
        drafts = loop.state.to_reflect(settings.all_drafts)
        # A note in the summary if the stage has no rewrites
        no_rewrites: dict[str, str] = {}
        if _would_lose_rewrites(loop, drafts):
            no_rewrites["no_rewrites"] = (
                f"none of the ORM's verdicts on {len(drafts):,} drafts could be read, so no rewrite would be accepted; "
                "the teacher is asked for none"
            )
            loop.context.progress.say(f"{name}: {no_rewrites['no_rewrites']}")
            drafts = ()
        feedback = _open_feedback(loop, drafts)

        # Each try rewrites the drafts that have no accepted rewrite yet.
        loop.judged = []
        reflections: Sequence[Reflection] = []
        for attempt in range(settings.tries):
            pending = select_pending(drafts, loop.judged, loop.models.accepts)
            folder = stage.path / f"try_{attempt + 1}"
            folder.mkdir(exist_ok=True)

            # 1) Rewrite, batch by batch. An unusable answer becomes an empty path, so that it is judged and counted.
            by_student = settings.writer == "student"
            size = loop.models.generator.batch_size if by_student else MAX_ROWS_A_CALL
            batches = [pending[k : k + size] for k in range(0, len(pending), size)]
            log = BatchLog(folder / REFLECTIONS, [len(batch) for batch in batches])
            rewrite = _rewrite_by_student if by_student else _rewrite_by_teacher
            unit: Unit = "sample" if by_student or isinstance(loop.models.teacher, StudentTeacher) else "ask"
            with loop.context.work(stage, "sample", "rewrites", len(pending), unit) as advance:
                for rewritten in rewrite(loop, batches, log.done, feedback, attempt):
                    log.append(rewritten)
                    advance(len(rewritten))

            # 2) Judge the rewrites.
            written = JsonlRows(log.path, Reflection)
            reflections = Chained(reflections, written)
            revised: Sequence[ReasoningPath] = Mapped(attrgetter("revised"), written)
            judged = stages.judge(loop, revised, loop.config.judge, folder, "verdicts on rewrites")
            loop.judged = Chained(loop.judged, judged)

        write_jsonl(stage.path / REFLECTIONS, reflections)
        write_jsonl(stage.path / VERDICTS, (item.verdict for item in loop.judged))
        loop.call("on_paths_judged")  # MergeCorrectPaths
        loop.state.save(stage.path)
        summary = {
            "drafts": len(drafts),
            "rewritten": len(reflections),
            **measure_acceptance(loop, loop.judged),
            ASKED: count_teacher_calls(loop, drafts=len(drafts)),
            **no_rewrites,
        }
        loop.finish(summary, list_inputs(loop))
    loop.load_state(stage)


def _would_lose_rewrites(loop: EvolutionRun, drafts: Sequence[Judged]) -> bool:
    """Whether rewrites would be paid for and all be rejected: the ORM judges, and its verdicts cannot be parsed."""
    is_paid = loop.config.evolution.reflect.writer == "teacher" and isinstance(loop.models.teacher, PaidTeacher)
    by_orm = "orm" in judge_named(loop.config.judge.name, loop.config.judge).asks
    return bool(len(drafts)) and is_paid and by_orm and all(draft.verdict.status == "unparsed" for draft in drafts)


def _open_feedback(loop: EvolutionRun, drafts: Sequence[Judged]) -> Feedback:
    """Return the critiques of the drafts, for their prompts: by the ORM, by the teacher, or none (Table 3)."""
    stage, source = loop.stage, loop.config.evolution.reflect.feedback
    if source == NOBODY:
        return lambda draft: None
    # The ORM has judged the drafts, and has not changed since. Its verdicts are used again if they are explained. Every
    # other judge judges again: a teacher may be the student, which has changed.
    if source == loop.config.judge.name == "orm" and loop.models.orm_explains_all:
        return attrgetter("verdict")
    judge = loop.models.judge(source, explain=True)
    unit = stages.select_unit(loop, source)
    with loop.context.work(stage, "judge", f"feedback by {source}", len(drafts), unit) as advance:
        verdicts = judge_paths(
            judge,
            loop.problems.by_id,
            Mapped(attrgetter("path"), drafts),
            stage.path / FEEDBACK_VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    index = {verdict.path_id: k for k, verdict in enumerate(verdicts)}  # the verdicts stay on the disk
    return lambda draft: verdicts[index[draft.path.id]]


def _rewrite_by_teacher(
    loop: EvolutionRun, batches: Sequence[Sequence[Judged]], done: int, feedback: Feedback, attempt: int
) -> Iterator[list[Reflection]]:
    """Yield the rewrites of each batch, from batch ``done`` on. A call of the teacher has several batches."""
    teacher = loop.models.teacher
    for call in group_into_calls(teacher, batches[done:]):
        drafts = list(chain.from_iterable(call))
        problems = [loop.problems.by_id[draft.path.problem_id] for draft in drafts]
        verdicts = [feedback(draft) for draft in drafts]
        tasks = [Draft(problem, draft.path, v) for problem, draft, v in zip(problems, drafts, verdicts, strict=True)]
        texts = teacher.reflect(tasks, attempt)
        rewritten = []
        for problem, draft, verdict, text in zip(problems, drafts, verdicts, texts, strict=True):
            version = prompt_version(teacher, "reflect", problem)
            rewritten.append(_make_reflection(loop, draft, verdict, text, loop.teacher_name, version, 0, attempt))
        end = 0
        for batch in call:
            start, end = end, end + len(batch)
            yield rewritten[start:end]


def _rewrite_by_student(
    loop: EvolutionRun, batches: Sequence[Sequence[Judged]], done: int, feedback: Feedback, attempt: int
) -> Iterator[list[Reflection]]:
    """Yield the rewrites of each batch, from batch ``done`` on. Each batch has its own seed, so that a resumed run
    samples the same texts."""
    if done == len(batches):
        return  # the student need not be loaded
    backbone, problems = loop.models.open_student(loop.student), loop.problems.by_id
    style = backbone.prompt_style
    options = {"max_new_tokens": loop.models.generator.max_new_tokens, **loop.models.generator.sampling}
    seeds = [derive(loop.config.seed, loop.stage.name, "rewrite", attempt, k) for k in range(len(batches))]
    pending = list(zip(batches, seeds, strict=True))[done:]

    def make_prompts() -> Iterator[PromptBatch]:
        for batch, seed in pending:
            rows = [
                reflect_row(style, problems[draft.path.problem_id], draft.path.text, feedback(draft)) for draft in batch
            ]
            yield PromptBatch(rows, {"seed": seed, **options})

    for (batch, seed), texts in zip(pending, generate_batches(backbone, make_prompts()), strict=True):
        rewritten = []
        for draft, samples in zip(batch, texts, strict=True):
            version = prompts.version("reflect", style, problems[draft.path.problem_id])
            rewritten.append(
                _make_reflection(loop, draft, feedback(draft), samples[0], loop.student.name, version, seed, attempt)
            )
        yield rewritten


def _make_reflection(
    loop: EvolutionRun,
    draft: Judged,
    feedback: Verdict | None,
    text: str | None,
    writer: str,
    version: str,
    seed: int,
    attempt: int,
) -> Reflection:
    """Return a draft with its rewrite, which has the draft as parent in its lineage."""
    stage = loop.stage.name
    lineage = Lineage("reflection", stage, writer, parent=draft.path.id, seed=seed, prompt=version)
    revised = ReasoningPath(f"{stage}/{attempt}/{draft.path.id}", draft.path.problem_id, text or "", lineage)
    return Reflection(draft.path, feedback, revised)
