"""Command lines that no program expects: each ends in sentences, none in a traceback."""

from __future__ import annotations

import pytest

from mathse.config.mistakes import show
from mathse.config.parse import build
from mathse.errors import ConfigError


def never(config, folder):
    raise AssertionError("the task must not start")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["+=1"], "error: +=1: names no setting; write KEY=VALUE"),
        (["+="], "error: +=: names no setting; write KEY=VALUE"),  # an AssertionError of Hydra's
        (["~=1"], "error: ~=1: names no setting; write KEY=VALUE"),
        (["hydra=1"], "error: hydra=1: an option is chosen by its name; available: config"),
        (["--resolve"], "error: the command line does not compose: The --resolve flag can only be used"),
        (["-cn", "nowhere"], "error: the command line does not compose: Cannot find primary config 'nowhere'"),
        (["hydra.run.dir=" + "x" * 300], "longer than the file system's names may be (255 bytes as a rule)"),
        (["name=" + "x" * 300], "longer than the file system's names may be (255 bytes as a rule)"),
        (["hydra.run.dir=/proc/no/such"], "error: the run folder cannot be made: "),
        (['hydra.run.dir="a\0b"'], "error: the command line does not compose: embedded null byte"),
        (["seed=" + "9" * 5000], "...: not readable; write key=value, of at most some thousand characters"),
    ],
)
def test_it_ends_in_a_sentence_and_leaves_no_file(command, tmp_path, arguments, says):
    code, said = command(never, *arguments)
    assert code == 1 and says in said and len(said) < 1000
    assert all(line.startswith("error: ") for line in said.splitlines()), said
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_numbers_are_of_64_bits(refusal):
    for key in ("seed", "sft.optimizer.lr"):
        (said,) = refusal(f"{key}={'9' * 1000}")
        assert said.startswith(f"{key} = 999") and said.endswith(" below 2^63") and len(said) < 700
    assert refusal("sft.max_steps=1e400") == ["sft.max_steps = inf: must be a finite number or null"]


@pytest.mark.parametrize("target", ["builtins.type", "builtins.min", "math.hypot"])
@pytest.mark.parametrize("group", ["judge", "teacher", "logger", "+callbacks.own"])
def test_a_target_without_a_signature_is_refused(refusal, group, target):
    sentence, *_ = refusal(f"{group}._target_={target}")
    assert sentence == (
        f"{group.lstrip('+')}._target_ = '{target}': has no signature to check settings by; name a class or function "
        "written in Python"
    )


@pytest.mark.parametrize("target", ["..", ".x", "", "[1]"])
def test_a_target_that_is_no_path_is_refused(refusal, target):
    (sentence,) = refusal(f"logger._target_={target}")
    assert "cannot be imported" in sentence


def test_a_target_that_cannot_be_called_with_what_a_run_has_is_told():
    with pytest.raises(ConfigError, match=r"'json.dumps': cannot be called with indent: missing a required argument"):
        build({"_target_": "json.dumps", "indent": 2})
    with pytest.raises(ConfigError, match="'builtins.print': returned None; it must return the object"):
        build({"_target_": "builtins.print", "end": ""})


def test_a_very_long_value_is_cut_in_a_sentence():
    assert show("short") == "'short'"
    assert show("x" * 2000).endswith("... (2,002 characters)") and len(show("x" * 2000)) < 600
