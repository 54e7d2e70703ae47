"""The requests to the teacher's server and their tokens, counted over the real data without a request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mathse.commands.plan.rates import Rates
from mathse.commands.plan.tokens import MESSAGE_TOKENS, count_picture_tokens, count_text_tokens
from mathse.config.teachers import OpenAITeacher
from mathse.evolution.planner import Range, StagePlan
from mathse.inference import prompts
from mathse.types import Problem, Verdict

# Assumed where neither the data nor an earlier run has the lengths.
SOLUTION_TOKENS, ANNOTATION_TOKENS, ANALYSIS_TOKENS = 350.0, 120.0, 40.0
# The feedback in a reflection's prompt. Only the length of its analysis matters, and ANALYSIS_TOKENS adds that.
_VERDICT = Verdict("", "wrong", "Step 2", "The second step draws a conclusion that the first one does not allow.")


class TeacherRequests:
    """Counts requests by job. A teacher without a server (replay, symbolic, student) gets no request that costs.

    Args:
        teacher: the run's ``teacher`` section.
        problems: the run's problems, for the length of a solution.
        sample: problems over which lengths are averaged.
        rates: tokens of an answer by job, as measured in an earlier run.
    """

    def __init__(self, teacher: Any, problems: Sequence[Problem], sample: int, rates: Rates) -> None:
        self.settings = teacher if isinstance(teacher, OpenAITeacher) else None
        self.sample, self.notes = sample, list[str]()
        # Hash of a request's text -> the pictures of the first request with this text, and, from the second request
        # on, the contents of the pictures of all.
        self._requested: dict[str, tuple[Sequence[str], set[tuple[str, ...]]]] = {}
        if self.settings is None:
            return
        solutions = [p.solution for p in _take_evenly(problems, sample) if p.solution]
        solution = fmean(map(count_text_tokens, solutions)) if solutions else SOLUTION_TOKENS
        tokens = {
            "generate": solution,
            "annotate": ANNOTATION_TOKENS,
            "repair": ANNOTATION_TOKENS,
            "reflect": solution,
            "reflect_short": solution,
        }
        # Tokens of an answer, by job.
        limit = float(self.settings.max_tokens)
        self.tokens_out = {job: min(limit, rates.tokens_out.get(job, mean)) for job, mean in tokens.items()}
        self.path_tokens = self.tokens_out["generate"]  # of a solution that a prompt shows to the teacher
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
        """Add one request per problem. The cache answers a request with the text and pictures of an earlier one."""
        if self.settings is None:
            return
        new = Range.of(sum(map(self._is_new, problems)))
        if new.high:
            tokens = self._mean_tokens(problems, lambda p: prompts.generation_prompt(p, "full"))
            plan.ask("generate", new, tokens, self.tokens_out["generate"])

    def annotate(self, plan: StagePlan, problems: Sequence[Problem], most: int) -> None:
        """Add at most ``most`` requests, each with a possible repair. Empty and repeated paths need no request."""
        if self.settings is None or not most:
            return
        tokens = self._mean_tokens(problems, lambda p: prompts.annotation_prompt(p, ""), self.path_tokens)
        plan.ask("annotate", Range(0, most), tokens, self.tokens_out["annotate"])
        repair = _mean_over_sample(problems, self.sample, lambda p: count_text_tokens(prompts.repair_prompt(p)))
        # A repair sends the whole exchange again, with two more messages: the unreadable answer and its mistake.
        again = tokens + self.tokens_out["annotate"] + repair + 2 * MESSAGE_TOKENS
        plan.ask("repair", Range(0, most), again, self.tokens_out["repair"])

    def reflect(self, plan: StagePlan, problems: Sequence[Problem], most: int, with_feedback: bool) -> None:
        """Add at most ``most`` rewrites. ``with_feedback``: the prompt has a judge's verdict."""
        if self.settings is None or not most:
            return
        short = self.settings.reflect_prompt == "short"
        feedback = _VERDICT if with_feedback else None
        tokens = self._mean_tokens(
            problems,
            lambda p: prompts.reflection_prompt(p, "", feedback, "full", short=short),
            self.path_tokens + (ANALYSIS_TOKENS if with_feedback else 0),
            pictures=not short,
        )
        job = "reflect_short" if short else "reflect"
        plan.ask(job, Range(0, most), tokens, self.tokens_out[job])

    def _mean_tokens(
        self, problems: Sequence[Problem], prompt_of: Callable[[Problem], str], more: float = 0, pictures: bool = True
    ) -> float:
        """Return the mean tokens of a request. ``more``: tokens of its prompt beside the problem."""
        settings = self.settings
        assert settings is not None  # only jobs of a server call this

        def count_tokens(problem: Problem) -> float:
            image = count_picture_tokens(problem, settings.model, settings.image_side) if pictures else 0
            return count_text_tokens(prompt_of(problem)) + more + image + MESSAGE_TOKENS

        return _mean_over_sample(problems, self.sample, count_tokens)

    def _is_new(self, problem: Problem) -> bool:
        """Whether no earlier request had this text and these pictures.

        Pictures are read only for a repeated text.
        """
        text = hashlib.sha256(prompts.generation_prompt(problem, "full").encode("utf-8", "replace")).hexdigest()
        if text not in self._requested:
            self._requested[text] = problem.images, set()
            return True
        first, seen = self._requested[text]
        if not seen:
            seen.add(_hash_pictures(first))
        before = len(seen)
        seen.add(_hash_pictures(problem.images))
        return len(seen) > before


def _hash_pictures(refs: Sequence[str]) -> tuple[str, ...]:
    """Return the hash of each picture that is a file, and the reference of each other picture."""
    files = ((ref, Path(ref)) for ref in refs)
    return tuple(hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ref for ref, file in files)


def _take_evenly(problems: Sequence[Problem], most: int) -> Sequence[Problem]:
    """Return ``most`` problems at equal distances, or all."""
    if len(problems) <= most:
        return problems
    return [problems[k * len(problems) // most] for k in range(most)]


def _mean_over_sample(problems: Sequence[Problem], sample: int, count_tokens: Callable[[Problem], float]) -> float:
    """Return the mean over a sample of the problems; 0 without a problem."""
    values = [count_tokens(problem) for problem in _take_evenly(problems, sample)]
    return fmean(values) if values else 0.0
