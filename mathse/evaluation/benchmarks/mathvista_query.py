"""MathVista's two official prompts: ``query`` (data/query.json, the hub's field) and the one its scripts build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HINTS: dict[tuple[str, int | None], str] = {
    ("integer", None): "requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    ("float", 1): "requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, "
    "1.3, 1.4, at the end.",
    ("float", 2): "requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, "
    "1.34, 1.45, at the end.",
    ("list", None): "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, "
    "1.4], at the end.",
}
_CHOICE_HINT = "and provide the correct option letter, e.g., A, B, C, D, at the end."


def query(row: Mapping[str, Any]) -> str:
    """Hint, question, choices: what published scores of multimodal models were asked with; the row's own if it has it.

    The difference is worth points: GPT-4o is listed with 61.6 for this prompt, 65.3 with "Solution:" at its end.
    """
    if isinstance(own := row.get("query"), str) and own.strip():
        return own.strip()
    return "\n".join((_hint(row), *_question(row))).strip()


def solution_query(row: Mapping[str, Any]) -> str:
    """Question, choices, hint, "Solution:": the zero-shot prompt of build_query.py."""
    return "\n".join((*_question(row), _hint(row), "Solution: ")).strip()


def _question(row: Mapping[str, Any]) -> list[str]:
    unit = f" (Unit: {row['unit']})" if row.get("unit") else ""
    lines = [f"Question: {row.get('question') or ''}{unit}"]
    if row.get("choices"):
        lines.append("Choices:")
        lines += [f"({chr(ord('A') + k)}) {choice}" for k, choice in enumerate(row["choices"])]
    return lines


def _hint(row: Mapping[str, Any]) -> str:
    if row["question_type"] == "multi_choice":
        return f"Hint: Please answer the question {_CHOICE_HINT}"
    kind = row["answer_type"]
    hint = _HINTS.get((kind, int(row["precision"]) if kind == "float" and row.get("precision") else None), "")
    return f"Hint: Please answer the question {hint}".strip()
