"""The records that stages hand each other, one JSON object a line.

=================  =======================================================================================
Problem            an element of D: question, images, reference answer
ReasoningPath      a step-by-step solution r = {s_1 .. s_k}, by whoever wrote it (paper, section "Method")
Lineage            where a path came from; follow ``parent`` back to the first draft
Verdict            what a judge says of one path: status, wrong step, analysis, P(correct) (paper, "ORM")
Reflection         a wrong path, its verdict and its rewrite (Algorithm 1, lines 14-16)
=================  =======================================================================================

All are frozen, know ``to_json``/``from_json`` and hold nothing that differs between two equal runs, so equal runs
write equal bytes. Texts by models consist of whole characters (see ``whole_characters``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from types import NoneType
from typing import Any, ClassVar, Literal, NamedTuple, Self, cast, get_args, get_type_hints

from pydantic import ConfigDict, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, SchemaValidator

from mathse.errors import DataError

Status = Literal["correct", "wrong", "unparsed"]
Origin = Literal["teacher", "student", "reflection"]
# Of prompts: short ones for the tiny backbone, whose tokens are bytes, and the full ones for real models.
PromptStyle = Literal["compact", "full"]
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # a surrogate code point


def whole_characters(value: Any) -> Any:
    """A JSON value in whose texts U+FFFD replaces each half of a surrogate pair that lacks its other half.

    JSON may hold half a character ("\\ud83d"), and servers send one where they cut an emoji in two; UTF-8, tokenizers
    and HTTP clients accept none.
    """
    if isinstance(value, str):
        if value.isascii() or not _HALF_CHARACTER.search(value):
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {whole_characters(key): whole_characters(item) for key, item in value.items()}
    return value


def fix_characters(record: object, *names: str) -> None:
    """Apply ``whole_characters`` to fields of a frozen dataclass object; for its ``__post_init__``."""
    for name in names:
        object.__setattr__(record, name, whole_characters(getattr(record, name)))


class Record:
    """JSON in and out for a frozen dataclass; unknown or missing keys are errors, not surprises.

    pydantic checks rows alone: records that the program makes itself cost what a dataclass costs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        _take_json(schema)
        return schema

    def to_json(self) -> dict[str, Any]:
        # dataclasses.asdict copies every value deeply, which takes thrice as long; a round writes 280,000 of these.
        return {k: v.to_json() if isinstance(v, Record) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        if not isinstance(row, Mapping):
            raise DataError(f"a {cls.__name__} is a JSON object, got {type(row).__name__}")
        try:
            record: Self = _validator(cls).validate_python(row)  # type: ignore[arg-type]
        except ValidationError as e:
            raise DataError(_sentence(cls, e.errors(include_url=False))) from None
        return record


@cache
def _validator(record: type[Record]) -> SchemaValidator:
    validator: Any = TypeAdapter(record).validator
    return cast(SchemaValidator, validator)


def _take_json(schema: Any) -> None:
    """Lets a strict schema take a list for a tuple and an object for a record, since JSON has no others."""
    if isinstance(schema, list):
        for inner in schema:
            _take_json(inner)
    elif isinstance(schema, dict):
        if schema.get("type") in ("dataclass", "tuple"):
            schema["strict"] = False
        for inner in schema.values():
            _take_json(inner)


# pydantic's types of errors, as a sentence names the value that was wanted
WANTED = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a number",
    "int_from_float": "a number",
    "float_type": "a number",
    "tuple_type": "a list",
    "dict_type": "an object",
    "mapping_type": "an object",
    "dataclass_type": "an object",
}
GOT = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", NoneType: "null"}


