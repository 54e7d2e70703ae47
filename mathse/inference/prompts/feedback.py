"""Verdicts as text: the JSON that an ORM is trained to write and a teacher is asked for, and its strict parser."""

from __future__ import annotations

import json
import re
from typing import Any

from mathse.types import Status, Verdict, whole_characters

MAX_FEEDBACK_CHARS = 20_000  # a longer answer is not parsed, so that parsing time is bounded
STATUS_WORDS: dict[Status, str] = {"correct": "CORRECT", "wrong": "WRONG"}
KEY_ORDERS = {
    "verdict_first": ("status", "error_step", "error_analysis"),
    "analysis_first": ("error_analysis", "error_step", "status"),
    "solve_first": ("solution", "error_analysis", "error_step", "status"),
}
ANNOTATION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": list(STATUS_WORDS.values())},
        "error_step": {"type": ["string", "null"]},
        "error_analysis": {"type": ["string", "null"]},
        "improvement_suggestion": {"type": "string"},
    },
    "required": ["status", "error_step", "error_analysis", "improvement_suggestion"],
    "additionalProperties": False,
}
STATUS_KEY = re.compile(r'(?<!\\)"status"\s*:\s*"')  # the key itself: inside a value its quotes would be escaped
_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)


def feedback_json(label: Verdict, order: str, solution: str | None = None) -> str:
    """Return the JSON that an ORM is trained to write for a labelled path.

    Args:
        label: the label of the path.
        order: a key of ``KEY_ORDERS``, the order of the JSON's keys.
        solution: the problem's solution, for the order that has it.
    """
    values: dict[str, Any] = {
        "status": STATUS_WORDS[label.status],
        "error_step": label.error_step,
        "error_analysis": label.error_analysis,
        "solution": solution,
    }
    return json.dumps({key: values[key] for key in KEY_ORDERS[order]}, ensure_ascii=False)


def binary_json(label: Verdict) -> str:
    """Return the JSON with the status as its only key (Table 5, "binary")."""
    return json.dumps({"status": STATUS_WORDS[label.status]})


def parse_feedback(text: str, path_id: str = "", judge: str = "", *, binary: bool = False) -> Verdict:
    """Parse a judge's JSON strictly: one object with the three keys, otherwise the verdict is unparsed.

    Args:
        text: the answer of a model.
        path_id: the judged path.
        judge: the name of the judge, recorded in the verdict.
        binary: the status is the only required key.
    """
    unparsed = Verdict(path_id, "unparsed", judge=judge)
    fields = _parse_object(text)
    if not binary and not {"error_step", "error_analysis"} <= set(fields):
        return unparsed
    step, analysis = fields.get("error_step"), fields.get("error_analysis")
    if not isinstance(step, str | None) or not isinstance(analysis, str | None):
        return unparsed
    for status, word in STATUS_WORDS.items():
        if fields.get("status") == word:
            return Verdict(path_id, status, step, analysis, judge=judge)
    return unparsed


def parse_annotation(text: str, path_id: str = "", judge: str = "") -> Verdict:
    """Parse a teacher's JSON strictly: one object with the four keys, otherwise the verdict is unparsed.

    A code fence around the whole answer is removed first. A wrong path needs a step and an analysis that are not blank;
    the verdict on a correct path has neither.
    """
    text = text.strip()
    if len(text) <= MAX_FEEDBACK_CHARS and (fenced := _FENCED.fullmatch(text)):
        text = fenced[1]
    verdict = parse_feedback(text, path_id, judge)
    unparsed = Verdict(path_id, "unparsed", judge=judge)
    if verdict.status == "unparsed" or not isinstance(_parse_object(text).get("improvement_suggestion"), str):
        return unparsed
    if verdict.status == "correct":
        return Verdict(path_id, "correct", judge=judge)
    is_complete = (verdict.error_step or "").strip() and (verdict.error_analysis or "").strip()
    return verdict if is_complete else unparsed


def _parse_object(text: str) -> dict[str, Any]:
    """Return ``text`` as one JSON object; an empty object if it is anything else, too long or has a repeated key."""
    if len(text) > MAX_FEEDBACK_CHARS:
        return {}
    try:
        value = whole_characters(json.loads(text, object_pairs_hook=_refuse_repeated_keys))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs. Raises ValueError for a repeated key, since its two values may differ."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("repeated key")
    return value
