"""The format of requests for rewards and of their answers. The error for a mistake names the field.

A text is a string, or messages of a chat template ([{"role": ..., "content": ...}]), where the last message of the role
counts: TRL passes both forms. A picture is a ``data:`` URI. No file or address in a request is opened, except the
pictures of the run's own problems, by ``problem_ids``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mathse.data.domains import TaskDomain, recorded_domain
from mathse.data.sources import problem_lookup
from mathse.errors import DataError
from mathse.evaluation.run_orm import RunORM, reward_of
from mathse.runs.reader import Run
from mathse.types import Lineage, Problem, ReasoningPath, Verdict, whole_characters

MAX_ROWS = 512  # per request
MAX_TEXT_CHARS = 65_536  # of a question, path or answer
MAX_PICTURES = 16  # per row
FIELDS = ("prompts", "problem_ids", "completions", "answers", "images")
WRITER = Lineage("student", "reward-server", "")
Json = dict[str, Any]


class RewardScorer:
    """Answers requests with the ORM of ``run``."""

    def __init__(self, run: Run, orm: RunORM) -> None:
        self.run, self.orm = run, orm

    @property
    def name(self) -> str:
        """The model's name for OpenAI's API."""
        return f"{self.run.name}/orm"

    def rewards(self, request: Any) -> Json:
        """Answer POST /reward. Raises DataError for a mistake in the request."""
        if not isinstance(request, Mapping):
            raise DataError(f"a request is a JSON object, got {type(request).__name__}")
        columns = {name: request[name] for name in FIELDS if request.get(name) is not None}
        paths = columns.get("completions")
        if not isinstance(paths, list) or not 0 < len(paths) <= MAX_ROWS:
            raise DataError(f"completions: must be a list of 1 to {MAX_ROWS} texts")
        for name, values in columns.items():
            if not isinstance(values, list) or len(values) != len(paths):
                raise DataError(f"{name}: must be a list of {len(paths)} entries, one for each completion")
        if "prompts" not in columns and "problem_ids" not in columns:
            raise DataError("prompts: is missing; give the questions, or problem_ids of the run's own problems")
        # From columns to rows.
        rows = [{name: values[k] for name, values in columns.items()} for k in range(len(paths))]
        verdicts = self._judge(rows)
        return {"rewards": [reward_of(verdict) for verdict in verdicts], "verdicts": [*map(_as_json, verdicts)]}

    def chat(self, request: Any) -> Json:
        """Answer POST /v1/chat/completions: {"messages": [question as user, path as assistant]}."""
        messages = request.get("messages") if isinstance(request, Mapping) else None
        if not isinstance(messages, list):
            raise DataError("messages: must be a list that ends with the question as user and the path as assistant")
        row = {"prompts": messages, "completions": messages, "images": _find_pictures(messages)}
        (verdict,) = self._judge([row])
        content = json.dumps({**_as_json(verdict), "reward": reward_of(verdict)}, ensure_ascii=False)
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
        return {"id": "reward", "object": "chat.completion", "created": 0, "model": self.name, "choices": [choice]}

    def models(self) -> Json:
        """Answer GET /v1/models."""
        return {"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "mathse"}]}

    def _judge(self, rows: Sequence[Json]) -> Sequence[Verdict]:
        # The pictures of requests are files, because the model's processor reads files.
        with TemporaryDirectory(prefix="mathse-reward-") as pictures:
            problems = [self._read_problem(k, row, Path(pictures)) for k, row in enumerate(rows)]
            texts = [_read_text(f"completions[{k}]", row["completions"], "assistant") for k, row in enumerate(rows)]
            paths = [ReasoningPath(str(k), problems[k].id, text, WRITER) for k, text in enumerate(texts)]
            return self.orm.verdicts(problems, paths)

    def _read_problem(self, k: int, row: Json, folder: Path) -> Problem:
        if row.get("problem_ids") is not None:
            return self._problem_of(_read_text(f"problem_ids[{k}]", row["problem_ids"], "user"))
        if row.get("prompts") is None:
            raise DataError(f"prompts[{k}]: is missing; give the question, or problem_ids of the run's own problems")
        pictures = row.get("images") or []
        if not isinstance(pictures, list) or len(pictures) > MAX_PICTURES:
            raise DataError(f"images[{k}]: must be a list of at most {MAX_PICTURES} data: URIs")
        files = []
        for number, picture in enumerate(pictures):
            file = folder / f"{k}_{number}"
            file.write_bytes(_decode_picture(f"images[{k}][{number}]", picture))
            files.append(str(file))
        question = _read_text(f"prompts[{k}]", row["prompts"], "user")
        answer = "" if row.get("answers") is None else _read_text(f"answers[{k}]", row["answers"], "assistant")
        return Problem(f"request/{k}", question, tuple(files), answer, domain=self._domain)

    @cached_property
    def _domain(self) -> TaskDomain:
        return recorded_domain(self.run.config)

    @cached_property
    def _problem_of(self) -> Callable[[str], Problem]:
        return problem_lookup(self.run.config)


def _read_text(name: str, value: Any, role: str) -> str:
    """Return a text, or the text of the last message of ``role``."""
    if isinstance(value, list):
        messages = [m for m in value if isinstance(m, Mapping) and m.get("role") == role]
        value = messages[-1].get("content") if messages else None
        if isinstance(value, list):
            parts = [part.get("text") for part in value if isinstance(part, Mapping) and part.get("type") == "text"]
            value = "\n".join(part for part in parts if isinstance(part, str))
    if not isinstance(value, str):
        raise DataError(f"{name}: must be a text, or messages with a text as {role}")
    if len(value) > MAX_TEXT_CHARS:
        raise DataError(f"{name}: has {len(value):,} characters, at most {MAX_TEXT_CHARS:,} are allowed")
    text: str = whole_characters(value)
    return text


def _find_pictures(messages: Sequence[Any]) -> list[Any]:
    """Return the pictures of OpenAI's messages, in order."""
    pictures: list[Any] = []
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, Mapping) and part.get("type") == "image_url":
                image = part.get("image_url")
                pictures.append(image.get("url") if isinstance(image, Mapping) else image)
    return pictures


def _decode_picture(name: str, value: Any) -> bytes:
    head, comma, data = value.partition(",") if isinstance(value, str) else ("", "", "")
    if not (head.startswith("data:image/") and head.endswith(";base64") and comma):
        raise DataError(
            f"{name}: must be a picture as a URI, data:image/png;base64,...; files and addresses are not read"
        )
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        raise DataError(f"{name}: is not valid base64") from None


def _as_json(verdict: Verdict) -> Json:
    """Return the parts of a verdict for a client, without its reward."""
    return {name: getattr(verdict, name) for name in ("status", "error_step", "error_analysis")}
