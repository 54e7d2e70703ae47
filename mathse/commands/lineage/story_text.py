"""A story as ``mathse lineage`` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mathse.commands.lineage.problem import TracedProblem
from mathse.commands.lineage.story import Step, Story
from mathse.reporting.progress.wording import clean
from mathse.types import Verdict

SHOWN = 300  # characters of a model's or a file's text on a line
WIDTH = 14


def story_as_text(story: Story) -> Iterator[str]:
    """The problem first, then each path as it came to be."""
    yield clean(story.id)
    yield from _indented(_problem(story.problem))
    if not story.steps:
        yield "  no path for it: neither the teacher nor a student was asked, or their stage is not finished"
    for step in story.steps:
        title = "draft" if step.path.lineage.origin == "student" else "solution"
        yield ""
        yield f"{'rewrite' if step.path.lineage.parent is not None else title}  {clean(step.path.id)}"
        yield from _indented(_step(step))


def _problem(traced: TracedProblem) -> Iterator[str]:
    line = f":{traced.line}" if traced.line else ""
    yield _field("source", f"{traced.file}{line}" + ("" if traced.recorded else " (found now)"))
    if traced.source and traced.source != traced.file:
        yield _field("", f"of {traced.source}")
    yield _field("licence", traced.licence)
    if traced.split:
        yield _field("split", traced.split)
    if traced.problem is not None:
        yield _field("question", traced.problem.question.partition("\n")[0])
        yield _field("answer", traced.problem.answer)
    for image in traced.images:
        size = f", {image.size[0]} x {image.size[1]} pixels" if image.size else ""
        yield _field("image", f"{image.image}{size}")
        if image.sha256 is not None:
            yield _field("", f"sha256 {image.sha256} in the run; {image.state} since")
        if image.sha256 != image.now and image.now is not None:
            yield _field("", f"sha256 {image.now} now")
    yield from (_field("note", note) for note in traced.notes)


def _step(step: Step) -> Iterator[str]:
    lineage = step.path.lineage
    yield _field("text", step.path.text or "(empty: no usable answer)")
    yield _field(
        "written by", lineage.model if lineage.origin == "student" or step.model else f"teacher {lineage.model}"
    )
    if step.model is not None:
        yield from _weights(step.model.weights)
    made = [f"stage {lineage.stage}", f"seed {lineage.seed}", f"prompt {lineage.prompt or 'none'}"]
    if step.round is not None:
        made.insert(1, f"round {step.round}")
    yield _field("made in", ", ".join(made))
    if step.config_hash:
        yield _field("config hash", step.config_hash)
    if lineage.parent is not None:
        yield _field("told", _verdict(step.feedback) if step.feedback else "nothing of what is wrong")
    if step.verdict is None:
        yield _field("verdict", "none stored in this run")
    else:
        yield _field("verdict", _verdict(step.verdict))
        yield _field("judged by", step.verdict.judge + (f", {step.judge.name}" if step.judge else ""))
        if step.judge is not None:
            yield from _weights(step.judge.weights)
        if step.verdict.raw is not None:
            yield _field("its words", step.verdict.raw)
    yield _field("stands in", ", ".join(step.stands_in))
    yield _field("fitted on it", ", ".join(one.name for one in step.fitted) or "no checkpoint")
    for one in step.fitted:
        yield from _weights(one.weights, one.name)


def _verdict(verdict: Verdict) -> str:
    parts = [
        verdict.status,
        f"P(correct) {verdict.score:.3f}" if verdict.score is not None else None,
        verdict.error_step,
        verdict.error_analysis,
    ]
    return ", ".join(part for part in parts if part)


def _weights(weights: Mapping[str, str], name: str = "") -> Iterator[str]:
    for file, digest in weights.items():
        yield _field("", f"{name + '/' if name else ''}{file} sha256 {digest}")


def _field(name: str, text: str) -> str:
    shown = clean(text)
    return f"{name:<{WIDTH}}{shown[:SHOWN]}{' ...' if len(shown) > SHOWN else ''}"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
