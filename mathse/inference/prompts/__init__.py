"""The prompts of all models, in our own words, and the parsers of a judge's and a teacher's answers.

The slots, the closing marker and the JSON keys are the paper's (appendix "Prompts"). There are two styles:

full     for real models: versioned files of the problem's task domain in the problem's language (mathse/data/domains)
compact  for the tiny backbone, which cannot follow instructions and has one token per byte; the same for all domains

    job             full prompt for  asks for
    generate        all models       a solution
    judge           ORM              JSON with three keys; with or without the reference answer
    annotate        teacher          JSON with four keys; with the reference answer
    repair          teacher          the same once more, after an answer that was no such JSON
    reflect         all models       a rewrite of a wrong solution
    reflect_short   teacher          the same without problem and picture (the form in the paper's body)
"""

from __future__ import annotations

from mathse.data.domains import MATH, domain_of
from mathse.data.picture_marks import texts_beside
from mathse.inference.prompts.feedback import (
    ANNOTATION_SCHEMA,
    MAX_FEEDBACK_CHARS,
    STATUS_WORDS,
    binary_json,
    feedback_json,
    parse_annotation,
    parse_feedback,
)
from mathse.types import Problem, PromptStyle, Verdict

__all__ = [
    "ANNOTATION_SCHEMA",
    "MAX_FEEDBACK_CHARS",
    "STATUS_WORDS",
    "VERSION",
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

VERSION = "1"  # of the compact prompts, raised with every change of wording; full prompts have it in their file names


def version(job: str, style: PromptStyle, problem: Problem | None = None) -> str:
    """Return the name of a prompt for lineage.

    "generate/compact/1"; "generate/full/zh/1"; "generate/full/science/en/1" in a domain other than mathematics;
    "generate/full/1" without a problem, for a teacher that reads no prompt.
    """
    if style == "compact" or problem is None:
        return f"{job}/{style}/{VERSION}"
    domain = domain_of(problem)
    code, domain_part = domain.language(problem), "" if domain is MATH else f"{domain.name}/"
    return f"{job}/{style}/{domain_part}{code}/{domain.text(job, code).version}"


def language(problem: Problem) -> str:
    """Return the language code of a problem's full prompts."""
    return domain_of(problem).language(problem)


def question_text(problem: Problem) -> str:
    """Return the question with its lettered choices, one per line."""
    choices = [f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(problem.choices)]
    return "\n".join([problem.question, *choices])


def generation_prompt(problem: Problem, style: PromptStyle) -> str:
    """Return the prompt that asks for a solution."""
    question = question_text(problem)
    return question if style == "compact" else domain_of(problem).prompt("generate", problem, {"question": question})


def judge_prompt(
    problem: Problem, path: str, style: PromptStyle, see_answer: bool
) -> tuple[str, list[tuple[str, str]]]:
    """Return the judge's prompt, and the turns before it as (question, answer).

    In the compact style the path is the answer to its question, in the form in which the solver that the tiny ORM is
    initialized from writes it. The ORM can then compare each token with the solver's prediction. (With the path inside
    the prompt, the ORM copied most wrong sums instead of computing them.)
    """
    if style == "compact":
        hint = f"The correct answer is {problem.answer}.\n" if see_answer and problem.answer else ""
        return f"{hint}Check each step.", [(generation_prompt(problem, style), path)]
    answer = (problem.answer or None) if see_answer else None
    slots = {"question": question_text(problem), **texts_beside(problem, answer=answer, path=path)}
    return domain_of(problem).prompt("judge", problem, slots), []


def annotation_prompt(problem: Problem, path: str) -> str:
    """Return the teacher's prompt for an annotation, with the reference answer."""
    slots = {"question": question_text(problem), **texts_beside(problem, answer=problem.answer or None, path=path)}
    return domain_of(problem).prompt("annotate", problem, slots)


def repair_prompt(problem: Problem) -> str:
    """Return the prompt that follows an annotation that ``parse_annotation`` cannot parse."""
    return domain_of(problem).prompt("repair", problem, {})


def reflection_prompt(
    problem: Problem, draft: str, feedback: Verdict | None, style: PromptStyle, *, short: bool = False
) -> str:
    """Return the prompt that asks for a rewrite of a draft.

    Args:
        problem: of the draft.
        draft: text of the wrong path.
        feedback: its error step and analysis are in the prompt; None: neither.
        style: prompt style of the model.
        short: without problem and picture, as the paper's body prints it.
    """
    step = (feedback.error_step or None) if feedback else None
    analysis = (feedback.error_analysis or None) if feedback else None
    slots = {"question": question_text(problem), **texts_beside(problem, path=draft, step=step, analysis=analysis)}
    if style == "compact":
        verdict = f"\n{slots['step'] or ''}: {slots['analysis'] or ''}" if feedback else ""
        return f"{slots['question']}\n{slots['path']}{verdict}\nwrong"
    return domain_of(problem).prompt("reflect_short" if short else "reflect", problem, slots)
