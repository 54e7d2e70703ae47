"""The dataclasses are the truth at run time; the classes behind them must agree."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from typing import get_type_hints

import pytest

from mathse.config.bind import locate
from mathse.config.judges import RUN_GIVES
from mathse.config.schema import OPTIONS

LOADED = {"problems", "images", "split"}  # of a benchmark: given to its ``load``, not to its constructor
# optional keywords that a run gives through build(), and not settings
RUNTIME = {"init_seed", "problem_of", "image", "weights"}
SCHEMAS = [schema for group, schemas in OPTIONS.items() if group != "judge" for schema in schemas]


@pytest.mark.parametrize("schema", OPTIONS["judge"], ids=lambda s: s.__name__)
def test_judge_takes_its_settings_object_and_what_only_a_run_has(schema):
    call = locate(schema()._target_)
    assert get_type_hints(call.__init__ if inspect.isclass(call) else call)["settings"] in (schema, schema | None)
    assert set(inspect.signature(call).parameters) <= {"settings", *RUN_GIVES}


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda s: s.__name__)
def test_schema_equals_the_signature_of_its_class(schema):
    module, _, name = schema()._target_.rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    loaded = LOADED if schema in OPTIONS["benchmark"] else set()
    settings = {f.name: getattr(schema(), f.name) for f in fields(schema) if f.name not in {"_target_", *loaded}}
    optional = {n: p.default for n, p in parameters.items() if p.default is not p.empty and n not in RUNTIME}
    assert set(settings) <= set(parameters)
    assert set(optional) <= set(settings), "a keyword that no setting reaches"
    for key, default in optional.items():
        if not str(settings[key]).startswith("${"):
            assert default == settings[key], key
