"""Which classes may be imported and called because a file names them.

A run, started by its user, imports whatever its settings name. Whoever only looks (a reader of run folders, a plan, a
check of data, --help) may be looking at somebody else's settings. It takes the classes of MathSE's options, each in
its own group, and those that the environment variable MATHSE_TRUST lists, and no other: of MathSE's own functions many
are no options, and some of those start programs.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

from mathse.config.schema import OPTIONS
from mathse.errors import ConfigError

TRUST = "MATHSE_TRUST"  # dotted paths, comma-separated
LOGGERS = ("pytorch_lightning.loggers.TensorBoardLogger", "pytorch_lightning.loggers.MLFlowLogger")  # conf/logger's

_only_looking: ContextVar[bool] = ContextVar("only_looking", default=False)


def is_trusted(target: str) -> bool:
    """Whether the user has listed the class at this dotted path."""
    return target in {name.strip() for name in os.environ.get(TRUST, "").split(",")}


def is_an_option(target: str, group: str | None) -> bool:
    """Whether an option of ``group`` that MathSE brings is the class at this dotted path; None: no group has it."""
    if group == "logger" and target in LOGGERS:
        return True
    return any(schema._target_ == target for schema in OPTIONS.get(group or "", ()))


@contextmanager
def forbid_foreign_classes() -> Iterator[None]:
    """Within it no class is imported that is neither an option nor trusted."""
    token = _only_looking.set(True)
    try:
        yield
    finally:
        _only_looking.reset(token)


def explain_refusal(target: str, group: str | None) -> str | None:
    """Why the class that a section of ``group`` names is not imported now; None where it may be."""
    if not _only_looking.get() or is_an_option(target, group) or is_trusted(target):
        return None
    option = f"{group} option" if group else "option"
    return f"is no {option} of MathSE's, and who only looks runs no other code; if you trust it, set {TRUST}={target}"


def locate(target: Any, group: str | None = None) -> Callable[..., Any]:
    """The class or function at a dotted path that a section of ``group`` names (None: of none). Raises ConfigError if
    there is none, or if it is not to be imported."""
    if (reason := explain_refusal(str(target), group)) is not None:
        raise ConfigError(reason)
    module, _, name = str(target).rpartition(".")
    try:
        target_class = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as e:  # the last of ".." and the like
        raise ConfigError(f"cannot be imported ({e}); it is the dotted path of a class on the Python path") from e
    if not callable(target_class):
        raise ConfigError("is neither a class nor a function")
    return target_class


def read_parameters(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Raises ConfigError for what does not tell its parameters, as ``builtins.type``: nothing could be checked."""
    try:
        return inspect.signature(call).parameters
    except (ValueError, TypeError) as e:
        raise ConfigError("has no signature to check settings by; name a class or function written in Python") from e
