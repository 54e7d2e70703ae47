"""The prompts of all models, in our own words, and the parsers of a judge's and a teacher's answers.

The slots, the closing marker and the JSON keys are the paper's (appendix "Prompts"). Two styles: ``full`` for real
models (versioned files of the problem's task domain, chosen by its language: mathse/data/domains), ``compact`` for the
tiny backbone, which cannot read instructions and has a token a byte, and in which all domains are alike.

    job             full prompt   asks for
    generate        all writers   a solution
    judge           ORM           JSON of three keys; with or without the reference answer
    annotate        teacher       JSON of four keys; with the reference answer
    repair          teacher       the same once more, after an answer that was no such JSON
    reflect         both writers  a wrong solution rewritten
    reflect_short   teacher       the same without problem and picture (the paper's body has this one)
"""

from __future__ import annotations

from mathse.data.domains import MATH, domain_of
from mathse.data.picture_marks import texts_beside
from mathse.inference.prompts.feedback import (
    ANNOTATION_SCHEMA,
    MAX_FEEDBACK,
    STATUS,
    Feedback,
    binary_json,
    feedback_json,
    parse_annotation,
    parse_feedback,
)
from mathse.types import Problem, PromptStyle, Verdict

__all__ = [
    "ANNOTATION_SCHEMA",
    "MAX_FEEDBACK",
    "STATUS",
    "VERSION",
    "Feedback",
    "annotation_prompt",
    "binary_json",
    "feedback_json",
    "generation_prompt",
    "judge_prompt",
    "language",
    "parse_annotation",
    "parse_feedback",
    "question_text",
    "reflection_prompt",
    "repair_prompt",
    "version",
]

VERSION = "1"  # of the compact prompts, raised with every change of wording; the full ones have it in their names


def version(job: str, style: PromptStyle, problem: Problem | None = None) -> str:
    """The name that lineage records: "generate/compact/1", "generate/full/zh/1", "generate/full/science/en/1" of
    another domain than mathematics; without a problem, for a teacher that reads no prompt, "generate/full/1"."""
    if style == "compact" or problem is None:
        return f"{job}/{style}/{VERSION}"
    domain = domain_of(problem)
    written_in, of_domain = domain.language(problem), "" if domain is MATH else f"{domain.name}/"
    return f"{job}/{style}/{of_domain}{written_in}/{domain.text(job, written_in).version}"


def language(problem: Problem) -> str:
    """The language that a problem's full prompts are written in."""
    return domain_of(problem).language(problem)


def question_text(problem: Problem) -> str:
    """The question with its choices, lettered, a line each."""
    choices = [f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(problem.choices)]
    return "\n".join([problem.question, *choices])


def generation_prompt(problem: Problem, style: PromptStyle) -> str:
    question = question_text(problem)
    return question if style == "compact" else domain_of(problem).prompt("generate", problem, {"question": question})


def judge_prompt(
    problem: Problem, path: str, style: PromptStyle, see_answer: bool
) -> tuple[str, list[tuple[str, str]]]:
    """The judge's prompt, and the turns before it.

    In the compact style the path is the answer to its question, as the solver that the tiny ORM starts from would write
    it, so the ORM can compare each token with the solver's prediction. (With the path inside the prompt, the ORM copied
    most wrong sums instead of working them out.)
    """
    if style == "compact":
        hint = f"The correct answer is {problem.answer}.\n" if see_answer and problem.answer else ""
        return f"{hint}Check each step.", [(generation_prompt(problem, style), path)]
    answer = (problem.answer or None) if see_answer else None
    slots = {"question": question_text(problem), **texts_beside(problem, answer=answer, path=path)}
    return domain_of(problem).prompt("judge", problem, slots), []


def annotation_prompt(problem: Problem, path: str) -> str:
    """The teacher's, which shows the reference answer."""
    slots = {"question": question_text(problem), **texts_beside(problem, answer=problem.answer or None, path=path)}
    return domain_of(problem).prompt("annotate", problem, slots)


def repair_prompt(problem: Problem) -> str:
    """What follows an annotation that ``parse_annotation`` cannot read."""
    return domain_of(problem).prompt("repair", problem, {})


def reflection_prompt(
    problem: Problem, draft: str, feedback: Verdict | None, style: PromptStyle, *, short: bool = False
) -> str:
    """``short``: without problem and picture, as the paper's body prints it."""
    step = (feedback.error_step or None) if feedback else None
    analysis = (feedback.error_analysis or None) if feedback else None
    slots = {"question": question_text(problem), **texts_beside(problem, path=draft, step=step, analysis=analysis)}
    if style == "compact":
        verdict = f"\n{slots['step'] or ''}: {slots['analysis'] or ''}" if feedback else ""
        return f"{slots['question']}\n{slots['path']}{verdict}\nwrong"
    return domain_of(problem).prompt("reflect_short" if short else "reflect", problem, slots)
