"""A whole run with logger=wandb, offline: the records that a later `wandb sync` would send, against the run folder."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from e2e.runs import TINY, run
from wandb_files import artifacts, history, table_of, wandb_records, wandb_summary, written_out
from wandb_server import serving

from mathse.config.secrets import without_secrets
from mathse.reporting.loggers.figures import ORM_KEYS, STAGE_KEYS, run_figures
from mathse.reporting.loggers.wandb import run_labels
from mathse.runs.store import read_json, sha256_file

SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A run of a study's variant, and its last lines."""
    folder = tmp_path_factory.mktemp("real") / "run"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as said:
        patch.delenv("WANDB_DATA_DIR", raising=False)
        run(
            folder,
            *TINY,
            "logger=wandb",
            "study=table3",
            "variant=orm",
            "evolution.rounds=1",
            "evolution.init=previous",
        )
        written_out()
    (folder / "said.txt").write_text(said.getvalue())
    return folder


def numbers(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], float]]:
    """Every number in a JSON value, with the keys and indices that lead to it."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from numbers(inner, (*place, key))
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from numbers(inner, (*place, k))
    elif isinstance(value, (int, float)):
        yield place, value


def name_in_wandb(summary: Mapping[str, Any], place: tuple[Any, ...]) -> str:
    """The documented name of a number in summary.json, derived a second time for the test."""
    first, *rest = place
    prefix = f"{first}/"
    if first in ("stages", "orm_by_student"):
        stage = summary[first][rest.pop(0)]["stage"]
        prefix = f"{stage}/" if first == "stages" else f"{stage}/orm/"
    elif not rest:
        return str(first)
    if rest[0] == "ci95":
        share = f"{rest[1]}_" if len(rest) == 3 else ""
        return f"{prefix}{share}ci_{('low', 'high')[rest[-1]]}"
    return prefix + "_".join(rest)


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_offline_folder_read_back_holds_every_number_of_summary_json(real):
    summary, shown = read_json(real / "summary.json"), wandb_summary(real)
    expected = {name_in_wandb(summary, place): value for place, value in numbers(summary)}
    assert len(expected) > 60
    assert {name: shown.get(name) for name in expected} == expected


def test_the_names_of_figures_are_the_documented_ones(real):
    shown = wandb_summary(real)
    assert {"metric", "seed", "last/stage", "last/accuracy"} <= set(shown)
    entry = {key.removeprefix("distill/") for key in shown if key.startswith("distill/")}
    plain = {key for key in entry if not key.startswith(("transitions_", "origins_", "orm/", "ledger/", "exposure_"))}
    assert plain <= set(STAGE_KEYS) and {"accuracy", "ci_low", "ci_high", "n", "accepted"} <= plain
    of_orm = {key.removeprefix("orm/") for key in shown if key.startswith("orm/") and "ci_" not in key}
    assert set(ORM_KEYS) - of_orm <= {"auroc", "error_step_accuracy"}  # null where the tiny ORM says nothing


def test_a_paid_teachers_usage_is_among_the_figures():
    summary = {"metric": None, "stages": [], "orm": None, "orm_by_student": [], "notes": ["said"],
               "usage": {"requests": 3, "paid": {"usd": 0.25}, "models": {"gpt": 3}}}  # fmt: skip
    assert run_figures(summary) == {"usage/requests": 3, "usage/paid_usd": 0.25, "usage/models_gpt": 3}


def test_the_acceptance_of_a_round_is_the_share_of_judged_paths_that_joined(real):
    (row,) = [row for row in history(real) if row.get("round") == 1]
    entry = next(e for e in read_json(real / "summary.json")["stages"] if e["stage"] == "round_01")
    judged = entry["accepted"] + entry["rejected"] + entry["unparsed"]
    assert row["round/acceptance"] == entry["accepted"] / judged


def test_a_table_of_samples_is_whole_in_the_run_folder(real):
    assert {row["verdict"] for row in table_of(real, "round_01")} <= {"correct", "wrong", "unparsed"}
    assert all(row["image"].exists() for row in table_of(real, "round_01"))


def test_an_offline_run_ends_with_the_command_that_sends_it_and_has_its_tables(real):
    *_, last = (real / "said.txt").read_text().splitlines()
    assert last.partition(" W&B")[2] == f" was offline; to send this run: wandb sync {real}/wandb/offline-run-*"
    assert (real / "metrics.csv").is_file() and (real / "fits.csv").is_file()


# --- place ------------------------------------------------------------------------------------------------------------


def test_a_studys_run_stands_in_its_study_and_variant(real):
    (told,) = [r.run for r in wandb_records(real) if r.WhichOneof("record_type") == "run"]
    assert (told.run_group, told.job_type, told.display_name) == ("table3", "orm", "table3.orm-seed0")
    assert list(told.tags) == ["evolve"]


@pytest.mark.parametrize(
    ("config", "group", "expected"),
    [
        ({}, None, ("demo-seed1", None, "sft")),
        ({}, "mine", ("demo-seed1", "mine", "sft")),
        ({"study": "init", "variant": "base"}, "mine", ("init.base-seed1", "mine", "base")),
    ],
)
def test_group_and_job_type_come_from_the_setting_the_study_and_the_task(config, group, expected):
    shown = run_labels({"name": "demo", "seed": 1, "task": "sft", "config": config}, group)
    assert (shown["name"], shown["group"], shown["job_type"]) == expected


# --- artifacts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def logged(real):
    """The run's artifacts by their names without the run's id: d_sft:round_01."""
    kinds = ("dataset", "verdicts", "model")
    return {version(a.name, next(x for x in a.aliases if x != "latest")): a for k in kinds for a in artifacts(real, k)}


def version(name: str, alias: str) -> str:
    return f"{name.rpartition('-')[0]}:{alias}"


def made_from(artifact: Any) -> set[str]:
    return {version(*name.split(":")) for name in json.loads(artifact.metadata)["made_from"]}


def test_the_artifacts_are_linked_as_the_run_went(logged):
    assert {name: made_from(artifact) for name, artifact in logged.items()} == {
        "student:base": set(),
        "orm_set:orm": set(),
        "orm:orm": {"orm_set:orm"},
        "verdicts:distill": set(),  # the teacher wrote; the answers judged
        "d_sft:distill": {"verdicts:distill"},
        "student:distill": {"d_sft:distill", "student:base"},
        "verdicts:round_01": {"student:distill"},
        "d_sft:round_01": {"d_sft:distill", "verdicts:round_01"},
        "student:round_01": {"d_sft:round_01", "student:distill"},
        "verdicts:reflection": {"orm:orm", "verdicts:round_01"},  # chance judged, but the ORM named the mistake
        "d_sft:reflection": {"d_sft:round_01", "verdicts:reflection"},
        "d_sft:final": {"d_sft:reflection"},
        "student:final": {"d_sft:final", "student:base"},
    }


def test_what_an_artifact_is_made_from_has_been_logged_before_it(real):
    records = [r.artifact for r in wandb_records(real) if r.WhichOneof("record_type") == "artifact"]
    seen: set[str] = set()
    for artifact in (a for a in records if a.type != "run_table"):
        assert made_from(artifact) <= seen
        seen |= {version(artifact.name, alias) for alias in artifact.aliases}


def test_a_sync_links_the_run_as_the_user_of_its_artifacts_too(logged):
    assert {artifact.use_after_commit for artifact in logged.values()} == {True}
    assert {artifact.user_created for artifact in logged.values()} == {False}  # else they would not be the run's own


def test_checkpoints_are_referred_to_and_their_hashes_told(real, logged):
    students = [name for name, artifact in logged.items() if artifact.type == "model"]
    assert students
    for name in students:
        stage = name.partition(":")[2]
        hashes = json.loads(logged[name].metadata)["sha256"]
        weights = real / stage / "checkpoint" / "model.safetensors"
        assert hashes["checkpoint/model.safetensors"] == sha256_file(weights)
        entries = {entry.path: entry for entry in logged[name].manifest.contents}
        assert {f"checkpoint/{path}" for path in entries} == set(hashes)
        assert {entry.local_path for entry in entries.values()} == {""}  # nothing to upload
        assert Path(unquote(urlsplit(entries["model.safetensors"].ref).path)) == weights.resolve()


def test_sets_and_verdicts_are_uploaded_from_where_they_lie(real, logged):
    for name, files in {
        "d_sft:round_01": ["round_01/train.jsonl"],
        "verdicts:reflection": ["reflection/verdicts.jsonl"],
        "orm_set:orm": ["orm/feedback.jsonl", "orm/orm_held.jsonl"],
    }.items():
        found = [Path(entry.local_path) for entry in logged[name].manifest.contents]
        assert sorted(found) == [(real / file).resolve() for file in files]


# --- a sync -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def synced(real, tmp_path_factory):
    """A server that the run's offline folder was synced to."""
    place = tmp_path_factory.mktemp("sync")
    (part,) = real.glob("wandb/offline-run-*")
    shutil.copytree(part, place / part.name)  # a sync leaves a note in it
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    with serving() as server:
        env = clean | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "a" * 40, "HOME": str(place)}
        command = [sys.executable, "-m", "wandb", "sync", str(place / part.name)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return server


def test_an_offline_run_syncs_with_every_number_its_place_and_its_rounds(real, synced):
    summary = read_json(real / "summary.json")
    expected = {name_in_wandb(summary, place): value for place, value in numbers(summary)}
    assert {name: synced.summary.get(name) for name in expected} == expected
    told = [synced.run[key] for key in ("groupName", "jobType", "displayName")]
    assert told == ["table3", "orm", "table3.orm-seed0"]
    assert [row["round"] for row in synced.history if "round" in row] == [-1, 0, 1, 2]


def test_a_sync_uploads_sets_and_tables_whole_and_of_checkpoints_the_references(real, synced, logged):
    kept = [a for a in synced.artifacts if a.given["artifactTypeName"] != "run_table"]
    assert len(kept) == len(logged) and all(artifact.committed and artifact.used for artifact in kept)
    uploaded = {
        (alias["alias"], name): data for a in kept for alias in a.given["aliases"] for name, data in a.files.items()
    }
    for stage, name in (("round_01", "train.jsonl"), ("reflection", "verdicts.jsonl"), ("orm", "feedback.jsonl")):
        assert uploaded[stage, name] == (real / stage / name).read_bytes()
    for model in (a for a in kept if a.given["artifactTypeName"] == "model"):
        assert {*model.files} == {"wandb_manifest.json"}
        assert model.manifest["model.safetensors"]["ref"].startswith("file:///")
    tables = [a for a in synced.artifacts if a.given["artifactTypeName"] == "run_table"]
    assert len(tables) == 6 and all(any(name.endswith(".png") for name in table.files) for table in tables)


# --- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"api_key": SECRET, "model": "m"}, {"model": "m"}),
        ({"teacher": [{"HF_TOKEN": SECRET, "max_tokens": 7}]}, {"teacher": [{"max_tokens": 7}]}),
        ({"base_url": f"https://me:{SECRET}@host:8000/v1"}, {"base_url": "https://host:8000/v1"}),
        (
            {"base_url": f"https://host/v1?a=1&api_key={SECRET}&b=2"},
            {"base_url": "https://host/v1?a=1&api_key=***&b=2"},
        ),
        ({"command": f"serve --api-key {SECRET} --port 1"}, {"command": "serve --api-key *** --port 1"}),
        ({"command": f"HF_TOKEN={SECRET} serve"}, {"command": "HF_TOKEN=*** serve"}),
        (
            {"command": f"MY_KEY='{SECRET}' serve --api-key '{SECRET}'"},
            {"command": "MY_KEY='***' serve --api-key '***'"},
        ),
        ({"body": f'{{"api_key": "{SECRET}", "n": 1}}'}, {"body": '{"api_key": "***", "n": 1}'}),
        ({"headers": [f"X-Api-Key: {SECRET}"]}, {"headers": ["X-Api-Key: ***"]}),
        ({"headers": [f"Authorization: Basic {SECRET}"]}, {"headers": ["Authorization: Basic ***"]}),
        ({"command": "serve sk-proj-0123456789abcdef"}, {"command": "serve ***"}),
        ({"name": f"run with {SECRET}", "max_tokens": 7}, {"name": "run with ***", "max_tokens": 7}),
        (
            {"command": f"serve -H 'Authorization: Bearer {SECRET}'"},
            {"command": "serve -H 'Authorization: Bearer ***'"},
        ),
        ({"key_env": "MY_OWN_KEY", "command": f"serve {SECRET}"}, {"key_env": "MY_OWN_KEY", "command": "serve ***"}),
    ],
)
def test_no_secret_leaves_in_the_settings(told, shown, monkeypatch):
    monkeypatch.setenv("MY_OWN_KEY", SECRET)
    assert without_secrets(told) == shown


def test_ordinary_settings_leave_as_they_are(real):
    config = read_json(real / "run.json")["config"]
    assert without_secrets(config) == config
