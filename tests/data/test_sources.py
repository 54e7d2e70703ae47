"""Reading a run folder runs no code that the folder names."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mathse.__main__ import main
from mathse.commands.lineage.problem import trace_problem
from mathse.commands.plan import main as plan
from mathse.config import parse_recorded
from mathse.config.compose import compose_train, format_help
from mathse.config.options import CONF, look_in
from mathse.config.schema import TrainConfig
from mathse.config.trust import is_an_option
from mathse.data.sources import problem_lookup
from mathse.errors import ConfigError, DataError


def touching(file: Path) -> dict[str, object]:
    return {"_target_": "subprocess.check_output", "args": ["touch", str(file)]}


def test_class_that_a_run_folder_names_is_not_called(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'subprocess.check_output' is not a data option of MathSE.*MATHSE_TRUST="):
        problem_lookup({"data": touching(tmp_path / "called")})
    assert not (tmp_path / "called").exists()


def test_class_inside_a_mixture_is_not_called_either(tmp_path: Path) -> None:
    sources = {"a": touching(tmp_path / "called")}
    with pytest.raises(DataError, match="subprocess.check_output"):
        problem_lookup({"data": {"_target_": "mathse.data.mixture.MixtureData", "sources": sources}})
    assert not (tmp_path / "called").exists()


def test_own_class_is_called_where_its_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATHSE_TRUST", "argparse.Namespace, other.Thing")
    assert problem_lookup({"data": {"_target_": "argparse.Namespace", "get": str.upper}})("a") == "A"


def test_data_section_without_a_class_is_an_error_of_the_file() -> None:
    with pytest.raises(DataError, match=r"run.json: data must be a section with a _target_"):
        problem_lookup({"data": None})


def test_what_an_earlier_version_did_not_record_has_its_default(tmp_path: Path) -> None:
    rows = [{"id": f"p/{k}", "question": f"{k} + 1?", "images": [], "answer": str(k + 1)} for k in range(9)]
    (tmp_path / "own.jsonl").write_text("\n".join(map(json.dumps, rows)))
    old = {"_target_": "mathse.data.problems.JsonlData", "path": str(tmp_path / "own.jsonl"), "seed": 3}
    assert problem_lookup({"data": old})("p/3").answer == "4"
    mixture = {"_target_": "mathse.data.mixture.MixtureData", "sources": {"a": old}, "counts": {"a": 9}, "seed": 3}
    assert problem_lookup({"data": mixture})("p/3").answer == "4"


def test_a_setting_that_there_is_not_is_an_error_of_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^data.colour: no such setting"):
        problem_lookup({"data": {"_target_": "mathse.data.synthetic.SyntheticData", "colour": 3}})


# --- nothing is imported either ---------------------------------------------------------------------------------------


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that appears when the module ``somebody_elses`` is imported, which Python can find."""
    mark = tmp_path / "imported"
    (tmp_path / "somebody_elses.py").write_text(f"open({str(mark)!r}, 'w')\ndef make(**settings): return None\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "somebody_elses", raising=False)
    return mark


def test_lineage_of_a_run_imports_no_module_that_its_folder_names(imported: Path) -> None:
    part = {"_target_": "somebody_elses.make"}
    for data in (part, {"_target_": "mathse.data.mixture.MixtureData", "sources": {"a": part}, "counts": {"a": 1}}):
        run: Any = SimpleNamespace(config={"data": data, "orm": {}}, stage=lambda name: None)
        assert any("is not a data option of MathSE" in note for note in trace_problem(run, "p/1").notes)
    assert not imported.exists()


@pytest.mark.parametrize("group", ["data", "judge", "teacher", "logger", "backbone", "generator", "+callbacks.own"])
def test_a_plan_imports_no_module_that_its_settings_name(imported: Path, group: str) -> None:
    with pytest.raises(ConfigError, match="reads settings runs no other code; if you trust it, set MATHSE_TRUST="):
        compose_train([f"{group}._target_=somebody_elses.make", "plan=true"])
    with pytest.raises(ConfigError, match="set MATHSE_TRUST=somebody_elses.make"):
        plan([f"{group}._target_=somebody_elses.make"])
    assert not imported.exists()


def test_help_imports_no_module_that_its_settings_name(imported: Path) -> None:
    assert "_target_=somebody_elses.make" in format_help(["logger._target_=somebody_elses.make"], TrainConfig)
    assert not imported.exists()


def test_a_plan_imports_what_its_user_trusts(imported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATHSE_TRUST", "somebody_elses.make")
    config, _ = compose_train(["logger._target_=somebody_elses.make", "plan=true"])
    assert config.logger["_target_"] == "somebody_elses.make" and imported.exists()


# --- a function of MathSE's is no option for that ---------------------------------------------------------------------

AGENT = "mathse.training.agent.run"  # starts a command


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """Somebody's folder of options: each names MathSE's own function that starts a command, which makes a file."""
    call = {"_target_": AGENT, "command": ["touch", str(tmp_path / "called")], "ranks": 1, "max_restarts": 0}
    options = {
        "data/theirs": call,
        "teacher/theirs": call,
        "experiment/callback": {"hydra": {"callbacks": {"x": call}}},
        "experiment/handler": {"hydra": {"job_logging": {"handlers": {"x": {"class": AGENT} | call}}}},
        "experiment/formatter": {"hydra": {"job_logging": {"formatters": {"plain": {"()": AGENT} | call}}}},
        "experiment/pointed_at": {"note": AGENT, "hydra": {"callbacks": {"x": call | {"_target_": "${note}"}}}},
        "experiment/swept": {"hydra": {"sweeper": {"params": {"experiment": "callback,handler"}}}},
        "experiment/harmless": {"seed": 3},
    }
    for name, option in options.items():
        file = tmp_path / "foreign" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        head = "# @package _global_\n" if name.startswith("experiment") else ""
        file.write_text(head + json.dumps(option))
    yield tmp_path / "foreign"
    look_in(None)


@pytest.mark.parametrize("group", ["data", "teacher"])
@pytest.mark.parametrize("verb", [["plan"], ["data", "check"], ["train", "plan=true"]])
def test_who_only_looks_builds_options_alone(
    foreign: Path, verb: list[str], group: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(foreign.parent)
    with suppress(SystemExit):
        assert main([*verb, "--config-dir", str(foreign), f"{group}=theirs"]) != 0
    said = capsys.readouterr().err
    assert f"error: {group}._target_ = '{AGENT}': is not a {group} option of MathSE" in said
    assert not (foreign.parent / "called").exists()


@pytest.mark.parametrize("name", ["callback", "handler", "formatter", "pointed_at", "swept"])
@pytest.mark.parametrize("sweep", [False, True])
def test_hydra_calls_nothing_for_a_plan(
    foreign: Path, name: str, sweep: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(foreign.parent)
    chosen = ["-m", f"experiment=harmless,{name}"] if sweep else [f"experiment={name}"]
    with suppress(SystemExit):
        assert main(["train", "plan=true", "--config-dir", str(foreign), *chosen]) != 0
    assert "Hydra would call it before the plan is made" in capsys.readouterr().err
    assert not (foreign.parent / "called").exists()


def test_an_option_of_another_group_is_no_option_there() -> None:
    command = {"_target_": "mathse.inference.serving.student.VLLMGenerator", "settings": {"command": "touch called"}}
    with pytest.raises(DataError, match="is not a data option of MathSE"):
        problem_lookup({"data": command})
    with pytest.raises(ConfigError, match="is not a data option of MathSE"):
        plan([f"data._target_={command['_target_']}"])


@pytest.mark.parametrize("group", ["data", "task_domain", "backbone", "judge", "teacher", "generator", "logger"])
def test_no_section_that_a_run_recorded_names_another_class(group: str) -> None:
    with pytest.raises(DataError, match=f"is not a {group} option of MathSE.*set MATHSE_TRUST={AGENT}"):
        parse_recorded(group, {"_target_": AGENT, "command": ["touch", "called"], "ranks": 1, "max_restarts": 0})


def test_every_class_that_conf_names_is_an_option_of_its_group() -> None:
    for file in sorted(CONF.rglob("*.yaml")):
        group = file.parent.relative_to(CONF).as_posix()
        for target in re.findall(r"^\s*_target_: (\S+)", file.read_text(), re.MULTILINE):
            assert is_an_option(target, group) or group.startswith("hydra/"), f"{file}: {target}"
