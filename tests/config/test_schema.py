"""The dataclasses are the truth at run time; the class behind each takes its settings object."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from mathse.config.judges import RUN_GIVES
from mathse.config.schema import OPTIONS
from mathse.config.sections import defaults
from mathse.config.trust import locate

# what a run gives through build(), by group
RUNTIME = {
    "backbone": {"init_seed", "weights"},
    "benchmark": {"source"},
    "judge": set(RUN_GIVES),
    "logger": {"run", "problem_of", "image"},
}
SCHEMAS = [(group, schema) for group, schemas in OPTIONS.items() for schema in schemas]


@pytest.mark.parametrize(("group", "schema"), SCHEMAS, ids=lambda part: getattr(part, "__name__", part))
def test_an_option_s_class_takes_its_settings_object_and_what_only_a_run_has(group, schema):
    call = locate(schema()._target_)
    parameters = dict(inspect.signature(call).parameters)
    if len(fields(schema)) > 1:  # beside _target_
        assert next(iter(parameters)) == "settings"
        hint = get_type_hints(call.__init__ if inspect.isclass(call) else call)["settings"]
        assert schema in get_args(hint) or issubclass(schema, hint)
        del parameters["settings"]
    assert set(parameters) <= RUNTIME.get(group, set())


@pytest.mark.parametrize(("group", "schema"), SCHEMAS, ids=lambda part: getattr(part, "__name__", part))
def test_a_setting_that_follows_another_has_a_value_of_its_own_outside_a_config(group, schema):
    made, in_config = schema(), defaults(schema)
    following = {name for name, value in in_config.items() if str(value).startswith("${")}
    assert all(getattr(made, name) == 0 for name in following)
    assert following <= {"seed", "jpeg_seed"}
