"""What the teacher's server is asked, and how long that is: counted over the real data, without asking."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mathse.commands.plan.rates import Rates
from mathse.commands.plan.tokens import A_MESSAGE, picture_tokens, text_tokens
from mathse.config.teachers import OpenAITeacherConfig
from mathse.evolution.planner import Range, StagePlan
from mathse.inference import prompts
from mathse.types import Problem, Verdict

SOLUTION, ANNOTATION, ANALYSIS = 350.0, 120.0, 40.0  # tokens, where neither the data nor an earlier run tells
# The feedback in a reflection's prompt; of its analysis only the length matters, which ANALYSIS adds.
_VERDICT = Verdict("", "wrong", "Step 2", "The second step draws a conclusion that the first one does not allow.")


class TeacherRequests:
    """Requests by job. A teacher that is no server (replay, symbolic, student) is asked nothing that costs.

    Args:
        teacher: the run's ``teacher`` section.
        problems: those that the run draws on, for the length of a solution.
        sample: problems over which lengths are averaged.
        rates: tokens of an answer by job, where an earlier run tells.
    """

    def __init__(self, teacher: Any, problems: Sequence[Problem], sample: int, rates: Rates) -> None:
        self.settings = teacher if isinstance(teacher, OpenAITeacherConfig) else None
        self.sample, self.notes = sample, list[str]()
        # Text of a request -> the pictures of the first one, and once there is a second, those of all by content.
        self._requested: dict[str, tuple[Sequence[str], set[tuple[str, ...]]]] = {}
        if self.settings is None:
            return
        solutions = [p.solution for p in _spread(problems, sample) if p.solution]
        solution = fmean(map(text_tokens, solutions)) if solutions else SOLUTION
        tokens = {"generate": solution, "annotate": ANNOTATION, "repair": ANNOTATION, "reflect": solution}
        tokens["reflect_short"] = solution
        # Tokens of an answer, by job.
        limit = float(self.settings.max_tokens)
        self.tokens_out = {job: min(limit, rates.tokens_out.get(job, mean)) for job, mean in tokens.items()}
        self.path_tokens = self.tokens_out["generate"]  # of a solution that is shown to the teacher
        if "generate" in rates.tokens_out:
            source = "measured"
        elif solutions:
            source = f"the mean of {len(solutions):,} solutions in the data"
        else:
            source = "assumed: the data has no solutions"
        self.notes.append(f"a solution: {self.path_tokens:,.0f} tokens, {source}")
        if "annotate" not in rates.tokens_out:
            mean = self.tokens_out["annotate"]
            self.notes.append(f"an annotation: {mean:,.0f} tokens, assumed; --like RUN measures it")

    def solve(self, plan: StagePlan, problems: Sequence[Problem]) -> None:
        """A request a problem; one whose text and pictures were planned before is answered from the disk."""
        if self.settings is None:
            return
        new = Range.of(sum(map(self._is_new, problems)))
        if new.high:
            tokens = self._mean_tokens(problems, lambda p: prompts.generation_prompt(p, "full"))
            plan.ask("generate", new, tokens, self.tokens_out["generate"])

    def annotate(self, plan: StagePlan, problems: Sequence[Problem], most: int) -> None:
        """At most so many: an empty path is not sent, and one that was sent before is known. Each may need a
        repair."""
        if self.settings is None or not most:
            return
        shown = self.path_tokens
        tokens = self._mean_tokens(problems, lambda p: prompts.annotation_prompt(p, ""), shown)
        plan.ask("annotate", Range(0, most), tokens, self.tokens_out["annotate"])
        repair = _mean(problems, self.sample, lambda p: text_tokens(prompts.repair_prompt(p)))
        # The whole exchange again, and two messages more: the answer that could not be read, and what is wrong with it.
        again = tokens + self.tokens_out["annotate"] + repair + 2 * A_MESSAGE
        plan.ask("repair", Range(0, most), again, self.tokens_out["repair"])

    def reflect(self, plan: StagePlan, problems: Sequence[Problem], most: int, with_feedback: bool) -> None:
        """At most so many rewrites; ``with_feedback``: the writer reads a judge's verdict."""
        if self.settings is None or not most:
            return
        short = self.settings.reflect_prompt == "short"
        feedback = _VERDICT if with_feedback else None
        tokens = self._mean_tokens(
            problems,
            lambda p: prompts.reflection_prompt(p, "", feedback, "full", short=short),
            self.path_tokens + (ANALYSIS if with_feedback else 0),
            pictures=not short,
        )
        job = "reflect_short" if short else "reflect"
        plan.ask(job, Range(0, most), tokens, self.tokens_out[job])

    def _mean_tokens(
        self, problems: Sequence[Problem], prompt_of: Callable[[Problem], str], more: float = 0, pictures: bool = True
    ) -> float:
        """Tokens of a request, with ``more`` that its prompt will hold beside the problem."""
        settings = self.settings
        assert settings is not None  # asked by jobs of a server alone

        def tokens(problem: Problem) -> float:
            image = picture_tokens(problem, settings.model, settings.image_side) if pictures else 0
            return text_tokens(prompt_of(problem)) + more + image + A_MESSAGE

        return _mean(problems, self.sample, tokens)

    def _is_new(self, problem: Problem) -> bool:
        """Whether this request was not planned before: pictures are compared only where the text is the same."""
        text = hashlib.sha256(prompts.generation_prompt(problem, "full").encode("utf-8", "replace")).hexdigest()
        if text not in self._requested:
            self._requested[text] = problem.images, set()
            return True
        first, seen = self._requested[text]
        if not seen:
            seen.add(_contents(first))
        before = len(seen)
        seen.add(_contents(problem.images))
        return len(seen) > before


def _contents(refs: Sequence[str]) -> tuple[str, ...]:
    """The hash of each picture that is a file; of others the reference."""
    files = ((ref, Path(ref)) for ref in refs)
    return tuple(hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ref for ref, file in files)


def _spread(problems: Sequence[Problem], most: int) -> Sequence[Problem]:
    """``most`` of them, evenly over the whole, or all."""
    if len(problems) <= most:
        return problems
    return [problems[k * len(problems) // most] for k in range(most)]


def _mean(problems: Sequence[Problem], sample: int, tokens_of: Callable[[Problem], float]) -> float:
    """Over a sample; 0 without a problem."""
    values = [tokens_of(problem) for problem in _spread(problems, sample)]
    return fmean(values) if values else 0.0
