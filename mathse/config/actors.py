"""The settings of whoever writes: the teacher, and the student's sampling (judges: judges.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mathse.config.allow import allow, follow


@dataclass
class SymbolicTeacher:
    """Solves the embedded world by rule, and is fallible by default."""

    _target_: str = "mathse.data.synthetic.SymbolicTeacher"
    error_rate: float = allow(0.2, low=0, high=1)  # share of solutions that are wrong; 0 is the perfect teacher
    seed: int = follow("seed", 0)


@dataclass
class ReplayTeacher:
    """Writes a row's own solution, else one sentence with the marker and the answer: no API needed."""

    _target_: str = "mathse.judges.teachers.ReplayTeacher"


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
    max_tokens: int = allow(2048, low=1)
    seed: int | None = 0  # another seed is another answer, paid again; null: none is sent
    reflect_prompt: Literal["full", "short"] = "full"  # short: without problem and picture; PAPER: prints both
    structured: bool = True  # ask for JSON by its schema, where the server can
    image_side: int = allow(2048, low=28)  # pixels, long side; larger pictures are scaled down
    cache_dir: str = "outputs/.answers"  # shared by runs: nothing is paid twice
    max_concurrency: int = allow(16, low=1)
    requests_per_minute: float | None = allow(None, above=0)
    tokens_per_minute: float | None = allow(None, above=0)
    timeout: float = allow(300.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)
    poll_seconds: float = allow(30.0, above=0)  # mode=batch
    budget_usd: float | None = allow(None, above=0)  # what the run may pay in all: a hard stop
    price_input: float | None = allow(None, low=0)  # dollars a million tokens; null: the list price, where it is known
    price_output: float | None = allow(None, low=0)
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


@dataclass
class HFGenerator:
    """Sampling in this process with transformers' generate."""

    _target_: str = "mathse.inference.generate.HFGenerator"
    batch_size: int = allow(256, low=1)  # prompts a batch; a kill loses at most one
    temperature: float = allow(0.7, low=0)  # PAPER: silent; R3V draws at 0.9, M-STaR at 1.0; 0: greedy
    top_p: float = allow(1.0, above=0, high=1)  # PAPER: silent
    top_k: int = allow(0, low=0)  # 0: no limit
    max_new_tokens: int = allow(80, low=1)


@dataclass
class ServerGenerator:
    """Students answer behind an OpenAI-compatible server (docs: docs/serving.md).

    What ``HOW_STUDENTS_ARE_REACHED`` names changes no answer, so a run may go on with another value of it.
    """

    _target_: str = "mathse.inference.serving.student.ServerGenerator"
    base_url: str = "http://localhost:8000/v1"  # up to and with /v1
    model: str | None = None  # its name there; train.py: null, each checkpoint has a name of its own
    command: str | None = None  # train.py: what starts an engine, with {checkpoint}, {name} and {port} in it
    adapters: bool = False  # train.py: the server is a vLLM with the base (model), and loads each LoRA fit's adapter
    start_timeout: float = allow(900.0, above=0)  # seconds until a started engine answers
    api_key_env: str | None = None  # the environment variable with the key; null: the server wants none
    style: Literal["compact", "full"] = "full"  # evaluate.py: of the prompts with prompt=student
    batch_size: int = allow(64, low=1)  # problems a batch; several are asked at a time, and each answer is kept
    temperature: float = allow(0.7, low=0)  # 0: greedy
    top_p: float = allow(0.95, above=0, high=1)
    max_new_tokens: int = allow(2048, low=1)
    image_side: int = allow(4096, low=28)  # pixels, long side of what is sent; smaller pictures go as they are
    cache_dir: str = "outputs/.answers"
    max_concurrency: int = allow(64, low=1)
    timeout: float = allow(600.0, above=0)  # seconds, for a whole answer
    max_retries: int = allow(8, low=0)


HOW_STUDENTS_ARE_REACHED = (
    "base_url",
    "model",
    "command",
    "adapters",
    "start_timeout",
    "api_key_env",
    "style",
    "cache_dir",
    "max_concurrency",
    "timeout",
    "max_retries",
)
