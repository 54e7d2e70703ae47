"""metrics.json: the official figures of a benchmark, further figures beside them, and the protocol of measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mathse.evaluation.benchmark import OVERRUN
from mathse.evaluation.grading import GradedAnswer
from mathse.evaluation.opened import OpenedBenchmark
from mathse.scoring.metrics import wilson


def accuracy_figures(marks: Sequence[bool | None]) -> dict[str, Any]:
    """Return {"correct", "total", "accuracy", "ci95" (Wilson)} of marks, as counts and fractions.

    With a mark None (not scored) the accuracy is not known: it is None, "not_scored" counts these marks, and "bounds"
    has the lowest and the highest possible accuracy.
    """
    correct, total, unknown = marks.count(True), len(marks), marks.count(None)
    is_known = unknown == 0 and total > 0
    figures: dict[str, Any] = {
        "correct": correct,
        "total": total,
        "accuracy": correct / total if is_known else None,
        "ci95": list(wilson(correct, total)) if is_known else None,
    }
    if unknown:
        figures |= {"not_scored": unknown, "bounds": [correct / total, (correct + unknown) / total]}
    return figures


def benchmark_metrics(
    opened: OpenedBenchmark, graded: Sequence[GradedAnswer], protocol: Mapping[str, Any]
) -> dict[str, Any]:
    """Return metrics.json. ``graded``: the answer that counts for each problem."""
    scored = [g.scored for g in graded]
    # math-verify's accuracy is over the answers with its verdict.
    verified = [g.verified for g in graded if g.verified is not None]
    math_verify = None
    if verified:
        no_opinion, differing = len(graded) - len(verified), len(disagreements(graded))
        math_verify = {**accuracy_figures(verified), "no_opinion": no_opinion, "disagreements": differing}
    return {
        "benchmark": opened.name,
        "split": opened.split,
        **accuracy_figures([row.correct for row in scored]),
        "buckets": opened.bench.buckets([g.item for g in graded], scored),
        "raw": accuracy_figures([g.raw.correct for g in graded]),
        "mapped": {
            **accuracy_figures([g.mapped.correct for g in graded]),
            "with_marker": sum(g.mapped is not g.raw for g in graded),
        },
        "math_verify": math_verify,
        "overruns": sum(OVERRUN in row.note for row in scored),
        "protocol": dict(protocol),
    }


def disagreements(graded: Sequence[GradedAnswer]) -> list[GradedAnswer]:
    """Return the answers on which the official verdict and math-verify's verdict differ."""
    return [g for g in graded if None not in (g.verified, g.scored.correct) and g.verified != g.scored.correct]


def circumstances(protocol: Mapping[str, Any]) -> str:
    """Write the conditions that belong to every score: split, prompt, lengths, selector, marker, LLM.

    ``protocol``: from metrics.json.
    """
    answers, llm = protocol["answers"], protocol["llm"]
    parts = [protocol["split"]]
    if protocol["limit"]:
        parts.append(f"first {protocol['limit']:,}")
    parts.append("a file's answers" if "file" in answers else f"prompt {protocol['prompt']}")
    if "decoding" in answers:
        parts.append(f"{answers['decoding']}, {answers['max_new_tokens']:,} tokens")
    if answers.get("n_samples", 1) > 1:
        parts.append(f"{protocol['selector']} of {answers['n_samples']}")
    parts.append(f"marker {protocol['answer_marker']}")
    if llm:
        parts.append(f"LLM {llm['model']}")
    return ", ".join(part for part in parts if part)


def result_line(figures: Mapping[str, Any]) -> str:
    """Write the result of metrics.json as a line for the screen."""
    counts = f"{figures['correct']:,} of {figures['total']:,}"
    if figures.get("overruns"):
        counts += f", {figures['overruns']:,} of them not parsed in time and counted as unequal"
    if figures["accuracy"] is not None:
        low, high = figures["ci95"]
        return f"accuracy {figures['accuracy']:.4f} [{low:.4f}, {high:.4f}], {counts}"
    if not figures["total"]:
        return "nothing to score"
    low, high = figures["bounds"]
    return f"accuracy not known, between {low:.4f} and {high:.4f}: {counts} right, {figures['not_scored']:,} not scored"
