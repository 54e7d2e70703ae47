"""The story of a path, back to its problem: each draft, its verdict, each rewrite, the trained checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from heapq import nlargest
from os.path import commonprefix
from typing import Any

from mathse.commands.lineage.lines import ROW_FILES, find_lines, parse_location, read_lines
from mathse.commands.lineage.problem import TracedProblem, read_recorded_row, trace_problem
from mathse.errors import DataError
from mathse.reporting.progress.wording import clean
from mathse.runs.checkpoints import Checkpoint, list_checkpoints
from mathse.runs.layout import (
    FEEDBACK_VERDICTS,
    PATH_FILES,
    REFLECTIONS,
    SOURCES,
    TRAIN,
    VERDICT_FILES,
    number_of_round,
)
from mathse.runs.reader import Run
from mathse.types import ReasoningPath, Reflection, Verdict

MAX_COMPARED_IDS = 500  # ids of a run that are compared with a mistyped id
MAX_LINE_CHARS = 300  # of a model's or a file's text in the printed story


@dataclass(frozen=True)
class StoryStep:
    """A path and all known facts about it.

    Attributes:
        config_hash: identity of the stage that made it.
        model: checkpoint of its writer, if this run trained it.
        feedback: verdict on the draft in the prompt of a rewrite.
        judge: checkpoint of the ORM behind ``verdict``, if this run trained it.
        stands_in: its locations as file:line, in the order of the stages.
        fitted: checkpoints that were trained on it.
    """

    path: ReasoningPath
    config_hash: str | None
    model: Checkpoint | None
    feedback: Verdict | None
    verdict: Verdict | None
    judge: Checkpoint | None
    stands_in: tuple[str, ...]
    fitted: tuple[Checkpoint, ...]

    @property
    def round(self) -> int | None:
        return round_of(self.path.lineage.stage, self.path.lineage.parent)

    def to_json(self) -> dict[str, Any]:
        lineage = self.path.lineage
        return {
            "path_id": self.path.id,
            "origin": lineage.origin,
            "stage": lineage.stage,
            "round": self.round,
            "model": lineage.model,
            "model_sha256": dict(self.model.weights) if self.model else None,
            "seed": lineage.seed,
            "prompt_version": lineage.prompt,
            "config_hash": self.config_hash,
            "parent": lineage.parent,
            "text": self.path.text,
            "told": self.feedback,
            "verdict": self.verdict,
            "judge": self.judge.name if self.judge else None,
            "judge_sha256": dict(self.judge.weights) if self.judge else None,
            "stands_in": list(self.stands_in),
            "fitted": {checkpoint.name: dict(checkpoint.weights) for checkpoint in self.fitted},
        }


@dataclass(frozen=True)
class Story:
    """The story of a path or a problem.

    ``steps``: for a path its drafts and then itself, for a problem all its paths in the order of the stages.
    """

    id: str
    problem: TracedProblem
    steps: tuple[StoryStep, ...]

    def to_json(self) -> dict[str, Any]:
        steps = [step.to_json() for step in self.steps]
        return {"id": self.id, "problem": self.problem.to_json(), "steps": steps}


def trace_path(run: Run, name: str) -> Story:
    """Return the story of a path or a problem by its id, or of the row at FILE:LINE.

    Raises DataError, with the nearest ids, for an unknown name.
    """
    if (location := parse_location(run, name)) is not None:
        stage, file, number = location
        line = next((line for line in read_lines(stage, file) if line.number == number), None)
        if line is None:
            count = sum(1 for _ in read_lines(stage, file))
            raise DataError(
                f"{run.folder}: no row {name}: the file has {count:,} rows, counted from 1; name one of these"
            )
        name = line.id
    problem_id = _find_problem(run, name)

    # Facts from the rows about the problem, by path id. The first row counts, because later files repeat it.
    paths: dict[str, ReasoningPath] = {}
    verdicts: dict[str, Verdict] = {}
    feedback: dict[str, Verdict | None] = {}
    locations: dict[str, list[str]] = {}
    for line in find_lines(run, problem_id):
        if line.path is not None:
            path = ReasoningPath.from_json(line.path)
            paths.setdefault(path.id, path)
            locations.setdefault(path.id, []).append(line.location)
        if line.file == REFLECTIONS:
            reflection = Reflection.from_json(line.row)
            feedback.setdefault(reflection.revised.id, reflection.feedback)
        if line.verdict is not None and line.file != FEEDBACK_VERDICTS:  # this file has the feedback for the writer
            verdict = Verdict.from_json(line.verdict)
            verdicts.setdefault(verdict.path_id, verdict)

    # For a problem all paths; for a path its drafts from the first to the last, and the path itself.
    chain = list(paths)
    if name != problem_id:
        chain, parent = [], name
        while parent in paths and parent not in chain:
            chain.insert(0, parent)
            parent = paths[parent].lineage.parent or ""

    # Checkpoints of this run that wrote, judged or were trained on the paths.
    models = list_checkpoints(run)
    identities = {stage.name: stage.identity for stage in run.stages}
    own_judge = run.config.get("judge", {}).get("checkpoint") is None
    steps = []
    for path_id in chain:
        path, judgement = paths[path_id], verdicts.get(path_id)
        made_in = path.lineage.stage
        while (
            made_in and made_in not in identities
        ):  # held-out paths have the stage "distill/held", a part of "distill"
            made_in = made_in.rpartition("/")[0]
        by_orm = judgement is not None and judgement.judge.startswith("orm") and own_judge
        files = {location.rpartition(":")[0] for location in locations[path_id]}
        trained = [model for model in models.values() if model.rows in files and model.fitted_on(path_id)]
        steps.append(
            StoryStep(
                path,
                config_hash=identities.get(made_in),
                model=models.get(path.lineage.model),
                feedback=feedback.get(path_id),
                verdict=judgement,
                judge=models.get("orm/checkpoint") if by_orm else None,
                stands_in=tuple(locations[path_id]),
                fitted=tuple(trained),
            )
        )
    return Story(name, trace_problem(run, problem_id), tuple(steps))


def round_of(stage: str, parent: str | None) -> int | None:
    """Return the round of a path: 0 is the distillation, and a rewrite has the round of its draft. None: no round."""
    first_stage = (parent or stage).split("/")[0]  # a path's id begins with its stage
    return 0 if first_stage == "distill" else number_of_round(first_stage)


# --- ids --------------------------------------------------------------------------------------------------------------


def _find_problem(run: Run, name: str) -> str:
    """Return the problem of a path's or a problem's id. Raises DataError, with the nearest ids, for another name."""
    if read_recorded_row(run, name) is not None:
        return name
    for stage in run.stages:
        for file in ROW_FILES:
            if file in VERDICT_FILES:
                continue
            for line in read_lines(stage, file, name):
                if line.problem_id == name or (line.path is not None and line.path["id"] == name):
                    return str(line.problem_id)

    def count_shared_ends(known: str) -> int:
        """Return the number of shared characters at both ends, a cheap choice of ids for a close comparison."""
        return len(commonprefix([known, name])) + len(commonprefix([known[::-1], name[::-1]]))

    # difflib is slow, so only the most similar ids are compared.
    candidates = nlargest(MAX_COMPARED_IDS, _read_ids(run), key=count_shared_ends)
    near = get_close_matches(name, dict.fromkeys(candidates), n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    example = next(_read_ids(run), None)
    form = f"; pass the id of a path or of a problem, such as {example!r}" if example else ""
    raise DataError(f"{run.folder}: no path or problem {name!r:.200} in its finished stages{hint}{form}")


def _read_ids(run: Run) -> Iterator[str]:
    """Yield the ids of paths and problems, some of them several times."""
    for stage in run.stages:
        for file in (*PATH_FILES, REFLECTIONS, TRAIN):
            for line in read_lines(stage, file):
                path: Mapping[str, Any] = line.path or {}
                yield from (str(path["id"]), str(path["problem_id"]))
        for line in read_lines(stage, SOURCES):
            yield str(line.row["problem_id"])


# --- text -------------------------------------------------------------------------------------------------------------


def format_story(story: Story) -> Iterator[str]:
    """Yield the lines of ``mathse lineage``: the problem, then each path with its drafts first."""
    yield clean(story.id)
    yield from (f"  {line}" for line in _format_problem(story.problem))
    if not story.steps:
        yield "  no path: neither the teacher nor a student was asked, or their stage is not finished"
    for step in story.steps:
        title = "draft" if step.path.lineage.origin == "student" else "solution"
        yield ""
        yield f"{'rewrite' if step.path.lineage.parent is not None else title}  {clean(step.path.id)}"
        yield from (f"  {line}" for line in _format_step(step))


def _format_problem(traced: TracedProblem) -> Iterator[str]:
    line = f":{traced.line}" if traced.line else ""
    yield _format_field("source", f"{traced.file}{line}" + ("" if traced.recorded else " (found now)"))
    if traced.source and traced.source != traced.file:
        yield _format_field("", f"of {traced.source}")
    yield _format_field("licence", traced.licence)
    if traced.split:
        yield _format_field("split", traced.split)
    if traced.problem is not None:
        yield _format_field("question", traced.problem.question.partition("\n")[0])
        yield _format_field("answer", traced.problem.answer)
    for image in traced.images:
        size = f", {image.size[0]} x {image.size[1]} pixels" if image.size else ""
        yield _format_field("image", f"{image.image}{size}")
        if image.sha256 is not None:
            yield _format_field("", f"sha256 {image.sha256} in the run; {image.state} since")
        if image.sha256 != image.now and image.now is not None:
            yield _format_field("", f"sha256 {image.now} now")
    yield from (_format_field("note", note) for note in traced.notes)


def _format_step(step: StoryStep) -> Iterator[str]:
    lineage = step.path.lineage
    yield _format_field("text", step.path.text or "(empty: no usable answer)")
    by_teacher = lineage.origin != "student" and step.model is None
    yield _format_field("written by", f"teacher {lineage.model}" if by_teacher else lineage.model)
    if step.model is not None:
        yield from _format_weights(step.model.weights)
    made = [f"stage {lineage.stage}", f"seed {lineage.seed}", f"prompt {lineage.prompt or 'none'}"]
    if step.round is not None:
        made.insert(1, f"round {step.round}")
    yield _format_field("made in", ", ".join(made))
    if step.config_hash:
        yield _format_field("config hash", step.config_hash)
    if lineage.parent is not None:
        yield _format_field("feedback", _format_verdict(step.feedback) if step.feedback else "none in the prompt")
    if step.verdict is None:
        yield _format_field("verdict", "none stored in this run")
    else:
        yield _format_field("verdict", _format_verdict(step.verdict))
        yield _format_field("judged by", step.verdict.judge + (f", {step.judge.name}" if step.judge else ""))
        if step.judge is not None:
            yield from _format_weights(step.judge.weights)
        if step.verdict.raw is not None:
            yield _format_field("raw verdict", step.verdict.raw)
    yield _format_field("rows", ", ".join(step.stands_in))
    yield _format_field("trained on it", ", ".join(checkpoint.name for checkpoint in step.fitted) or "no checkpoint")
    for checkpoint in step.fitted:
        yield from _format_weights(checkpoint.weights, checkpoint.name)


def _format_verdict(verdict: Verdict) -> str:
    parts = [
        verdict.status,
        f"P(correct) {verdict.score:.3f}" if verdict.score is not None else None,
        verdict.error_step,
        verdict.error_analysis,
    ]
    return ", ".join(part for part in parts if part)


def _format_weights(weights: Mapping[str, str], name: str = "") -> Iterator[str]:
    for file, digest in weights.items():
        yield _format_field("", f"{name + '/' if name else ''}{file} sha256 {digest}")


def _format_field(name: str, text: str) -> str:
    shown = clean(text)
    return f"{name:<14}{shown[:MAX_LINE_CHARS]}{' ...' if len(shown) > MAX_LINE_CHARS else ''}"
