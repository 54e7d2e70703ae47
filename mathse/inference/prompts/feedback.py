"""Verdicts as text: the JSON that an ORM learns to write and a teacher is asked for, and how strictly it is read."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from mathse.types import Status, Verdict, whole_characters

MAX_FEEDBACK = 20_000  # characters of a judge's answer that are parsed
STATUS: dict[Status, str] = {"correct": "CORRECT", "wrong": "WRONG"}
_KEYS = {
    "verdict_first": ("status", "error_step", "error_analysis"),
    "analysis_first": ("error_analysis", "error_step", "status"),
    "solve_first": ("solution", "error_analysis", "error_step", "status"),
}
_TEXT_OR_NULL = {"type": ["string", "null"]}
ANNOTATION_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status": {"type": "string", "enum": list(STATUS.values())},
        "error_step": _TEXT_OR_NULL,
        "error_analysis": _TEXT_OR_NULL,
        "improvement_suggestion": {"type": "string"},
    },
    "required": ["status", "error_step", "error_analysis", "improvement_suggestion"],
    "additionalProperties": False,
}
STATUS_KEY = re.compile(r'(?<!\\)"status"\s*:\s*"')  # inside a value the quotes would be escaped
_FENCED = re.compile(r"```(?:json)?\s*(\{.*\})\s*```", re.DOTALL)


class Feedback(NamedTuple):
    """A judge's answer as read: status, wrong step, analysis."""

    status: Status
    error_step: str | None
    error_analysis: str | None


UNPARSED = Feedback("unparsed", None, None)


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
    value = _object(text)
    status = next((s for s, written in STATUS.items() if value.get("status") == written), None)
    step, analysis = value.get("error_step"), value.get("error_analysis")
    complete = binary or {"error_step", "error_analysis"} <= set(value)
    if status is None or not complete or not all(v is None or isinstance(v, str) for v in (step, analysis)):
        return UNPARSED
    return Feedback(status, step, analysis)


def parse_annotation(text: str) -> Feedback:
    """Read a teacher's JSON strictly: one object of four keys, a wrong solution with its step and reason, else
    unparsed. A code fence around all of it is ignored. Of a correct solution only the status is kept."""
    text = text.strip()
    fenced = _FENCED.fullmatch(text) if len(text) <= MAX_FEEDBACK else None
    text = fenced[1] if fenced else text
    parsed = parse_feedback(text)
    if parsed.status == "unparsed" or not isinstance(_object(text).get("improvement_suggestion"), str):
        return UNPARSED
    if parsed.status == "correct":
        return Feedback("correct", None, None)
    complete = (parsed.error_step or "").strip() and (parsed.error_analysis or "").strip()
    return parsed if complete else UNPARSED


def _object(text: str) -> dict[str, Any]:
    """``text`` as one JSON object; an empty one where it is none."""
    if len(text) > MAX_FEEDBACK:
        return {}
    try:
        value = whole_characters(json.loads(text, object_pairs_hook=_each_key_once))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; one with a repeated key is refused, since its two values may differ."""
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands twice")
    return value
