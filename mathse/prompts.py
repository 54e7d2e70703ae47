"""What models are asked, in our own words, and how a judge's answer is read back.

The slots, the closing marker and the JSON keys are the paper's (appendix "Prompts"). Two styles: ``full`` for real
models, ``compact`` for the tiny backbone, which cannot read instructions and pays for each word in bytes.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NamedTuple

from mathse.answers import MARKER
from mathse.types import Problem, Status, Verdict

Style = Literal["compact", "full"]
VERSION = "1"  # raised with every change of wording; in each row's lineage
MAX_FEEDBACK = 20_000  # characters of a judge's answer that are parsed

_SOLVE = (
    "You teach mathematics. Solve the problem below, looking closely at the picture where there is one. Reason step by "
    'step, one numbered step a line ("Step 1: ..."), and end with the sentence "{marker} ...".\n\n'
    "Problem: {question}"
)
_JUDGE = (
    "You grade mathematics. Below are a problem and a student's solution. Check the solution step by step against the "
    'problem and its picture. Then answer with one JSON object of three keys: "status" ("CORRECT" or "WRONG"), '
    '"error_step" (the first wrong step, such as "Step 2", or null) and "error_analysis" (what is wrong there '
    "and why, or null).\n\nProblem: {question}{answer}\n\nSolution:\n{path}"
)
_REFLECT = (
    "You teach mathematics. The solution below ends in a wrong answer. {feedback}Look at the problem and its picture "
    "again, find what went wrong and write the whole solution anew, one numbered step a line, ending with the sentence "
    '"{marker} ...".\n\nProblem: {question}\n\nWrong solution:\n{path}'
)
_HINT = "A grader, who may be mistaken, points at: {step}. Its reason: {analysis}. "


def version(job: str, style: Style) -> str:
    """The name that lineage records: "generate/compact/1"."""
    return f"{job}/{style}/{VERSION}"


def question_text(problem: Problem) -> str:
    """The question with its choices, lettered, a line each."""
    choices = [f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(problem.choices)]
    return "\n".join([problem.question, *choices])


def generation_prompt(problem: Problem, style: Style) -> str:
    question = question_text(problem)
    return question if style == "compact" else _SOLVE.format(marker=MARKER, question=question)


def judge_prompt(problem: Problem, path: str, style: Style, see_answer: bool) -> tuple[str, list[tuple[str, str]]]:
    """The judge's prompt, and the turns before it.

    In the compact style the path stands as the answer to its question, as the solver that the tiny ORM starts from
    would write it: what the solver would have said at each place is then there to compare with. (With the path inside
    the prompt, the ORM copied most wrong sums instead of working them out.)
    """
    question = question_text(problem)
    if style == "compact":
        hint = f"The correct answer is {problem.answer}.\n" if see_answer else ""
        return f"{hint}Check each step.", [(generation_prompt(problem, style), path)]
    answer = f"\n\nReference answer: {problem.answer}" if see_answer else ""
    return _JUDGE.format(question=question, answer=answer, path=path), []


def reflection_prompt(problem: Problem, draft: str, feedback: Verdict | None, style: Style) -> str:
    question = question_text(problem)
    if style == "compact":
        said = f"\n{feedback.error_step or ''}: {feedback.error_analysis or ''}" if feedback else ""
        return f"{question}\n{draft}{said}\nwrong"
    hint = _HINT.format(step=feedback.error_step, analysis=feedback.error_analysis) if feedback else ""
    return _REFLECT.format(feedback=hint, marker=MARKER, question=question, path=draft)


# --- verdicts as text -----------------------------------------------------------------------------------------------

STATUS: dict[Status, str] = {"correct": "CORRECT", "wrong": "WRONG"}
_KEYS = {
    "verdict_first": ("status", "error_step", "error_analysis"),
    "analysis_first": ("error_analysis", "error_step", "status"),
    "solve_first": ("solution", "error_analysis", "error_step", "status"),
}


class Feedback(NamedTuple):
    """A judge's answer as read: status, wrong step, analysis."""

    status: Status
    error_step: str | None
    error_analysis: str | None


def feedback_json(label: Verdict, order: str, solution: str | None = None) -> str:
    """The JSON that an ORM learns to write for a labelled path; ``order`` is the order of its keys."""
    values: dict[str, Any] = {
        "status": STATUS[label.status],
        "error_step": label.error_step,
        "error_analysis": label.error_analysis,
        "solution": solution,
    }
    return json.dumps({key: values[key] for key in _KEYS[order]}, ensure_ascii=False)


def binary_json(label: Verdict) -> str:
    """The same verdict without its text (Table 5, "binary")."""
    return json.dumps({"status": STATUS[label.status]})


def parse_feedback(text: str, *, binary: bool = False) -> Feedback:
    """Read a judge's JSON strictly: one object of three keys (``binary``: the status alone), else unparsed."""
    unparsed = Feedback("unparsed", None, None)
    if len(text) > MAX_FEEDBACK:
        return unparsed
    try:
        value = json.loads(text, object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        return unparsed
    if not isinstance(value, dict):
        return unparsed
    status = next((s for s, word in STATUS.items() if value.get("status") == word), None)
    step, analysis = value.get("error_step"), value.get("error_analysis")
    complete = binary or {"error_step", "error_analysis"} <= set(value)
    if status is None or not complete or not all(v is None or isinstance(v, str) for v in (step, analysis)):
        return unparsed
    return Feedback(status, step, analysis)


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; a key that stands twice may say two things, so it says none."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value
