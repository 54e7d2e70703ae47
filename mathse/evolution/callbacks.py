"""What happens between fits: merging correct paths, reflecting on wrong ones, measuring the student.

They are thin: the work is in state.py, reflect.py and measure.py, so an ablation of the paper is a line of settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import attrgetter

from mathse.config.evolution import NOBODY
from mathse.config.judges import judge_named
from mathse.evolution import stages
from mathse.evolution.evolution_run import REFLECTION, EvolutionRun, is_reflection
from mathse.evolution.hooks import EvolutionCallback
from mathse.evolution.measure import acceptance, asked_of_teacher, inputs, measure_judge, measure_student
from mathse.evolution.state import Judged, not_rewritten
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
    """Alg. 1 lines 9-11 and 16: what the judge accepts joins D_SFT, what it rejects joins R_incorrect."""

    def on_paths_judged(self, loop: EvolutionRun) -> None:
        evolution = loop.config.evolution
        # all_drafts: a problem may have several drafts, and each of them one rewrite
        keep = "all" if evolution.reflect.all_drafts and is_reflection(loop.stage) else evolution.keep
        renew = evolution.resample != "never" and loop.stage.name == loop.round_name
        loop.state = loop.state.absorb(loop.judged, loop.models.accepts, keep, renew)


class ReflectOnErrors(EvolutionCallback):
    """Alg. 1 lines 14-16 after the last round, or after every round (Eq. 2), as ``evolution.reflect.when`` says; where
    that is "never", a run does without this callback."""

    def on_round_end(self, loop: EvolutionRun) -> None:
        when = loop.config.evolution.reflect.when
        if when == "every":
            reflect(loop, f"{loop.round_name}/{REFLECTION}")
        elif when == "last" and loop.round == loop.rounds:
            reflect(loop, REFLECTION)


class EvaluateStudent(EvolutionCallback):
    """Test and dev accuracy of the student just fitted, and how well the ORM judges this student's paths."""

    def on_student_fitted(self, loop: EvolutionRun) -> None:
        measure_student(loop, loop.stage, loop.student)
        if loop.stage.name != "final":  # no judge is asked after it
            measure_judge(loop, loop.stage, loop.student)


# --- reflection -------------------------------------------------------------------------------------------------------

Feedback = Callable[[Judged], Verdict | None]  # of a draft


def reflect(loop: EvolutionRun, name: str) -> None:
    """Make the reflection stage ``name``: the state goes on with what was accepted; the next fit trains on it."""
    loop.stage = stage = stages.open_reflection(loop, name)
    settings = loop.config.evolution.reflect
    if not stage.done:
        drafts = loop.state.to_reflect(settings.all_drafts)
        without_rewrites: dict[str, str] = {}
        if _judge_reads_nothing(loop, drafts):
            without_rewrites["no_rewrites"] = (
                f"none of the ORM's verdicts on {len(drafts):,} drafts could be read, so no rewrite would be accepted; "
                "the teacher is asked for none"
            )
            loop.context.progress.say(f"{name}: {without_rewrites['no_rewrites']}")
            drafts = ()
        feedback = _feedback(loop, drafts)
        loop.judged = []
        reflections: Sequence[Reflection] = []
        for attempt in range(settings.tries):
            pending = not_rewritten(drafts, loop.judged, loop.models.accepts)
            folder = stage.path / f"try_{attempt + 1}"
            folder.mkdir(exist_ok=True)

            # Rewrites, appended batch by batch. An unusable answer is an empty path, judged as such.
            by_student = settings.writer == "student"
            size = loop.models.generator.batch_size if by_student else MAX_ROWS_A_CALL
            batches = [pending[k : k + size] for k in range(0, len(pending), size)]
            log = BatchLog(folder / REFLECTIONS, [len(b) for b in batches])
            rewrite = _by_student if by_student else _by_teacher
            unit: Unit = "sample" if by_student or isinstance(loop.models.teacher, StudentTeacher) else "ask"
            with loop.context.work(stage, "sample", "rewrites", len(pending), unit) as advance:
                for rewritten in rewrite(loop, batches, log.done, feedback, attempt):
                    log.append(rewritten)
                    advance(len(rewritten))

            written = JsonlRows(log.path, Reflection)
            reflections = Chained(reflections, written)
            revised: Sequence[ReasoningPath] = Mapped(attrgetter("revised"), written)
            judged = stages.judge(loop, revised, loop.config.judge, folder, "verdicts on rewrites")
            loop.judged = Chained(loop.judged, judged)
        write_jsonl(stage.path / REFLECTIONS, reflections)
        write_jsonl(stage.path / VERDICTS, (j.verdict for j in loop.judged))
        loop.call("on_paths_judged")  # MergeCorrectPaths
        loop.state.save(stage.path)
        figures = {
            "drafts": len(drafts),
            "rewritten": len(reflections),
            **acceptance(loop, loop.judged),
            ASKED: asked_of_teacher(loop, drafts=len(drafts)),
            **without_rewrites,
        }
        loop.finish(figures, inputs(loop))
    loop.state_loaded_from(stage)