def _sentence(record: type[Record], errors: Sequence[ErrorDetails]) -> str:
    """One sentence on a row that is no record: on an unknown field before a wrong value before a missing field."""
    rank = {"unexpected_keyword_argument": 0, "missing": 2}
    error = min(errors, key=lambda e: rank.get(e["type"], 1))
    names = [str(key) for key in error["loc"]]
    hints: dict[str, Any] = get_type_hints(record)
    while len(names) > 1:
        nested = [
            k for k in (hints[names[0]], *get_args(hints[names[0]])) if isinstance(k, type) and issubclass(k, Record)
        ]
        if not nested:
            break  # the rest of the location is a place in a list
        record, names = nested[0], names[1:]
        hints = get_type_hints(record)
    name = names[0]
    if error["type"] == "unexpected_keyword_argument":
        known = sorted(field.name for field in fields(cast(Any, record)))
        return f"a {record.__name__} has no field {name!r}; its fields are {known}"
    if error["type"] == "missing":
        above = error["loc"][:-1]
        missing = [str(e["loc"][-1]) for e in errors if e["type"] == "missing" and e["loc"][:-1] == above]
        return f"a {record.__name__} needs more fields: {', '.join(missing)}"
    wanted = WANTED.get(error["type"], error["msg"])
    if error["type"] == "literal_error":
        wanted, got = f"one of {error['ctx']['expected']}", repr(error["input"])
    else:
        got = GOT.get(type(error["input"]), "an object")
    optional = " or null" if NoneType in get_args(hints[name]) and len(names) == 1 else ""
    where = "".join(f"[{place}]" for place in names[1:])
    return f'"{name}{where}" of a {record.__name__} is {wanted}{optional}, got {got}'


@dataclass(frozen=True)
class Problem(Record):
    """One problem. ``images`` are file paths or ``digits:`` references (see mathse.data.images); where ``question`` or
    ``choices`` hold marks, see mathse.data.picture_marks."""

    id: str  # stable: from content or source row, never a position in a list
    question: str
    images: tuple[str, ...] = ()
    answer: str = ""
    choices: tuple[str, ...] = ()
    solution: str | None = None  # a reference solution, where the source has one
    source: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    domain: Any = field(default=None, compare=False, repr=False)  # mathse/data/domains; None: mathematics

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in super().to_json().items() if key != "domain"}


@dataclass(frozen=True)
class Lineage(Record):
    """Where a path came from: who wrote it, in which stage, from which draft, with which prompt and seed."""

    origin: Origin
    stage: str  # "distill", "round_01", ..., "reflection"
    model: str  # the teacher's name, or the run-relative checkpoint that sampled the path
    parent: str | None = None  # id of the draft that a reflection rewrites
    seed: int = 0
    prompt: str = ""  # prompt name and version


@dataclass(frozen=True)
class ReasoningPath(Record):
    """A solution text for a problem. ``id`` is unique within a run: ``<stage>/<problem id>/<sample>``."""

    id: str
    problem_id: str
    text: str
    lineage: Lineage

    def __post_init__(self) -> None:
        fix_characters(self, "text")


@dataclass(frozen=True)
class Verdict(Record):
    """What a judge found of one path. ``unparsed`` is a status of its own: counted, and never taken for correct.

    ``error_step`` is text, as in the paper ("Step 2", "Steps 2 and 4", or none); ``score`` is P(correct) in [0, 1]
    where the judge can give one.
    """

    path_id: str
    status: Status
    error_step: str | None = None
    error_analysis: str | None = None
    score: float | None = None
    judge: str = ""
    raw: str | None = None  # the judge's whole answer, where it gave one as text

    def __post_init__(self) -> None:
        if self.status not in get_args(Status):
            raise DataError(f"a verdict's status is one of {get_args(Status)}, got {self.status!r}")
        fix_characters(self, "error_step", "error_analysis", "raw")


@dataclass(frozen=True)
class Reflection(Record):
    """A wrong path, its verdict, and its rewrite; the rewrite is judged like any other path."""

    draft: ReasoningPath
    feedback: Verdict | None
    revised: ReasoningPath


class Draft(NamedTuple):
    """A wrong path that a teacher is asked to rewrite (Algorithm 1, line 14). ``feedback`` None: without feedback."""

    problem: Problem
    path: ReasoningPath
    feedback: Verdict | None
