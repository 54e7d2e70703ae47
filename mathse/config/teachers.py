"""The teachers: who solves the seed problems and rewrites wrong paths, each option with settings of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mathse.config.allow import allow, follow


@dataclass
class SymbolicTeacher:
    """Solves the synthetic problems by rule, and is fallible by default."""

    _target_: str = "mathse.data.synthetic.SymbolicTeacher"
    error_rate: float = allow(0.2, low=0, high=1)  # share of solutions that are wrong; 0 is the perfect teacher
    seed: int = follow("seed", 0)  # of its errors


@dataclass
class ReplayTeacher:
    """Writes a row's own solution, else one sentence with the marker and the answer: no API needed."""

    _target_: str = "mathse.judges.teachers.ReplayTeacher"


@dataclass
class FallibleReplayTeacher:
    """The solutions of data=word_problems, some of them made wrong (docs: mathse/data/words/teacher.py)."""

    _target_: str = "mathse.data.words.FallibleReplayTeacher"
    error_rate: float = allow(0.2, low=0, high=1)  # share of solutions that are wrong
    seed: int = follow("seed", 0)  # of its errors


@dataclass
class OpenAITeacher:
    """A model behind an OpenAI-compatible API (docs: mathse/judges/teachers/openai_api.py, mathse/inference/llm).

    What ``HOW_IT_IS_REACHED`` names changes no answer, so a run may go on with another value of it.
    """

    _target_: str = "mathse.judges.teachers.openai_api.OpenAITeacher"
    model: str = "gpt-4o-2024-08-06"  # PAPER: "GPT-4o", without a version
    base_url: str | None = None  # up to and with /v1; null: the OpenAI API
    api_key_env: str | None = "OPENAI_API_KEY"  # the environment variable with the key; null: the server wants none
    mode: Literal["online", "batch"] = "online"  # batch: the Batch API, half the price, within a day
    temperature: float | None = allow(0.7, low=0)  # of what it writes; PAPER: silent; null: the server's own
    max_tokens: int = allow(2048, low=1)  # of an answer
    seed: int | None = 0  # another seed is another answer, paid again; null: none is sent
    reflect_prompt: Literal["full", "short"] = "full"  # short: without problem and picture; PAPER: prints both
    structured: bool = True  # ask for JSON by its schema, where the server can
    image_side: int = allow(2048, low=28)  # pixels, long side; larger pictures are scaled down
    cache_dir: str = "outputs/.answers"  # shared by runs: nothing is paid twice
    max_concurrency: int = allow(16, low=1)  # requests at a time, at most
    requests_per_minute: float | None = allow(None, above=0)  # at most; null: as the server allows
    tokens_per_minute: float | None = allow(None, above=0)  # at most; null: as the server allows
    timeout: float = allow(300.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)  # of a request that failed, with growing pauses
    poll_seconds: float = allow(30.0, above=0)  # mode=batch
    budget_usd: float | None = allow(None, above=0)  # what the run may pay in all: a hard stop
    price_input: float | None = allow(None, low=0)  # dollars a million tokens; null: the list price, where it is known
    price_output: float | None = allow(None, low=0)  # the same for what it writes
    price_cached: float | None = allow(None, low=0)  # of prompt tokens that the server had read before


HOW_IT_IS_REACHED = (
    "base_url",
    "api_key_env",
    "mode",
    "cache_dir",
    "max_concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout",
    "max_retries",
    "poll_seconds",
    "budget_usd",
    "price_input",
    "price_output",
    "price_cached",
)


@dataclass
class StudentTeacher:
    """The student as its own teacher (docs: mathse/judges/teachers/student.py)."""

    _target_: str = "mathse.judges.teachers.student.StudentTeacher"
