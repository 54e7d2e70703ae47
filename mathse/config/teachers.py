"""The settings of teachers, which solve the seed problems and rewrite wrong paths."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mathse.config.setting import NO_IDENTITY, SETTINGS, Section, follows


@dataclass(config=SETTINGS)
class SymbolicTeacherConfig(Section):
    """Solves the synthetic problems by rule, and is fallible by default."""

    _target_: str = "mathse.data.synthetic.SymbolicTeacher"
    error_rate: float = Field(
        default=0.2, ge=0, le=1, description="Share of solutions with an error. 0: a perfect teacher."
    )
    seed: int = Field(default=0, description="Random seed of the errors.", json_schema_extra=follows("seed"))


@dataclass(config=SETTINGS)
class ReplayTeacherConfig(Section):
    """Writes a row's own solution, else one sentence with the marker and the answer: no API needed."""

    _target_: str = "mathse.judges.teachers.ReplayTeacher"


@dataclass(config=SETTINGS)
class FallibleReplayTeacherConfig(Section):
    """The solutions of data=word_problems, some of them made wrong (docs: mathse/data/words/teacher.py)."""

    _target_: str = "mathse.data.words.FallibleReplayTeacher"
    error_rate: float = Field(default=0.2, ge=0, le=1, description="Share of solutions with an error.")
    seed: int = Field(default=0, description="Random seed of the errors.", json_schema_extra=follows("seed"))


@dataclass(config=SETTINGS)
class OpenAITeacherConfig(Section):
    """A model behind an OpenAI-compatible API (docs: mathse/judges/teachers/openai_api.py, mathse/inference/llm).

    A run may go on with another value of a setting that is marked NO_IDENTITY: it changes no answer.
    """

    _target_: str = "mathse.judges.teachers.openai_api.OpenAITeacher"
    model: str = Field(
        default="gpt-4o-2024-08-06", description='Name of the model. The paper says "GPT-4o" and gives no version.'
    )
    base_url: str | None = Field(
        default=None,
        description="Address of the server, up to and with /v1. null: the OpenAI API.",
        json_schema_extra=NO_IDENTITY,
    )
    api_key_env: str | None = Field(
        default="OPENAI_API_KEY",
        description="Environment variable that holds the API key. null: the server needs none.",
        json_schema_extra=NO_IDENTITY,
    )
    mode: Literal["online", "batch"] = Field(
        default="online",
        description="How requests are sent. batch: through the Batch API, at half the price, within a day.",
        json_schema_extra=NO_IDENTITY,
    )
    temperature: float | None = Field(
        default=0.7, ge=0, description="Sampling temperature. null: the server's default. The paper gives none."
    )
    max_tokens: int = Field(default=2048, ge=1, description="Most tokens of an answer.")
    seed: int | None = Field(
        default=0,
        description="Random seed sent with a request. Another seed gives another answer, which is paid again. null: "
        "none is sent.",
    )
    reflect_prompt: Literal["full", "short"] = Field(
        default="full",
        description="Prompt of a reflection. short: without problem and image. The paper prints both.",
    )
    structured: bool = Field(default=True, description="Ask for JSON by its schema where the server supports it.")
    image_side: int = Field(
        default=2048, ge=28, description="Longest side of an image in pixels. Larger images are scaled down."
    )
    cache_dir: str = Field(
        default="outputs/.answers",
        description="Folder of cached answers. Runs share it, so no answer is paid twice.",
        json_schema_extra=NO_IDENTITY,
    )
    max_concurrency: int = Field(
        default=16, ge=1, description="Most requests in flight at a time.", json_schema_extra=NO_IDENTITY
    )
    requests_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Most requests per minute. null: the server's limit.",
        json_schema_extra=NO_IDENTITY,
    )
    tokens_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Most tokens per minute. null: the server's limit.",
        json_schema_extra=NO_IDENTITY,
    )
    timeout: float = Field(
        default=300.0, gt=0, description="Time limit for a whole answer in seconds.", json_schema_extra=NO_IDENTITY
    )
    max_retries: int = Field(
        default=8,
        ge=0,
        description="Most retries of a failed request, with growing pauses between them.",
        json_schema_extra=NO_IDENTITY,
    )
    poll_seconds: float = Field(
        default=30.0,
        gt=0,
        description="Seconds between two looks at a batch (mode=batch).",
        json_schema_extra=NO_IDENTITY,
    )
    budget_usd: float | None = Field(
        default=None,
        gt=0,
        description="Most dollars that the run may spend. The run stops there. null: no limit.",
        json_schema_extra=NO_IDENTITY,
    )
    price_input: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million prompt tokens in dollars. null: the list price, where it is known.",
        json_schema_extra=NO_IDENTITY,
    )
    price_output: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million completion tokens in dollars. null: the list price, where it is known.",
        json_schema_extra=NO_IDENTITY,
    )
    price_cached: float | None = Field(
        default=None,
        ge=0,
        description="Price of a million cached prompt tokens in dollars. null: the list price, where it is known.",
        json_schema_extra=NO_IDENTITY,
    )


@dataclass(config=SETTINGS)
class StudentTeacherConfig(Section):
    """The student as its own teacher (docs: mathse/judges/teachers/student.py)."""

    _target_: str = "mathse.judges.teachers.student.StudentTeacher"
