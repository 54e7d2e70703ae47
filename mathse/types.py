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
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, NamedTuple, Self, get_args, get_origin, get_type_hints

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
    """JSON in and out for a frozen dataclass; unknown or missing keys are errors, not surprises."""

    NESTED: ClassVar[dict[str, type[Record]]] = {}

    def to_json(self) -> dict[str, Any]:
        # dataclasses.asdict copies every value deeply, which takes thrice as long; a round writes 280,000 of these.
        return {k: v.to_json() if isinstance(v, Record) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        if not isinstance(row, Mapping):
            raise DataError(f"a {cls.__name__} is a JSON object, got {type(row).__name__}")
        known = _kinds_of_fields(cls)  # type: ignore[arg-type]
        if unknown := sorted(row.keys() - known):
            raise DataError(f"a {cls.__name__} has no field {unknown[0]!r}; its fields are {sorted(known)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        for name, kind in cls.NESTED.items():
            if isinstance(value := values.get(name), Mapping):
                values[name] = kind.from_json(value)
        for name, value in values.items():
            if not isinstance(value, known[name]):
                kinds = " or ".join(dict.fromkeys(_in_words(kind) for kind in known[name]))
                raise DataError(f'"{name}" of a {cls.__name__} is {kinds}, got {_in_words(type(value))}')
        try:
            return cls(**values)
        except TypeError:
            needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]  # type: ignore[arg-type]
            missing = ", ".join(name for name in needed if name not in values)
            raise DataError(f"a {cls.__name__} needs more fields: {missing}") from None


@cache
def _kinds_of_fields(record: Any) -> dict[str, tuple[type, ...]]:
    """By field, the classes of which its value is one: those of its annotation."""
    kinds = {}
    for name, hint in get_type_hints(record).items():
        if get_origin(hint) is not ClassVar:
            options = get_args(hint) if get_origin(hint) is UnionType else (hint,)
            kinds[name] = tuple(kind for option in options for kind in _classes_of(option))
    return kinds


def _in_words(kind: type) -> str:
    words = {str: "text", bool: "true or false", int: "a number", float: "a number", tuple: "a list", NoneType: "null"}
    return words.get(kind, "an object")


def _classes_of(hint: Any) -> tuple[type, ...]:
    if hint is Any:
        return (object,)
    if hint is float:
        return (float, int)
    if get_origin(hint) is Literal:
        return (str,)
    return (get_origin(hint) or hint,)


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

    NESTED: ClassVar[dict[str, type[Record]]] = {"lineage": Lineage}

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

    NESTED: ClassVar[dict[str, type[Record]]] = {"draft": ReasoningPath, "feedback": Verdict, "revised": ReasoningPath}

    draft: ReasoningPath
    feedback: Verdict | None
    revised: ReasoningPath


class Draft(NamedTuple):
    """A wrong path that a teacher is asked to rewrite (Algorithm 1, line 14). ``feedback`` None: without feedback."""

    problem: Problem
    path: ReasoningPath
    feedback: Verdict | None
