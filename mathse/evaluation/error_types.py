"""Figure 4 of the paper: the kind of mistake in each wrong answer, by an LLM. ``error_types.jsonl`` has a row for each.

The paper has the five kinds; it gives no prompt and no annotator, so the prompt is MathSE's. With ``llm.vision=true``
the LLM also sees the picture; without it, a misread picture is hard to recognise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathse.data.picture_marks import texts_beside
from mathse.evaluation.grading import GradedAnswer
from mathse.inference.llm.images import content_of
from mathse.inference.prompts import question_text
from mathse.runs.store import write_jsonl
from mathse.scoring.paper import ERROR_TYPES

if TYPE_CHECKING:
    from mathse.evaluation.scoring_llm import ScoringLLM

FILE = "error_types.jsonl"
VERSION = "error-type/1"
MAX_RESPONSE = 8_000  # characters of a solution in the prompt, from its end
UNCLEAR = "unclear"  # a reply with no kind, or with several kinds

PROMPT = """A student's solution of the mathematics problem below is wrong. Decide what its first mistake is:

reasoning: a step does not follow, or a needed case or step is missing
knowledge: a fact, formula or theorem is wrong or not known
calculation: a sum, an expansion or another computation is wrong
question: the question was misread, or something else was answered
vision: something in the picture was misread

Reply with that one word alone.

Problem: {question}

Right answer: {answer}

Wrong solution:
{response}"""

_REPLY = re.compile(rf"\W*(?:(?:error )?type\W+)?({'|'.join(ERROR_TYPES)})(?: (?:error|mistake))?\W*", re.IGNORECASE)


def classify(wrong: Sequence[GradedAnswer], llm: ScoringLLM, folder: Path, vision: bool) -> dict[str, Any]:
    """Ask the LLM for the kind of mistake in each wrong answer, and write a row for each into ``folder``.

    Returns {"reasoning": n, ..., "unclear": n, "total": n, ...}. ``vision``: whether the LLM sees pictures.
    """
    messages: list[list[dict[str, Any]]] = []
    for graded in wrong:
        problem = graded.item.problem
        text = PROMPT.format(
            question=question_text(problem),
            **texts_beside(problem, answer=problem.answer, response=graded.answer.response[-MAX_RESPONSE:]),
        )
        content: Any = text
        if vision and problem.images:
            content = content_of(problem, text, 1024)  # pixels of the long side
        messages.append([{"role": "user", "content": content}])
    replies = llm.ask_messages(messages, VERSION, max_tokens=16)
    kinds = [read_kind(reply) for reply in replies]
    rows = []
    for graded, kind, reply in zip(wrong, kinds, replies, strict=True):
        rows.append({"id": graded.answer.id, "type": kind, "reply": reply})
    write_jsonl(folder / FILE, rows)
    counts = Counter(kinds)
    return {
        **{kind: counts[kind] for kind in (*ERROR_TYPES, UNCLEAR)},
        "total": len(wrong),
        "with_picture": sum(not isinstance(m[0]["content"], str) for m in messages),
        "judge": {"model": llm.model, "prompt_version": VERSION},
    }


def read_kind(reply: str | None) -> str:
    """Return the kind of a reply that names a single kind and nothing else; UNCLEAR for any other reply."""
    match = _REPLY.fullmatch(reply or "")
    return match[1].lower() if match else UNCLEAR