def _judge_reads_nothing(loop: EvolutionRun, drafts: Sequence[Judged]) -> bool:
    """Whether rewrites would be paid for and lost: the ORM judges, and all of its verdicts are unparsed."""
    pays = loop.config.evolution.reflect.writer == "teacher" and isinstance(loop.models.teacher, PaidTeacher)
    by_orm = "orm" in judge_named(loop.config.judge.name, loop.config.judge).asks
    return bool(len(drafts)) and pays and by_orm and all(d.verdict.status == "unparsed" for d in drafts)


def _feedback(loop: EvolutionRun, drafts: Sequence[Judged]) -> Feedback:
    """The feedback on a draft that its writer reads: the ORM's verdict, the teacher's, or none (Table 3)."""
    stage, source = loop.stage, loop.config.evolution.reflect.feedback
    if source == NOBODY:
        return lambda draft: None
    # The ORM's verdicts have been taken already, and it has not changed since; where they are statuses alone, these
    # drafts are explained now, in full batches. Another judge is asked anew: a teacher may be the student, which has
    # changed.
    if source == loop.config.judge.name == "orm" and loop.models.orm_explains_all:
        return attrgetter("verdict")
    judge = loop.models.judge(source, explain=True)
    unit = stages.judging_unit(loop, source)
    with loop.context.work(stage, "judge", f"feedback by {source}", len(drafts), unit) as advance:
        verdicts = judge_paths(
            judge,
            loop.problems.by_id,
            Mapped(attrgetter("path"), drafts),
            stage.path / FEEDBACK_VERDICTS,
            batch_size=loop.config.judge.batch_size,
            advance=advance,
        )
    index = {verdict.path_id: k for k, verdict in enumerate(verdicts)}  # the verdicts themselves stay on the disk
    return lambda draft: verdicts[index[draft.path.id]]


def _by_teacher(
    loop: EvolutionRun, batches: Sequence[Sequence[Judged]], done: int, feedback: Feedback, attempt: int
) -> Iterator[list[Reflection]]:
    """The rewrites of each batch from the ``done``-th on."""
    teacher = loop.models.teacher
    for call in group_into_calls(teacher, batches[done:]):
        drafts = [draft for batch in call for draft in batch]
        problems = [loop.problems.by_id[draft.path.problem_id] for draft in drafts]
        verdicts = [feedback(draft) for draft in drafts]
        tasks = [Draft(problem, draft.path, v) for problem, draft, v in zip(problems, drafts, verdicts, strict=True)]
        texts = teacher.reflect(tasks, attempt)
        versions = (prompt_version(teacher, "reflect", problem) for problem in problems)
        reflections = (
            _reflection(loop, draft, verdict, text, loop.teacher_name, version, 0, attempt)
            for draft, verdict, text, version in zip(drafts, verdicts, texts, versions, strict=True)
        )
        yield from (list(islice(reflections, len(batch))) for batch in call)


def _by_student(
    loop: EvolutionRun, batches: Sequence[Sequence[Judged]], done: int, feedback: Feedback, attempt: int
) -> Iterator[list[Reflection]]:
    """As ``_by_teacher``; each batch has a seed of its own."""
    if done == len(batches):
        return  # before the student is loaded
    backbone, problems = loop.models.of(loop.student), loop.problems.by_id
    style = backbone.prompt_style
    options = {"max_new_tokens": loop.models.generator.max_new_tokens, **loop.models.generator.sampling}
    seeds = [derive(loop.config.seed, loop.stage.name, "rewrite", attempt, k) for k in range(len(batches))]
    todo = list(zip(batches, seeds, strict=True))[done:]
    asks = (
        PromptBatch(
            [reflect_row(style, problems[d.path.problem_id], d.path.text, feedback(d)) for d in batch],
            {"seed": seed, **options},
        )
        for batch, seed in todo
    )
    for (batch, seed), texts in zip(todo, generate_batches(backbone, asks), strict=True):
        versions = (prompts.version("reflect", style, problems[draft.path.problem_id]) for draft in batch)
        yield [
            _reflection(loop, draft, feedback(draft), samples[0], loop.student.name, version, seed, attempt)
            for draft, samples, version in zip(batch, texts, versions, strict=True)
        ]


def _reflection(
    loop: EvolutionRun,
    draft: Judged,
    feedback: Verdict | None,
    text: str | None,
    writer: str,
    version: str,
    seed: int,
    attempt: int,
) -> Reflection:
    stage = loop.stage.name
    lineage = Lineage("reflection", stage, writer, parent=draft.path.id, seed=seed, prompt=version)
    revised = ReasoningPath(f"{stage}/{attempt}/{draft.path.id}", draft.path.problem_id, text or "", lineage)
    return Reflection(draft.path, feedback, revised)
