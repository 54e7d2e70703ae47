"""Decide which classes may be imported and called because a file names them.

A run imports every class that its settings name: its user started it. A command that only reads settings (a reader of
run folders, a plan, a check of data, --help) may read the settings of a stranger. It imports the classes of MathSE's
options, each in its own group, and the classes in the environment variable MATHSE_TRUST. Other functions of MathSE are
refused too, because some of them start programs.
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
LOGGERS = ("pytorch_lightning.loggers.TensorBoardLogger", "pytorch_lightning.loggers.MLFlowLogger")  # of conf/logger

_forbids_foreign: ContextVar[bool] = ContextVar("forbids_foreign", default=False)


def is_trusted(target: str) -> bool:
    """Whether the user trusts the class at this dotted path."""
    return target in {name.strip() for name in os.environ.get(TRUST, "").split(",")}


def is_an_option(target: str, group: str | None) -> bool:
    """Whether the class at this dotted path belongs to an option of ``group`` in MathSE. None: to no group."""
    if group == "logger" and target in LOGGERS:
        return True
    return any(schema._target_ == target for schema in OPTIONS.get(group or "", ()))


@contextmanager
def forbid_foreign_classes() -> Iterator[None]:
    """Within this context, import only the classes of options and trusted classes."""
    token = _forbids_foreign.set(True)
    try:
        yield
    finally:
        _forbids_foreign.reset(token)


def explain_refusal(target: str, group: str | None) -> str | None:
    """Return the reason why the class in a section of ``group`` is not imported now, or None if it may be imported."""
    if not _forbids_foreign.get() or is_an_option(target, group) or is_trusted(target):
        return None
    option = f"a {group} option" if group else "an option"
    return (
        f"is not {option} of MathSE, and a command that only reads settings runs no other code; if you trust it, set "
        f"{TRUST}={target}"
    )


def locate(target: Any, group: str | None = None) -> Callable[..., Any]:
    """Import the class or function at a dotted path.

    Args:
        target: the dotted path.
        group: the group of the section that names it. None: no group.

    Raises ConfigError if there is no such class, or if it must not be imported.
    """
    if (reason := explain_refusal(str(target), group)) is not None:
        raise ConfigError(reason)
    module, _, name = str(target).rpartition(".")
    try:
        target_class = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as e:  # TypeError: ".." and the like
        raise ConfigError(f"cannot be imported ({e}); it is the dotted path of a class on the Python path") from e
    if not callable(target_class):
        raise ConfigError("is neither a class nor a function")
    return target_class


def read_parameters(call: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of a class or function, against which its section is checked.

    Raises ConfigError for a class without a readable signature, such as ``builtins.type``.
    """
    try:
        return inspect.signature(call).parameters
    except (ValueError, TypeError) as e:
        raise ConfigError("has no signature to check settings by; name a class or function written in Python") from e
