"""The dataclasses are the truth at run time; the class behind each takes its settings object."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from pydantic import ValidationError

import mathse
from mathse.config.fits import ORMConfig
from mathse.config.generators import ServerGeneratorConfig, VLLMGeneratorConfig
from mathse.config.judges import RUN_GIVES
from mathse.config.schema import OPTIONS
from mathse.config.sections import collect_defaults
from mathse.config.setting import identity_settings
from mathse.config.teachers import OpenAITeacherConfig
from mathse.config.trust import locate

PACKAGE = Path(mathse.__file__).parent
# what a run gives through build(), by group
RUNTIME = {
    "backbone": {"init_seed", "weights"},
    "benchmark": {"source"},
    "judge": set(RUN_GIVES),
    "logger": {"run", "problem_of", "image"},
}
SCHEMAS = [(group, schema) for group, schemas in OPTIONS.items() for schema in schemas]


def test_settings_classes_end_in_config_and_share_their_name_with_no_other_class():
    classes = {
        (path.relative_to(PACKAGE).as_posix(), node.name): node
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    is_settings = {key: any("SETTINGS" in ast.unparse(d) for d in node.decorator_list) for key, node in classes.items()}
    names = [name for key, name in classes if is_settings[key, name]]
    assert len(names) > 50
    assert [name for name in names if not name.endswith("Config")] == []
    assert {name for key, name in classes if not is_settings[key, name]} & {*names} == set()


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
    made, in_config = schema(), collect_defaults(schema)
    following = {name for name, value in in_config.items() if str(value).startswith("${")}
    assert all(getattr(made, name) == 0 for name in following)
    assert following <= {"seed", "jpeg_seed"}


def test_settings_that_change_no_answer_are_no_part_of_a_stage_s_identity():
    sent = {"model", "temperature", "max_tokens", "seed", "reflect_prompt", "structured", "image_side", "_target_"}
    assert {*identity_settings(OpenAITeacherConfig)} == sent
    of_students = {"_target_", "batch_size", "temperature", "top_p", "max_new_tokens", "image_side"}
    assert {*identity_settings(ServerGeneratorConfig)} == {*identity_settings(VLLMGeneratorConfig)} == of_students


def test_settings_made_in_python_are_checked_and_a_refused_value_is_not_shown():
    with pytest.raises(ValidationError) as refused:
        OpenAITeacherConfig(max_tokens="sk-abcdefghijklmnop1234", temperature=-1.0)
    assert refused.value.error_count() == 2 and "sk-abc" not in str(refused.value)


def test_an_orm_made_in_python_has_values_where_a_config_follows_the_student():
    assert ORMConfig().fit.lora.rank == 16 and ORMConfig().fit.method == "full"
    followed = collect_defaults(ORMConfig)["fit"]
    assert (followed["method"], followed["lora"]["rank"]) == ("${sft.method}", "${sft.lora.rank}")
    assert followed["optimizer"]["lr"] == 1.5e-3
