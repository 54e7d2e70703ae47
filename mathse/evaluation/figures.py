"""metrics.json: the official figures of one benchmark, what stands beside them, and what they were measured with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.evaluation.opened import Opened
from mathse.evaluation.scoring import Graded
from mathse.scoring.metrics import wilson


def share(marks: Sequence[bool | None]) -> dict[str, Any]:
    """{"correct", "total", "accuracy", "ci95" (Wilson)} of marks, as counts and fractions.

    Where a mark is None (not scored) the accuracy is not known and None; "not_scored" counts them, and "bounds" says
    what it lies between.
    """
    correct, total, unknown = marks.count(True), len(marks), marks.count(None)
    known = unknown == 0 and total > 0
    found: dict[str, Any] = {
        "correct": correct,
        "total": total,
        "accuracy": correct / total if known else None,
        "ci95": list(wilson(correct, total)) if known else None,
    }
    if unknown:
        found |= {"not_scored": unknown, "bounds": [correct / total, (correct + unknown) / total]}
    return found


def metrics(opened: Opened, graded: Sequence[Graded], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Of the answers that count, one a problem."""
    scored = [g.scored for g in graded]
    return {
        "benchmark": opened.name,
        "split": opened.split,
        **share([row.correct for row in scored]),
        "buckets": opened.bench.buckets([g.item for g in graded], scored),
        "raw": share([g.raw.correct for g in graded]),
        "mapped": {**share([g.mapped.correct for g in graded]), "with_marker": sum(_is_mapped(g) for g in graded)},
        "math_verify": _verified(graded),
        "protocol": dict(protocol),
    }


def disagreements(graded: Sequence[Graded]) -> list[Graded]:
    """The answers on which the official verdict and math-verify's differ."""
    return [g for g in graded if None not in (g.verified, g.scored.correct) and g.verified != g.scored.correct]


def _is_mapped(graded: Graded) -> bool:
    return graded.mapped is not graded.raw


def _verified(graded: Sequence[Graded]) -> dict[str, Any] | None:
    """math-verify's accuracy over the answers it has an opinion on; None where it has none."""
    marks = [g.verified for g in graded if g.verified is not None]
    if not marks:
        return None
    return {**share(marks), "no_opinion": len(graded) - len(marks), "disagreements": len(disagreements(graded))}


def circumstances(protocol: Mapping[str, Any]) -> str:
    """What a score must not be read without: split, prompt, lengths, marker, selector, LLM; from metrics.json."""
    answers, llm = protocol["answers"], protocol["llm"]
    parts = [
        protocol["split"],
        f"first {protocol['limit']:,}" if protocol["limit"] else None,
        "a file's answers" if "file" in answers else f"prompt {protocol['prompt']}",
        f"{answers['decoding']}, {answers['max_new_tokens']:,} tokens" if "decoding" in answers else None,
        f"{protocol['selector']} of {answers['n_samples']}" if answers.get("n_samples", 1) > 1 else None,
        f"marker {protocol['answer_marker']}",
        f"LLM {llm['model']}" if llm else None,
    ]
    return ", ".join(part for part in parts if part)


def sentence(figures: Mapping[str, Any]) -> str:
    """The result in a line, for the screen."""
    counts = f"{figures['correct']:,} of {figures['total']:,}"
    if figures["accuracy"] is not None:
        low, high = figures["ci95"]
        return f"accuracy {figures['accuracy']:.4f} [{low:.4f}, {high:.4f}], {counts}"
    if not figures["total"]:
        return "nothing to score"
    low, high = figures["bounds"]
    return f"accuracy not known, between {low:.4f} and {high:.4f}: {counts} right, {figures['not_scored']:,} not scored"
