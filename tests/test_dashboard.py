"""The workspace and the report of a study: their specs, and the requests to a W&B server of this test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from wandb_server import serving

from mathse.__main__ import main
from mathse.reporting.loggers.figures import ORM_KEYS, STAGE_KEYS

STAGE = r"(base|distill|round_\d+|final|last)"


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("wandb_workspaces")


@pytest.fixture(scope="module")
def specs(package):
    """The output of --dry-run for a study, and for a whole project."""
    return {study: dry_run(*(("--study", study) if study else ())) for study in ("rounds", None)}


def dry_run(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "mathse", "dashboard", "--project", "mathse", "--dry-run", *options]
    # No server, no key: a look at the network would fail.
    env = {**clean_environment(), "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    spec: dict[str, Any] = json.loads(done.stdout)
    return spec


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}


def panels(page: Any) -> Iterator[dict[str, Any]]:
    """Every panel of a spec, wherever in it."""
    if isinstance(page, dict):
        if "viewType" in page and "config" in page:
            yield page
        else:
            for inner in page.values():
                yield from panels(inner)
    elif isinstance(page, list):
        for inner in page:
            yield from panels(inner)


def of_kind(page: Any, kind: str) -> list[dict[str, Any]]:
    return [panel["config"] for panel in panels(page) if panel["viewType"] == kind]


def metrics(page: Any) -> set[str]:
    kinds = ("Run History Line Plot", "Bar Chart")
    return {metric for kind in kinds for config in of_kind(page, kind) for metric in config.get("metrics", [])}


# --- the spec ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["workspace", "report"])
def test_accuracy_by_stage_acceptance_precision_and_the_orm_are_shown_by_variant(specs, page):
    shown = metrics(specs["rounds"][page])
    accuracy = {f"{stage}/accuracy" for stage in ("base", "distill", "round_01", "round_02", "final", "last", "round")}
    acceptance = {f"round/{key}" for key in ("acceptance", "acceptance_precision", "step_precision", "train_rows")}
    orm = {f"{place}/{key}" for place in ("orm", "round/orm") for key in ORM_KEYS if key.endswith("_accuracy")}
    assert shown == accuracy | acceptance | orm
    charts = [c for kind in ("Run History Line Plot", "Bar Chart") for c in of_kind(specs["rounds"][page], kind)]
    grouped = [c for c in charts if c.get("metrics")]
    assert {(c["groupBy"], c["groupAgg"], c["groupArea"]) for c in grouped} == {("variant.value", "mean", "minmax")}


@pytest.mark.parametrize("page", ["workspace", "report"])
def test_curves_over_rounds_have_the_round_as_axis_and_those_of_fits_their_steps(specs, page):
    for curve in of_kind(specs["rounds"][page], "Run History Line Plot"):
        assert curve["xAxis"] == ("round" if curve.get("metrics") else "fit/step")
    fits = [
        curve["metricRegex"]
        for curve in of_kind(specs["rounds"][page], "Run History Line Plot")
        if "metricRegex" in curve
    ]
    assert any(re.fullmatch(regex, "fit/round_01/loss") for regex in fits)
    assert any(re.fullmatch(regex, "fit/orm/val_loss") for regex in fits)


@pytest.mark.parametrize("page", ["workspace", "report"])
def test_tables_of_samples_and_a_comparison_of_runs_are_shown(specs, page):
    asked = json.dumps(of_kind(specs["rounds"][page], "Weave"))
    for stage in ("distill", "round_01", "round_02", "reflection", "final"):
        assert f"samples/{stage}" in asked
    assert of_kind(specs["rounds"][page], "Run Comparer") == [{"diffOnly": "split"}]


def test_every_panel_shows_a_documented_figure(specs):
    for metric in metrics(specs["rounds"]):
        stage, _, key = metric.rpartition("/")
        known = (
            (re.fullmatch(STAGE, stage) and key in STAGE_KEYS)
            or (stage == "round" and key in (*STAGE_KEYS, "acceptance"))
            or (stage in ("orm", "round/orm") and key in ORM_KEYS)
        )
        assert known, metric


@pytest.mark.parametrize("page", ["workspace", "report"])
def test_a_study_shows_the_runs_of_its_group_and_a_project_all_runs_by_study(specs, page):
    for study, grouped in (("rounds", "variant.value"), (None, "study.value")):
        for runs in run_sets(specs[study][page]):
            wanted = [({"section": "run", "name": "group"}, "=", study)] if study else []
            assert [(f["key"], f["op"], f["value"]) for f in runs["filters"]["filters"]] == wanted
            assert runs["grouping"][0] == {"section": "config", "name": grouped}


def test_the_report_says_what_its_lines_are_means_of(specs):
    for study, said in (
        ("rounds", "the mean over a variant's seeds"),
        (None, "over all variants and seeds of a study"),
    ):
        assert said in json.dumps(specs[study]["report"]["blocks"])


def run_sets(page: Any) -> Iterator[dict[str, Any]]:
    if isinstance(page, dict):
        yield from page.get("runSets", [])
        for inner in page.values():
            yield from run_sets(inner)
    elif isinstance(page, list):
        for inner in page:
            yield from run_sets(inner)


# --- saving -----------------------------------------------------------------------------------------------------------


def dashboard(url: str, home: Any, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mathse", "dashboard", *options]
    env = {**clean_environment(), "WANDB_BASE_URL": url, "WANDB_API_KEY": "a" * 40, "HOME": str(home)}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)


def test_saving_makes_both_pages_and_a_second_start_renews_them(package, specs, tmp_path):
    with serving() as server:
        for _ in range(2):
            done = dashboard(server.url, tmp_path, "--project", "mathse", "--study", "rounds")
            assert done.returncode == 0, done.stderr
            workspace_url, report_url = done.stdout.split()
            assert workspace_url.startswith(f"{server.url}/team/mathse?nw=")
            assert report_url.startswith(f"{server.url}/team/mathse/reports/")
        saved = {view["type"]: json.loads(view["spec"]) for view in server.views.values()}
        assert len(server.views) == 2
        assert server.asked.count("UpsertView2") == server.asked.count("upsertView") == 2
    assert set(saved) == {"project-view", "runs"}
    assert metrics(saved["project-view"]) == metrics(specs["rounds"]["workspace"])
    assert metrics(saved["runs"]) == metrics(specs["rounds"]["report"])


def test_a_project_that_is_not_there_is_one_sentence_and_nothing_is_made(package, tmp_path):
    with serving(projects=("other",)) as server:
        done = dashboard(server.url, tmp_path, "--project", "mathse", "--entity", "us")
        assert done.returncode == 1
        assert "error: --project mathse: us has no such project, there are: other; start a run" in done.stderr
        assert server.views == {}


def test_what_the_server_refuses_is_one_sentence(package, tmp_path):
    with serving(refusal="permission denied") as server:
        done = dashboard(server.url, tmp_path, "--project", "mathse")
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "permission denied" in said and "Traceback" not in done.stderr


def test_without_a_login_the_error_says_how_to_get_one(package, tmp_path):
    env = {**clean_environment(), "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    command = [sys.executable, "-m", "mathse", "dashboard", "--project", "mathse"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "wandb login" in done.stderr and "--dry-run" in done.stderr


def test_without_the_package_the_error_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr("mathse.config.extras.installed", lambda extra: False)
    assert main(["dashboard", "--project", "mathse", "--dry-run"]) == 1
    assert "pip install '.[dashboards]'" in capsys.readouterr().err
