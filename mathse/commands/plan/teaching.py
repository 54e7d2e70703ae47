"""What the teacher's server is asked, and how long that is: counted over the real data, without asking."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mathse.commands.plan.amounts import Range, StagePlan
from mathse.commands.plan.measured import Rates
from mathse.commands.plan.tokens import A_MESSAGE, mean, mean_over, picture_tokens, spread, text_tokens
from mathse.config.teachers import OpenAITeacher
from mathse.inference import prompts
from mathse.types import Problem, Verdict

SOLUTION, ANNOTATION, ANALYSIS = 350.0, 120.0, 40.0  # tokens, where neither the data nor an earlier run tells
_WORD = Verdict("", "wrong", "Step 2", "The second step draws a conclusion that the first one does not allow.")


class Teaching:
    """Requests by job. A teacher that is no server (replay, symbolic, student) is asked nothing that costs.

    Args:
        sample: problems over which lengths are averaged.
        problems: those that the run draws on, for the length of a solution.
    """

    def __init__(self, teacher: Any, problems: Sequence[Problem], sample: int, rates: Rates) -> None:
        self.settings = teacher if isinstance(teacher, OpenAITeacher) else None
        self.sample, self.notes = sample, list[str]()
        # By the words of the request: the pictures of the first one, and once there is a second, all by content.
        self._asked: dict[str, tuple[Sequence[str], set[tuple[str, ...]]]] = {}
        if self.settings is not None:
            self._lengths(problems, rates)

    @property
    def costs(self) -> bool:
        return self.settings is not None

    def _lengths(self, problems: Sequence[Problem], rates: Rates) -> None:
        assert self.settings is not None
        solved = [p for p in spread(problems, self.sample) if p.solution]
        known = mean((text_tokens(p.solution or "") for p in solved), SOLUTION)
        most = float(self.settings.max_tokens)
        jobs = {"generate": known, "annotate": ANNOTATION, "repair": ANNOTATION, "reflect": known}
        jobs["reflect_short"] = known
        self.out = {job: min(most, rates.tokens_out.get(job, tokens)) for job, tokens in jobs.items()}
        self.path = self.out["generate"]  # of a solution that is shown to the teacher
        how = f"the mean of {len(solved):,} solutions in the data" if solved else "assumed: the data has no solutions"
        told = "measured" if "generate" in rates.tokens_out else how
        self.notes.append(f"a solution: {self.path:,.0f} tokens, {told}")
        if "annotate" not in rates.tokens_out:
            self.notes.append(f"an annotation: {self.out['annotate']:,.0f} tokens, assumed; --like RUN measures it")

    # --- jobs ---

    def solve(self, plan: StagePlan, problems: Sequence[Problem]) -> None:
        """A request a problem; one whose words and pictures were asked before is answered from the disk."""
        if self.settings is None:
            return
        new = Range.of(sum(map(self._is_new, problems)))
        side, model = self.settings.image_side, self.settings.model

        def length(problem: Problem) -> float:
            words = text_tokens(prompts.generation_prompt(problem, "full"))
            return words + picture_tokens(problem, model, side) + A_MESSAGE

        if new.high:
            plan.ask("generate", new, mean_over(problems, self.sample, length), self.out["generate"])

    def annotate(self, plan: StagePlan, problems: Sequence[Problem], most: int) -> None:
        """At most so many: a path without words is not asked about, and one that was is known. Each may need a
        repair."""
        if self.settings is None or not most:
            return
        side, model = self.settings.image_side, self.settings.model

        def length(problem: Problem) -> float:
            words = text_tokens(prompts.annotation_prompt(problem, ""))
            return words + self.path + picture_tokens(problem, model, side) + A_MESSAGE

        into = mean_over(problems, self.sample, length)
        repair = mean_over(problems, self.sample, lambda p: float(text_tokens(prompts.repair_prompt(p))))
        plan.ask("annotate", Range(0, most), into, self.out["annotate"])
        again = into + self.out["annotate"] + repair + 2 * A_MESSAGE
        plan.ask("repair", Range(0, most), again, self.out["repair"])

    def reflect(self, plan: StagePlan, problems: Sequence[Problem], most: int, told: bool) -> None:
        """At most so many rewrites; ``told``: with the word of a judge."""
        if self.settings is None or not most:
            return
        short = self.settings.reflect_prompt == "short"
        side, model = self.settings.image_side, self.settings.model

        def length(problem: Problem) -> float:
            text = prompts.reflection_prompt(problem, "", _WORD if told else None, "full", short=short)
            pictures = 0 if short else picture_tokens(problem, model, side)
            return text_tokens(text) + self.path + (ANALYSIS if told else 0) + pictures + A_MESSAGE

        job = "reflect_short" if short else "reflect"
        plan.ask(job, Range(0, most), mean_over(problems, self.sample, length), self.out[job])

    def _is_new(self, problem: Problem) -> bool:
        """Whether this request was not planned before: pictures are compared only where the words are the same."""
        words = hashlib.sha256(prompts.generation_prompt(problem, "full").encode("utf-8", "replace")).hexdigest()
        if words not in self._asked:
            self._asked[words] = problem.images, set()
            return True
        first, seen = self._asked[words]
        if not seen:
            seen.add(_pictures(first))
        before = len(seen)
        seen.add(_pictures(problem.images))
        return len(seen) > before


def _pictures(refs: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_picture, refs))


def _picture(ref: str) -> str:
    file = Path(ref)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ref
