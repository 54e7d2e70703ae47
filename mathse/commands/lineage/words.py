"""What ``lineage`` prints of a story."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mathse.commands.lineage.checkpoints import Checkpoint
from mathse.commands.lineage.problem import Found, ImageState
from mathse.commands.lineage.story import Step, Story
from mathse.reporting.progress.wording import clean
from mathse.types import Verdict

SHOWN = 300  # characters of a model's or a file's text on a line
WIDTH = 14


def said(story: Story) -> Iterator[str]:
    """The problem first, then each path as it came to be."""
    yield clean(story.asked)
    yield from _indented(_problem(story.problem))
    if not story.steps:
        yield "  no path for it: neither the teacher nor a student was asked, or their stage is not finished"
    for step in story.steps:
        yield ""
        yield f"{_title(step)}  {clean(step.path.id)}"
        yield from _indented(_step(step))


def _title(step: Step) -> str:
    if step.path.lineage.parent is not None:
        return "rewrite"
    return "draft" if step.path.lineage.origin == "student" else "solution"


def _problem(found: Found) -> Iterator[str]:
    line = f":{found.line}" if found.line else ""
    yield _field("source", f"{found.file}{line}" + ("" if found.recorded else " (found now)"))
    if found.source and found.source != found.file:
        yield _field("", f"of {found.source}")
    yield _field("licence", found.licence)
    if found.split:
        yield _field("split", found.split)
    if found.problem is not None:
        yield _field("question", found.problem.question.partition("\n")[0])
        yield _field("answer", found.problem.answer)
    for image in found.images:
        yield from _image(image)
    yield from (_field("note", note) for note in found.notes)


def _image(image: ImageState) -> Iterator[str]:
    size = f", {image.size[0]} x {image.size[1]} pixels" if image.size else ""
    yield _field("image", f"{image.image}{size}")
    if image.sha256 is not None:
        yield _field("", f"sha256 {image.sha256} in the run; {image.state} since")
    if image.sha256 != image.now and image.now is not None:
        yield _field("", f"sha256 {image.now} now")


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
    if step.path.lineage.parent is not None:
        yield _field("told", _words(step.told) if step.told else "nothing of what is wrong")
    if step.verdict is None:
        yield _field("verdict", "none stored in this run")
    else:
        yield from _verdict(step.verdict, step.judge)
    yield _field("stands in", ", ".join(step.stands_in))
    yield _field("fitted on it", ", ".join(one.name for one in step.fitted) or "no checkpoint")
    for one in step.fitted:
        yield from _weights(one.weights, one.name)


def _verdict(verdict: Verdict, judge: Checkpoint | None) -> Iterator[str]:
    yield _field("verdict", _words(verdict))
    yield _field("judged by", verdict.judge + (f", {judge.name}" if judge else ""))
    if judge is not None:
        yield from _weights(judge.weights)
    if verdict.raw is not None:
        yield _field("its words", verdict.raw)


def _words(verdict: Verdict) -> str:
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
