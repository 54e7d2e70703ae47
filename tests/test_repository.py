"""What stands around the code for those who host, build and report: container, workflow, issue forms."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from installed import SOURCE
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

FORMS = ("bug", "result", "idea")


def load(file: Path) -> dict[str, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {"on" if key is True else str(key): value for key, value in loaded.items()}  # YAML 1.1 reads `on` as true


def test_the_container_is_built_of_all_that_a_wheel_is_built_of(root: Path) -> None:
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]}
    assert copied == {*SOURCE, ".ci/docker.lock"}
    allowed = re.findall(r"^!(.+)$", (root / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(allowed) == {*SOURCE, ".ci/docker.lock"}


def test_the_container_has_extras_and_a_python_that_there_are(root: Path) -> None:
    text = (root / "Dockerfile").read_text(encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.findall(r"^ARG EXTRAS=(.+)$", text, re.MULTILINE)[0].split(",")
    assert set(extras) <= set(project["optional-dependencies"])
    version = re.findall(r"^FROM python:3\.(\d+)", text, re.MULTILINE)[0]
    assert int(version) >= int(project["requires-python"].removeprefix(">=3."))
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["mathse"]


def test_the_workflow_runs_targets_of_the_makefile_and_may_only_read(root: Path) -> None:
    workflow = load(root / ".github" / "workflows" / "test.yml")
    assert workflow["permissions"] == {"contents": "read"} and {"push", "pull_request"} <= set(workflow["on"])
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {"make test", "make test-slow"} <= set(commands)
    targets = set(re.findall(r"^(\w[\w-]*):", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {command.removeprefix("make ") for command in commands if command.startswith("make ")} <= targets
    (run_in_ci,) = re.findall(r"^exec (.+)$", (root / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert run_in_ci in commands  # one definition of what a change must pass


@pytest.mark.parametrize("name", FORMS)
def test_an_issue_form_is_one_that_a_host_shows(name: str, root: Path) -> None:
    form = load(root / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert form["name"] and form["description"] and form["body"]
    ids = [field["id"] for field in form["body"]]
    assert len(set(ids)) == len(ids)
    assert all(
        field["type"] in ("textarea", "input", "dropdown") and field["attributes"]["label"] for field in form["body"]
    )
    assert any(field.get("validations", {}).get("required") for field in form["body"])


def test_every_form_is_tested(root: Path) -> None:
    files = {file.stem for file in (root / ".github" / "ISSUE_TEMPLATE").glob("*.yml")}
    assert files == {*FORMS, "config"}


@pytest.mark.parametrize(("lock", "extras"), [("dev.lock", ["dev"]), ("docker.lock", ["hub", "lineage"])])
def test_a_lock_file_has_each_dependency_in_its_range_and_by_hash(root: Path, lock: str, extras: list[str]) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    text = (root / ".ci" / lock).read_text()
    locked = {match[1]: match[2] for match in re.finditer(r"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)", text, re.MULTILINE)}
    for requirement in map(Requirement, wanted):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: {version} is locked; run make lock"
    blocks = re.split(r"\n(?=\S)", text)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block.partition("\n")[0])


# Holes in earlier versions: code from a weights file, endless pictures, escapes from a template's sandbox.
FLOORS = {"torch": "2.10", "pillow": "13", "jinja2": "3.1.6", "peft": "0.21", "pytorch-lightning": "2.6.6"}


def test_dependencies_begin_behind_the_versions_with_known_holes(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lowest = {
        canonicalize_name(r.name): next(s.version for s in r.specifier if s.operator == ">=")
        for r in map(Requirement, project["dependencies"])
        if any(s.operator == ">=" for s in r.specifier)
    }
    for name, floor in FLOORS.items():
        assert Version(lowest[name]) >= Version(floor), name


def test_the_workflow_uses_actions_by_commit(root: Path) -> None:
    used = re.findall(r"uses: (\S+)", (root / ".github" / "workflows" / "test.yml").read_text())
    assert used and all(re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) for action in used)
