"""metrics.json: the official figures of one benchmark, what stands beside them, and what they were measured with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.evaluation.benchmark import OVERRUN
from mathse.evaluation.grading import GradedAnswer
from mathse.evaluation.opened import OpenedBenchmark
from mathse.scoring.metrics import wilson


def share(marks: Sequence[bool | None]) -> dict[str, Any]:
    """{"correct", "total", "accuracy", "ci95" (Wilson)} of marks, as counts and fractions.

    Where a mark is None (not scored) the accuracy is not known and None; "not_scored" counts them, and "bounds" says
    what it lies between.
    """
    correct, total, unknown = marks.count(True), len(marks), marks.count(None)
    known = unknown == 0 and total > 0
    counted: dict[str, Any] = {
        "correct": correct,
        "total": total,
        "accuracy": correct / total if known else None,
        "ci95": list(wilson(correct, total)) if known else None,
    }
    if unknown:
        counted |= {"not_scored": unknown, "bounds": [correct / total, (correct + unknown) / total]}
    return counted


def metrics(opened: OpenedBenchmark, graded: Sequence[GradedAnswer], protocol: Mapping[str, Any]) -> dict[str, Any]:
    """metrics.json of the answers that count, one a problem."""
    scored = [g.scored for g in graded]
    # math-verify's accuracy is over the answers that it has a verdict on.
    verified = [g.verified for g in graded if g.verified is not None]
    math_verify = None
    if verified:
        no_opinion, differing = len(graded) - len(verified), len(disagreements(graded))
        math_verify = {**share(verified), "no_opinion": no_opinion, "disagreements": differing}
    return {
        "benchmark": opened.name,
        "split": opened.split,
        **share([row.correct for row in scored]),
        "buckets": opened.bench.buckets([g.item for g in graded], scored),
        "raw": share([g.raw.correct for g in graded]),
        "mapped": {
            **share([g.mapped.correct for g in graded]),
            "with_marker": sum(g.mapped is not g.raw for g in graded),
        },
        "math_verify": math_verify,
        "overruns": sum(OVERRUN in row.note for row in scored),
        "protocol": dict(protocol),
    }


def disagreements(graded: Sequence[GradedAnswer]) -> list[GradedAnswer]:
    """The answers on which the official verdict and math-verify's differ."""
    return [g for g in graded if None not in (g.verified, g.scored.correct) and g.verified != g.scored.correct]


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


def sentence(metrics: Mapping[str, Any]) -> str:
    """The result in a line, for the screen."""
    counts = f"{metrics['correct']:,} of {metrics['total']:,}"
    if metrics.get("overruns"):
        counts += f", {metrics['overruns']:,} of them not parsed in time and counted as unequal"
    if metrics["accuracy"] is not None:
        low, high = metrics["ci95"]
        return f"accuracy {metrics['accuracy']:.4f} [{low:.4f}, {high:.4f}], {counts}"
    if not metrics["total"]:
        return "nothing to score"
    low, high = metrics["bounds"]
    return f"accuracy not known, between {low:.4f} and {high:.4f}: {counts} right, {metrics['not_scored']:,} not scored"
